//! Rows of the control plane that a test writes itself: tenants and operations that no worker touches, and what all
//! tables hold.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::ids::id_of;
use crate::people::Organization;
use crate::tenant::new_slug;

/// A tenant that exists only as a row. It counts in no pool, and goes with its organization.
#[derive(Debug, Clone)]
pub struct TenantRow {
    /// Its row.
    pub row: Uuid,
    /// Its id.
    pub id: String,
    /// Its host label.
    pub slug: String,
}

impl TenantRow {
    /// Writes one that is active.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn write(control: &mut PgConnection, owner: &Organization) -> Result<Self> {
        Ok(Self::write_many(control, owner, 1).await?.remove(0))
    }

    /// Writes several, each with a later id than the one before.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn write_many(
        control: &mut PgConnection,
        owner: &Organization,
        count: usize,
    ) -> Result<Vec<Self>> {
        let rows: Vec<Self> = std::iter::repeat_with(|| {
            let row = Uuid::now_v7();
            Self {
                row,
                id: id_of("ten", row),
                slug: new_slug(),
            }
        })
        .take(count)
        .collect();
        let ids: Vec<Uuid> = rows.iter().map(|tenant| tenant.row).collect();
        let slugs: Vec<&str> = rows.iter().map(|tenant| tenant.slug.as_str()).collect();
        let written = sqlx::query(
            "INSERT INTO tenants (id, organization_id, slug, name, status, odoo_version, isolation, pool_id, \
                                  database_server_id, template_id, admin_login) \
             SELECT new.id, $2, new.slug, 'Company ' || new.slug, 'active', t.odoo_version, 'shared', p.id, \
                    p.database_server_id, t.id, 'admin@example.com' \
               FROM unnest($1::uuid[], $3::text[]) AS new(id, slug), \
                    (SELECT * FROM pools WHERE isolation = 'shared' LIMIT 1) p, (SELECT * FROM templates LIMIT 1) t",
        )
        .bind(&ids)
        .bind(owner.row)
        .bind(&slugs)
        .execute(control)
        .await?;
        anyhow::ensure!(
            usize::try_from(written.rows_affected())? == count,
            "there is no pool or no template"
        );
        Ok(rows)
    }
}

/// An operation that exists only as a row, and goes with its organization.
#[derive(Debug, Clone)]
pub struct OperationRow {
    /// Its row.
    pub row: Uuid,
    /// Its id.
    pub id: String,
}

impl OperationRow {
    /// Writes one that is queued and due tomorrow: no worker takes it.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn queued(
        control: &mut PgConnection,
        owner: &Organization,
        tenant: &TenantRow,
    ) -> Result<Self> {
        Self::write(
            control,
            owner,
            tenant,
            "WITH operation AS ( \
                INSERT INTO operations (id, kind, scope, target_type, target_id, status, created_at, updated_at) \
                VALUES ($1, 'tenant.set_admin_password', $2, 'tenant', $3, 'queued', now(), now()) RETURNING id) \
             INSERT INTO jobs (operation_id, kind, version, input, serial_key, state, due_at, created_at) \
             SELECT id, 'tenant.set_admin_password', 1, jsonb_build_object('tenant', $4::text), $4, 'ready', \
                    now() + interval '1 day', now() FROM operation",
        )
        .await
    }

    /// Writes one that has succeeded.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn succeeded(
        control: &mut PgConnection,
        owner: &Organization,
        tenant: &TenantRow,
    ) -> Result<Self> {
        Self::write(
            control,
            owner,
            tenant,
            "WITH operation AS ( \
                INSERT INTO operations (id, kind, scope, target_type, target_id, status, percent, revision, attempt, \
                                        created_at, started_at, finished_at, updated_at) \
                VALUES ($1, 'tenant.set_admin_password', $2, 'tenant', $3, 'succeeded', 100, 5, 1, now(), now(), now(), \
                        now()) RETURNING id) \
             INSERT INTO jobs (operation_id, kind, version, input, serial_key, state, lease_epoch, due_at, created_at) \
             SELECT id, 'tenant.set_admin_password', 1, jsonb_build_object('tenant', $4::text), $4, 'finished', 1, \
                    now(), now() FROM operation",
        )
        .await
    }

    /// Writes one that was given up half-way, of a kind that no worker knows.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn dead(control: &mut PgConnection, owner: &Organization, tenant: &TenantRow) -> Result<Self> {
        Self::write(
            control,
            owner,
            tenant,
            "WITH operation AS ( \
                INSERT INTO operations (id, kind, scope, target_type, target_id, status, percent, revision, attempt, \
                                        error_code, error_message, created_at, started_at, finished_at, dead_at, updated_at) \
                VALUES ($1, 'nobody.knows', $2, 'tenant', $3, 'failed', 50, 5, 5, 'gave_up', \
                        'The operation was tried too often without progress.', now(), now(), now(), now(), now()) \
                RETURNING id) \
             INSERT INTO jobs (operation_id, kind, version, input, serial_key, state, lease_epoch, due_at, created_at) \
             SELECT id, 'nobody.knows', 1, jsonb_build_object('tenant', $4::text), $4, 'dead', 5, now(), now() \
               FROM operation",
        )
        .await
    }

    /// Runs a statement that writes operation and job, of the parameters `$1` to `$4`: the operation's row, the
    /// organization's, the tenant's, the tenant's id.
    async fn write(
        control: &mut PgConnection,
        owner: &Organization,
        tenant: &TenantRow,
        sql: &'static str,
    ) -> Result<Self> {
        let operation = Self::new();
        sqlx::query(sql)
            .bind(operation.row)
            .bind(owner.row)
            .bind(tenant.row)
            .bind(&tenant.id)
            .execute(control)
            .await?;
        Ok(operation)
    }

    /// Moves a queued one on, as a worker does: the next revision, or its end.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn advance(&self, control: &mut PgConnection, percent: i16) -> Result<()> {
        sqlx::query(
            "UPDATE operations SET status = CASE WHEN $2 = 100 THEN 'succeeded' ELSE 'running' END, percent = $2, \
                    revision = revision + 1, started_at = COALESCE(started_at, now()), \
                    finished_at = CASE WHEN $2 = 100 THEN now() END, updated_at = now() \
              WHERE id = $1",
        )
        .bind(self.row)
        .bind(percent)
        .execute(control)
        .await?;
        Ok(())
    }

    fn new() -> Self {
        let row = Uuid::now_v7();
        Self {
            row,
            id: id_of("op", row),
        }
    }
}

