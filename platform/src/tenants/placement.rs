//! Where a new tenant goes: the fullest ready pool of its version that still has room, so that pools fill one after
//! another, and the ready template beside it.

use entity::{
    id::{DatabaseServerId, PoolId, TemplateId},
    values::Isolation,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, FromQueryResult, Statement};

use crate::error::Error;

/// A place that has been taken.
#[derive(Debug, FromQueryResult)]
pub(super) struct Place {
    pub(super) pool_id: PoolId,
    pub(super) database_server_id: DatabaseServerId,
    pub(super) template_id: TemplateId,
    pub(super) template_database: String,
    pub(super) languages: serde_json::Value,
}

/// Takes a place in a pool. The pool's row stays locked until the transaction ends, so this comes late in it.
///
/// # Errors
/// [`Error::NoCapacity`].
pub(super) async fn take(
    transaction: &DatabaseTransaction,
    odoo_version: &str,
    isolation: Isolation,
) -> Result<Place, Error> {
    let values = [odoo_version.into(), isolation.into()];
    let row = transaction
        .query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, TAKE, values))
        .await?
        .ok_or(Error::NoCapacity)?;
    Ok(Place::from_query_result(&row, "")?)
}

const TAKE: &str = "
WITH place AS (
    SELECT p.id AS pool_id, t.id AS template_id, t.database_name, t.languages
      FROM pools p
      JOIN LATERAL (
          SELECT * FROM templates t
           WHERE t.database_server_id = p.database_server_id AND t.odoo_version = p.odoo_version AND t.status = 'ready'
           ORDER BY t.id DESC LIMIT 1
      ) t ON true
     WHERE p.odoo_version = $1 AND p.isolation = $2 AND p.status = 'ready' AND p.tenants < p.capacity
     ORDER BY p.tenants DESC, p.id LIMIT 1
       FOR UPDATE OF p
)
UPDATE pools SET tenants = tenants + 1 FROM place WHERE pools.id = place.pool_id
RETURNING place.pool_id, pools.database_server_id, place.template_id, place.database_name AS template_database,
          place.languages";

/// Gives a place back.
pub(super) async fn release(transaction: &DatabaseTransaction, pool: PoolId) -> Result<(), DbErr> {
    transaction
        .execute_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "UPDATE pools SET tenants = tenants - 1 WHERE id = $1 AND tenants > 0",
            [pool.into()],
        ))
        .await?;
    Ok(())
}
