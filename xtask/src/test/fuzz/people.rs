//! Who fuzzes: accounts of this run alone. Failed sign-ins lock an account out for a while, idempotency keys are kept
//! for a day, and a session may end: none of that may befall an account that anyone else uses.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::instance::Instance;
use crate::postgres::{Cluster, Postgres};
use crate::users::Account;
use crate::{files, services};

/// The accounts.
pub(super) struct People {
    /// Owner of an organization below the root one, with nothing in it.
    pub(super) owner: String,
    /// Viewer of the root organization.
    pub(super) viewer: String,
    /// The password of both.
    pub(super) password: String,
    /// The owner's organization, by its row.
    organization: String,
}

impl People {
    /// Makes them in the control plane's database; they sign in with the platform owner's password.
    pub(super) fn make(instance: &Instance, postgres: &Account) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let suffix = files::fingerprint(&[&now.to_be_bytes(), &std::process::id().to_be_bytes()]);
        // As many digits as a UUID has.
        let row = files::fingerprint(&[b"organization", suffix.as_bytes()]) + &suffix;
        let people = Self {
            owner: format!("fuzz-owner-{suffix}@example.com"),
            viewer: format!("fuzz-viewer-{suffix}@example.com"),
            password: services::owner_password(instance)?,
            organization: row,
        };
        let sql = format!(
            "WITH root AS (SELECT id FROM organizations WHERE parent_id IS NULL),
                  made AS (INSERT INTO organizations (id, parent_id, name)
                           SELECT '{organization}'::uuid, id, 'Fuzz' FROM root RETURNING id, parent_id),
                  placed AS (INSERT INTO organization_ancestors (organization_id, ancestor_id)
                             SELECT id, id FROM made UNION ALL SELECT id, parent_id FROM made),
                  hash AS (SELECT password_hash FROM users WHERE lower(email) = lower('{first}')),
                  people AS (INSERT INTO users (id, email, name, password_hash)
                             SELECT gen_random_uuid(), email, 'Fuzz', password_hash
                             FROM hash, (VALUES ('{owner}'), ('{viewer}')) AS given(email) RETURNING id, email)
             INSERT INTO memberships (user_id, organization_id, role)
             SELECT people.id,
                    CASE email WHEN '{owner}' THEN made.id ELSE made.parent_id END,
                    CASE email WHEN '{owner}' THEN 'owner' ELSE 'viewer' END
             FROM people, made;",
            organization = people.organization,
            first = services::owner_email().replace('\'', "''"),
            owner = people.owner,
            viewer = people.viewer,
        );
        Postgres::new(instance, postgres, Cluster::Control)?.sql("platform", &sql)?;
        Ok(people)
    }

    /// Removes them, with their sessions and their organization.
    pub(super) fn remove(&self, instance: &Instance, postgres: &Account) -> Result<()> {
        let mut sql = format!(
            "CREATE TEMPORARY TABLE gone AS
             SELECT organization_id AS id FROM organization_ancestors WHERE ancestor_id = '{organization}'::uuid;
             CREATE TEMPORARY TABLE left_over AS
             SELECT user_id AS id FROM memberships WHERE organization_id IN (SELECT id FROM gone)
             UNION SELECT id FROM users WHERE email IN ('{owner}', '{viewer}');\n",
            organization = self.organization,
            owner = self.owner,
            viewer = self.viewer,
        );
        for (table, column) in [
            ("invitations", "organization_id"),
            ("operations", "scope"),
            ("audit_unsealed", "organization_id"),
            ("audit_seals", "organization_id"),
            ("audit_heads", "organization_id"),
            ("audit_events", "organization_id"),
            ("organization_ancestors", "organization_id"),
            ("organizations", "id"),
        ] {
            sql += &format!("DELETE FROM {table} WHERE {column} IN (SELECT id FROM gone);\n");
        }
        sql += "DELETE FROM users u USING left_over WHERE u.id = left_over.id
                   AND NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id AND u.email NOT LIKE 'fuzz-%');";
        Postgres::new(instance, postgres, Cluster::Control)?.sql("platform", &sql)?;
        Ok(())
    }
}
