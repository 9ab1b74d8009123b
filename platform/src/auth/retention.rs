//! How long sessions and their tokens are remembered.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

/// For how long a session is still known that was not refreshed in time.
const SESSIONS_KEPT_DAYS: i32 = 30;

/// Forgets at most `limit` refresh tokens that are no longer good: who shows one later is nobody. Answers how many went.
///
/// # Errors
/// The database doesn't answer.
pub async fn forget_refresh_tokens(database: &impl ConnectionTrait, limit: u32) -> Result<u64, DbErr> {
    const DELETE: &str = "
        DELETE FROM refresh_tokens WHERE token_hash IN (
            SELECT token_hash FROM refresh_tokens WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED)";
    let delete = Statement::from_sql_and_values(DbBackend::Postgres, DELETE, [i64::from(limit).into()]);
    Ok(database.execute_raw(delete).await?.rows_affected())
}

/// Forgets at most `limit` sessions that ended long ago. Answers how many went.
///
/// # Errors
/// The database doesn't answer.
pub async fn forget_sessions(database: &impl ConnectionTrait, limit: u32) -> Result<u64, DbErr> {
    const DELETE: &str = "
        DELETE FROM sessions WHERE id IN (
            SELECT id FROM sessions WHERE expires_at < now() - make_interval(days => $1) LIMIT $2
            FOR UPDATE SKIP LOCKED)";
    let delete = Statement::from_sql_and_values(
        DbBackend::Postgres,
        DELETE,
        [SESSIONS_KEPT_DAYS.into(), i64::from(limit).into()],
    );
    Ok(database.execute_raw(delete).await?.rows_affected())
}
