//! What the relay, the sweeper and retention ask of the tables.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

use super::{
    all, execute,
    line::{ahead, held, in_line, limits, place},
    one,
};
use crate::entity::job::Priority;

/// Takes up to `limit` rows out of the outbox, oldest first; they come back if the transaction does not commit. The age
/// is that of the oldest.
pub(crate) async fn drain_outbox(
    tx: &impl ConnectionTrait,
    limit: u32,
) -> Result<(Vec<(Uuid, Priority)>, Duration), DbErr> {
    const DRAIN: &str = "
        WITH batch AS (
            SELECT id FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM outbox o USING batch WHERE o.id = batch.id RETURNING o.*
        )
        SELECT t.id, t.operation_id, COALESCE(j.priority, 'interactive') AS priority,
               EXTRACT(EPOCH FROM clock_timestamp() - t.created_at)::float8 AS age
        FROM taken t LEFT JOIN jobs j USING (operation_id)";
    let mut oldest = Duration::ZERO;
    let mut entries: Vec<(i64, (Uuid, Priority))> = Vec::new();
    for row in all(tx, DRAIN, vec![i64::from(limit).into()]).await? {
        oldest = oldest.max(Duration::try_from_secs_f64(row.try_get("", "age")?).unwrap_or_default());
        let entry = (row.try_get("", "operation_id")?, row.try_get("", "priority")?);
        entries.push((row.try_get("", "id")?, entry));
    }
    entries.sort_unstable_by_key(|(id, _)| *id);
    Ok((entries.into_iter().map(|(_, entry)| entry).collect(), oldest))
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
/// key or slot came free unseen, and, where `lost` of their priority is given, ready jobs that were announced longer ago
/// than that (their entries were lost with a Redis). One process sweeps at a time; another's turn finds nothing to do.
pub(crate) async fn sweep(
    db: &impl ConnectionTrait,
    expired_after: Duration,
    lost: impl Fn(Priority) -> Option<Duration>,
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
             WHERE ours AND state = 'ready'
               AND announced_at < now() - make_interval(secs => CASE priority WHEN 'scheduled' THEN $4::float8 ELSE $2::float8 END)
               AND due_at <= now()
             ORDER BY announced_at LIMIT $3 FOR NO KEY UPDATE OF jobs SKIP LOCKED)
        ), freed AS (
            (SELECT operation_id FROM jobs j, turn
             WHERE ours AND state = 'blocked' AND NOT in_line AND NOT EXISTS (SELECT FROM jobs h WHERE ",
        ahead!(),
        ")
             ORDER BY created_at, operation_id LIMIT $3 FOR NO KEY UPDATE OF j SKIP LOCKED)
        ), first AS (
            -- As many of each line as slots are free; those of them that were woken already have an entry.
            SELECT w.operation_id FROM turn
            CROSS JOIN (SELECT DISTINCT scope FROM jobs h WHERE h.in_line AND h.state = 'blocked') s
            LEFT JOIN ",
        limits!(),
        " ON true
            CROSS JOIN LATERAL (
                SELECT h.operation_id, h.state FROM jobs h WHERE h.scope = s.scope AND ",
        in_line!(),
        " ORDER BY ",
        place!("h"),
        ", h.operation_id
                LIMIT CASE WHEN l.scope_cap IS NOT NULL THEN GREATEST(l.scope_cap - ",
        held!("s.scope"),
        ", 0) END
            ) w
            WHERE ours AND w.state = 'blocked'
        ), roomy AS (
            (SELECT j.operation_id FROM jobs j JOIN first USING (operation_id)
             WHERE j.state = 'blocked' LIMIT $3 FOR NO KEY UPDATE OF j SKIP LOCKED)
        ), announced AS (
            UPDATE jobs j
            SET announced_at = now(), state = CASE WHEN j.state = 'blocked' THEN 'ready' ELSE j.state END
            FROM (SELECT operation_id FROM due UNION SELECT operation_id FROM expired
                  UNION SELECT operation_id FROM lost UNION SELECT operation_id FROM freed
                  UNION SELECT operation_id FROM roomy) found
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
        lost(Priority::Interactive).map(|age| age.as_secs_f64()).into(),
        i64::from(limit).into(),
        lost(Priority::Scheduled).map(|age| age.as_secs_f64()).into(),
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
