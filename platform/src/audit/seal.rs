//! The chain. Each organization's events are numbered in the order in which they were sealed; a seal's hash is the
//! SHA-256 of the hash before it and the event's canonical text, so that nothing can be changed, removed or moved without
//! all later hashes changing. The hashes can be checked by whoever has an export; a MAC under a key that is not in the
//! database tells the platform that it made the seal itself.
//!
//! One process seals at a time, so that no request's transaction waits for another's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use entity::{audit_event, id::OrganizationId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait as _, Statement, TransactionTrait as _,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::EventRow;
use crate::{Platform, error::Error};

/// Events of one transaction.
const BATCH: u32 = 500;
/// How long after an event is announced it is sealed: what comes together is sealed together.
const GATHER: Duration = Duration::from_millis(150);
/// How often is looked without an announcement, which can get lost.
const POLL: Duration = Duration::from_secs(5);
/// How long after a look that failed, or that another process was in the way of.
const AGAIN: Duration = Duration::from_millis(500);

/// What a chain begins with.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// Chains the events of every organization.
#[derive(Debug)]
pub struct Sealer {
    platform: Arc<Platform>,
}

/// What came of a look.
enum Sealed {
    /// This many; there may be more if the batch is full.
    Events(u64),
    /// Another process is at it.
    Elsewhere,
}

impl Sealer {
    /// One that does nothing yet.
    #[must_use]
    pub fn new(platform: Arc<Platform>) -> Self {
        Self { platform }
    }

    /// Seals until told to stop.
    pub async fn run(&self, ending: CancellationToken) {
        let work = async {
            let mut announcements = None;
            loop {
                if announcements.is_none() {
                    announcements = self.listen().await;
                }
                let wait = match self.seal_all().await {
                    Ok(true) => POLL,
                    Ok(false) => AGAIN,
                    Err(error) => {
                        tracing::warn!(%error, "the audit log is not sealed; trying again");
                        AGAIN
                    }
                };
                match &mut announcements {
                    Some(listener) => match tokio::time::timeout(wait, listener.recv()).await {
                        Ok(Ok(_)) => {
                            tokio::time::sleep(GATHER).await;
                            while listener.next_buffered().is_some() {}
                        }
                        Err(_) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "not listening for audit events any more; polling");
                            announcements = None;
                        }
                    },
                    None => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        ending.run_until_cancelled(work).await;
    }

    async fn listen(&self) -> Option<sea_orm::sqlx::postgres::PgListener> {
        use sea_orm::sqlx::postgres::PgListener;

        let connect = async {
            let mut listener =
                PgListener::connect_with(self.platform.database().get_postgres_connection_pool()).await?;
            listener.listen("audit_unsealed").await?;
            Ok::<_, sea_orm::SqlxError>(listener)
        };
        match tokio::time::timeout(Duration::from_secs(5), connect).await {
            Ok(Ok(listener)) => Some(listener),
            Ok(Err(error)) => {
                tracing::warn!(%error, "can't listen for audit events; polling");
                None
            }
            Err(_) => None,
        }
    }

    /// Seals all that waits. `false`: another process is at it, and may have looked before the last event was there.
    async fn seal_all(&self) -> Result<bool, Error> {
        loop {
            match self.seal_some().await? {
                Sealed::Elsewhere => return Ok(false),
                Sealed::Events(sealed) if sealed < u64::from(BATCH) => return Ok(true),
                Sealed::Events(_) => {}
            }
        }
    }

    async fn seal_some(&self) -> Result<Sealed, Error> {
        // Read before the lock is asked for: nothing waits most of the time.
        let waiting = crate::answered(self.platform.database().query_one_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT 1 AS one FROM audit_unsealed LIMIT 1",
        )));
        if waiting.await?.is_none() {
            return Ok(Sealed::Events(0));
        }
        let transaction = crate::answered(self.platform.database().begin()).await?;
        let locked = crate::answered(transaction.query_one_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT pg_try_advisory_xact_lock(hashtext('audit_seals')) AS locked",
        )))
        .await?
        .ok_or_else(|| Error::internal("no answer to a lock"))?
        .try_get::<bool>("", "locked")?;
        if !locked {
            transaction.rollback().await?;
            return Ok(Sealed::Elsewhere);
        }
        let taken = take(&transaction).await?;
        let ids: Vec<Uuid> = taken.iter().map(|(_, event)| *event).collect();
        let mut rows: std::collections::HashMap<Uuid, EventRow> = {
            use sea_orm::{ColumnTrait as _, QueryFilter as _};
            audit_event::Entity::find()
                .filter(audit_event::Column::Id.is_in(ids))
                .all(&transaction)
                .await?
                .into_iter()
                .map(|row| (row.id.0, row))
                .collect()
        };
        let mut at = 0;
        while at < taken.len() {
            let organization = taken[at].0;
            let end = at
                + taken[at..]
                    .iter()
                    .take_while(|(of, _)| *of == organization)
                    .count();
            let events = taken[at..end].iter().map(|(_, id)| (*id, rows.remove(id)));
            self.extend(&transaction, organization, events).await?;
            at = end;
        }
        crate::answered(transaction.commit()).await?;
        Ok(Sealed::Events(taken.len() as u64))
    }

    /// Adds events to the end of a chain. One whose row is gone gets a seal too: that it is missing must show.
    async fn extend(
        &self,
        transaction: &DatabaseTransaction,
        organization: OrganizationId,
        events: impl Iterator<Item = (Uuid, Option<EventRow>)>,
    ) -> Result<(), Error> {
        const SEAL: &str = "INSERT INTO audit_seals (organization_id, sequence, event_id, hash, mac)
            SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[])";
        const HEAD: &str =
            "INSERT INTO audit_heads (organization_id, sequence, hash, mac) VALUES ($1, $2, $3, $4)
            ON CONFLICT (organization_id) DO UPDATE
               SET sequence = excluded.sequence, hash = excluded.hash, mac = excluded.mac";

        let (mut sequence, mut hash) = end_of(transaction, organization).await?;
        let (mut sequences, mut ids, mut hashes, mut macs) = (vec![], vec![], vec![], vec![]);
        for (id, row) in events {
            sequence += 1;
            let text = row.map_or_else(|| format!("missing {id}"), |row| canonical(&row));
            hash = link(&hash, &text);
            sequences.push(sequence);
            ids.push(id);
            hashes.push(hash.to_vec());
            macs.push(self.platform.audit_mac(organization, sequence, &hash));
        }
        let last = macs.last().cloned().unwrap_or_default();
        for (sql, values) in [
            (
                SEAL,
                vec![
                    organization.into(),
                    sequences.into(),
                    ids.into(),
                    hashes.into(),
                    macs.into(),
                ],
            ),
            (
                HEAD,
                vec![
                    organization.into(),
                    sequence.into(),
                    hash.to_vec().into(),
                    last.into(),
                ],
            ),
        ] {
            crate::answered(transaction.execute_raw(Statement::from_sql_and_values(
                DbBackend::Postgres,
                sql,
                values,
            )))
            .await?;
        }
        Ok(())
    }
}

