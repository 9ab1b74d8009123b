//! Whether a server is fit for tenants: its settings, the admin role's rights, and that nobody may connect where
//! nothing is theirs. What the admin role can mend is mended; the rest is reported with the exact remedy.

use std::fmt;

use super::roles::RoleGroup;
use super::session::Session;
use super::{Server, ServerError, connect, within};
use crate::sql::quote_identifier;

/// SQL that a superuser runs once on a new tenants' server: roles, groups, and no connections for everybody.
pub const SUPERUSER_SETUP: &str = include_str!("../../server-setup.sql");

/// The oldest server that the platform runs on.
const OLDEST_VERSION: i32 = 150_000;

/// A clone takes a lock a relation (709 for Odoo's base, 4,904 for 94 modules), shared among all connections.
const LEAST_LOCKS: i32 = 512;

/// Connections that pools must leave to the admin role, to superusers and to backups.
const SPARE_CONNECTIONS: i32 = 30;

/// What the pools will ask of the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Requirements {
    /// Connections that all pools on the server may open at once: processes × connections of each.
    pub pool_connections: u32,
}

/// What was found on a server that is fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 150016 is 15.16.
    pub version: i32,
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
}

/// Something that only the server's administrator can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The server is older than Postgres 15.
    Version {
        /// `server_version_num`.
        found: i32,
    },
    /// The admin role is a superuser: a mistake of ours would have no limit.
    Superuser {
        /// The admin role.
        role: String,
    },
    /// The admin role lacks a right.
    Rights {
        /// SQL that gives it.
        sql: String,
    },
    /// Everybody may connect to a database that is not ours.
    OpenDatabase {
        /// SQL that closes it.
        sql: String,
    },
    /// A setting is too low.
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        found: i32,
        /// The least it must be.
        least: i32,
    },
    /// The server lets the admin role in with a wrong password.
    AnyPassword,
}

impl Problem {
    pub(super) fn list(problems: &[Self]) -> String {
        problems
            .iter()
            .map(Self::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(
                    f,
                    "Postgres {}.{} is too old: 15 or newer is needed",
                    found / 10_000,
                    found % 10_000
                )
            }
            Self::Superuser { role } => {
                write!(
                    f,
                    "role {role} is a superuser: give the platform a role made by server-setup.sql"
                )
            }
            Self::Rights { sql } => write!(f, "the admin role lacks a right, as a superuser run: {sql}"),
            Self::OpenDatabase { sql } => write!(f, "every role may connect, as a superuser run: {sql}"),
            Self::Setting { name, found, least } => {
                write!(
                    f,
                    "set {name} to {least} or more (it is {found}) and restart the server"
                )
            }
            Self::AnyPassword => f.write_str(
                "the server accepts any password: replace `trust` by `scram-sha-256` in pg_hba.conf",
            ),
        }
    }
}

impl Server {
    /// Makes the server ready for tenants, or says everything that is missing. Safe to run at each start.
    ///
    /// # Errors
    /// [`ServerError::NotPrepared`] with what an administrator must do; the server's errors.
    pub async fn prepare(&self, name: &str, required: Requirements) -> Result<ServerFacts, ServerError> {
        let mut session = self.session(name).await?;
        let mut problems = Vec::new();
        let facts = session.check_settings(required, &mut problems).await?;
        session.check_rights(&mut problems).await?;
        if problems.is_empty() {
            // Two workers that start at once would make the same group twice.
            session.lock("prepare").await?;
            session.ensure_groups().await?;
            session.close_databases(&mut problems).await?;
        }
        if self.admits_any_password(name).await? {
            problems.push(Problem::AnyPassword);
        }
        session.close().await;
        if problems.is_empty() {
            Ok(facts)
        } else {
            Err(ServerError::NotPrepared { problems })
        }
    }

