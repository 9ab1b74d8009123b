//! What schedules are, which are due, and what they fired. By Postgres's clock alone: what a process thinks the time is
//! decides nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{all, execute, one};
use crate::entity::schedule;

/// What Postgres's clock says.
pub(crate) async fn now(db: &impl ConnectionTrait) -> Result<DateTime<Utc>, DbErr> {
    let row = one(db, "SELECT clock_timestamp() AS now", Vec::new()).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("clock".to_owned()))?;
    row.try_get("", "now")
}

/// A schedule as it shall be.
pub(crate) struct PutSchedule {
    pub(crate) id: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) version: i32,
    pub(crate) input: Json,
    pub(crate) scope: Uuid,
    pub(crate) target_type: String,
    pub(crate) target_id: Uuid,
    pub(crate) serial_key: Option<String>,
    pub(crate) cron: String,
    pub(crate) time_zone: String,
    pub(crate) jitter_seconds: i32,
    pub(crate) enabled: bool,
    pub(crate) next_fire_at: Option<DateTime<Utc>>,
}

/// `$id` or `$name` is what finds the one that is there.
macro_rules! put {
    ($found_by:literal) => {
        concat!(
            "INSERT INTO schedules AS s (id, name, kind, version, input, scope, target_type, target_id, serial_key, cron,
                                         time_zone, jitter_seconds, enabled, next_fire_at, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, now(), now())
            ON CONFLICT (",
            $found_by,
            ") DO UPDATE
            SET name = excluded.name, kind = excluded.kind, version = excluded.version, input = excluded.input,
                scope = excluded.scope, target_type = excluded.target_type, target_id = excluded.target_id,
                serial_key = excluded.serial_key, cron = excluded.cron, time_zone = excluded.time_zone,
                jitter_seconds = excluded.jitter_seconds, enabled = excluded.enabled, updated_at = now(),
                -- A moment that is due and not fired yet stays due.
                next_fire_at = CASE
                    WHEN s.cron = excluded.cron AND s.time_zone = excluded.time_zone AND s.enabled AND excluded.enabled
                    THEN COALESCE(s.next_fire_at, excluded.next_fire_at)
                    ELSE excluded.next_fire_at END
            RETURNING *"
        )
    };
}

/// Makes a schedule, or makes the one of its name or id like it.
pub(crate) async fn put_schedule(
    tx: &impl ConnectionTrait,
    put: PutSchedule,
) -> Result<schedule::Model, DbErr> {
    let sql = if put.name.is_some() {
        put!("name")
    } else {
        put!("id")
    };
    let values = vec![
        put.id.into(),
        put.name.into(),
        put.kind.into(),
        put.version.into(),
        put.input.into(),
        put.scope.into(),
        put.target_type.into(),
        put.target_id.into(),
        put.serial_key.into(),
        put.cron.into(),
        put.time_zone.into(),
        put.jitter_seconds.into(),
        put.enabled.into(),
        put.next_fire_at.into(),
    ];
    let row = one(tx, sql, values).await?.ok_or(DbErr::RecordNotInserted)?;
    schedule::Model::from_query_result(&row, "")
}

/// False: there was none.
pub(crate) async fn remove_schedule(tx: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(execute(tx, "DELETE FROM schedules WHERE id = $1", vec![id.into()]).await? > 0)
}

/// How long until the next schedule is due; zero: one is due. None: none will ever be.
pub(crate) async fn next_fire(db: &impl ConnectionTrait) -> Result<Option<Duration>, DbErr> {
    const NEXT: &str = "
        SELECT EXTRACT(EPOCH FROM min(next_fire_at) - clock_timestamp())::float8 AS next FROM schedules WHERE enabled";
    let Some(row) = one(db, NEXT, Vec::new()).await? else {
        return Ok(None);
    };
    let next: Option<f64> = row.try_get("", "next")?;
    Ok(next.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// A schedule whose moment has come; its row is locked to the transaction's end.
#[derive(FromQueryResult)]
pub(crate) struct DueSchedule {
    pub(crate) id: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) kind: String,
    pub(crate) version: i32,
    pub(crate) input: Json,
    pub(crate) scope: Uuid,
    pub(crate) target_type: String,
    pub(crate) target_id: Uuid,
    pub(crate) serial_key: Option<String>,
    pub(crate) cron: String,
    pub(crate) time_zone: String,
    pub(crate) jitter_seconds: i32,
    /// The earliest moment that was not fired.
    pub(crate) fire_at: DateTime<Utc>,
    /// What Postgres's clock says.
    pub(crate) now: DateTime<Utc>,
}

/// Takes up to `limit` schedules that are due and that no other process has.
pub(crate) async fn due_schedules(tx: &impl ConnectionTrait, limit: u32) -> Result<Vec<DueSchedule>, DbErr> {
    const DUE: &str = "
        SELECT id, name, kind, version, input, scope, target_type, target_id, serial_key, cron, time_zone, jitter_seconds,
               next_fire_at AS fire_at, clock_timestamp() AS now
        FROM schedules WHERE enabled AND next_fire_at <= clock_timestamp()
        ORDER BY next_fire_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED";
    let rows = all(tx, DUE, vec![i64::from(limit).into()]).await?;
    rows.iter()
        .map(|row| DueSchedule::from_query_result(row, ""))
        .collect()
}

/// The key's lock if no one else has it, to the transaction's end; see `lock_key`.
pub(crate) async fn try_lock_key(tx: &impl ConnectionTrait, key: &str) -> Result<bool, DbErr> {
    const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('jobs:' || $1, 0)) AS ours";
    match one(tx, LOCK, vec![key.into()]).await? {
        Some(row) => row.try_get("", "ours"),
        None => Ok(false),
    }
}

/// False: this moment was fired before.
pub(crate) async fn record_fire(
    tx: &impl ConnectionTrait,
    id: Uuid,
    moment: DateTime<Utc>,
) -> Result<bool, DbErr> {
    const RECORD: &str =
        "INSERT INTO schedule_fires (schedule_id, fire_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    Ok(execute(tx, RECORD, vec![id.into(), moment.into()]).await? > 0)
}

/// Which operation came of a moment.
pub(crate) async fn note_fired(
    tx: &impl ConnectionTrait,
    id: Uuid,
    moment: DateTime<Utc>,
    operation_id: Uuid,
) -> Result<(), DbErr> {
    const NOTE: &str = "UPDATE schedule_fires SET operation_id = $3 WHERE schedule_id = $1 AND fire_at = $2";
    execute(tx, NOTE, vec![id.into(), moment.into(), operation_id.into()])
        .await
        .map(drop)
}

/// When a schedule fires next; none: never.
pub(crate) async fn move_schedule(
    tx: &impl ConnectionTrait,
    id: Uuid,
    next: Option<DateTime<Utc>>,
) -> Result<(), DbErr> {
    const MOVE: &str = "UPDATE schedules SET next_fire_at = $2 WHERE id = $1";
    execute(tx, MOVE, vec![id.into(), next.into()]).await.map(drop)
}

/// Deletes up to `limit` records that are older than `age`.
pub(crate) async fn delete_fires(db: &impl ConnectionTrait, age: Duration, limit: u32) -> Result<u64, DbErr> {
    const DELETE: &str = "
        DELETE FROM schedule_fires WHERE ctid IN (
            SELECT ctid FROM schedule_fires WHERE fired_at < now() - make_interval(secs => $1)
            ORDER BY fired_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )";
    execute(
        db,
        DELETE,
        vec![age.as_secs_f64().into(), i64::from(limit).into()],
    )
    .await
}
