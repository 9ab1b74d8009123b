//! What the relay, the sweeper and retention ask of the tables.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

use super::{all, execute, lease::ahead, one};

/// Takes up to `limit` rows out of the outbox, oldest first; they come back if the transaction does not commit. The age
/// is that of the oldest.
pub(crate) async fn drain_outbox(
    tx: &impl ConnectionTrait,
    limit: u32,
) -> Result<(Vec<Uuid>, Duration), DbErr> {
    const DRAIN: &str = "
        WITH batch AS (
            SELECT id FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM outbox o USING batch WHERE o.id = batch.id
        RETURNING o.id, o.operation_id, EXTRACT(EPOCH FROM clock_timestamp() - o.created_at)::float8 AS age";
    let mut oldest = Duration::ZERO;
    let mut entries: Vec<(i64, Uuid)> = Vec::new();
    for row in all(tx, DRAIN, vec![i64::from(limit).into()]).await? {
        oldest = oldest.max(Duration::try_from_secs_f64(row.try_get("", "age")?).unwrap_or_default());
        entries.push((row.try_get("", "id")?, row.try_get("", "operation_id")?));
    }
    entries.sort_unstable();
    Ok((
        entries.into_iter().map(|(_, operation)| operation).collect(),
        oldest,
    ))
}

/// Compares Redis's mark with the one that announcements went to. Another one means that Redis was wiped or replaced: all
/// entries are lost, and every ready job counts as not announced. True: it was another one, and this call saw it first.
pub(crate) async fn check_mark(db: &impl ConnectionTrait, mark: &str) -> Result<bool, DbErr> {
    const CHECK: &str = "
        WITH moved AS (
            INSERT INTO job_stream AS s (mark) VALUES ($1)
            ON CONFLICT (singleton) DO UPDATE SET mark = excluded.mark, seen_at = now() WHERE s.mark <> excluded.mark
            RETURNING mark
        ), forgotten AS (
            UPDATE jobs SET announced_at = NULL
            WHERE state = 'ready' AND announced_at IS NOT NULL AND EXISTS (SELECT FROM moved)
        )
        SELECT mark FROM moved";
    Ok(one(db, CHECK, vec![mark.into()]).await?.is_some())
}

/// What a sweep found.
pub(crate) struct Swept {
    /// Jobs that were announced.
    pub(crate) announced: i64,
    /// When the next unannounced job is due; none: there is none.
    pub(crate) next: Option<Duration>,
}

/// Announces what is due and has no entry on its way: jobs whose time has come, leases that expired, jobs whose serial
/// key came free unseen, and, if `lost` is given, ready jobs that were announced longer ago than that (their entries were
/// lost with a Redis). One process sweeps at a time; another's turn finds nothing to do.
pub(crate) async fn sweep(
    db: &impl ConnectionTrait,
    expired_after: Duration,
    lost: Option<Duration>,
    limit: u32,
) -> Result<Swept, DbErr> {
    const SWEEP: &str = concat!(
        "
        WITH turn AS (
            SELECT pg_try_advisory_xact_lock(hashtextextended('jobs.sweep', 0)) AS ours
        ), due AS (
            (SELECT operation_id FROM jobs, turn
             WHERE ours AND state = 'ready' AND announced_at IS NULL AND due_at <= now()
             ORDER BY due_at LIMIT $3 FOR NO KEY UPDATE OF jobs SKIP LOCKED)
        ), expired AS (
            (SELECT operation_id FROM jobs, turn
             WHERE ours AND state = 'leased' AND due_at <= now()
               AND (announced_at IS NULL OR announced_at < now() - make_interval(secs => $1))
             ORDER BY due_at LIMIT $3 FOR NO KEY UPDATE OF jobs SKIP LOCKED)
        ), lost AS (
            (SELECT operation_id FROM jobs, turn
             WHERE ours AND state = 'ready' AND announced_at < now() - make_interval(secs => $2::float8)
               AND due_at <= now()
             ORDER BY announced_at LIMIT $3 FOR NO KEY UPDATE OF jobs SKIP LOCKED)
        ), freed AS (
            (SELECT operation_id FROM jobs j, turn
             WHERE ours AND state = 'blocked' AND NOT EXISTS (SELECT FROM jobs h WHERE ",
        ahead!(),
        ")
             ORDER BY created_at, operation_id LIMIT $3 FOR NO KEY UPDATE OF j SKIP LOCKED)
        ), announced AS (
            UPDATE jobs j
            SET announced_at = now(), state = CASE WHEN j.state = 'blocked' THEN 'ready' ELSE j.state END
            FROM (SELECT operation_id FROM due UNION SELECT operation_id FROM expired
                  UNION SELECT operation_id FROM lost UNION SELECT operation_id FROM freed) found
            WHERE j.operation_id = found.operation_id
            RETURNING j.operation_id
        ), entries AS (
            INSERT INTO outbox (operation_id) SELECT operation_id FROM announced RETURNING operation_id
        ), rung AS (
            SELECT count(*) AS announced FROM entries
        )
        SELECT announced, CASE WHEN announced > 0 THEN pg_notify('jobs_outbox', '')::text END,
               (SELECT EXTRACT(EPOCH FROM min(due_at) - now())::float8 FROM jobs
                WHERE state = 'ready' AND announced_at IS NULL AND due_at > now()) AS next
        FROM rung"
    );
    let values = vec![
        expired_after.as_secs_f64().into(),
        lost.map(|age| age.as_secs_f64()).into(),
        i64::from(limit).into(),
    ];
    let row = one(db, SWEEP, values)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("sweep".to_owned()))?;
    let next: Option<f64> = row.try_get("", "next")?;
    Ok(Swept {
        announced: row.try_get("", "announced")?,
        next: next.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    })
}

/// Deletes up to `limit` operations that ended longer ago than `age`, with their jobs and steps.
pub(crate) async fn delete_finished(
    db: &impl ConnectionTrait,
    age: Duration,
    limit: u32,
) -> Result<u64, DbErr> {
    const DELETE: &str = "
        DELETE FROM operations WHERE id IN (
            SELECT id FROM operations WHERE finished_at < now() - make_interval(secs => $1) ORDER BY finished_at LIMIT $2
            FOR UPDATE SKIP LOCKED
        )";
    execute(
        db,
        DELETE,
        vec![age.as_secs_f64().into(), i64::from(limit).into()],
    )
    .await
}
