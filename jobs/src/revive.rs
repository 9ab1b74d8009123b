//! Brings a dead job back, by hand.

use sea_orm::{DatabaseTransaction, DbErr};
use uuid::Uuid;

use crate::{entity::operation, protocol::Event, store};

/// Why an operation can't be revived.
#[derive(Debug, thiserror::Error)]
pub enum ReviveError {
    /// There is none with this id.
    #[error("there is no such operation")]
    NotFound,
    /// It is not dead: it is not over, it succeeded, or it was wholly undone.
    #[error("the operation is not dead")]
    NotDead,
    /// The database's own.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Lets a dead operation go on where it stopped, in the direction it had, with attempts of its own, within the caller's
/// transaction. Its kind's `on_finish` has run with [`Outcome::Dead`](crate::Outcome::Dead) and will run again. It holds a
/// lock on the job's row: locks of rows of the caller's own come before this call.
///
/// # Errors
/// See [`ReviveError`].
pub async fn revive(tx: &DatabaseTransaction, id: Uuid) -> Result<operation::Model, ReviveError> {
    let job = store::lock_job(tx, id).await?.ok_or(ReviveError::NotFound)?;
    if job.state.next(Event::Revive).is_none() {
        return Err(ReviveError::NotDead);
    }
    Ok(store::revive(tx, id).await?)
}
