//! Forgets operations that ended long ago.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr};

use crate::store;

/// Deletes at most `limit` operations that ended before `before`, with their jobs and steps, and says how many. Call it
/// until it answers less than `limit`: short transactions keep everyone else's short.
///
/// # Errors
/// The database's own.
pub async fn delete_finished(
    db: &impl ConnectionTrait,
    before: DateTime<Utc>,
    limit: u32,
) -> Result<u64, DbErr> {
    store::delete_finished(db, before, limit).await
}
