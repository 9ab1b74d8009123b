//! Operations as their owners see them: reading, listing, cancelling, retrying. The engine that carries them out is `jobs`.

pub mod kinds;
mod read;

use entity::id::{DatabaseServerId, Id as _, OperationId, OrganizationId, PoolId, TemplateId, TenantId};
use jobs::entity::operation;
pub use jobs::entity::{
    job_step::{Model as StepRow, StepStatus},
    operation::{Model as OperationRow, OperationStatus},
};
pub use read::OperationReader;
use sea_orm::{ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    audit::{self, Entry, Subject},
    caller::Identity,
    error::Error,
};

/// What an operation works on, as the `target_type` column names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A tenant.
    Tenant(TenantId),
    /// A pool.
    Pool(PoolId),
    /// A template.
    Template(TemplateId),
    /// A tenants' database server.
    DatabaseServer(DatabaseServerId),
    /// An organization; the root: the platform itself.
    Organization(OrganizationId),
}

impl Target {
    /// The column's value.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::Pool(_) => "pool",
            Self::Template(_) => "template",
            Self::DatabaseServer(_) => "database_server",
            Self::Organization(_) => "organization",
        }
    }

    /// Reads the two columns back.
    #[must_use]
    pub fn of_columns(kind: &str, id: Uuid) -> Option<Self> {
        match kind {
            "tenant" => Some(Self::Tenant(id.into())),
            "pool" => Some(Self::Pool(id.into())),
            "template" => Some(Self::Template(id.into())),
            "database_server" => Some(Self::DatabaseServer(id.into())),
            "organization" => Some(Self::Organization(id.into())),
            _ => None,
        }
    }

    /// The id without its kind.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        match self {
            Self::Tenant(id) => id.0,
            Self::Pool(id) => id.0,
            Self::Template(id) => id.0,
            Self::DatabaseServer(id) => id.0,
            Self::Organization(id) => id.0,
        }
    }

    /// The id with its prefix.
    #[must_use]
    pub fn id_text(self) -> String {
        match self {
            Self::Tenant(id) => id.to_string(),
            Self::Pool(id) => id.to_string(),
            Self::Template(id) => id.to_string(),
            Self::DatabaseServer(id) => id.to_string(),
            Self::Organization(id) => id.to_string(),
        }
    }

    /// Reads an id of any kind that can be a target.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, _) = text.split_once('_')?;
        Some(match prefix {
            TenantId::PREFIX => Self::Tenant(text.parse().ok()?),
            PoolId::PREFIX => Self::Pool(text.parse().ok()?),
            TemplateId::PREFIX => Self::Template(text.parse().ok()?),
            DatabaseServerId::PREFIX => Self::DatabaseServer(text.parse().ok()?),
            OrganizationId::PREFIX => Self::Organization(text.parse().ok()?),
            _ => return None,
        })
    }
}

/// Which operations a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OperationFilter {
    /// These alone.
    pub ids: Option<Vec<OperationId>>,
    /// With this status.
    pub status: Option<&'static str>,
    /// Of this kind.
    pub kind: Option<String>,
    /// On this target.
    pub target: Option<Uuid>,
    /// Given up half-way, or not.
    pub retryable: Option<bool>,
}

/// The operations that a caller can change: those of its organization and the ones below, as the tree was when they
/// began.
#[derive(Debug)]
pub struct Operations<'c> {
    identity: &'c Identity,
}

impl<'c> Operations<'c> {
    pub(crate) fn new(identity: &'c Identity) -> Self {
        Self { identity }
    }

    /// Asks an operation to end, within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OperationFinished`] or [`Error::NotCancellable`].
    pub async fn cancel(
        &self,
        transaction: &DatabaseTransaction,
        id: OperationId,
    ) -> Result<OperationRow, Error> {
        let before = self.find(transaction, id).await?;
        let after = crate::tenants::lifecycle::cancel(transaction, &before).await?;
        self.log(transaction, &before, &after).await?;
        Ok(after)
    }

    /// Lets an operation that was given up half-way go on where it stopped, within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::OperationNotDead`].
    pub async fn retry(
        &self,
        transaction: &DatabaseTransaction,
        id: OperationId,
    ) -> Result<OperationRow, Error> {
        let before = self.find(transaction, id).await?;
        let after = crate::tenants::lifecycle::retry(transaction, &before).await?;
        self.log(transaction, &before, &after).await?;
        Ok(after)
    }

    async fn log(
        &self,
        transaction: &DatabaseTransaction,
        before: &OperationRow,
        after: &OperationRow,
    ) -> Result<(), Error> {
        let snapshot = |row: &OperationRow| json!({ "kind": row.kind, "status": row.status });
        let entry = Entry {
            organization: before.scope.into(),
            subject: Some(Subject::Operation(before.id.into())),
            before: Some(snapshot(before)),
            after: Some(snapshot(after)),
        };
        audit::record(transaction, self.identity, entry).await
    }

    async fn find(&self, transaction: &DatabaseTransaction, id: OperationId) -> Result<OperationRow, Error> {
        operation::Entity::find()
            .filter(self.identity.sees("operations.scope"))
            .filter(operation::Column::Id.eq(id.0))
            .one(transaction)
            .await?
            .ok_or(Error::NotFound)
    }
}

/// The organization to which the platform's own operations belong.
pub(crate) fn platform_scope(root: OrganizationId) -> Uuid {
    root.0
}
