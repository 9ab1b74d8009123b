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
    organization: String,
}

impl People {
    /// Makes them in the control plane's database; they sign in with the platform owner's password.
    pub(super) fn make(instance: &Instance, postgres: &Account) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let suffix =
            files::fingerprint(&[&now.to_be_bytes(), &std::process::id().to_be_bytes()])[..8].to_owned();
        let people = Self {
            owner: format!("fuzz-owner-{suffix}@example.com"),
            viewer: format!("fuzz-viewer-{suffix}@example.com"),
            password: services::owner_password(instance)?,
            organization: format!("Fuzz {suffix}"),
        };
        let sql = format!(
            "WITH root AS (SELECT id FROM organizations WHERE parent_id IS NULL),
                  made AS (INSERT INTO organizations (id, parent_id, name)
                           SELECT gen_random_uuid(), id, '{organization}' FROM root RETURNING id, parent_id),
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
        let sql = format!(
            "DELETE FROM users WHERE email IN ('{}', '{}');\nDELETE FROM organizations WHERE name = '{}';",
            self.owner, self.viewer, self.organization
        );
        Postgres::new(instance, postgres, Cluster::Control)?.sql("platform", &sql)?;
        Ok(())
    }
}
