//! Asks an operation to end. Cancelling wins over retry, and loses against the pivot.

use sea_orm::{DatabaseTransaction, DbErr};
use uuid::Uuid;

use crate::{
    entity::operation,
    protocol::{self, CancelVerdict},
    store,
};

/// Why an operation can't be cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is none with this id.
    #[error("there is no such operation")]
    NotFound,
    /// It is over.
    #[error("the operation is over")]
    Finished,
    /// It is past its pivot: it only goes forward.
    #[error("the operation can't be cancelled any more")]
    NotCancellable,
    /// The database's own.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Cancels within the caller's transaction; doing it twice is fine.
///
/// An operation that no worker ever claimed is `cancelled` in what is returned: its kind's `on_finish` will not run, so
/// the caller writes what that end means for the target, in this transaction. Any other comes back `running` with
/// `cancel_requested_at` set, undoes what it did, and ends `cancelled` (or `failed`, if it was failing already).
/// It holds a lock on the job's row: locks of rows of the caller's own come before this call.
///
/// # Errors
/// See [`CancelError`].
pub async fn cancel(tx: &DatabaseTransaction, id: Uuid) -> Result<operation::Model, CancelError> {
    let job = store::lock_job(tx, id).await?.ok_or(CancelError::NotFound)?;
    match protocol::cancel(job.state, job.lease_epoch > 0, job.pivoted) {
        CancelVerdict::Over => Err(CancelError::Finished),
        CancelVerdict::Pivoted => Err(CancelError::NotCancellable),
        CancelVerdict::End => Ok(store::cancel_unclaimed(tx, id, &job).await?),
        CancelVerdict::Ask => Ok(store::request_cancel(tx, id).await?),
    }
}
