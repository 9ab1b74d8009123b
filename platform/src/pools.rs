//! Pools and templates: their rows, their sealed keys, and what the worker tells of them when an operation ends.

use entity::{
    id::{DatabaseServerId, OrganizationId, PoolId, TemplateId},
    pool, template,
    values::{Isolation, Readiness},
};
use jobs::{NewOperation, Outcome, WhenBusy};
use odoo::keys::{EdgeSecret, PoolKey, PoolKeyRing};
pub use pool::Model as PoolRow;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
    sea_query::Expr,
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
pub use template::Model as TemplateRow;

use crate::{
    error::Error,
    operations::{
        kinds::{BuildTemplate, StartPool},
        platform_scope,
    },
    secrets::Secrets,
    tenants::DEFAULT_ODOO_VERSION,
};

/// What a pool shares with Postgres and with the edge.
#[derive(Debug)]
pub struct PoolKeys {
    /// Passwords of the pool's database roles come from these.
    pub ring: PoolKeyRing,
    /// Shows that a request came through the edge.
    pub edge: EdgeSecret,
}

#[derive(Serialize, Deserialize)]
struct KeysForm {
    ring: String,
    edge: String,
}

impl PoolKeys {
    /// New ones.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            ring: PoolKeyRing::new(PoolKey::generate()),
            edge: EdgeSecret::generate(),
        }
    }

    async fn seal(
        &self,
        transaction: &DatabaseTransaction,
        secrets: &Secrets,
        pool: PoolId,
    ) -> Result<Vec<u8>, Error> {
        let form = KeysForm {
            ring: self.ring.to_text().expose_secret().to_owned(),
            edge: self.edge.expose().to_owned(),
        };
        let form = zeroize::Zeroizing::new(serde_json::to_vec(&form).map_err(Error::internal)?);
        secrets.seal(transaction, &pool.to_string(), &form).await
    }

    /// Opens a pool's keys.
    ///
    /// # Errors
    /// They don't open.
    pub async fn open(secrets: &Secrets, pool: &PoolRow) -> Result<Self, Error> {
        let opened = secrets.open(&pool.id.to_string(), &pool.keys_sealed).await?;
        let form: KeysForm = serde_json::from_slice(opened.expose_secret()).map_err(Error::internal)?;
        Ok(Self {
            ring: PoolKeyRing::parse(&form.ring).map_err(Error::internal)?,
            edge: EdgeSecret::parse(&form.edge).map_err(Error::internal)?,
        })
    }
}

/// Makes the first shared pool and template, and the operations that prepare them.
pub(crate) async fn create_first(
    transaction: &DatabaseTransaction,
    secrets: &Secrets,
    root: OrganizationId,
    server: DatabaseServerId,
    capacity: i32,
) -> Result<(), Error> {
    let pool = add_pool(transaction, secrets, server, Isolation::Shared, capacity).await?;
    let template = add_template(transaction, server, &["base", "web"]).await?;
    enqueue_preparation(transaction, root, pool, template).await
}

/// Writes a pool that has not been started.
///
/// # Errors
/// The database doesn't answer.
pub async fn add_pool(
    transaction: &DatabaseTransaction,
    secrets: &Secrets,
    server: DatabaseServerId,
    isolation: Isolation,
    capacity: i32,
) -> Result<PoolId, Error> {
    let (id, now) = (PoolId::new(), chrono::Utc::now());
    pool::Entity::insert(pool::ActiveModel {
        id: Set(id),
        database_server_id: Set(server),
        odoo_version: Set(DEFAULT_ODOO_VERSION.to_owned()),
        isolation: Set(isolation),
        status: Set(Readiness::Preparing),
        capacity: Set(capacity),
        tenants: NotSet,
        web_port: Set(None),
        gevent_port: Set(None),
        keys_sealed: Set(PoolKeys::generate().seal(transaction, secrets, id).await?),
        created_at: Set(now),
        updated_at: Set(now),
    })
    .exec(transaction)
    .await?;
    Ok(id)
}

/// Writes a template that has not been built, with these modules.
///
/// # Errors
/// The database doesn't answer.
pub async fn add_template(
    transaction: &DatabaseTransaction,
    server: DatabaseServerId,
    modules: &[&str],
) -> Result<TemplateId, Error> {
    let (id, now) = (TemplateId::new(), chrono::Utc::now());
    template::Entity::insert(template::ActiveModel {
        id: Set(id),
        database_server_id: Set(server),
        odoo_version: Set(DEFAULT_ODOO_VERSION.to_owned()),
        database_name: Set(None),
        modules: Set(serde_json::json!(modules)),
        languages: Set(serde_json::json!(["en_US"])),
        status: Set(Readiness::Preparing),
        created_at: Set(now),
        updated_at: Set(now),
    })
    .exec(transaction)
    .await?;
    Ok(id)
}

/// Enqueues what prepares a pool and a template. They share the pool's key and so run one after the other.
async fn enqueue_preparation(
    transaction: &DatabaseTransaction,
    root: OrganizationId,
    pool: PoolId,
    template: TemplateId,
) -> Result<(), Error> {
    let scope = platform_scope(root);
    jobs::enqueue(
        transaction,
        NewOperation::new(StartPool { pool }, scope, "pool", pool.0).serial(pool.to_string(), WhenBusy::Wait),
    )
    .await
    .map_err(Error::internal)?;
    jobs::enqueue(
        transaction,
        NewOperation::new(BuildTemplate { template, pool }, scope, "template", template.0)
            .serial(pool.to_string(), WhenBusy::Wait),
    )
    .await
    .map_err(Error::internal)?;
    Ok(())
}