    /// Whether a wrong password opens the server: then every other rule about roles is void.
    async fn admits_any_password(&self, name: &str) -> Result<bool, ServerError> {
        let wrong = uuid::Uuid::new_v4().to_string();
        let options = self.shared.admin.clone().application_name(name).password(&wrong);
        match connect(&options).await {
            Ok(_) => Ok(true),
            Err(ServerError::Connect { source, .. }) if source.as_database_error().is_some() => Ok(false),
            Err(other) => Err(other),
        }
    }
}

impl Session {
    async fn check_settings(
        &mut self,
        required: Requirements,
        problems: &mut Vec<Problem>,
    ) -> Result<ServerFacts, ServerError> {
        let version = self.version().await?;
        let (max_connections, max_locks_per_transaction) = within(
            "reading the server's settings",
            sqlx::query_as::<_, (i32, i32)>(
                "SELECT current_setting('max_connections')::int, current_setting('max_locks_per_transaction')::int",
            )
            .fetch_one(&mut self.connection),
        )
        .await?;
        let pools = i32::try_from(required.pool_connections).unwrap_or(i32::MAX);
        let least_connections = pools.saturating_add(SPARE_CONNECTIONS);
        if version < OLDEST_VERSION {
            problems.push(Problem::Version { found: version });
        }
        for (name, found, least) in [
            ("max_connections", max_connections, least_connections),
            (
                "max_locks_per_transaction",
                max_locks_per_transaction,
                LEAST_LOCKS,
            ),
        ] {
            if found < least {
                problems.push(Problem::Setting { name, found, least });
            }
        }
        Ok(ServerFacts {
            version,
            max_connections,
            max_locks_per_transaction,
        })
    }

    async fn check_rights(&mut self, problems: &mut Vec<Problem>) -> Result<(), ServerError> {
        let (superuser, createdb, createrole, signals) = within(
            "reading the admin role's rights",
            sqlx::query_as::<_, (bool, bool, bool, bool)>(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, pg_has_role(oid, 'pg_signal_backend', 'USAGE')
                 FROM pg_roles WHERE rolname = current_user",
            )
            .fetch_one(&mut self.connection),
        )
        .await?;
        let role = self.server.admin_role().to_owned();
        let quoted = quote_identifier(&role);
        if superuser {
            problems.push(Problem::Superuser { role });
        }
        if !createdb || !createrole {
            problems.push(Problem::Rights {
                sql: format!("ALTER ROLE {quoted} CREATEDB CREATEROLE;"),
            });
        }
        if !signals {
            problems.push(Problem::Rights {
                sql: format!("GRANT pg_signal_backend TO {quoted};"),
            });
        }
        Ok(())
    }

    async fn ensure_groups(&mut self) -> Result<(), ServerError> {
        for group in [RoleGroup::Tenants, RoleGroup::Pools].map(RoleGroup::as_str) {
            let there = within(
                "reading the groups",
                sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
                    .bind(group)
                    .fetch_one(&mut self.connection),
            )
            .await?;
            if !there {
                self.run(
                    "making a group",
                    format!("CREATE ROLE {} NOLOGIN", quote_identifier(group)),
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Takes from everybody what Postgres gives everybody: connecting to a database and temporary tables in it.
    async fn close_databases(&mut self, problems: &mut Vec<Problem>) -> Result<(), ServerError> {
        let open = within(
            "reading who may connect",
            sqlx::query_as::<_, (String, bool)>(
                "SELECT DISTINCT d.datname::text, pg_has_role(d.datdba, 'USAGE')
                 FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                 WHERE d.datallowconn AND a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY')",
            )
            .fetch_all(&mut self.connection),
        )
        .await?;
        let admin = quote_identifier(self.server.admin_role());
        for (name, ours) in open {
            let database = quote_identifier(&name);
            let revoke = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC;");
            if ours {
                self.run("closing a database", revoke).await?;
            } else {
                let grant = format!("GRANT CONNECT ON DATABASE {database} TO {admin};");
                let sql = if name == "postgres" {
                    format!("{revoke} {grant}")
                } else {
                    revoke
                };
                problems.push(Problem::OpenDatabase { sql });
            }
        }
        Ok(())
    }
}
