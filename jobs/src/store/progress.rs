//! What a running job writes as it goes, each write in one statement and under its epoch.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{all, ending_name, execute, one};
use crate::{
    entity::{job::Ending, job_step::StepStatus},
    error::Fault,
};

/// What became of one try of a step.
pub(crate) struct StepRecord<'a> {
    pub(crate) position: i32,
    pub(crate) name: &'static str,
    pub(crate) status: StepStatus,
    pub(crate) output: Option<Json>,
    pub(crate) elapsed: Duration,
    pub(crate) fault: Option<&'a Fault>,
}

/// Where the job stands from now on.
pub(crate) struct Advance<'a> {
    /// Steps that are done.
    pub(crate) position: i32,
    /// Set when it turns back, with the reason.
    pub(crate) turn: Option<(Ending, Option<&'a Fault>)>,
    /// The step that comes next.
    pub(crate) step: Option<&'static str>,
    pub(crate) percent: i16,
}

/// What a write of a live epoch learns on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible {
    pub(crate) revision: i64,
    pub(crate) cancel_requested: bool,
}

/// A step as persisted by an earlier claim.
pub(crate) struct StepRow {
    pub(crate) name: String,
    pub(crate) output: Option<Json>,
}

/// `$1` operation, `$2` epoch, `$3` position, `$4` name, `$5` status, `$6` output, `$7` seconds, `$8`–`$10` error; after a
/// CTE `job` that holds the row when the epoch lives.
macro_rules! upsert_step {
    () => {
        "step AS (
            INSERT INTO job_steps AS s (operation_id, position, name, status, output, started_at, finished_at,
                                        error_code, error_message, error_detail)
            SELECT operation_id, $3::integer, $4::text, $5::text, $6::jsonb,
                   clock_timestamp() - make_interval(secs => $7::float8), clock_timestamp(),
                   $8::text, $9::text, $10::text
            FROM job WHERE $4::text IS NOT NULL
            ON CONFLICT (operation_id, position) DO UPDATE
            SET status = excluded.status, attempt = s.attempt + 1, output = COALESCE(excluded.output, s.output),
                started_at = excluded.started_at, finished_at = excluded.finished_at,
                error_code = COALESCE(excluded.error_code, CASE WHEN excluded.status = 'undone' THEN s.error_code END),
                error_message =
                    COALESCE(excluded.error_message, CASE WHEN excluded.status = 'undone' THEN s.error_message END),
                error_detail =
                    COALESCE(excluded.error_detail, CASE WHEN excluded.status = 'undone' THEN s.error_detail END)
        )"
    };
}
pub(super) use upsert_step;

const ADVANCE: &str = concat!(
    "WITH job AS (
        UPDATE jobs SET position = $11::integer, attempts = 0, ending = COALESCE($12::text, ending)
        WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' RETURNING operation_id
    ), ",
    upsert_step!(),
    "UPDATE operations o
    SET step = COALESCE($13::text, o.step), percent = $14::smallint, message = NULL,
        error_code = COALESCE($15::text, o.error_code), error_message = COALESCE($16::text, o.error_message),
        error_detail = COALESCE($17::text, o.error_detail), revision = revision + 1, updated_at = now()
    FROM job WHERE o.id = job.operation_id
    RETURNING o.revision, o.cancel_requested_at IS NOT NULL AS cancel_requested"
);

const RELEASE: &str = concat!(
    "WITH job AS (
        UPDATE jobs
        SET state = 'ready', slot = NULL, lease_owner = NULL, announced_at = NULL,
            due_at = clock_timestamp() + make_interval(secs => $11::float8)
        WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' RETURNING operation_id
    ), ",
    upsert_step!(),
    "UPDATE operations o SET message = COALESCE($9::text, o.message), revision = revision + 1, updated_at = now()
    FROM job WHERE o.id = job.operation_id
    RETURNING o.revision, o.cancel_requested_at IS NOT NULL AS cancel_requested"
);

pub(crate) fn step_values(id: Uuid, epoch: i64, record: Option<&StepRecord<'_>>) -> Vec<Value> {
    let mut values = vec![id.into(), epoch.into()];
    match record {
        Some(record) => {
            let status = match record.status {
                StepStatus::Done => "done",
                StepStatus::Failed => "failed",
                StepStatus::Undone => "undone",
            };
            values.extend([
                record.position.into(),
                record.name.into(),
                status.into(),
                record.output.clone().into(),
                record.elapsed.as_secs_f64().into(),
            ]);
            values.extend(fault_values(record.fault));
        }
        None => {
            values.extend([
                0.into(),
                None::<String>.into(),
                None::<String>.into(),
                None::<Json>.into(),
                0.0.into(),
            ]);
            values.extend(fault_values(None));
        }
    }
    values
}

pub(crate) fn fault_values(fault: Option<&Fault>) -> [Value; 3] {
    [
        fault.map(|fault| fault.code.to_string()).into(),
        fault.map(|fault| fault.message.to_string()).into(),
        fault.and_then(|fault| fault.detail.clone()).into(),
    ]
}

