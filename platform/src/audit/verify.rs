//! Checking the chains: every seal against the one before it, its event, its MAC, and the end that was noted.

use entity::id::{AuditEventId, OrganizationId};
use sea_orm::{DbBackend, FromQueryResult, Statement};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{
    AuditReader, EventRow,
    seal::{GENESIS, canonical, link},
};
use crate::{error::Error, permissions::Permission};

/// Seals that are checked at once.
const BATCH: u64 = 1000;

/// What a check found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Events whose seals are good.
    pub checked: u64,
    /// Events that are in no chain yet.
    pub unsealed: u64,
    /// The last hash of the chain of the organization that was asked about.
    pub head: Option<Vec<u8>>,
    /// The first that is wrong.
    pub first_bad: Option<Flaw>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The event; `None`: the end of the chain is missing, and with it the ids.
    pub event: Option<AuditEventId>,
    /// In whose log.
    pub organization: OrganizationId,
    /// In which place.
    pub sequence: Option<i64>,
    /// Stable and machine-readable.
    pub reason: &'static str,
}

#[derive(Debug, FromQueryResult)]
struct Link {
    seal_organization: OrganizationId,
    seal_sequence: i64,
    seal_event: Uuid,
    seal_hash: Vec<u8>,
    seal_mac: Vec<u8>,
    head_sequence: Option<i64>,
    head_hash: Option<Vec<u8>>,
    head_mac: Option<Vec<u8>>,
    #[sea_orm(nested)]
    event: Option<EventRow>,
}

/// The end of a chain as far as it was walked.
struct Walk {
    organization: OrganizationId,
    sequence: i64,
    hash: [u8; 32],
    head: Option<(i64, Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, FromQueryResult)]
struct Stray {
    id: Uuid,
    organization_id: OrganizationId,
}

#[derive(Debug, FromQueryResult)]
struct Count {
    count: i64,
}

