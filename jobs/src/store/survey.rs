//! How the queue is, for whoever watches it.

use sea_orm::{ConnectionTrait, DbErr};

use super::{all, one};

/// Jobs of one kind in one state.
pub(crate) struct Depth {
    pub(crate) kind: String,
    /// `ready`, `waiting` (ready, but its time has not come), `leased`, `blocked` (its serial key is another's), `in_line`
    /// (as many of its scope run as may) or `dead`.
    pub(crate) state: String,
    pub(crate) jobs: i64,
    /// Seconds since the one that has been due longest became due.
    pub(crate) oldest: f64,
}

/// The outbox.
pub(crate) struct Outbox {
    pub(crate) rows: i64,
    /// Age in seconds.
    pub(crate) oldest: f64,
}

/// Counts jobs that are not over, and dead ones; each part by an index of its own.
pub(crate) async fn depths(db: &impl ConnectionTrait) -> Result<Vec<Depth>, DbErr> {
    const DEPTHS: &str = "
        SELECT kind, state, count(*) AS jobs,
               GREATEST(EXTRACT(EPOCH FROM clock_timestamp() - min(due_at)), 0)::float8 AS oldest
        FROM (
            SELECT kind, CASE WHEN due_at > clock_timestamp() THEN 'waiting' ELSE 'ready' END AS state, due_at
            FROM jobs WHERE state = 'ready' AND announced_at IS NULL
            UNION ALL SELECT kind, state, due_at FROM jobs WHERE state = 'ready' AND announced_at IS NOT NULL
            UNION ALL SELECT kind, state, due_at FROM jobs WHERE state = 'leased'
            UNION ALL SELECT kind, CASE WHEN in_line THEN 'in_line' ELSE state END, due_at
                      FROM jobs WHERE state = 'blocked'
            UNION ALL SELECT kind, state, due_at FROM jobs WHERE state = 'dead'
        ) AS jobs GROUP BY 1, 2";
    let rows = all(db, DEPTHS, Vec::new()).await?;
    rows.iter()
        .map(|row| {
            Ok(Depth {
                kind: row.try_get("", "kind")?,
                state: row.try_get("", "state")?,
                jobs: row.try_get("", "jobs")?,
                oldest: row.try_get("", "oldest")?,
            })
        })
        .collect()
}

/// Looks at the outbox.
pub(crate) async fn outbox(db: &impl ConnectionTrait) -> Result<Outbox, DbErr> {
    const OUTBOX: &str = "
        SELECT count(*) AS rows,
               COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest
        FROM outbox";
    let row = one(db, OUTBOX, Vec::new()).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("outbox".to_owned()))?;
    Ok(Outbox {
        rows: row.try_get("", "rows")?,
        oldest: row.try_get("", "oldest")?,
    })
}
