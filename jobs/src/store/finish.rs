//! The end of a job, in the transaction that also carries what the end means for its target.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use uuid::Uuid;

use super::{
    execute,
    line::place,
    one,
    progress::{StepRecord, fault_values, step_values, upsert_step},
};
use crate::kind::Outcome;

/// What came of the attempt to end a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Ended, once the transaction commits.
    Done { revision: i64 },
    /// A cancel came before the success could be written: it wins.
    CancelledFirst,
    /// The epoch is dead.
    Lost,
}

/// Who ends, and how.
pub(crate) struct End<'a> {
    pub(crate) operation_id: Uuid,
    pub(crate) epoch: i64,
    pub(crate) serial_key: Option<&'a str>,
    /// The scope that it holds a slot of.
    pub(crate) slot_of: Option<Uuid>,
    pub(crate) outcome: &'a Outcome,
    /// The step that was done just now, and the steps that are done with it.
    pub(crate) last: Option<(StepRecord<'a>, i32)>,
}

/// Beside the values of [`upsert_step`]: `$11` state, `$12` status, `$13`–`$15` error, `$16` position.
const FINISH: &str = concat!(
    "
WITH job AS (
    UPDATE jobs SET state = $11, holds_key = false, slot = NULL, lease_owner = NULL, announced_at = NULL,
                    position = COALESCE($16::integer, position)
    WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' RETURNING operation_id
), ",
    upsert_step!(),
    ", seen AS (
    UPDATE operations o
    SET status = $12, percent = CASE WHEN $12 = 'succeeded' THEN 100 ELSE percent END, message = NULL,
        error_code = CASE WHEN $12 <> 'succeeded' THEN COALESCE($13, error_code) END,
        error_message = CASE WHEN $12 <> 'succeeded' THEN COALESCE($14, error_message) END,
        error_detail = CASE WHEN $12 <> 'succeeded' THEN COALESCE($15, error_detail) END, finished_at = now(),
        dead_at = CASE WHEN $11 = 'dead' THEN now() END, revision = revision + 1, updated_at = now()
    FROM job
    WHERE o.id = job.operation_id
      AND ($12 <> 'succeeded' OR o.cancel_requested_at IS NULL OR o.pivoted_at IS NOT NULL)
    RETURNING o.revision
)
SELECT (SELECT revision FROM seen) AS revision FROM job"
);

/// A locked row in line is passed over: whoever has it wakes it, and the next one's turn has come, too.
const WAKE: &str = concat!(
    "
WITH of_key AS (
    SELECT h.operation_id FROM jobs h WHERE h.serial_key = $1 AND h.state = 'blocked'
    ORDER BY ",
    place!("h"),
    ", h.operation_id LIMIT 1 FOR NO KEY UPDATE
), of_scope AS (
    SELECT h.operation_id FROM jobs h
    WHERE h.scope = $2 AND h.in_line AND h.state = 'blocked' AND h.operation_id NOT IN (SELECT operation_id FROM of_key)
    ORDER BY ",
    place!("h"),
    ", h.operation_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), woken AS (
    UPDATE jobs j SET state = 'ready', due_at = now(), announced_at = now()
    FROM (SELECT operation_id FROM of_key UNION ALL SELECT operation_id FROM of_scope) waiter
    WHERE j.operation_id = waiter.operation_id AND j.state = 'blocked' RETURNING j.operation_id
), entry AS (
    INSERT INTO outbox (operation_id) SELECT operation_id FROM woken RETURNING operation_id
)
SELECT pg_notify('jobs_outbox', '')::text FROM entry"
);

/// Announces the first job that waits for a key, and the first in line for a slot of a scope. After the statement that ends
/// who was ahead of them, so that it sees who began to wait until then.
pub(crate) async fn wake(
    db: &impl ConnectionTrait,
    key: Option<&str>,
    scope: Option<Uuid>,
) -> Result<(), DbErr> {
    if key.is_none() && scope.is_none() {
        return Ok(());
    }
    execute(db, WAKE, vec![key.into(), scope.into()]).await.map(drop)
}

/// Writes the terminal state. Anything but [`Ended::Done`] must be rolled back.
pub(crate) async fn finish(tx: &DatabaseTransaction, end: &End<'_>) -> Result<Ended, DbErr> {
    let (state, status, fault) = match end.outcome {
        Outcome::Succeeded => ("finished", "succeeded", None),
        Outcome::Failed(fault) => ("finished", "failed", Some(fault)),
        Outcome::Cancelled => ("finished", "cancelled", None),
        Outcome::Dead(fault) => ("dead", "failed", Some(fault)),
    };
    let (record, position) = match &end.last {
        Some((record, position)) => (Some(record), Some(*position)),
        None => (None, None),
    };
    let mut values = step_values(end.operation_id, end.epoch, record);
    values.extend([state.into(), status.into()]);
    values.extend(fault_values(fault));
    values.push(position.into());
    let Some(row) = one(tx, FINISH, values).await? else {
        return Ok(Ended::Lost);
    };
    let Some(revision) = row.try_get::<Option<i64>>("", "revision")? else {
        return Ok(Ended::CancelledFirst);
    };
    wake(tx, end.serial_key, end.slot_of).await?;
    Ok(Ended::Done { revision })
}

/// Whether the epoch is alive, until the transaction ends. Comes last: whatever the transaction did is then the work of
/// the job's rightful holder, or is rolled back.
pub(crate) async fn verify(tx: &impl ConnectionTrait, id: Uuid, epoch: i64) -> Result<bool, DbErr> {
    const VERIFY: &str = "
        SELECT 1 AS held FROM jobs
        WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' FOR SHARE";
    Ok(one(tx, VERIFY, vec![id.into(), epoch.into()]).await?.is_some())
}