fn visible(row: &QueryResult) -> Result<Visible, DbErr> {
    Ok(Visible {
        revision: row.try_get("", "revision")?,
        cancel_requested: row.try_get("", "cancel_requested")?,
    })
}

/// Persists a step's end and the job's new position. None: the epoch is dead, nothing was written.
pub(crate) async fn advance(
    db: &impl ConnectionTrait,
    id: Uuid,
    epoch: i64,
    record: Option<&StepRecord<'_>>,
    to: &Advance<'_>,
) -> Result<Option<Visible>, DbErr> {
    let mut values = step_values(id, epoch, record);
    values.extend([
        to.position.into(),
        to.turn.map(|(ending, _)| ending_name(ending)).into(),
        to.step.into(),
        to.percent.into(),
    ]);
    values.extend(fault_values(to.turn.and_then(|(_, fault)| fault)));
    one(db, ADVANCE, values).await?.as_ref().map(visible).transpose()
}

/// Lets go of the job until `wait` has passed. The serial key stays held; the caller wakes who is in line for the slot.
/// None: the epoch is dead.
pub(crate) async fn release(
    db: &impl ConnectionTrait,
    id: Uuid,
    epoch: i64,
    record: Option<&StepRecord<'_>>,
    wait: Duration,
) -> Result<Option<Visible>, DbErr> {
    let mut values = step_values(id, epoch, record);
    values.push(wait.as_secs_f64().into());
    one(db, RELEASE, values).await?.as_ref().map(visible).transpose()
}

/// Lets go of the job at once, without charging the attempt: the process ends, or someone asked for the job's end.
///
/// The caller wakes who is in line for the slot.
pub(crate) async fn release_uncharged(db: &impl ConnectionTrait, id: Uuid, epoch: i64) -> Result<(), DbErr> {
    const RELEASE: &str = "
        WITH job AS (
            UPDATE jobs
            SET state = 'ready', slot = NULL, lease_owner = NULL, announced_at = now(), due_at = clock_timestamp(),
                attempts = GREATEST(attempts - 1, 0)
            WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' RETURNING operation_id
        ), entry AS (
            INSERT INTO outbox (operation_id) SELECT operation_id FROM job RETURNING operation_id
        )
        SELECT pg_notify('jobs_outbox', '')::text FROM entry";
    execute(db, RELEASE, vec![id.into(), epoch.into()])
        .await
        .map(drop)
}

/// Shows progress within a step. None: the epoch is dead.
pub(crate) async fn note_progress(
    db: &impl ConnectionTrait,
    id: Uuid,
    epoch: i64,
    percent: i16,
    message: &str,
) -> Result<Option<i64>, DbErr> {
    const NOTE: &str = "
        WITH job AS (
            SELECT operation_id FROM jobs
            WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' FOR SHARE
        )
        UPDATE operations o SET percent = $3, message = $4, revision = revision + 1, updated_at = now()
        FROM job WHERE o.id = job.operation_id RETURNING o.revision";
    let row = one(
        db,
        NOTE,
        vec![id.into(), epoch.into(), percent.into(), message.into()],
    )
    .await?;
    row.map(|row| row.try_get("", "revision")).transpose()
}

/// What came of the step over the pivot.
pub(crate) enum Pivot {
    /// From here on it only goes forward.
    Passed { revision: i64 },
    /// A cancel came first.
    Cancelled,
    /// The epoch is dead.
    Lost,
}

/// Passes the pivot unless someone asked for the job's end before.
pub(crate) async fn pass_pivot(db: &impl ConnectionTrait, id: Uuid, epoch: i64) -> Result<Pivot, DbErr> {
    const PASS: &str = "
        WITH job AS (
            SELECT operation_id FROM jobs
            WHERE operation_id = $1 AND lease_epoch = $2 AND state = 'leased' FOR NO KEY UPDATE
        ), seen AS (
            UPDATE operations o
            SET pivoted_at = COALESCE(pivoted_at, now()), revision = revision + 1, updated_at = now()
            FROM job WHERE o.id = job.operation_id AND o.cancel_requested_at IS NULL RETURNING o.revision
        )
        SELECT (SELECT revision FROM seen) AS revision FROM job";
    match one(db, PASS, vec![id.into(), epoch.into()]).await? {
        None => Ok(Pivot::Lost),
        Some(row) => Ok(match row.try_get::<Option<i64>>("", "revision")? {
            Some(revision) => Pivot::Passed { revision },
            None => Pivot::Cancelled,
        }),
    }
}

/// What earlier claims persisted.
pub(crate) async fn steps(db: &impl ConnectionTrait, id: Uuid) -> Result<Vec<StepRow>, DbErr> {
    const STEPS: &str = "SELECT name, output FROM job_steps WHERE operation_id = $1 ORDER BY position";
    let rows = all(db, STEPS, vec![id.into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(StepRow {
                name: row.try_get("", "name")?,
                output: row.try_get("", "output")?,
            })
        })
        .collect()
}
