//! Roles of pools: one a tenant and one a pool, that may log in to their own database and nothing else.

use secrecy::SecretString;

use super::session::Session;
use super::{ServerError, scram, within};
use crate::names::DatabaseName;
use crate::sql::{quote_identifier, quote_literal};

/// The group a role is a member of; the server's `pg_hba.conf` admits by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleGroup {
    /// Tenants' roles, and a template's while it is built.
    Tenants,
    /// Pools' own roles.
    Pools,
}

impl RoleGroup {
    /// The group's name on the server.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Pools => "pools",
        }
    }
}

/// A role as it should be.
#[derive(Debug)]
pub struct RoleSpec<'a> {
    /// The role, named as its database.
    pub name: &'a DatabaseName,
    /// The group that admits it.
    pub group: RoleGroup,
    /// Its password.
    pub password: &'a SecretString,
    /// Connections that it may have at once.
    pub connection_limit: u16,
    /// Whether it may log in already. A tenant's role may only once its database is finished: until then nothing
    /// of the pool visits it.
    pub login: bool,
}

impl Session {
    /// Makes the role, or mends one that is there: it has this password and no right but its group's.
    ///
    /// # Errors
    /// [`ServerError::ForeignRole`] when a role of this name has rights that we never give; the server's errors.
    pub async fn ensure_role(&mut self, spec: &RoleSpec<'_>) -> Result<(), ServerError> {
        let role = quote_identifier(spec.name.as_str());
        let password = quote_literal(&scram::verifier(spec.password));
        let admin = quote_identifier(self.server.admin_role());
        let group = spec.group.as_str();
        let limit = spec.connection_limit;
        let grant_to_admin = format!("GRANT {role} TO {admin} {};", self.membership_options().await?);
        let login = if spec.login { "LOGIN" } else { "NOLOGIN" };
        let statements = if self.role_is_there(spec.name).await? {
            // A tenant can change settings and password of its own role; this takes all of it back.
            let resets = self.own_settings(spec.name).await?;
            format!(
                "ALTER ROLE {role} {login} INHERIT CONNECTION LIMIT {limit} PASSWORD {password} VALID UNTIL 'infinity';
                 {resets} GRANT {group} TO {role}; {grant_to_admin}"
            )
        } else {
            format!(
                "CREATE ROLE {role} {login} INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
                     CONNECTION LIMIT {limit} PASSWORD {password} IN ROLE {group};
                 {grant_to_admin}"
            )
        };
        self.run("making the role", statements).await
    }

    /// Whether the role exists.
    ///
    /// # Errors
    /// [`ServerError::ForeignRole`] when it has rights that we never give.
    pub(super) async fn role_is_there(&mut self, name: &DatabaseName) -> Result<bool, ServerError> {
        let rights = within(
            "reading the role",
            sqlx::query_scalar::<_, String>(
                "SELECT concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END,
                                        CASE WHEN rolcreatedb THEN 'createdb' END,
                                        CASE WHEN rolcreaterole THEN 'createrole' END,
                                        CASE WHEN rolreplication THEN 'replication' END,
                                        CASE WHEN rolbypassrls THEN 'bypassrls' END)
                 FROM pg_roles WHERE rolname = $1",
            )
            .bind(name.as_str())
            .fetch_optional(&mut self.connection),
        )
        .await?;
        match rights {
            None => Ok(false),
            Some(rights) if rights.is_empty() => Ok(true),
            Some(rights) => Err(ServerError::ForeignRole {
                role: name.clone(),
                rights,
            }),
        }
    }

    /// Gives the role another password. Open sessions stay.
    ///
    /// # Errors
    /// The server's errors; a role that is not there is one.
    pub async fn set_role_password(
        &mut self,
        name: &DatabaseName,
        password: &SecretString,
    ) -> Result<(), ServerError> {
        let (role, verifier) = (
            quote_identifier(name.as_str()),
            quote_literal(&scram::verifier(password)),
        );
        self.run(
            "setting the role's password",
            format!("ALTER ROLE {role} PASSWORD {verifier}"),
        )
        .await
    }

    /// Lets the role log in or not. Open sessions stay: see [`Session::terminate_backends`].
    ///
    /// # Errors
    /// The server's errors; a role that is not there is one.
    pub async fn set_login(&mut self, name: &DatabaseName, may: bool) -> Result<(), ServerError> {
        let role = quote_identifier(name.as_str());
        let login = if may { "LOGIN" } else { "NOLOGIN" };
        self.run(
            "changing whether the role may log in",
            format!("ALTER ROLE {role} {login}"),
        )
        .await
    }

    /// Removes the role if it is there. Its database must be gone: a role that owns anything is not removed.
    ///
    /// # Errors
    /// [`ServerError::ForeignRole`], the server's errors.
    pub async fn drop_role(&mut self, name: &DatabaseName) -> Result<(), ServerError> {
        if !self.role_is_there(name).await? {
            return Ok(());
        }
        self.run(
            "dropping the role",
            format!("DROP ROLE IF EXISTS {}", quote_identifier(name.as_str())),
        )
        .await
    }

    /// Statements that take back what the role has set for its own sessions, everywhere and in single databases.
    async fn own_settings(&mut self, name: &DatabaseName) -> Result<String, ServerError> {
        let databases = within(
            "reading the role's settings",
            sqlx::query_scalar::<_, Option<String>>(
                "SELECT d.datname::text FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                 LEFT JOIN pg_database d ON d.oid = s.setdatabase WHERE r.rolname = $1",
            )
            .bind(name.as_str())
            .fetch_all(&mut self.connection),
        )
        .await?;
        let role = quote_identifier(name.as_str());
        Ok(databases
            .into_iter()
            .map(|database| {
                let place = database.map(|name| format!("IN DATABASE {}", quote_identifier(&name)));
                format!("ALTER ROLE {role} {} RESET ALL; ", place.unwrap_or_default())
            })
            .collect())
    }

    /// How a membership is granted so that the admin may act as the role: since Postgres 16 who creates a role
    /// administers it without inheriting from it or being able to become it.
    async fn membership_options(&mut self) -> Result<&'static str, ServerError> {
        Ok(if self.version().await? >= 160_000 {
            "WITH INHERIT TRUE, SET TRUE"
        } else {
            ""
        })
    }

    /// The server's version as `server_version_num`.
    pub(super) async fn version(&mut self) -> Result<i32, ServerError> {
        if let Some(version) = self.connection.server_version_num() {
            return Ok(i32::try_from(version).unwrap_or(i32::MAX));
        }
        within(
            "reading the server's version",
            sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
                .fetch_one(&mut self.connection),
        )
        .await
    }
}
