//! Rows of tenants that nobody made: the benchmark reads them and they are gone after it.

use anyhow::{Context as _, Result};
use platform::id::TenantId;
use tests::sql;
use uuid::Uuid;

/// Tenants' rows in an organization of their own below the root.
pub struct Crowd {
    organization: Uuid,
    ids: Vec<TenantId>,
}

impl Crowd {
    /// Writes so many.
    pub async fn make(count: u32) -> Result<Self> {
        let mut database = sql::control().await?;
        let organization = Uuid::now_v7();
        sql::execute(
            &mut database,
            &format!(
                "INSERT INTO organizations (id, parent_id, name)
                 SELECT '{organization}', id, 'A crowd' FROM organizations WHERE parent_id IS NULL"
            ),
        )
        .await?;
        sql::execute(
            &mut database,
            &format!(
                "INSERT INTO organization_ancestors (organization_id, ancestor_id)
                 SELECT '{organization}'::uuid, '{organization}'::uuid UNION
                 SELECT '{organization}'::uuid, id FROM organizations WHERE parent_id IS NULL"
            ),
        )
        .await?;
        sql::execute(
            &mut database,
            &format!(
                "INSERT INTO tenants (id, organization_id, slug, name, status, odoo_version, isolation, pool_id,
                                      database_server_id, template_id, admin_login, language, country, labels)
                 SELECT gen_random_uuid(), '{organization}', 'crowd-' || number, 'Tenant ' || number, 'active', '19.0',
                        'shared', pool_id, database_server_id, template_id, 'admin@example.com', 'en_US', 'BE',
                        jsonb_build_object('cost-centre', number::text)
                   FROM (SELECT * FROM tenants LIMIT 1) example, generate_series(1, {count}) number"
            ),
        )
        .await?;
        sql::execute(&mut database, "ANALYZE tenants, organization_ancestors").await?;
        let ids = sql::texts(
            &mut database,
            &format!("SELECT id FROM tenants WHERE organization_id = '{organization}' ORDER BY id"),
        )
        .await?
        .into_iter()
        .flatten()
        .map(|id| Ok(TenantId(id.parse().context("an id is a uuid")?)))
        .collect::<Result<Vec<_>>>()?;
        Ok(Self { organization, ids })
    }

    /// Their ids.
    pub fn ids(&self) -> &[TenantId] {
        &self.ids
    }

    /// Removes them.
    pub async fn remove(self) -> Result<()> {
        let mut database = sql::control().await?;
        let organization = self.organization;
        sql::execute(
            &mut database,
            &format!("DELETE FROM tenants WHERE organization_id = '{organization}'"),
        )
        .await?;
        sql::execute(
            &mut database,
            &format!("DELETE FROM organizations WHERE id = '{organization}'"),
        )
        .await?;
        Ok(())
    }
}
