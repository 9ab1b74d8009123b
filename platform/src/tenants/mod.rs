//! Tenants: creating, reading, changing, deleting them. What each status permits stands in [`lifecycle`].

mod create;
mod delete;
pub mod lifecycle;
mod password;
mod placement;
mod read;
mod update;

use std::collections::BTreeMap;

pub use create::{AdminAccount, Created, DEFAULT_ODOO_VERSION, NewTenant};
pub use entity::tenant::Model as TenantRow;
use entity::{
    id::{OrganizationId, TenantId},
    tenant,
    values::TenantStatus,
};
pub use password::{PasswordChange, Sealed as SealedPassword, chosen_password};
pub use read::TenantReader;
use sea_orm::{ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use serde::Serialize;
use serde_json::{Value, json};
pub use update::{LabelChanges, TenantChanges};

use crate::{
    Platform,
    caller::Identity,
    error::Error,
    operations::OperationRow,
    precondition::{Versioned, revision},
};

/// Which tenants a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TenantFilter {
    /// With this status.
    pub status: Option<TenantStatus>,
    /// With this slug.
    pub slug: Option<String>,
    /// Of this organization alone.
    pub organization: Option<OrganizationId>,
}

/// A tenant and the operation that works on it.
#[derive(Debug)]
pub struct TenantOperation {
    /// The tenant.
    pub tenant: TenantRow,
    /// The operation.
    pub operation: OperationRow,
}

/// The tenants that a caller can change: those of its organization and of the ones below.
#[derive(Debug)]
pub struct Tenants<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> Tenants<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }

    fn visible(&self) -> sea_orm::Select<tenant::Entity> {
        tenant::Entity::find().filter(self.identity.sees("tenants.organization_id"))
    }

    /// One tenant, locked against other changes until the transaction ends.
    async fn lock(&self, transaction: &DatabaseTransaction, id: TenantId) -> Result<TenantRow, Error> {
        self.visible()
            .filter(tenant::Column::Id.eq(id))
            .lock_exclusive()
            .one(transaction)
            .await?
            .ok_or(Error::NotFound)
    }
}

/// What the audit log shows of a tenant.
fn snapshot(row: &TenantRow) -> Value {
    json!({
        "slug": row.slug,
        "name": row.name,
        "status": row.status,
        "admin_login": row.admin_login,
        "labels": row.labels,
        "protected": row.protected,
    })
}

impl Versioned for TenantRow {
    fn version(&self) -> String {
        revision(self.revision)
    }
}

/// A tenant, for the worker, which sees all.
///
/// # Errors
/// The database doesn't answer.
pub async fn find(
    database: &impl sea_orm::ConnectionTrait,
    id: TenantId,
) -> Result<Option<TenantRow>, Error> {
    Ok(tenant::Entity::find_by_id(id).one(database).await?)
}

/// A tenant's labels, as they were given.
#[must_use]
pub fn labels(row: &TenantRow) -> BTreeMap<String, String> {
    serde_json::from_value(row.labels.clone()).unwrap_or_default()
}

fn enqueue_error(error: jobs::EnqueueError) -> Error {
    match error {
        jobs::EnqueueError::Busy { operation_id } => Error::TenantBusy(operation_id.into()),
        jobs::EnqueueError::Input(error) => Error::internal(error),
        jobs::EnqueueError::Database(error) => error.into(),
    }
}
