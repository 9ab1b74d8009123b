//! Claiming a job, keeping it, and finding out why it can't be had.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, SqlErr};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    all, execute,
    line::{ahead, before, held, in_line, limits, open, place, queue},
    one, state_of,
};
use crate::{
    entity::job::Ending,
    error::Fault,
    protocol::{self, ClaimVerdict, Room},
};

/// A job in the hands of this worker.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) operation_id: Uuid,
    pub(crate) kind: String,
    pub(crate) version: i32,
    pub(crate) input: Json,
    pub(crate) serial_key: Option<String>,
    pub(crate) epoch: i64,
    pub(crate) attempts: i32,
    pub(crate) position: i32,
    pub(crate) ending: Option<Ending>,
    pub(crate) scope: Uuid,
    /// The scope that it holds a slot of.
    pub(crate) slot_of: Option<Uuid>,
    pub(crate) target_type: String,
    pub(crate) target_id: Uuid,
    pub(crate) request_id: Option<String>,
    pub(crate) cancel_requested: bool,
    pub(crate) pivoted: bool,
    /// Why it undoes, if it does.
    pub(crate) fault: Option<Fault>,
    pub(crate) revision: i64,
    /// From when it could have run to now.
    pub(crate) waited: Duration,
}

/// What came of a claim.
pub(crate) enum Claim {
    /// It is ours.
    Taken(Box<Claimed>),
    /// Another worker's, not due, blocked or over: nothing to do for this entry.
    Nothing,
    /// Its serial key is another job's, or every slot of its scope: it was put to wait.
    Waits,
    /// This worker lacks its kind or version.
    Unknown,
}

/// What came of a look at a job that this worker has no hand free for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sorted {
    /// It may run.
    Runnable,
    /// Its entry has served: it waits now, or there is nothing to do.
    Served,
    /// This worker lacks its kind or version.
    Unknown,
}

/// Races that a claim may lose: with as many free slots and more claims than slots, each but the first few lose some.
const ROUNDS: usize = 10;

