//! Deleting a tenant: accepted in any state. It cancels what runs, waits for it, and deletes; asked for again, it
//! answers the same operation.

use entity::id::TenantId;
use jobs::{NewOperation, OperationInput as _, WhenBusy, entity::operation};
use sea_orm::{ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use super::{TenantOperation, Tenants, lifecycle};
use crate::{
    audit::{self, Entry, Subject},
    error::Error,
    operations::{
        OperationRow, OperationStatus, Target,
        kinds::{DeleteTenant, tenant_key},
    },
    precondition::Precondition,
};

impl Tenants<'_> {
    /// Deletes a tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`] or [`Error::TenantProtected`].
    pub async fn delete(&self, id: TenantId, precondition: &Precondition) -> Result<TenantOperation, Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let tenant = self.lock(&transaction, id).await?;
        precondition.check(&tenant)?;
        if tenant.protected {
            return Err(Error::TenantProtected);
        }
        let unfinished = unfinished_operations(&transaction, id).await?;
        if let Some(deletion) = unfinished
            .iter()
            .find(|operation| operation.kind == DeleteTenant::KIND)
        {
            return Ok(TenantOperation {
                tenant,
                operation: deletion.clone(),
            });
        }
        for operation in &unfinished {
            match lifecycle::cancel(&transaction, operation).await {
                // What can't be cancelled, or ends just now, is waited for.
                Ok(_) | Err(Error::OperationFinished | Error::NotCancellable | Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let previous = Some(tenant.status);
        let before = tenant;
        lifecycle::deletion_asked(&transaction, id).await?;
        let tenant = self.lock(&transaction, id).await?;
        let operation = jobs::enqueue(
            &transaction,
            NewOperation::new(
                DeleteTenant {
                    tenant: id,
                    slug: tenant.slug.clone(),
                    pool: tenant.pool_id,
                    previous,
                },
                tenant.organization_id.0,
                "tenant",
                id.0,
            )
            .serial(tenant_key(id), WhenBusy::Wait)
            .request_id(self.identity.request_id()),
        )
        .await
        .map_err(super::enqueue_error)?;
        let entry = Entry {
            organization: tenant.organization_id,
            subject: Some(Subject::Of(Target::Tenant(id))),
            before: Some(super::snapshot(&before)),
            after: None,
        };
        audit::record(&transaction, self.identity, entry).await?;
        transaction.commit().await?;
        Ok(TenantOperation { tenant, operation })
    }
}

pub(super) async fn unfinished_operations(
    transaction: &DatabaseTransaction,
    tenant: TenantId,
) -> Result<Vec<OperationRow>, Error> {
    Ok(operation::Entity::find()
        .filter(operation::Column::TargetId.eq(tenant.0))
        .filter(operation::Column::Status.is_in([OperationStatus::Queued, OperationStatus::Running]))
        .order_by_asc(operation::Column::Id)
        .all(transaction)
        .await?)
}
