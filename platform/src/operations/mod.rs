//! Operations as their owners see them: reading, listing, cancelling. The engine that carries them out is `jobs`.

pub mod kinds;

use std::time::Duration;

use entity::id::{DatabaseServerId, Id as _, OperationId, OrganizationId, PoolId, TemplateId, TenantId};
pub use jobs::entity::operation::{Model as OperationRow, OperationStatus};
use jobs::{Watcher, entity::operation};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use serde::Serialize;
use uuid::Uuid;

use crate::{Platform, caller::Identity, error::Error, paging::Page};

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
        }
    }

    /// Reads the two columns back.
    #[must_use]
    pub fn of_row(row: &OperationRow) -> Option<Self> {
        match row.target_type.as_str() {
            "tenant" => Some(Self::Tenant(row.target_id.into())),
            "pool" => Some(Self::Pool(row.target_id.into())),
            "template" => Some(Self::Template(row.target_id.into())),
            "database_server" => Some(Self::DatabaseServer(row.target_id.into())),
            _ => None,
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
}

/// The operations that a caller can see: those of its organization and the ones below, as the tree was when they began.
#[derive(Debug)]
pub struct Operations<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> Operations<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }

    fn visible(&self) -> sea_orm::Select<operation::Entity> {
        operation::Entity::find().filter(self.identity.sees("operations.scope"))
    }

    /// One operation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: OperationId) -> Result<OperationRow, Error> {
        self.visible()
            .filter(operation::Column::Id.eq(id.0))
            .one(self.platform.database())
            .await?
            .ok_or(Error::NotFound)
    }

    /// Waits until an operation has ended or `wait` has passed, and answers how it is then. Holds no database
    /// connection while it waits.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait(
        &self,
        watcher: &Watcher,
        id: OperationId,
        wait: Duration,
    ) -> Result<OperationRow, Error> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let row = self.get(id).await?;
            if row.status.is_terminal() || tokio::time::Instant::now() >= deadline {
                return Ok(row);
            }
            watcher.changed(id.0, row.revision, deadline).await?;
        }
    }

    /// A page, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &OperationFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<OperationRow>, Error> {
        let list = ("operations", filter);
        let mut query = self.visible();
        if let Some(ids) = &filter.ids {
            query = query.filter(operation::Column::Id.is_in(ids.iter().map(|id| id.0)));
        }
        if let Some(status) = filter.status {
            query = query.filter(operation::Column::Status.eq(status));
        }
        if let Some(kind) = &filter.kind {
            query = query.filter(operation::Column::Kind.eq(kind.as_str()));
        }
        if let Some(target) = filter.target {
            query = query.filter(operation::Column::TargetId.eq(target));
        }
        if let Some(token) = page_token {
            let after = self.platform.page_tokens().read(self.identity, &list, token)?;
            query = query.filter(operation::Column::Id.lt(after));
        }
        let rows = query
            .order_by_desc(operation::Column::Id)
            .limit(u64::from(limit) + 1)
            .all(self.platform.database())
            .await?;
        Ok(self
            .platform
            .page_tokens()
            .page(self.identity, &list, limit, rows, |row| row.id))
    }

    /// Whether the caller may see an operation's internal details.
    #[must_use]
    pub fn shows_details(&self) -> bool {
        self.identity.root && self.identity.role >= entity::values::Role::Admin
    }

    /// Asks an operation to end.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OperationFinished`] or [`Error::NotCancellable`].
    pub async fn cancel(&self, id: OperationId) -> Result<OperationRow, Error> {
        use sea_orm::TransactionTrait as _;

        let before = self.get(id).await?;
        let transaction = self.platform.database().begin().await?;
        let row = crate::tenants::lifecycle::cancel(&transaction, &before).await?;
        transaction.commit().await?;
        Ok(row)
    }
}

/// The organization to which the platform's own operations belong.
pub(crate) fn platform_scope(root: OrganizationId) -> Uuid {
    root.0
}
