//! Organizations and people of one test: written by SQL, so that a test of one thing doesn't hang on another; signed in
//! through the API like everybody.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::api::{Api, Tokens};
use crate::ids::id_of;
use crate::place::Place;
use crate::{sql, wait};

/// An organization.
#[derive(Debug, Clone)]
pub struct Organization {
    /// Its row.
    pub row: Uuid,
    /// Its id.
    pub id: String,
}

/// A user with a role in one organization.
#[derive(Debug, Clone)]
pub struct Member {
    /// The user's row.
    pub row: Uuid,
    /// The e-mail address.
    pub email: String,
    /// Where.
    pub organization: Organization,
}

/// All organizations and users of a test. They go with it, and so does all that belongs to them.
#[derive(Debug)]
pub struct People {
    /// The control plane's database.
    pub control: PgConnection,
    /// The organization that all others are below.
    pub root: Uuid,
    organizations: Vec<Uuid>,
    users: Vec<Uuid>,
}

impl People {
    /// Nobody yet.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn new() -> Result<Self> {
        let mut control = sql::control().await?;
        let root = sqlx::query_scalar("SELECT id FROM organizations WHERE parent_id IS NULL")
            .fetch_one(&mut control)
            .await?;
        Ok(Self {
            control,
            root,
            organizations: Vec::new(),
            users: Vec::new(),
        })
    }

    /// An organization right below the root.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn organization(&mut self) -> Result<Organization> {
        self.organization_below(self.root).await
    }

    /// An organization below another.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn child(&mut self, parent: &Organization) -> Result<Organization> {
        self.organization_below(parent.row).await
    }

    async fn organization_below(&mut self, parent: Uuid) -> Result<Organization> {
        let row = Uuid::now_v7();
        sqlx::query(
            "WITH new AS (INSERT INTO organizations (id, parent_id, name) VALUES ($1, $2, 'Test') RETURNING id) \
             INSERT INTO organization_ancestors (organization_id, ancestor_id) \
             SELECT id, id FROM new UNION ALL \
             SELECT new.id, up.ancestor_id FROM new, organization_ancestors up WHERE up.organization_id = $2",
        )
        .bind(row)
        .bind(parent)
        .execute(&mut self.control)
        .await?;
        self.organizations.push(row);
        Ok(Organization {
            row,
            id: id_of("org", row),
        })
    }

    /// A new user with a role in an organization. Its password is the platform's first owner's.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn member(&mut self, organization: &Organization, role: &str) -> Result<Member> {
        let row = Uuid::now_v7();
        let email = new_email();
        sqlx::query(
            "INSERT INTO users (id, email, name, password_hash) \
             SELECT $1, $2, 'Test', password_hash FROM users WHERE lower(email) = lower($3)",
        )
        .bind(row)
        .bind(&email)
        .bind(&Place::get().access.owner_email)
        .execute(&mut self.control)
        .await?;
        self.users.push(row);
        let member = Member {
            row,
            email,
            organization: organization.clone(),
        };
        self.join(&member, organization, role).await?;
        Ok(member)
    }

    /// Gives a user a role in one more organization.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn join(&mut self, member: &Member, organization: &Organization, role: &str) -> Result<()> {
        sqlx::query(
            "INSERT INTO memberships (user_id, organization_id, role, position) VALUES ($1, $2, $3, $4)",
        )
        .bind(member.row)
        .bind(organization.row)
        .bind(role)
        .bind(Uuid::now_v7())
        .execute(&mut self.control)
        .await?;
        Ok(())
    }

    /// Changes a member's role.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn change_role(&mut self, member: &Member, role: &str) -> Result<()> {
        sqlx::query("UPDATE memberships SET role = $3 WHERE user_id = $1 AND organization_id = $2")
            .bind(member.row)
            .bind(member.organization.row)
            .bind(role)
            .execute(&mut self.control)
            .await?;
        Ok(())
    }

    /// Makes an API key of an organization through the API, as the platform's first owner, and answers its id and secret.
    ///
    /// # Errors
    /// It was refused.
    pub async fn api_key(&self, organization: &Organization, role: &str) -> Result<(String, String)> {
        let body = serde_json::json!({ "name": "Test", "role": role, "organization_id": organization.id });
        let made = Api::owner()
            .await?
            .post("/v1/api-keys", &body, &[])
            .await?
            .expect(201)?;
        let text = |field: &str| {
            made[field]
                .as_str()
                .map(str::to_owned)
                .context("a field of the key")
        };
        Ok((text("id")?, text("secret")?))
    }

    /// Removes a member from its organization.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn remove(&mut self, member: &Member) -> Result<()> {
        sqlx::query("DELETE FROM memberships WHERE user_id = $1 AND organization_id = $2")
            .bind(member.row)
            .bind(member.organization.row)
            .execute(&mut self.control)
            .await?;
        Ok(())
    }

    /// Removes the tenants and operations of these organizations, and takes them out of the pools' counts. What a worker
    /// has taken up is waited for.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn clear(&mut self) -> Result<()> {
        let below = below(&mut self.control, &self.organizations).await?;
        clear(&mut self.control, &below).await?;
        let made: Vec<Uuid> = below
            .into_iter()
            .filter(|row| !self.organizations.contains(row))
            .collect();
        remove_organizations(&mut self.control, &made).await
    }
}