/// Tries again what could not be prepared: called at every start of the api, so that a repaired machine comes up.
pub(crate) async fn prepare_again(transaction: &DatabaseTransaction) -> Result<(), Error> {
    let failed_pool = pool::Entity::find()
        .filter(pool::Column::Status.eq(Readiness::Failed))
        .one(transaction)
        .await?;
    let failed_template = template::Entity::find()
        .filter(template::Column::Status.eq(Readiness::Failed))
        .one(transaction)
        .await?;
    if failed_pool.is_none() && failed_template.is_none() {
        return Ok(());
    }
    let root = crate::root_organization(transaction).await?;
    let pool = pool::Entity::find()
        .order_by_asc(pool::Column::Id)
        .one(transaction)
        .await?;
    let template = template::Entity::find()
        .order_by_desc(template::Column::Id)
        .one(transaction)
        .await?;
    if let (Some(root), Some(pool), Some(template)) = (root, pool, template) {
        for id in failed_pool.iter().map(|row| row.id) {
            set_pool_status(transaction, id, Readiness::Preparing).await?;
        }
        for id in failed_template.iter().map(|row| row.id) {
            set_template_status(transaction, id, Readiness::Preparing).await?;
        }
        enqueue_preparation(transaction, root, pool.id, template.id).await?;
    }
    Ok(())
}

/// One pool.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(database: &impl ConnectionTrait, id: PoolId) -> Result<PoolRow, Error> {
    pool::Entity::find_by_id(id)
        .one(database)
        .await?
        .ok_or(Error::NotFound)
}

/// Every pool.
///
/// # Errors
/// The database doesn't answer.
pub async fn all(database: &impl ConnectionTrait) -> Result<Vec<PoolRow>, Error> {
    Ok(pool::Entity::find()
        .order_by_asc(pool::Column::Id)
        .all(database)
        .await?)
}

/// One template.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn template(database: &impl ConnectionTrait, id: TemplateId) -> Result<TemplateRow, Error> {
    template::Entity::find_by_id(id)
        .one(database)
        .await?
        .ok_or(Error::NotFound)
}

/// Takes two free ports for a pool, once: the same ones from then on. `usable` says whether the machine has them free.
///
/// # Errors
/// [`Error::NoCapacity`] when the range is used up.
pub async fn take_ports(
    transaction: &DatabaseTransaction,
    id: PoolId,
    range: std::ops::RangeInclusive<u16>,
    usable: impl Fn(u16) -> bool,
) -> Result<(u16, u16), Error> {
    // All pools are locked: two of them must not choose the same ports at the same time.
    let pools = pool::Entity::find()
        .order_by_asc(pool::Column::Id)
        .lock_exclusive()
        .all(transaction)
        .await?;
    let port = |port: i32| u16::try_from(port).map_err(Error::internal);
    let own = pools.iter().find(|pool| pool.id == id).ok_or(Error::NotFound)?;
    if let (Some(web), Some(gevent)) = (own.web_port, own.gevent_port) {
        return Ok((port(web)?, port(gevent)?));
    }
    let taken: Vec<i32> = pools
        .iter()
        .flat_map(|pool| [pool.web_port, pool.gevent_port])
        .flatten()
        .collect();
    let mut free = range.filter(|port| !taken.contains(&i32::from(*port)) && usable(*port));
    let (Some(web), Some(gevent)) = (free.next(), free.next()) else {
        return Err(Error::NoCapacity);
    };
    pool::Entity::update_many()
        .col_expr(pool::Column::WebPort, Expr::value(i32::from(web)))
        .col_expr(pool::Column::GeventPort, Expr::value(i32::from(gevent)))
        .filter(pool::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok((web, gevent))
}

/// Notes how the start of a pool ended.
///
/// # Errors
/// The database doesn't answer.
pub async fn start_ended(
    transaction: &DatabaseTransaction,
    id: PoolId,
    outcome: &Outcome,
) -> Result<(), DbErr> {
    set_pool_status(transaction, id, readiness(outcome)).await
}

/// Notes how the build of a template ended.
///
/// # Errors
/// The database doesn't answer.
pub async fn build_ended(
    transaction: &DatabaseTransaction,
    id: TemplateId,
    outcome: &Outcome,
) -> Result<(), DbErr> {
    set_template_status(transaction, id, readiness(outcome)).await
}

/// Notes what a template turned out to be.
///
/// # Errors
/// The database doesn't answer.
pub async fn describe_template(
    transaction: &DatabaseTransaction,
    id: TemplateId,
    database: &str,
    languages: &[String],
) -> Result<(), DbErr> {
    template::Entity::update_many()
        .col_expr(template::Column::DatabaseName, Expr::value(database))
        .col_expr(
            template::Column::Languages,
            Expr::value(serde_json::json!(languages)),
        )
        .filter(template::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}

fn readiness(outcome: &Outcome) -> Readiness {
    if *outcome == Outcome::Succeeded {
        Readiness::Ready
    } else {
        Readiness::Failed
    }
}

async fn set_pool_status(
    transaction: &DatabaseTransaction,
    id: PoolId,
    status: Readiness,
) -> Result<(), DbErr> {
    pool::Entity::update_many()
        .col_expr(pool::Column::Status, Expr::value(status))
        .col_expr(pool::Column::UpdatedAt, Expr::cust("now()"))
        .filter(pool::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}

async fn set_template_status(
    transaction: &DatabaseTransaction,
    id: TemplateId,
    status: Readiness,
) -> Result<(), DbErr> {
    template::Entity::update_many()
        .col_expr(template::Column::Status, Expr::value(status))
        .col_expr(template::Column::UpdatedAt, Expr::cust("now()"))
        .filter(template::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}