/// An organization's API key that exists only as a row: nobody knows its secret. It goes with its organization.
#[derive(Debug, Clone)]
pub struct ApiKeyRow {
    /// Its id.
    pub id: String,
}

impl ApiKeyRow {
    /// Writes one of a viewer.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn write(control: &mut PgConnection, owner: &Organization) -> Result<Self> {
        let row = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO api_keys (id, organization_id, name, role, prefix, secret_hash) \
             VALUES ($1, $2, 'Test', 'viewer', 'osk_000000', sha256($1::text::bytea))",
        )
        .bind(row)
        .bind(owner.row)
        .execute(control)
        .await?;
        Ok(Self {
            id: id_of("key", row),
        })
    }
}

/// An open invitation as a viewer. It goes with its organization.
#[derive(Debug, Clone)]
pub struct InvitationRow {
    /// Its id.
    pub id: String,
    /// What accepts it.
    pub token: String,
}

impl InvitationRow {
    /// Writes one for an address that has no account.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn write(control: &mut PgConnection, owner: &Organization) -> Result<Self> {
        let row = Uuid::now_v7();
        let token = format!("it_{}", Uuid::new_v4().simple());
        sqlx::query(
            "INSERT INTO invitations (id, organization_id, email, role, token_hash, expires_at) \
             VALUES ($1, $2, $3, 'viewer', sha256(convert_to($4, 'UTF8')), now() + interval '1 day')",
        )
        .bind(row)
        .bind(owner.row)
        .bind(crate::people::new_email())
        .bind(&token)
        .execute(control)
        .await?;
        Ok(Self {
            id: id_of("inv", row),
            token,
        })
    }
}

/// What all tables of the control plane hold: rows and a hash of each table. Not what the api writes by itself now and
/// then: when keys were last used, and the chains of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, (i64, String)>);

impl Contents {
    /// Reads them as of one moment.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read(control: &mut PgConnection) -> Result<Self> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' \
                  AND tablename NOT IN ('audit_unsealed', 'audit_seals', 'audit_heads')",
        )
        .fetch_all(&mut *control)
        .await?;
        let parts: Vec<String> = tables
            .iter()
            .map(|table| {
                format!(
                    "SELECT '{table}' AS name, count(*) AS rows, \
                            COALESCE(md5(string_agg(row, ' ' ORDER BY row)), '') AS hash \
                       FROM (SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM \"{table}\" t) rows"
                )
            })
            .collect();
        let found = sqlx::query(AssertSqlSafe(parts.join(" UNION ALL ")))
            .fetch_all(control)
            .await?;
        let contents = found
            .iter()
            .map(|row| Ok((row.try_get("name")?, (row.try_get("rows")?, row.try_get("hash")?))));
        Ok(Self(contents.collect::<Result<_>>()?))
    }

    /// The tables that hold something else than before.
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> Vec<&str> {
        let changed = self
            .0
            .iter()
            .filter(|(table, now)| before.0.get(*table) != Some(now));
        changed.map(|(table, _)| table.as_str()).collect()
    }
}

/// Waits until no operation is on its way, so that nothing but a test's own requests changes a table.
///
/// # Errors
/// It does not come to rest in time.
pub async fn rest(control: &mut PgConnection) -> Result<()> {
    crate::wait::until(
        std::time::Duration::from_secs(60),
        "no operation is on its way",
        async || {
            let busy: i64 = sqlx::query_scalar(
                "SELECT (SELECT count(*) FROM outbox) + \
                        (SELECT count(*) FROM jobs WHERE state IN ('leased', 'blocked') \
                                                      OR (state = 'ready' AND due_at <= now()))",
            )
            .fetch_one(&mut *control)
            .await
            .context("the jobs")?;
            anyhow::ensure!(busy == 0, "{busy} are");
            Ok(())
        },
    )
    .await
}