/// Organizations with all that are below them.
async fn below(control: &mut PgConnection, organizations: &[Uuid]) -> Result<Vec<Uuid>> {
    let below = sqlx::query_scalar(
        "SELECT DISTINCT organization_id FROM organization_ancestors WHERE ancestor_id = ANY($1)",
    )
    .bind(organizations)
    .fetch_all(control)
    .await?;
    Ok(below)
}

async fn remove_organizations(control: &mut PgConnection, organizations: &[Uuid]) -> Result<()> {
    for statement in [
        "DELETE FROM organization_ancestors WHERE organization_id = ANY($1) OR ancestor_id = ANY($1)",
        "DELETE FROM organizations WHERE id = ANY($1)",
        // Made by the API for a test, and in no organization any more.
        "DELETE FROM users u WHERE email LIKE '%@e2e.example' AND created_at < now() - interval '5 minutes' \
            AND cardinality($1) >= 0 AND NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id)",
    ] {
        sqlx::query(statement)
            .bind(organizations)
            .execute(&mut *control)
            .await?;
    }
    Ok(())
}

impl Member {
    /// Signs in through the edge.
    ///
    /// # Errors
    /// It was refused.
    pub async fn tokens(&self) -> Result<Tokens> {
        Api::anyone()?
            .sign_in(&self.email, &Place::get().access.owner_password)
            .await
    }

    /// The API with this member signed in.
    ///
    /// # Errors
    /// The sign-in was refused.
    pub async fn api(&self) -> Result<Api> {
        Ok(Api::anyone()?.with(&self.tokens().await?.access))
    }
}

/// An address that nobody has. An account that is made for it goes with the test.
#[must_use]
pub fn new_email() -> String {
    format!("{}@e2e.example", Uuid::new_v4().simple())
}

async fn clear(control: &mut PgConnection, organizations: &[Uuid]) -> Result<()> {
    wait::until(
        std::time::Duration::from_secs(60),
        "no worker is at work on a test's things",
        async || {
            let leased: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM jobs j JOIN operations o ON o.id = j.operation_id \
                  WHERE j.state = 'leased' AND o.scope = ANY($1)",
            )
            .bind(organizations)
            .fetch_one(&mut *control)
            .await
            .context("the jobs")?;
            anyhow::ensure!(leased == 0, "{leased} are leased");
            Ok(())
        },
    )
    .await?;
    for statement in [
        // Only what was asked for through the API counts in a pool.
        "WITH gone AS (DELETE FROM tenants WHERE organization_id = ANY($1) RETURNING id, pool_id), \
              counted AS (SELECT pool_id, count(*) AS tenants FROM gone \
                           WHERE EXISTS (SELECT FROM operations o WHERE o.target_id = gone.id AND o.kind = 'tenant.provision') \
                           GROUP BY pool_id) \
         UPDATE pools p SET tenants = p.tenants - counted.tenants FROM counted WHERE p.id = counted.pool_id",
        "DELETE FROM outbox WHERE operation_id IN (SELECT id FROM operations WHERE scope = ANY($1))",
        "DELETE FROM sealed_secrets WHERE operation_id IN (SELECT id FROM operations WHERE scope = ANY($1))",
        "DELETE FROM operations WHERE scope = ANY($1)",
        "DELETE FROM invitations WHERE organization_id = ANY($1)",
        // The log that nobody else may change, of organizations that only a test has.
        "DELETE FROM audit_unsealed WHERE organization_id = ANY($1)",
        "DELETE FROM audit_seals WHERE organization_id = ANY($1)",
        "DELETE FROM audit_heads WHERE organization_id = ANY($1)",
        "DELETE FROM audit_events WHERE organization_id = ANY($1)",
    ] {
        sqlx::query(statement)
            .bind(organizations)
            .execute(&mut *control)
            .await?;
    }
    Ok(())
}

async fn remove_all(organizations: &[Uuid], users: &[Uuid]) -> Result<()> {
    let mut control = sql::control().await?;
    let organizations = &below(&mut control, organizations).await?;
    clear(&mut control, organizations).await?;
    // An answer belongs to a user in an organization.
    let credentials: Vec<Uuid> = users
        .iter()
        .flat_map(|user| {
            organizations
                .iter()
                .map(|organization| Uuid::from_u128(user.as_u128() ^ organization.as_u128().rotate_left(64)))
        })
        .collect();
    for (statement, rows) in [
        (
            "DELETE FROM idempotency_records WHERE credential_id = ANY($1) \
                OR credential_id IN (SELECT id FROM api_keys WHERE organization_id = ANY($2))",
            credentials.as_slice(),
        ),
        (
            "DELETE FROM users WHERE id = ANY($1) AND cardinality($2) >= 0",
            users,
        ),
    ] {
        sqlx::query(statement)
            .bind(rows)
            .bind(organizations)
            .execute(&mut control)
            .await?;
    }
    remove_organizations(&mut control, organizations).await
}

impl Drop for People {
    fn drop(&mut self) {
        // Dropped inside a runtime, where blocking is not allowed: a thread with a runtime of its own removes them.
        let (organizations, users) = (self.organizations.clone(), self.users.clone());
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(remove_all(&organizations, &users))
        });
        match removing.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("people of a test stay behind: {error:#}"),
            Err(_) => eprintln!("people of a test stay behind"),
        }
    }
}
