//! The second net: what the api's database role can see and do outside the stores.

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use tests::people::People;
use tests::place::Place;
use tests::rows::{ApiKeyRow, InvitationRow, OperationRow, TenantRow};
use tests::sql;

/// The control plane's database, as the api connects to it.
pub fn url_of_the_api() -> Result<String> {
    let environment = &Place::get().api.environment;
    let url = match environment.get("DATABASE_URL") {
        Some(url) => url.clone(),
        None => std::fs::read_to_string(
            environment
                .get("DATABASE_URL_FILE")
                .context("DATABASE_URL_FILE")?,
        )?,
    };
    Ok(url.trim().to_owned())
}

/// Connects as the api does, with its own role and password.
async fn as_the_api() -> Result<PgConnection> {
    let options: PgConnectOptions = url_of_the_api()?.parse()?;
    Ok(sql::open(options).await?)
}

/// The tables whose rows belong to organizations or people, with the column that says to which organization.
const TABLES: [(&str, &str); 11] = [
    ("organizations", "id"),
    ("organization_ancestors", "organization_id"),
    ("memberships", "organization_id"),
    ("sessions", "organization_id"),
    ("users", "NULL::uuid"),
    ("invitations", "organization_id"),
    ("api_keys", "organization_id"),
    ("tenants", "organization_id"),
    ("operations", "scope"),
    ("jobs", "NULL::uuid"),
    ("audit_events", "organization_id"),
];

#[tokio::test]
async fn a_raw_select_as_the_apis_role_finds_no_row_of_anybody() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    people.member(&organization, "owner").await?.tokens().await?;
    let tenant = TenantRow::write(&mut people.control, &organization).await?;
    OperationRow::queued(&mut people.control, &organization, &tenant).await?;
    ApiKeyRow::write(&mut people.control, &organization).await?;
    InvitationRow::write(&mut people.control, &organization).await?;
    let mut api = as_the_api().await?;
    for (table, _) in TABLES {
        let count = format!("SELECT count(*) FROM {table}");
        let all: i64 = sqlx::query_scalar(AssertSqlSafe(count.clone()))
            .fetch_one(&mut people.control)
            .await?;
        let seen: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&mut api)
            .await?;
        assert!(all > 0, "{table} is empty: nothing is shown by its being so");
        assert_eq!(seen, 0, "{table}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_entered_an_organization_sees_it_and_what_is_below() -> Result<()> {
    let mut people = People::new().await?;
    let (top, other) = (people.organization().await?, people.organization().await?);
    let below = people.child(&top).await?;
    let member = people.member(&top, "viewer").await?;
    member.tokens().await?;
    for organization in [&top, &below, &other] {
        let tenant = TenantRow::write(&mut people.control, organization).await?;
        OperationRow::queued(&mut people.control, organization, &tenant).await?;
        ApiKeyRow::write(&mut people.control, organization).await?;
        InvitationRow::write(&mut people.control, organization).await?;
        people.member(organization, "admin").await?.tokens().await?;
    }
    let session: uuid::Uuid = sqlx::query_scalar("SELECT id FROM sessions WHERE user_id = $1")
        .bind(member.row)
        .fetch_one(&mut people.control)
        .await?;
    let mut api = as_the_api().await?;
    let mut transaction = api.begin().await?;
    let role: Option<String> = sqlx::query_scalar("SELECT enter_session($1, $2)")
        .bind(session)
        .bind(people.root)
        .fetch_one(&mut *transaction)
        .await?;
    assert_eq!(role.as_deref(), Some("viewer"));
    for (table, column) in TABLES {
        let seen: Vec<Option<uuid::Uuid>> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT {column} FROM {table}")))
                .fetch_all(&mut *transaction)
                .await?;
        assert!(
            seen.iter()
                .flatten()
                .all(|row| [top.row, below.row].contains(row)),
            "{table} shows another's rows"
        );
        assert!(!seen.is_empty(), "{table} shows nothing of one's own");
    }
    // Nor can it write into another's.
    let refused = sqlx::query("UPDATE tenants SET name = 'Mine' WHERE organization_id = $1")
        .bind(other.row)
        .execute(&mut *transaction)
        .await?;
    assert_eq!(refused.rows_affected(), 0);
    let refused = sqlx::query(
        "INSERT INTO api_keys (id, organization_id, name, role, prefix, secret_hash) \
         VALUES (gen_random_uuid(), $1, 'Mine', 'owner', 'osk_', '\\x00')",
    )
    .bind(other.row)
    .execute(&mut *transaction)
    .await;
    assert!(refused.is_err());
    transaction.rollback().await?;

    // What was entered ends with the transaction, and a made-up session enters nothing.
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM tenants")
        .fetch_one(&mut api)
        .await?;
    assert_eq!(seen, 0);
    let role: Option<String> =
        sqlx::query_scalar("SELECT enter_session(gen_random_uuid(), gen_random_uuid())")
            .fetch_one(&mut api)
            .await?;
    assert_eq!(role, None);
    Ok(())
}

#[tokio::test]
async fn every_table_with_an_organization_is_behind_the_net() -> Result<()> {
    let mut control = sql::control().await?;
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c \
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('organization_id', 'scope') \
          WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND NOT c.relrowsecurity",
    )
    .fetch_all(&mut control)
    .await?;
    assert_eq!(
        open,
        Vec::<String>::new(),
        "add them to migration/src/sql/grants.sql"
    );
    Ok(())
}

#[tokio::test]
async fn the_apis_role_adds_to_the_audit_log_and_changes_nothing_of_it() -> Result<()> {
    let mut api = as_the_api().await?;
    sql::execute(&mut api, "SET platform.scope = 'system'").await?;
    for table in ["audit_events", "audit_seals"] {
        let seen: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut api)
            .await?;
        assert!(seen > 0, "{table}");
        for statement in [
            format!("UPDATE {table} SET organization_id = organization_id"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            let refused = sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut api)
                .await;
            let refused = refused.expect_err(&statement).to_string();
            assert!(refused.contains("permission denied"), "{statement}: {refused}");
        }
    }
    Ok(())
}