impl<P: Permission> AuditReader<'_, P> {
    /// Checks the chain of one organization, or those of the caller's and all below it, up to the first that is wrong.
    ///
    /// # Errors
    /// [`Error::NotFound`]: the caller sees no such organization.
    pub async fn verify(&self, organization: Option<OrganizationId>) -> Result<Verdict, Error> {
        if let Some(organization) = organization {
            self.see(organization).await?;
        }
        let about = organization.unwrap_or_else(|| self.reader.organization());
        let mut verdict = Verdict {
            unsealed: self.unsealed(organization).await?,
            ..Verdict::default()
        };
        let mut walk: Option<Walk> = None;
        loop {
            let after = walk.as_ref().map(|walk| (walk.organization, walk.sequence));
            let links = self.links(organization, after).await?;
            let last = (links.len() as u64) < BATCH;
            for link in links {
                if walk
                    .as_ref()
                    .is_none_or(|walk| walk.organization != link.seal_organization)
                {
                    if let Some(ended) = walk.take() {
                        verdict.first_bad = self.end(&ended);
                    }
                    if verdict.first_bad.is_some() {
                        return Ok(verdict);
                    }
                    walk = Some(Walk {
                        organization: link.seal_organization,
                        sequence: 0,
                        hash: GENESIS,
                        head: None,
                    });
                }
                let walk = walk.as_mut().expect("it was set where it was none");
                if let Err(flaw) = self.step(walk, link) {
                    verdict.first_bad = Some(flaw);
                    return Ok(verdict);
                }
                verdict.checked += 1;
                if walk.organization == about {
                    verdict.head = Some(walk.hash.to_vec());
                }
            }
            if last {
                break;
            }
        }
        verdict.first_bad = walk.as_ref().and_then(|walk| self.end(walk));
        if verdict.first_bad.is_none() {
            verdict.first_bad = self.without_a_seal(organization).await?;
        }
        if verdict.first_bad.is_none() {
            verdict.first_bad = self.without_a_chain(organization).await?;
        }
        Ok(verdict)
    }

    /// One seal.
    fn step(&self, walk: &mut Walk, seal: Link) -> Result<(), Flaw> {
        let flaw = |reason| Flaw {
            event: Some(seal.seal_event.into()),
            organization: walk.organization,
            sequence: Some(seal.seal_sequence),
            reason,
        };
        if seal.seal_sequence != walk.sequence + 1 {
            return Err(flaw("gap"));
        }
        let event = seal.event.as_ref().ok_or_else(|| flaw("removed"))?;
        if event.organization_id != walk.organization {
            return Err(flaw("moved"));
        }
        let hash = link(&walk.hash, &canonical(event));
        if !same(&hash, &seal.seal_hash) {
            return Err(flaw("changed"));
        }
        let mac = self
            .reader
            .platform()
            .audit_mac(walk.organization, seal.seal_sequence, &hash);
        if !same(&mac, &seal.seal_mac) {
            return Err(flaw("forged"));
        }
        walk.sequence = seal.seal_sequence;
        walk.hash = hash;
        walk.head = match (seal.head_sequence, seal.head_hash, seal.head_mac) {
            (Some(sequence), Some(hash), Some(mac)) => Some((sequence, hash, mac)),
            _ => None,
        };
        Ok(())
    }

    /// The end of a chain, which must be where it was noted. One that has grown since the first part was read ends later.
    fn end(&self, walk: &Walk) -> Option<Flaw> {
        let good = walk.head.as_ref().is_some_and(|(sequence, hash, mac)| {
            let ours = self
                .reader
                .platform()
                .audit_mac(walk.organization, *sequence, hash);
            same(&ours, mac) && *sequence == walk.sequence && same(hash, &walk.hash)
        });
        (!good).then_some(Flaw {
            event: None,
            organization: walk.organization,
            sequence: Some(walk.sequence + 1),
            reason: "end_missing",
        })
    }

    /// The next seals with their events.
    async fn links(
        &self,
        organization: Option<OrganizationId>,
        after: Option<(OrganizationId, i64)>,
    ) -> Result<Vec<Link>, Error> {
        let (chain, sequence) = after.map_or((Uuid::nil(), 0), |(organization, sequence)| {
            (organization.0, sequence)
        });
        let sql = "SELECT s.organization_id AS seal_organization, s.sequence AS seal_sequence, s.event_id AS seal_event, \
                          s.hash AS seal_hash, s.mac AS seal_mac, h.sequence AS head_sequence, h.hash AS head_hash, \
                          h.mac AS head_mac, e.* \
                     FROM audit_seals s \
                     LEFT JOIN audit_heads h ON h.organization_id = s.organization_id \
                     LEFT JOIN audit_events e ON e.id = s.event_id \
                    WHERE EXISTS (SELECT FROM organization_ancestors up \
                                   WHERE up.organization_id = s.organization_id AND up.ancestor_id = $1) \
                      AND ($2::uuid IS NULL OR s.organization_id = $2) \
                      AND (s.organization_id, s.sequence) > ($3, $4) \
                    ORDER BY s.organization_id, s.sequence";
        let values = [
            self.reader.organization().into(),
            organization.map(|id| id.0).into(),
            chain.into(),
            sequence.into(),
        ];
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        let (_, rows) = self.reader.rows_of(statement, Some(BATCH)).await?;
        Ok(rows)
    }

    /// The caller sees this organization, or saw it before it was deleted.
    async fn see(&self, organization: OrganizationId) -> Result<(), Error> {
        let sql = "SELECT count(*) AS count FROM organization_ancestors up \
                    WHERE up.ancestor_id = $1 AND up.organization_id = $2";
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, sql, self.whose(Some(organization)));
        let (_, rows) = self.reader.rows_of::<Count>(statement, None).await?;
        if rows.first().is_some_and(|row| row.count > 0) {
            Ok(())
        } else {
            Err(Error::NotFound)
        }
    }

    /// Events that wait for their seal.
    async fn unsealed(&self, organization: Option<OrganizationId>) -> Result<u64, Error> {
        let sql = "SELECT count(*) AS count FROM audit_unsealed u \
                    WHERE EXISTS (SELECT FROM organization_ancestors up \
                                   WHERE up.organization_id = u.organization_id AND up.ancestor_id = $1) \
                      AND ($2::uuid IS NULL OR u.organization_id = $2)";
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, self.whose(organization));
        let (_, rows) = self.reader.rows_of::<Count>(statement, None).await?;
        Ok(rows.first().map_or(0, |row| row.count.unsigned_abs()))
    }

    /// An event that is in no chain and waits for none: somebody put it there.
    async fn without_a_seal(&self, organization: Option<OrganizationId>) -> Result<Option<Flaw>, Error> {
        let sql = "SELECT e.id, e.organization_id FROM audit_events e \
                    WHERE EXISTS (SELECT FROM organization_ancestors up \
                                   WHERE up.organization_id = e.organization_id AND up.ancestor_id = $1) \
                      AND ($2::uuid IS NULL OR e.organization_id = $2) \
                      AND NOT EXISTS (SELECT FROM audit_seals s WHERE s.event_id = e.id) \
                      AND NOT EXISTS (SELECT FROM audit_unsealed u WHERE u.event_id = e.id) \
                    ORDER BY e.id";
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, self.whose(organization));
        let (_, rows) = self.reader.rows_of::<Stray>(statement, Some(1)).await?;
        Ok(rows.into_iter().next().map(|stray| Flaw {
            event: Some(stray.id.into()),
            organization: stray.organization_id,
            sequence: None,
            reason: "inserted",
        }))
    }

    /// A chain of which nothing is left but its noted end.
    async fn without_a_chain(&self, organization: Option<OrganizationId>) -> Result<Option<Flaw>, Error> {
        let sql = "SELECT h.organization_id AS id, h.organization_id FROM audit_heads h \
                    WHERE EXISTS (SELECT FROM organization_ancestors up \
                                   WHERE up.organization_id = h.organization_id AND up.ancestor_id = $1) \
                      AND ($2::uuid IS NULL OR h.organization_id = $2) \
                      AND NOT EXISTS (SELECT FROM audit_seals s WHERE s.organization_id = h.organization_id)";
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, self.whose(organization));
        let (_, rows) = self.reader.rows_of::<Stray>(statement, Some(1)).await?;
        Ok(rows.into_iter().next().map(|stray| Flaw {
            event: None,
            organization: stray.organization_id,
            sequence: Some(1),
            reason: "end_missing",
        }))
    }

    fn whose(&self, organization: Option<OrganizationId>) -> [sea_orm::Value; 2] {
        [
            self.reader.organization().into(),
            organization.map(|id| id.0).into(),
        ]
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
