//! The tree as rows: for each organization one for itself and one for each above it.

use entity::id::OrganizationId;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, Statement, Value};

use crate::error::Error;

/// Levels that a tree can have. Each costs a row for each organization below; no business has so many.
const DEPTH: i64 = 16;

/// Changes of the tree take turns, or two moves at once could make a circle.
///
/// # Errors
/// The database doesn't answer.
pub(super) async fn lock(transaction: &DatabaseTransaction) -> Result<(), Error> {
    run(
        transaction,
        "SELECT pg_advisory_xact_lock(hashtext('organization_tree'))",
        vec![],
    )
    .await
}

/// Puts a new organization below another.
///
/// # Errors
/// [`Error::Invalid`]: the tree would be too deep.
pub(super) async fn plant(
    transaction: &DatabaseTransaction,
    id: OrganizationId,
    parent: OrganizationId,
) -> Result<(), Error> {
    run(
        transaction,
        "INSERT INTO organization_ancestors (organization_id, ancestor_id)
         SELECT $1::uuid, $1::uuid UNION ALL
         SELECT $1, ancestor_id FROM organization_ancestors WHERE organization_id = $2",
        vec![id.into(), parent.into()],
    )
    .await?;
    check_depth(transaction, id).await
}

/// Moves an organization, with all that is below it, below another.
///
/// # Errors
/// [`Error::Invalid`]: the other is the organization itself or below it, or the tree would be too deep.
pub(super) async fn transplant(
    transaction: &DatabaseTransaction,
    id: OrganizationId,
    parent: OrganizationId,
) -> Result<(), Error> {
    let circle = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT 1 AS one FROM organization_ancestors WHERE organization_id = $1 AND ancestor_id = $2",
        [parent.into(), id.into()],
    );
    if crate::answered(transaction.query_one_raw(circle))
        .await?
        .is_some()
    {
        return Err(Error::invalid(
            "/parent_id",
            "cycle",
            "is the organization itself, or below it",
        ));
    }
    run(
        transaction,
        "DELETE FROM organization_ancestors gone
          USING organization_ancestors down, organization_ancestors up
          WHERE down.ancestor_id = $1 AND up.organization_id = $1 AND up.ancestor_id <> $1
            AND gone.organization_id = down.organization_id AND gone.ancestor_id = up.ancestor_id",
        vec![id.into()],
    )
    .await?;
    run(
        transaction,
        "INSERT INTO organization_ancestors (organization_id, ancestor_id)
         SELECT down.organization_id, up.ancestor_id
           FROM organization_ancestors down, organization_ancestors up
          WHERE down.ancestor_id = $1 AND up.organization_id = $2",
        vec![id.into(), parent.into()],
    )
    .await?;
    check_depth(transaction, id).await
}

/// No path through an organization is too long.
async fn check_depth(transaction: &DatabaseTransaction, id: OrganizationId) -> Result<(), Error> {
    let deepest = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT max(levels) AS deepest FROM (
             SELECT count(*) AS levels FROM organization_ancestors down
               JOIN organization_ancestors up USING (organization_id)
              WHERE down.ancestor_id = $1 GROUP BY organization_id) paths",
        [id.into()],
    );
    let row = crate::answered(transaction.query_one_raw(deepest)).await?;
    let deepest: Option<i64> = row.map(|row| row.try_get("", "deepest")).transpose()?.flatten();
    if deepest.is_some_and(|deepest| deepest > DEPTH) {
        return Err(Error::invalid(
            "/parent_id",
            "too_deep",
            format!("is too deep: a tree has at most {DEPTH} levels"),
        ));
    }
    Ok(())
}

async fn run(transaction: &DatabaseTransaction, sql: &str, values: Vec<Value>) -> Result<(), Error> {
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    crate::answered(transaction.execute_raw(statement)).await?;
    Ok(())
}
