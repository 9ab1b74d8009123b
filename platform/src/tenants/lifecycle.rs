//! The states of a tenant and what moves it from one to another: one table, and the functions that the worker calls in
//! the transaction that ends an operation.

use entity::{
    id::{OperationId, TenantId},
    sealed_secret, tenant,
    values::TenantStatus,
};
use jobs::{
    OperationInput as _, Outcome,
    entity::{job, operation},
};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, DbErr, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};

use super::placement;
use crate::{
    error::Error,
    operations::{OperationRow, OperationStatus, kinds},
};

/// What happens to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was made.
    Provisioned,
    /// Making it failed or was cancelled, and nothing was left behind.
    ProvisioningFailed,
    /// It is to be deleted.
    DeletionAsked,
    /// Its deletion was stopped before it began; it is again what it would be without it.
    DeletionStopped(TenantStatus),
}

/// Where an event leads; `None`: it can't happen in this state.
#[must_use]
pub fn next(status: TenantStatus, event: Event) -> Option<TenantStatus> {
    match (status, event) {
        (TenantStatus::Provisioning, Event::Provisioned) => Some(TenantStatus::Active),
        (TenantStatus::Provisioning, Event::ProvisioningFailed) => Some(TenantStatus::Failed),
        (_, Event::DeletionAsked) => Some(TenantStatus::Deleting),
        // A deletion that was asked for meanwhile wins over whatever else ends.
        (TenantStatus::Deleting, Event::DeletionStopped(back)) => Some(back),
        (_, Event::Provisioned | Event::ProvisioningFailed | Event::DeletionStopped(_)) => None,
    }
}

/// Whether a change other than a deletion may be asked for.
#[must_use]
pub fn accepts_changes(status: TenantStatus) -> bool {
    match status {
        TenantStatus::Active | TenantStatus::Suspended => true,
        TenantStatus::Provisioning
        | TenantStatus::Maintenance
        | TenantStatus::Failed
        | TenantStatus::Deleting => false,
    }
}

