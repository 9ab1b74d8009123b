//! Every statement of the engine. Each write of a running job is conditional on its lease epoch, in the same statement.
//!
//! Locks are taken in one order: rows of the caller's own, then `schedules`, then `jobs`, then `operations`; a holder of a
//! serial key before who waits for it. Who looks for someone in line for a slot passes over locked rows, and who puts one in
//! line locks only who is ahead of it.

#[cfg(test)]
mod conformance;
mod finish;
mod lease;
mod line;
mod progress;
mod schedule;
mod survey;
mod sweep;

use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, FromQueryResult, QueryResult, RuntimeErr, Statement, Value,
};
use uuid::Uuid;

use crate::entity::{
    job::{Ending, JobState},
    operation,
};

pub(crate) use self::{
    finish::{End, Ended, finish, verify, wake},
    lease::{Claim, Claimed, Sorted, claim, defer, renew, sort, still_leased, unread},
    line::set_scope_cap,
    progress::{
        Advance, Pivot, StepRecord, Visible, advance, note_progress, pass_pivot, release, release_uncharged,
        steps,
    },
    schedule::{
        DueSchedule, PutSchedule, delete_fires, due_schedules, move_schedule, next_fire, note_fired, now,
        put_schedule, record_fire, remove_schedule, try_lock_key,
    },
    survey::{depths, outbox},
    sweep::{check_mark, delete_finished, drain_outbox, sweep},
};

/// Rung in the transaction that adds to the outbox.
pub(crate) const OUTBOX_CHANNEL: &str = "jobs_outbox";

/// No statement of the engine waits longer for its answer.
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) fn statement(sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
}

/// Runs a call to the database within the deadline.
pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(answer) => answer,
        Err(_) => Err(DbErr::Conn(RuntimeErr::Internal(format!(
            "no answer within {} s",
            ANSWER.as_secs()
        )))),
    }
}

