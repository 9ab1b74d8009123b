//! Forgets operations that ended long ago.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr};

use crate::store;

/// Deletes at most `limit` operations that ended longer ago than `age`, by Postgres's clock, with their jobs and steps,
/// and says how many. Call it until it answers less than `limit`: short transactions keep everyone else's short.
///
/// # Errors
/// The database's own.
pub async fn delete_finished(db: &impl ConnectionTrait, age: Duration, limit: u32) -> Result<u64, DbErr> {
    store::delete_finished(db, age, limit).await
}
