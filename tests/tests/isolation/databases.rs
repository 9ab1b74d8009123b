//! What a tenant's role, with its password in an intruder's hands, may do on the database servers.

use anyhow::{Context as _, Result};
use tests::api::Api;
use tests::containers::Containers;
use tests::place::Place;
use tests::sql;
use tests::tenant::Tenant;

use crate::{end, pair};

/// The code in a refusal of Postgres's.
fn state(error: &sqlx::Error) -> String {
    let database = error.as_database_error();
    database
        .and_then(sqlx::error::DatabaseError::code)
        .map_or_else(|| format!("no refusal: {error}"), std::borrow::Cow::into_owned)
}

#[tokio::test]
async fn a_tenants_role_opens_its_own_database_and_no_other() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = pair(&api).await?;
    let password = containers.password_for(&a.database).await?;
    let bus = containers.bus_database().await?;
    let mut admin = sql::tenants().await?;
    let template = sql::text(
        &mut admin,
        "SELECT datname FROM pg_database WHERE datname LIKE 'tpl\\_%'",
    )
    .await?;
    let template = template.context("there is a template")?;

    sql::open(sql::through_socket(&a.database, &password, &a.database)?)
        .await
        .context("its own database")?;
    for database in [
        b.database.as_str(),
        "postgres",
        "template0",
        "template1",
        &bus,
        &template,
    ] {
        let refusal = sql::open(sql::through_socket(&a.database, &password, database)?).await;
        let code = refusal.map_or_else(|error| state(&error), |_| "connected".to_owned());
        assert_eq!(code, "28000", "{database}: the server's own rules must refuse it");
    }
    for role in [b.database.as_str(), "platform_admin", "postgres", &bus] {
        let refusal = sql::open(sql::through_socket(role, &password, role)?).await;
        let code = refusal.map_or_else(|error| state(&error), |_| "connected".to_owned());
        assert!(["28P01", "28000"].contains(&code.as_str()), "as {role}: {code}");
    }
    // The bus's role serves no tenant, and no tenant's role comes in over the network of the host.
    let bus_password = containers.password_for(&bus).await?;
    sql::open(sql::through_socket(&bus, &bus_password, &bus)?)
        .await
        .context("the bus for its own role")?;
    let refusal = sql::open(sql::through_socket(&bus, &bus_password, &a.database)?).await;
    assert_eq!(
        state(
            &refusal
                .err()
                .context("the bus's role opens a tenant's database")?
        ),
        "28000"
    );
    let over_tcp = sql::through_socket(&a.database, &password, &a.database)?.host("127.0.0.1");
    assert_eq!(
        state(&sql::open(over_tcp).await.err().context("in over TCP")?),
        "28000"
    );
    end(a, b).await
}

#[tokio::test]
async fn a_tenants_role_does_not_exist_in_the_control_plane() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let a = Tenant::create(&api).await?;
    let password = containers.password_for(&a.database).await?;
    let mut control = sql::control().await?;
    let roles = sql::texts(
        &mut control,
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 't\\_%' OR rolname LIKE 'pool\\_%'",
    )
    .await?;
    assert!(roles.is_empty(), "{roles:?}");
    for database in ["platform", "postgres"] {
        let options: sqlx::postgres::PgConnectOptions = Place::get().database_url.parse()?;
        let refusal = sql::open(
            options
                .username(&a.database)
                .password(&password)
                .database(database),
        )
        .await;
        let code = state(&refusal.err().context("the control plane lets a tenant in")?);
        assert!(["28P01", "28000"].contains(&code.as_str()), "{code}");
    }
    a.delete().await
}

#[tokio::test]
async fn a_tenants_role_can_do_nothing_to_its_server() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = pair(&api).await?;
    let mut own = sql::as_tenant(&containers, &a.database).await?;
    assert_eq!(
        sql::execute(&mut own, "CREATE TABLE of_its_own (id int)").await?,
        0,
        "its own tables are its own"
    );
    let (name, other) = (&a.database, &b.database);
    for forbidden in [
        "CREATE DATABASE stolen".to_owned(),
        "CREATE ROLE stolen".to_owned(),
        format!("DROP DATABASE {other}"),
        format!("ALTER DATABASE {name} RENAME TO stolen"),
        format!("ALTER DATABASE {name} CONNECTION LIMIT 1000"),
        format!("ALTER DATABASE {other} ALLOW_CONNECTIONS false"),
        format!("ALTER ROLE {name} CREATEDB"),
        format!("ALTER ROLE {name} SUPERUSER"),
        format!("ALTER ROLE {other} PASSWORD 'stolen'"),
        format!("GRANT {other} TO {name}"),
        format!("SET ROLE {other}"),
        "SET ROLE platform_admin".to_owned(),
        "ALTER SYSTEM SET max_connections = 1".to_owned(),
        "SELECT pg_reload_conf()".to_owned(),
        "SELECT pg_read_file('pg_hba.conf')".to_owned(),
        "SELECT pg_ls_dir('.')".to_owned(),
        "COPY (SELECT 1) TO PROGRAM 'true'".to_owned(),
        "COPY of_its_own FROM '/etc/passwd'".to_owned(),
        "CREATE EXTENSION dblink".to_owned(),
        "SELECT rolpassword FROM pg_authid".to_owned(),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'platform_admin'".to_owned(),
    ] {
        let outcome = sqlx::query(sqlx::AssertSqlSafe(forbidden.clone()))
            .fetch_all(&mut own)
            .await;
        match outcome {
            Ok(rows) => assert!(
                rows.is_empty() && forbidden.contains("pg_terminate_backend"),
                "allowed: {forbidden}"
            ),
            Err(error) => assert!(
                ["42501", "0LP01", "58P01"].contains(&state(&error).as_str()),
                "{forbidden}: {error}"
            ),
        }
    }
    let seen = sql::texts(
        &mut own,
        &format!("SELECT query FROM pg_stat_activity WHERE usename <> '{name}' AND query NOT LIKE '<%'"),
    )
    .await?;
    assert!(
        seen.iter().flatten().all(String::is_empty),
        "it reads others' queries: {seen:?}"
    );
    drop(own);
    end(a, b).await
}