const CLAIM: &str = concat!(
    "WITH due AS (
    SELECT operation_id, due_at FROM jobs WHERE operation_id = $1
), room AS (
    SELECT o.scope, l.scope_cap AS cap, CASE WHEN l.scope_cap IS NOT NULL AND ",
    open!(),
    " > 0 THEN (
        -- Any of the free ones, so that claims which race seldom meet.
        SELECT n::smallint FROM generate_series(1, l.scope_cap) n
        WHERE NOT EXISTS (SELECT FROM jobs h WHERE h.scope = o.scope AND h.state = 'leased' AND h.slot = n)
        ORDER BY random() LIMIT 1
    ) END AS slot
    FROM jobs j JOIN operations o ON o.id = j.operation_id LEFT JOIN ",
    limits!(),
    " ON true
    WHERE j.operation_id = $1
), claimed AS (
    UPDATE jobs j
    SET state = 'leased', lease_epoch = j.lease_epoch + 1, lease_owner = $2, attempts = j.attempts + 1,
        due_at = clock_timestamp() + make_interval(secs => $3), holds_key = j.serial_key IS NOT NULL,
        scope = room.scope, in_line = false,
        -- A stolen one keeps what it has. One that is ready has none, whatever an old binary left there.
        slot = CASE WHEN j.state = 'leased' THEN COALESCE(j.slot, room.slot) ELSE room.slot END
    FROM room
    WHERE j.operation_id = $1 AND j.state IN ('ready', 'leased') AND j.due_at <= clock_timestamp()
      AND jsonb_exists($4, j.kind || ':' || j.version)
      AND (j.state = 'leased' OR room.cap IS NULL OR room.slot IS NOT NULL)
      AND (j.serial_key IS NULL OR j.holds_key
           OR NOT EXISTS (SELECT FROM jobs h WHERE ",
    ahead!(),
    "))
    RETURNING j.*
), seen AS (
    UPDATE operations o
    SET status = 'running', started_at = COALESCE(o.started_at, now()), attempt = o.attempt + 1,
        step = COALESCE(o.step, $4 ->> (c.kind || ':' || c.version)), revision = o.revision + 1, updated_at = now()
    FROM claimed c WHERE o.id = c.operation_id
    RETURNING o.*
)
SELECT c.kind, c.version, c.input, c.serial_key, c.lease_epoch, c.attempts, c.position, c.ending, o.scope, o.target_type,
       o.target_id, o.request_id, o.cancel_requested_at IS NOT NULL AS cancel_requested,
       CASE WHEN c.slot IS NOT NULL THEN c.scope END AS slot_of,
       o.pivoted_at IS NOT NULL AS pivoted, o.error_code, o.error_message, o.error_detail, o.revision,
       EXTRACT(EPOCH FROM clock_timestamp() - due.due_at)::float8 AS waited
FROM claimed c JOIN seen o ON o.id = c.operation_id JOIN due USING (operation_id)"
);

const LOOK: &str = concat!(
    "SELECT j.state, j.due_at <= clock_timestamp() AS due, jsonb_exists($2, j.kind || ':' || j.version) AS known,
            NOT j.holds_key AND EXISTS (SELECT FROM jobs h WHERE ",
    ahead!(),
    ") AS key_taken, l.scope_cap IS NOT NULL AS bounded, CASE WHEN l.scope_cap IS NOT NULL THEN ",
    open!(),
    " <= 0 ELSE false END AS full
     FROM jobs j JOIN operations o ON o.id = j.operation_id LEFT JOIN ",
    limits!(),
    " ON true
     WHERE j.operation_id = $1"
);

/// What became of a job that this worker did not take.
enum Looked {
    /// It may be taken.
    Open,
    Unknown,
    /// It was put to wait.
    Waits,
    Nothing,
    /// It should wait, and what it would have waited for is over.
    Again,
}

/// Finds out whether a job may be claimed, and puts it to wait where it must.
async fn look(
    db: &(impl ConnectionTrait + sea_orm::TransactionTrait),
    id: Uuid,
    known: &Json,
) -> Result<Looked, DbErr> {
    let Some(row) = one(db, LOOK, vec![id.into(), known.clone().into()]).await? else {
        return Ok(Looked::Nothing);
    };
    let room = match (row.try_get("", "bounded")?, row.try_get("", "full")?) {
        (false, _) => Room::Unbounded,
        (true, false) => Room::Open,
        (true, true) => Room::Full,
    };
    let (due, key_taken) = (row.try_get("", "due")?, row.try_get("", "key_taken")?);
    let waits = match protocol::claim(state_of(&row, "state")?, due, key_taken, room) {
        ClaimVerdict::Over | ClaimVerdict::Duplicate => return Ok(Looked::Nothing),
        ClaimVerdict::Take if row.try_get::<bool>("", "known")? => return Ok(Looked::Open),
        ClaimVerdict::Take => return Ok(Looked::Unknown),
        ClaimVerdict::KeyTaken => block(db, id).await?,
        ClaimVerdict::SlotTaken => queue(db, id).await?,
    };
    Ok(if waits { Looked::Waits } else { Looked::Again })
}

/// Claims a job under the next epoch, or finds out why not. `known` maps `kind:version` to the name of its first step.
pub(crate) async fn claim(
    db: &(impl ConnectionTrait + sea_orm::TransactionTrait),
    id: Uuid,
    owner: &str,
    lease: Duration,
    known: &Json,
) -> Result<Claim, DbErr> {
    // Each round either ends or has lost a race.
    for _ in 0..ROUNDS {
        let values = vec![
            id.into(),
            owner.into(),
            lease.as_secs_f64().into(),
            known.clone().into(),
        ];
        match one(db, CLAIM, values).await {
            Ok(Some(row)) => return Ok(Claim::Taken(Box::new(claimed(id, &row)?))),
            Ok(None) => {}
            // Two jobs raced for one key, or for one slot: an index lets one of them have it.
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {}
            Err(error) => return Err(error),
        }
        match look(db, id, known).await? {
            Looked::Nothing => return Ok(Claim::Nothing),
            Looked::Waits => return Ok(Claim::Waits),
            Looked::Unknown => return Ok(Claim::Unknown),
            Looked::Open | Looked::Again => {}
        }
    }
    // Every race lost: the sweeper announces it again.
    unread(db, id).await?;
    Ok(Claim::Nothing)
}

/// Puts a job to wait if that is all that can be done for it now, so that it holds up nobody behind it in the stream.
pub(crate) async fn sort(
    db: &(impl ConnectionTrait + sea_orm::TransactionTrait),
    id: Uuid,
    known: &Json,
) -> Result<Sorted, DbErr> {
    for _ in 0..ROUNDS {
        match look(db, id, known).await? {
            Looked::Open => return Ok(Sorted::Runnable),
            Looked::Waits | Looked::Nothing => return Ok(Sorted::Served),
            Looked::Unknown => return Ok(Sorted::Unknown),
            Looked::Again => {}
        }
    }
    Ok(Sorted::Runnable)
}

fn claimed(id: Uuid, row: &QueryResult) -> Result<Claimed, DbErr> {
    let fault = row.try_get::<Option<String>>("", "error_code")?.map(|code| {
        let message: Option<String> = row.try_get("", "error_message").unwrap_or_default();
        let detail = row.try_get("", "error_detail").unwrap_or_default();
        Fault {
            code: code.into(),
            message: message.unwrap_or_default().into(),
            detail,
        }
    });
    Ok(Claimed {
        operation_id: id,
        kind: row.try_get("", "kind")?,
        version: row.try_get("", "version")?,
        input: row.try_get("", "input")?,
        serial_key: row.try_get("", "serial_key")?,
        epoch: row.try_get("", "lease_epoch")?,
        attempts: row.try_get("", "attempts")?,
        position: row.try_get("", "position")?,
        ending: row.try_get("", "ending")?,
        scope: row.try_get("", "scope")?,
        slot_of: row.try_get("", "slot_of")?,
        target_type: row.try_get("", "target_type")?,
        target_id: row.try_get("", "target_id")?,
        request_id: row.try_get("", "request_id")?,
        cancel_requested: row.try_get("", "cancel_requested")?,
        pivoted: row.try_get("", "pivoted")?,
        fault,
        revision: row.try_get("", "revision")?,
        waited: Duration::try_from_secs_f64(row.try_get("", "waited")?).unwrap_or_default(),
    })
}

/// Puts a job to wait for one that is ahead of it. That one's row is locked first: either its end comes after and sees the
/// waiter, or it came before and there is nothing to wait for. False: nothing was done.
async fn block(db: &impl sea_orm::TransactionTrait, id: Uuid) -> Result<bool, DbErr> {
    const AHEAD: &str = concat!(
        "SELECT h.operation_id FROM jobs h, jobs j WHERE j.operation_id = $1 AND ",
        ahead!(),
        " ORDER BY h.holds_key DESC, ",
        place!("h"),
        ", h.operation_id LIMIT 1 FOR SHARE OF h"
    );
    const BLOCK: &str = "
        UPDATE jobs SET state = 'blocked', in_line = false
        WHERE operation_id = $1 AND state = 'ready' AND NOT holds_key";
    let tx = super::bounded(db.begin()).await?;
    let held = one(&tx, AHEAD, vec![id.into()]).await?.is_some();
    let blocked = held && execute(&tx, BLOCK, vec![id.into()]).await? > 0;
    super::bounded(sea_orm::TransactionSession::commit(tx)).await?;
    Ok(blocked)
}

/// Leaves a job that this worker does not know to others: it is announced again after `wait`, and until then keeps no
/// slot from those behind it.
pub(crate) async fn defer(db: &impl ConnectionTrait, id: Uuid, wait: Duration) -> Result<(), DbErr> {
    const DEFER: &str = "
        UPDATE jobs
        SET announced_at = NULL, in_line = false, due_at = clock_timestamp() + make_interval(secs => $2)
        WHERE operation_id = $1 AND state IN ('ready', 'leased') AND due_at <= clock_timestamp()";
    execute(db, DEFER, vec![id.into(), wait.as_secs_f64().into()])
        .await
        .map(drop)
}

/// Gives back an entry that was read and not begun.
pub(crate) async fn unread(db: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    const UNREAD: &str = "UPDATE jobs SET announced_at = NULL WHERE operation_id = $1 AND state = 'ready'";
    execute(db, UNREAD, vec![id.into()]).await.map(drop)
}

/// A lease as the heartbeat sees it.
pub(crate) struct Renewed {
    pub(crate) operation_id: Uuid,
    /// False: its row was locked by someone; it is ours still, but not renewed.
    pub(crate) renewed: bool,
    /// Someone asked for its end, and it is before its pivot.
    pub(crate) cancel: bool,
}

/// Renews leases; those that are missing in the answer are lost. Rows that someone has locked are skipped, so that one
/// slow transaction can't cost a worker all its leases.
pub(crate) async fn renew(
    db: &impl ConnectionTrait,
    leases: &[(Uuid, i64)],
    lease: Duration,
) -> Result<Vec<Renewed>, DbErr> {
    const RENEW: &str = "
        WITH held AS (
            SELECT j.operation_id FROM jobs j
            JOIN unnest($1::uuid[], $2::bigint[]) AS l (operation_id, epoch) USING (operation_id)
            WHERE j.lease_epoch = l.epoch AND j.state = 'leased'
        ), free AS (
            SELECT operation_id FROM jobs j JOIN held USING (operation_id)
            FOR NO KEY UPDATE OF j SKIP LOCKED
        ), renewed AS (
            UPDATE jobs j SET due_at = clock_timestamp() + make_interval(secs => $3)
            FROM free, unnest($1::uuid[], $2::bigint[]) AS l (operation_id, epoch)
            WHERE j.operation_id = free.operation_id AND l.operation_id = j.operation_id
              AND j.lease_epoch = l.epoch AND j.state = 'leased'
            RETURNING j.operation_id
        )
        SELECT held.operation_id, renewed.operation_id IS NOT NULL AS renewed,
               o.cancel_requested_at IS NOT NULL AND o.pivoted_at IS NULL AS cancel
        FROM held JOIN operations o ON o.id = held.operation_id LEFT JOIN renewed USING (operation_id)";
    let (ids, epochs): (Vec<Uuid>, Vec<i64>) = leases.iter().copied().unzip();
    let rows = all(
        db,
        RENEW,
        vec![ids.into(), epochs.into(), lease.as_secs_f64().into()],
    )
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Renewed {
                operation_id: row.try_get("", "operation_id")?,
                renewed: row.try_get("", "renewed")?,
                cancel: row.try_get("", "cancel")?,
            })
        })
        .collect()
}

/// Whether the epoch is alive, read now.
pub(crate) async fn still_leased(db: &impl ConnectionTrait, id: Uuid, epoch: i64) -> Result<bool, DbErr> {
    const STILL: &str =
        "SELECT 1 AS held FROM jobs WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased'";
    Ok(one(db, STILL, vec![id.into(), epoch.into()]).await?.is_some())
}
