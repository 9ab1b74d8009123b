//! The end of a job, in the transaction that also carries what the end means for its target.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use uuid::Uuid;

use super::{
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
    pub(crate) outcome: &'a Outcome,
    /// The step that was done just now, and the steps that are done with it.
    pub(crate) last: Option<(StepRecord<'a>, i32)>,
}

/// Beside the values of [`upsert_step`]: `$11` state, `$12` status, `$13`–`$15` error, `$16` position.
const FINISH: &str = concat!(
    "
WITH job AS (
    UPDATE jobs SET state = $11, holds_key = false, lease_owner = NULL, announced_at = NULL,
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

const WAKE: &str = "
WITH waiter AS (
    SELECT operation_id FROM jobs WHERE serial_key = $1 AND state = 'blocked'
    ORDER BY created_at, operation_id LIMIT 1 FOR NO KEY UPDATE
), woken AS (
    UPDATE jobs j SET state = 'ready', due_at = now(), announced_at = now()
    FROM waiter WHERE j.operation_id = waiter.operation_id AND j.state = 'blocked' RETURNING j.operation_id
), entry AS (
    INSERT INTO outbox (operation_id) SELECT operation_id FROM woken RETURNING operation_id
)
SELECT pg_notify('jobs_outbox', '')::text FROM entry";

/// Announces the oldest job that waits for a key. After the statement that ends who was ahead of it, so that it sees
/// who began to wait until then.
pub(crate) async fn wake(tx: &impl ConnectionTrait, key: &str) -> Result<(), DbErr> {
    one(tx, WAKE, vec![key.into()]).await.map(drop)
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
    if let Some(key) = end.serial_key {
        wake(tx, key).await?;
    }
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
