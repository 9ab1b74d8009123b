//! Postgres as the platform's administrator, as a superuser of the control plane's server, and as a tenant's role.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::containers::Containers;
use crate::place::{Place, variable};

/// Longest time of connecting.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longest wait for a lock. While a statement waits for a table, everything that comes after it waits too.
const LOCK_TIMEOUT: &str = "2s";

/// Longest time of a statement.
const STATEMENT_TIMEOUT: &str = "60s";

/// The tenants' server as `platform_admin`.
///
/// # Errors
/// It does not answer.
pub async fn tenants() -> Result<PgConnection> {
    let url: PgConnectOptions = Place::get().tenant_database_url.parse()?;
    Ok(open(url).await?)
}

/// The tenants' server as its superuser: what somebody else with rights there can do.
///
/// # Errors
/// It does not answer.
pub async fn tenants_superuser() -> Result<PgConnection> {
    let url: PgConnectOptions = variable("TEST_TENANT_SUPERUSER_URL").parse()?;
    Ok(open(url).await?)
}

/// The control plane's database as its server's superuser.
///
/// # Errors
/// It does not answer.
pub async fn control() -> Result<PgConnection> {
    let url: PgConnectOptions = Place::get().database_url.parse()?;
    Ok(open(url.database("platform")).await?)
}

/// A tenant's database as its own role, which owns all that is in it.
///
/// # Errors
/// It does not answer.
pub async fn as_tenant(containers: &Containers, database: &str) -> Result<PgConnection> {
    let password = containers.password_for(database).await?;
    Ok(open(through_socket(database, &password, database)?).await?)
}

/// How a pool's container connects: through the socket that it is given.
///
/// # Errors
/// The server's address can't be read.
pub fn through_socket(role: &str, password: &str, database: &str) -> Result<PgConnectOptions> {
    let place = Place::get();
    let admin: PgConnectOptions = place.tenant_database_url.parse()?;
    let socket = place.tenant_socket.to_str().context("a path is text")?;
    Ok(PgConnectOptions::new_without_pgpass()
        .host(socket)
        .port(admin.get_port())
        .username(role)
        .password(password)
        .database(database))
}

/// Connects.
///
/// # Errors
/// The server refuses, or does not answer.
pub async fn open(options: PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let options = options
        .ssl_mode(PgSslMode::Disable)
        .disable_statement_logging()
        .options([
            ("lock_timeout", LOCK_TIMEOUT),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
    tokio::time::timeout(DEADLINE, PgConnection::connect_with(&options))
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut))
}

/// Runs a statement that a test has written.
///
/// # Errors
/// The server refuses.
pub async fn execute(connection: &mut PgConnection, sql: &str) -> Result<u64> {
    let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await;
    Ok(done.with_context(|| sql.to_owned())?.rows_affected())
}

/// The first column of the first row, as text; `None` where there is no row or it is null.
///
/// # Errors
/// The server refuses.
pub async fn text(connection: &mut PgConnection, sql: &str) -> Result<Option<String>> {
    Ok(texts(connection, sql).await?.into_iter().next().flatten())
}

/// The only column of all rows, as text.
///
/// # Errors
/// The server refuses.
pub async fn texts(connection: &mut PgConnection, sql: &str) -> Result<Vec<Option<String>>> {
    let sql = format!("SELECT q.value::text FROM ({sql}) AS q(value)");
    let rows = sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql.clone()))
        .fetch_all(connection)
        .await;
    rows.with_context(|| sql)
}