async fn one(db: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<Option<QueryResult>, DbErr> {
    bounded(db.query_one_raw(statement(sql, values))).await
}

async fn all(db: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<Vec<QueryResult>, DbErr> {
    bounded(db.query_all_raw(statement(sql, values))).await
}

async fn execute(db: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, DbErr> {
    Ok(bounded(db.execute_raw(statement(sql, values)))
        .await?
        .rows_affected())
}

fn state_of(row: &QueryResult, column: &str) -> Result<JobState, DbErr> {
    row.try_get("", column)
}

pub(crate) const fn ending_name(ending: Ending) -> &'static str {
    match ending {
        Ending::Failed => "failed",
        Ending::Cancelled => "cancelled",
    }
}

/// Serializes enqueues of one serial key to the transaction's end, so that the look below and the insert are one.
pub(crate) async fn lock_key(tx: &impl ConnectionTrait, key: &str) -> Result<(), DbErr> {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('jobs:' || $1, 0))::text";
    one(tx, LOCK, vec![key.into()]).await.map(drop)
}

/// An operation with this serial key that is not over, the one that holds it first.
pub(crate) async fn busy_with(tx: &impl ConnectionTrait, key: &str) -> Result<Option<Uuid>, DbErr> {
    const BUSY: &str = "
        SELECT operation_id FROM jobs
        WHERE serial_key = $1 AND state IN ('ready', 'leased', 'blocked')
        ORDER BY holds_key DESC, created_at, operation_id LIMIT 1";
    match one(tx, BUSY, vec![key.into()]).await? {
        Some(row) => row.try_get("", "operation_id").map(Some),
        None => Ok(None),
    }
}

/// A job's row, locked, and whether its operation is past the pivot.
pub(crate) struct LockedJob {
    pub(crate) state: JobState,
    pub(crate) lease_epoch: i64,
    pub(crate) pivoted: bool,
    pub(crate) serial_key: Option<String>,
    pub(crate) scope: Option<Uuid>,
}

impl LockedJob {
    /// The scope whose slot it may have been woken for.
    pub(crate) fn woken_in(&self) -> Option<Uuid> {
        self.scope.filter(|_| self.state == JobState::Ready)
    }
}

/// Locks a job against its worker and every other canceller.
pub(crate) async fn lock_job(tx: &impl ConnectionTrait, id: Uuid) -> Result<Option<LockedJob>, DbErr> {
    const LOCK: &str =
        "SELECT state, lease_epoch, serial_key, scope FROM jobs WHERE operation_id = $1 FOR NO KEY UPDATE";
    const PIVOTED: &str = "SELECT pivoted_at IS NOT NULL AS pivoted FROM operations WHERE id = $1";
    let Some(job) = one(tx, LOCK, vec![id.into()]).await? else {
        return Ok(None);
    };
    // A statement of its own: under READ COMMITTED it sees what the worker committed while we waited for the lock.
    let Some(operation) = one(tx, PIVOTED, vec![id.into()]).await? else {
        return Ok(None);
    };
    Ok(Some(LockedJob {
        state: state_of(&job, "state")?,
        lease_epoch: job.try_get("", "lease_epoch")?,
        pivoted: operation.try_get("", "pivoted")?,
        serial_key: job.try_get("", "serial_key")?,
        scope: job.try_get("", "scope")?,
    }))
}

/// Ends a job that no worker ever claimed. Its entry in the stream stays: whoever reads it finds the job over.
pub(crate) async fn cancel_unclaimed(
    tx: &impl ConnectionTrait,
    id: Uuid,
    job: &LockedJob,
) -> Result<operation::Model, DbErr> {
    const CANCEL: &str = "
        WITH job AS (
            UPDATE jobs SET state = 'finished', ending = 'cancelled' WHERE operation_id = $1 RETURNING operation_id
        )
        UPDATE operations o
        SET status = 'cancelled', cancel_requested_at = COALESCE(cancel_requested_at, now()), finished_at = now(),
            revision = revision + 1, updated_at = now()
        FROM job WHERE o.id = job.operation_id RETURNING o.*";
    let cancelled = model(tx, CANCEL, id).await?;
    wake(tx, job.serial_key.as_deref(), job.woken_in()).await?;
    Ok(cancelled)
}

/// Announces a job that waits for its next attempt now.
pub(crate) async fn nudge(tx: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    const NUDGE: &str = "
        WITH job AS (
            UPDATE jobs SET due_at = now(), announced_at = now()
            WHERE operation_id = $1 AND state = 'ready' AND due_at > now()
            RETURNING operation_id
        ), entry AS (
            INSERT INTO outbox (operation_id) SELECT operation_id FROM job RETURNING operation_id
        )
        SELECT pg_notify('jobs_outbox', '')::text FROM entry";
    one(tx, NUDGE, vec![id.into()]).await.map(drop)
}

/// Sets the flag. A job that waits for its next attempt is undone now.
pub(crate) async fn request_cancel(tx: &impl ConnectionTrait, id: Uuid) -> Result<operation::Model, DbErr> {
    const FLAG: &str = "
        UPDATE operations
        SET cancel_requested_at = now(), revision = revision + 1, updated_at = now()
        WHERE id = $1 AND cancel_requested_at IS NULL RETURNING *";
    nudge(tx, id).await?;
    match one(tx, FLAG, vec![id.into()]).await? {
        Some(row) => operation::Model::from_query_result(&row, ""),
        // Asked before: nothing changes.
        None => model(tx, "SELECT * FROM operations WHERE id = $1", id).await,
    }
}

/// Makes a dead job ready again and announces it.
pub(crate) async fn revive(tx: &impl ConnectionTrait, id: Uuid) -> Result<operation::Model, DbErr> {
    const REVIVE: &str = "
        WITH job AS (
            UPDATE jobs SET state = 'ready', attempts = 0, due_at = now(), announced_at = now()
            WHERE operation_id = $1 AND state = 'dead' RETURNING operation_id
        ), entry AS (
            INSERT INTO outbox (operation_id) SELECT operation_id FROM job RETURNING operation_id
        ), rung AS (
            SELECT pg_notify('jobs_outbox', '')::text FROM entry
        )
        UPDATE operations o
        SET status = 'running', finished_at = NULL, dead_at = NULL, revision = revision + 1, updated_at = now()
        FROM job, rung WHERE o.id = job.operation_id RETURNING o.*";
    model(tx, REVIVE, id).await
}

/// The operation's revision; none when there is no such operation.
pub(crate) async fn revision(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<i64>, DbErr> {
    let row = one(
        db,
        "SELECT revision FROM operations WHERE id = $1",
        vec![id.into()],
    )
    .await?;
    row.map(|row| row.try_get("", "revision")).transpose()
}

async fn model(tx: &impl ConnectionTrait, sql: &str, id: Uuid) -> Result<operation::Model, DbErr> {
    let row = one(tx, sql, vec![id.into()]).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound(format!("operation {id}")))?;
    operation::Model::from_query_result(&row, "")
}
