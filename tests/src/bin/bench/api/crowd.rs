//! Rows of organizations and tenants that nobody made: the benchmark reads them and they are gone after it.

use anyhow::{Context as _, Result};
use platform::id::TenantId;
use tests::{ids::id_of, people::Organization, sql};
use uuid::Uuid;

/// A tree of organizations, four levels deep below the root, and tenants in all of them.
pub struct Crowd {
    organizations: Vec<Uuid>,
    ids: Vec<TenantId>,
}

/// The organization above each, by its place; `None`: the root. Each has as many below it as make four levels.
fn parents(count: usize) -> Vec<Option<usize>> {
    let branches = (2..)
        .find(|branches: &usize| 1 + branches + branches.pow(2) + branches.pow(3) >= count)
        .unwrap_or(2);
    (0..count)
        .map(|place| place.checked_sub(1).map(|before| before / branches))
        .collect()
}

impl Crowd {
    /// Writes so many.
    pub async fn make(organizations: usize, tenants: u32) -> Result<Self> {
        let mut database = sql::control().await?;
        let root: Uuid = sqlx::query_scalar("SELECT id FROM organizations WHERE parent_id IS NULL")
            .fetch_one(&mut database)
            .await?;
        let rows: Vec<Uuid> = (0..organizations).map(|_| Uuid::now_v7()).collect();
        let above = parents(organizations);
        let parent_rows: Vec<Uuid> = above
            .iter()
            .map(|parent| parent.map_or(root, |place| rows[place]))
            .collect();
        let (mut below, mut ancestors) = (Vec::new(), Vec::new());
        for (place, row) in rows.iter().enumerate() {
            let mut at = Some(place);
            while let Some(here) = at {
                below.push(*row);
                ancestors.push(rows[here]);
                at = above[here];
            }
            below.push(*row);
            ancestors.push(root);
        }
        sqlx::query(
            "INSERT INTO organizations (id, parent_id, name) \
             SELECT id, parent, 'A crowd' FROM unnest($1::uuid[], $2::uuid[]) AS new (id, parent)",
        )
        .bind(&rows)
        .bind(&parent_rows)
        .execute(&mut database)
        .await?;
        sqlx::query(
            "INSERT INTO organization_ancestors (organization_id, ancestor_id) \
             SELECT * FROM unnest($1::uuid[], $2::uuid[])",
        )
        .bind(&below)
        .bind(&ancestors)
        .execute(&mut database)
        .await?;
        sqlx::query(
            "INSERT INTO tenants (id, organization_id, slug, name, status, odoo_version, isolation, pool_id, \
                                  database_server_id, template_id, admin_login, language, country, labels) \
             SELECT gen_random_uuid(), ($1::uuid[])[1 + number % array_length($1, 1)], 'crowd-' || number, \
                    'Tenant ' || number, 'active', '19.0', 'shared', pool_id, database_server_id, template_id, \
                    'admin@example.com', 'en_US', 'BE', jsonb_build_object('cost-centre', number::text) \
               FROM (SELECT * FROM tenants LIMIT 1) example, generate_series(1, $2::integer) number",
        )
        .bind(&rows)
        .bind(i32::try_from(tenants)?)
        .execute(&mut database)
        .await?;
        // As tables are that have been there for a while.
        sql::execute(
            &mut database,
            "VACUUM (ANALYZE) tenants, organizations, organization_ancestors",
        )
        .await?;
        let ids: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM tenants WHERE organization_id = ANY($1) ORDER BY id")
                .bind(&rows)
                .fetch_all(&mut database)
                .await
                .context("the crowd's tenants")?;
        Ok(Self {
            organizations: rows,
            ids: ids.into_iter().map(TenantId).collect(),
        })
    }

    /// The tenants' ids.
    pub fn ids(&self) -> &[TenantId] {
        &self.ids
    }

    /// An organization in the middle of the tree, with others above and below it, and the ids of the tenants that it sees.
    pub async fn reseller(&self) -> Result<(Organization, Vec<TenantId>)> {
        let row = self.organizations[1];
        let mut database = sql::control().await?;
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "SELECT t.id FROM tenants t JOIN organization_ancestors up ON up.organization_id = t.organization_id \
              WHERE up.ancestor_id = $1 ORDER BY t.id",
        )
        .bind(row)
        .fetch_all(&mut database)
        .await?;
        let id = id_of("org", row);
        Ok((Organization { row, id }, ids.into_iter().map(TenantId).collect()))
    }

    /// Removes them.
    pub async fn remove(self) -> Result<()> {
        let mut database = sql::control().await?;
        for statement in [
            "DELETE FROM tenants WHERE organization_id = ANY($1)",
            "DELETE FROM organization_ancestors WHERE organization_id = ANY($1)",
            "DELETE FROM organizations WHERE id = ANY($1)",
        ] {
            sqlx::query(statement)
                .bind(&self.organizations)
                .execute(&mut database)
                .await?;
        }
        Ok(())
    }
}