/// Moves a tenant, if the event can happen to it, and answers its status then. `None`: there is no such tenant.
async fn apply(
    transaction: &DatabaseTransaction,
    id: TenantId,
    event: Event,
    reason: Option<String>,
) -> Result<Option<TenantStatus>, DbErr> {
    let Some(row) = tenant::Entity::find_by_id(id)
        .lock_exclusive()
        .one(transaction)
        .await?
    else {
        return Ok(None);
    };
    let Some(status) = next(row.status, event) else {
        return Ok(Some(row.status));
    };
    tenant::Entity::update_many()
        .col_expr(tenant::Column::Status, Expr::value(status))
        .col_expr(tenant::Column::StatusReason, Expr::value(reason))
        .col_expr(
            tenant::Column::Revision,
            Expr::col(tenant::Column::Revision).add(1),
        )
        .col_expr(tenant::Column::UpdatedAt, Expr::cust("now()"))
        .filter(tenant::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(Some(status))
}

/// Ends a provisioning: the tenant is active, or failed and says why.
///
/// # Errors
/// The database doesn't answer.
pub async fn provisioning_ended(
    transaction: &DatabaseTransaction,
    tenant: TenantId,
    operation: OperationId,
    outcome: &Outcome,
) -> Result<(), DbErr> {
    forget_secret(transaction, operation).await?;
    let (event, reason) = match outcome {
        Outcome::Succeeded => (Event::Provisioned, None),
        Outcome::Failed(fault) | Outcome::Dead(fault) => (
            Event::ProvisioningFailed,
            Some(fault.message.clone().into_owned()),
        ),
        Outcome::Cancelled => (
            Event::ProvisioningFailed,
            Some("its creation was cancelled".to_owned()),
        ),
    };
    apply(transaction, tenant, event, reason).await?;
    Ok(())
}

/// Ends a deletion: the row is gone and its place is free. One that was stopped before it began leaves the tenant as it
/// was; one that was given up half-way keeps the row and says so.
///
/// # Errors
/// The database doesn't answer.
pub async fn deletion_ended(
    transaction: &DatabaseTransaction,
    deletion: &kinds::DeleteTenant,
    outcome: &Outcome,
) -> Result<(), DbErr> {
    let tenant = deletion.tenant;
    match outcome {
        Outcome::Succeeded => {
            let row = tenant::Entity::find_by_id(tenant)
                .lock_exclusive()
                .one(transaction)
                .await?;
            if let Some(row) = row {
                tenant::Entity::delete_by_id(tenant).exec(transaction).await?;
                placement::release(transaction, row.pool_id).await?;
            }
        }
        Outcome::Cancelled | Outcome::Failed(_) => {
            let back = without_deletion(transaction, deletion).await?;
            let reason = match outcome {
                Outcome::Failed(fault) => Some(fault.message.clone().into_owned()),
                _ => None,
            };
            apply(transaction, tenant, Event::DeletionStopped(back), reason).await?;
        }
        Outcome::Dead(fault) => {
            tenant::Entity::update_many()
                .col_expr(
                    tenant::Column::StatusReason,
                    Expr::value(Some(fault.message.clone().into_owned())),
                )
                .col_expr(
                    tenant::Column::Revision,
                    Expr::col(tenant::Column::Revision).add(1),
                )
                .col_expr(tenant::Column::UpdatedAt, Expr::cust("now()"))
                .filter(tenant::Column::Id.eq(tenant))
                .exec(transaction)
                .await?;
        }
    }
    Ok(())
}

/// What a tenant is once its deletion was stopped. One that was in the making then has been made or has failed since.
async fn without_deletion(
    transaction: &DatabaseTransaction,
    deletion: &kinds::DeleteTenant,
) -> Result<TenantStatus, DbErr> {
    if let Some(previous) = deletion.previous
        && previous != TenantStatus::Provisioning
    {
        return Ok(previous);
    }
    let provisioning = operation::Entity::find()
        .filter(operation::Column::TargetId.eq(deletion.tenant.0))
        .filter(operation::Column::Kind.eq(kinds::ProvisionTenant::KIND))
        .one(transaction)
        .await?;
    Ok(match provisioning.map(|operation| operation.status) {
        Some(OperationStatus::Failed | OperationStatus::Cancelled) => TenantStatus::Failed,
        Some(OperationStatus::Queued | OperationStatus::Running) => TenantStatus::Provisioning,
        Some(OperationStatus::Succeeded) | None => TenantStatus::Active,
    })
}

/// Erases the secret that an operation was given.
///
/// # Errors
/// The database doesn't answer.
pub async fn forget_secret(transaction: &DatabaseTransaction, operation: OperationId) -> Result<(), DbErr> {
    sealed_secret::Entity::delete_by_id(operation)
        .exec(transaction)
        .await?;
    Ok(())
}

/// Cancels an operation. One that no worker had begun ends here and now, so its target is told here too.
///
/// # Errors
/// [`Error::OperationFinished`] or [`Error::NotCancellable`].
pub(crate) async fn cancel(
    transaction: &DatabaseTransaction,
    operation: &OperationRow,
) -> Result<OperationRow, Error> {
    lock_target(transaction, operation).await?;
    let row = jobs::cancel(transaction, operation.id)
        .await
        .map_err(|error| match error {
            jobs::CancelError::NotFound => Error::NotFound,
            jobs::CancelError::Finished => Error::OperationFinished,
            jobs::CancelError::NotCancellable => Error::NotCancellable,
            jobs::CancelError::Database(error) => error.into(),
        })?;
    if row.status.is_terminal() {
        let (tenant, id) = (TenantId(row.target_id), OperationId(row.id));
        match row.kind.as_str() {
            kinds::ProvisionTenant::KIND => {
                provisioning_ended(transaction, tenant, id, &Outcome::Cancelled).await?;
            }
            kinds::DeleteTenant::KIND => {
                let job = job::Entity::find_by_id(row.id).one(transaction).await?;
                let deletion = job
                    .and_then(|job| serde_json::from_value(job.input).ok())
                    .ok_or_else(|| Error::internal("a deletion's input can't be read"))?;
                deletion_ended(transaction, &deletion, &Outcome::Cancelled).await?;
            }
            _ => forget_secret(transaction, id).await?,
        }
    }
    Ok(row)
}

/// Lets an operation that was given up half-way go on.
///
/// # Errors
/// [`Error::OperationNotDead`].
pub(crate) async fn retry(
    transaction: &DatabaseTransaction,
    operation: &OperationRow,
) -> Result<OperationRow, Error> {
    lock_target(transaction, operation).await?;
    jobs::revive(transaction, operation.id)
        .await
        .map_err(|error| match error {
            jobs::ReviveError::NotFound => Error::NotFound,
            jobs::ReviveError::NotDead => Error::OperationNotDead,
            jobs::ReviveError::Database(error) => error.into(),
        })
}

/// The tenant's row is locked before the job's, as everywhere.
async fn lock_target(transaction: &DatabaseTransaction, operation: &OperationRow) -> Result<(), DbErr> {
    if operation.target_type == "tenant" {
        tenant::Entity::find_by_id(TenantId(operation.target_id))
            .lock_exclusive()
            .one(transaction)
            .await?;
    }
    Ok(())
}

/// Marks a tenant as being deleted.
pub(super) async fn deletion_asked(transaction: &DatabaseTransaction, id: TenantId) -> Result<(), DbErr> {
    apply(transaction, id, Event::DeletionAsked, None).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sea_orm::Iterable as _;

    use super::*;

    #[test]
    fn a_deletion_can_be_asked_for_in_every_state_and_only_its_own_stop_leads_out_of_it() {
        for status in TenantStatus::iter() {
            assert_eq!(next(status, Event::DeletionAsked), Some(TenantStatus::Deleting));
        }
        for event in [Event::Provisioned, Event::ProvisioningFailed] {
            assert_eq!(next(TenantStatus::Deleting, event), None);
        }
        for status in TenantStatus::iter() {
            let stopped = Event::DeletionStopped(status);
            assert_eq!(next(TenantStatus::Deleting, stopped), Some(status));
            assert!(status == TenantStatus::Deleting || next(status, stopped).is_none());
        }
    }

    #[test]
    fn only_a_tenant_in_the_making_becomes_active_or_failed() {
        for status in TenantStatus::iter().filter(|status| *status != TenantStatus::Provisioning) {
            assert_eq!(next(status, Event::Provisioned), None);
            assert_eq!(next(status, Event::ProvisioningFailed), None);
        }
        assert_eq!(
            next(TenantStatus::Provisioning, Event::Provisioned),
            Some(TenantStatus::Active)
        );
    }
}
