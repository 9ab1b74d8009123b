//! What should be, as the tables say, and what operations are at work on.

use entity::{id::TenantId, pool, template, tenant};
use jobs::entity::operation;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use crate::{
    error::Error,
    operations::OperationRow,
    pools::{PoolRow, TemplateRow},
    tenants::TenantRow,
};

/// What should be.
#[derive(Debug)]
pub struct Tables {
    /// The tenants.
    pub tenants: Vec<TenantRow>,
    /// Every pool.
    pub pools: Vec<PoolRow>,
    /// Every template.
    pub templates: Vec<TemplateRow>,
    /// Operations that have not ended: what they work on is theirs.
    pub unfinished: Vec<OperationRow>,
}

/// All that should be.
///
/// # Errors
/// The database doesn't answer.
pub async fn all(database: &impl ConnectionTrait) -> Result<Tables, Error> {
    let tenants = tenant::Entity::find()
        .order_by_asc(tenant::Column::Id)
        .all(database)
        .await?;
    around(database, tenants).await
}

/// The same with this tenant alone, whose row stays locked until the transaction ends: every operation on a tenant is
/// asked for under that lock, so none begins meanwhile.
///
/// # Errors
/// The database doesn't answer.
pub async fn of_tenant(transaction: &DatabaseTransaction, id: TenantId) -> Result<Tables, Error> {
    let tenants = tenant::Entity::find_by_id(id)
        .lock_shared()
        .all(transaction)
        .await?;
    around(transaction, tenants).await
}

/// The same without tenants: pools, templates, and what is at work on them.
///
/// # Errors
/// The database doesn't answer.
pub async fn without_tenants(database: &impl ConnectionTrait) -> Result<Tables, Error> {
    around(database, Vec::new()).await
}

async fn around(database: &impl ConnectionTrait, tenants: Vec<TenantRow>) -> Result<Tables, Error> {
    Ok(Tables {
        tenants,
        pools: pool::Entity::find()
            .order_by_asc(pool::Column::Id)
            .all(database)
            .await?,
        templates: template::Entity::find()
            .order_by_asc(template::Column::Id)
            .all(database)
            .await?,
        unfinished: operation::Entity::find()
            .filter(operation::Column::FinishedAt.is_null())
            .all(database)
            .await?,
    })
}

impl Tables {
    /// Whether an operation that has not ended works on this.
    #[must_use]
    pub fn is_worked_on(&self, target_type: &str, target: Uuid) -> bool {
        self.unfinished
            .iter()
            .any(|operation| operation.target_type == target_type && operation.target_id == target)
    }

    /// Whether a template is being built: what that makes is in no table before it is done.
    #[must_use]
    pub fn template_in_the_making(&self) -> bool {
        self.unfinished
            .iter()
            .any(|operation| operation.target_type == "template")
    }
}