/// Takes events out of those that wait, an organization's together, each in the order of their ids.
async fn take(transaction: &DatabaseTransaction) -> Result<Vec<(OrganizationId, Uuid)>, Error> {
    const TAKE: &str = "
        WITH taken AS (
            DELETE FROM audit_unsealed WHERE event_id IN (SELECT event_id FROM audit_unsealed ORDER BY event_id LIMIT $1)
            RETURNING organization_id, event_id
        )
        SELECT organization_id, event_id FROM taken ORDER BY organization_id, event_id";

    let statement = Statement::from_sql_and_values(DbBackend::Postgres, TAKE, [i64::from(BATCH).into()]);
    let rows = crate::answered(transaction.query_all_raw(statement)).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "organization_id")?, row.try_get("", "event_id")?)))
        .collect()
}

/// The last number and hash of a chain.
pub(super) async fn end_of(
    database: &impl ConnectionTrait,
    organization: OrganizationId,
) -> Result<(i64, [u8; 32]), Error> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT sequence, hash FROM audit_seals WHERE organization_id = $1 ORDER BY sequence DESC LIMIT 1",
        [organization.into()],
    );
    let Some(row) = crate::answered(database.query_one_raw(statement)).await? else {
        return Ok((0, GENESIS));
    };
    let hash: Vec<u8> = row.try_get("", "hash")?;
    let hash = hash
        .try_into()
        .map_err(|_| Error::internal("a seal's hash is not of 32 bytes"))?;
    Ok((row.try_get("", "sequence")?, hash))
}

/// The hash of an event in its place.
pub(super) fn link(before: &[u8; 32], text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(text.as_bytes());
    hash.finalize().into()
}

/// What is hashed of an event: its JSON form as the API shows it, without the chain's own fields, with sorted keys and
/// without blanks.
pub(super) fn canonical(row: &EventRow) -> String {
    sorted(super::read::plain(row)).to_string()
}

/// The same value, the keys of its objects in the order of their bytes.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

impl Platform {
    /// Proves that this platform made a seal.
    pub(super) fn audit_mac(&self, organization: OrganizationId, sequence: i64, hash: &[u8]) -> Vec<u8> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.audit_key).expect("HMAC takes keys of every length");
        mac.update(organization.0.as_bytes());
        mac.update(&sequence.to_be_bytes());
        mac.update(hash);
        mac.finalize().into_bytes().to_vec()
    }
}
