//! What is the platform's own: operations that no endpoint asks for are enqueued as the platform does.

use anyhow::{Context as _, Result};
use jobs::NewOperation;
use platform::id::OperationId;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DatabaseTransaction};
use sqlx::Row as _;
use tests::place::Place;
use tests::sql;
use uuid::Uuid;

/// The platform's own pool.
pub struct Home {
    pub control: DatabaseConnection,
    pub root: Uuid,
    pub server: Uuid,
    pub pool: Uuid,
}

impl Home {
    pub async fn find() -> Result<Self> {
        let mut rows = sql::control().await?;
        let row = sqlx::query(
            "SELECT p.id AS pool, p.database_server_id AS server, o.id AS root
             FROM pools p, organizations o WHERE o.parent_id IS NULL AND p.isolation = 'shared' LIMIT 1",
        )
        .fetch_one(&mut rows)
        .await?;
        let (server, _) = Place::get()
            .database_url
            .rsplit_once('/')
            .context("a database in the URL")?;
        let mut options = ConnectOptions::new(format!("{server}/platform"));
        // A secret is sealed inside a transaction: a key that is new is read beside it.
        options.max_connections(2).sqlx_logging(false);
        Ok(Self {
            control: Database::connect(options).await?,
            root: row.get("root"),
            server: row.get("server"),
            pool: row.get("pool"),
        })
    }

    pub async fn forget(&self, table: &str, id: Uuid) -> Result<()> {
        let mut rows = sql::control().await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE id = $1")))
            .bind(id)
            .execute(&mut rows)
            .await?;
        Ok(())
    }
}

/// Enqueues and commits; answers the operation's id.
pub async fn enqueued<I: jobs::OperationInput>(
    transaction: DatabaseTransaction,
    operation: NewOperation<I>,
) -> Result<String> {
    let row = jobs::enqueue(&transaction, operation).await?;
    transaction.commit().await?;
    Ok(OperationId::from(row.id).to_string())
}
