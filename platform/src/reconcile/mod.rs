//! Comparing what should be (the tables) with what is there. The worker compares and repairs; here stand what it is
//! asked by, what should be, and what is written down for the operator.
//!
//! A comparison takes no input and may be asked for at any time: by a schedule, by hand, by a worker that starts. Who
//! asks while one is under way adds none.

mod listing;
mod read;
mod tables;

use entity::id::OperationId;
use jobs::{
    EnqueueError, NewOperation, OperationInput as _, WhenBusy,
    schedule::{self, Schedule},
};
pub use listing::{Finding, SETTLED, count, record, settled};
pub use read::{DriftFilter, DriftReader, DriftRow};
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbBackend, Statement, TransactionTrait as _};
pub use tables::{Tables, all, of_tenant, without_tenants};

use crate::{
    error::Error,
    operations::{kinds::Reconcile, platform_scope},
};

/// One comparison at a time.
const KEY: &str = Reconcile::KIND;

/// When one is due: every five minutes.
const SCHEDULE: &str = "*/5 * * * *";

/// What asking for a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    /// This operation will compare.
    Asked(OperationId),
    /// This one was asked for before and has not ended.
    UnderWay(OperationId),
    /// The platform has not been set up yet: there is nothing to compare.
    NothingYet,
}

/// Asks for a comparison within the caller's transaction. Takes a lock to its end, so it comes last there.
///
/// # Errors
/// The database doesn't answer.
pub async fn nudge(transaction: &DatabaseTransaction) -> Result<Nudge, Error> {
    let Some(root) = crate::root_organization(transaction).await? else {
        return Ok(Nudge::NothingYet);
    };
    let comparison = NewOperation::new(Reconcile {}, platform_scope(root), "organization", root.0)
        .serial(KEY, WhenBusy::Refuse);
    match jobs::enqueue(transaction, comparison).await {
        Ok(operation) => Ok(Nudge::Asked(operation.id.into())),
        Err(EnqueueError::Busy { operation_id }) => Ok(Nudge::UnderWay(operation_id.into())),
        Err(EnqueueError::Input(error)) => Err(Error::internal(error)),
        Err(EnqueueError::Database(error)) => Err(error.into()),
    }
}

/// The same in a transaction of its own.
///
/// # Errors
/// The database doesn't answer.
pub async fn nudge_now(database: &DatabaseConnection) -> Result<Nudge, Error> {
    let transaction = crate::answered(database.begin()).await?;
    let nudge = crate::answered(nudge(&transaction)).await?;
    crate::answered(transaction.commit()).await?;
    Ok(nudge)
}

/// Sees that comparisons are asked for by the clock, from the first start on.
///
/// # Errors
/// The database doesn't answer.
pub async fn schedule(database: &DatabaseConnection) -> Result<(), Error> {
    let transaction = crate::answered(database.begin()).await?;
    if let Some(root) = crate::root_organization(&transaction).await? {
        let comparisons = Schedule::new(
            SCHEDULE,
            Reconcile {},
            platform_scope(root),
            "organization",
            root.0,
        )
        .name(KEY)
        .serial_key(KEY);
        schedule::put(&transaction, comparisons)
            .await
            .map_err(Error::internal)?;
    }
    crate::answered(transaction.commit()).await
}

/// Asks for a comparison if an operation was given up half-way since the last one was asked for: it may have left
/// something behind. `None`: none was.
///
/// # Errors
/// The database doesn't answer.
pub async fn nudge_after_deaths(database: &DatabaseConnection) -> Result<Option<Nudge>, Error> {
    // Only the last day's are looked at: an index leads to them, and older ones have been compared since.
    const DEATHS: &str = "
        SELECT o.id FROM operations o JOIN jobs j ON j.operation_id = o.id
         WHERE j.state = 'dead' AND o.kind <> $1 AND o.finished_at > now() - interval '1 day'
           AND o.finished_at > COALESCE(
               (SELECT created_at FROM operations WHERE kind = $1 ORDER BY created_at DESC LIMIT 1), '-infinity')
         LIMIT 1";
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, DEATHS, [Reconcile::KIND.into()]);
    let death = crate::answered(sea_orm::ConnectionTrait::query_one_raw(database, statement)).await?;
    match death {
        Some(_) => nudge_now(database).await.map(Some),
        None => Ok(None),
    }
}
