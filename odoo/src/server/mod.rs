//! A tenants' Postgres server, through a role that may create databases and roles and is **not** a superuser.
//!
//! Work happens in a [`Session`]: one connection that carries its job's name and holds a lock on its target, so
//! that of two workers who believe they own a job only one changes anything.
//!
//! The admin role never runs SQL inside a database that a tenant has used: a tenant may write triggers, and they
//! would run with the admin's rights. What must be done there is done as the tenant's own role.

mod databases;
mod identity;
mod inventory;
mod prepare;
mod roles;
mod scram;
mod session;
mod templates;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Semaphore;

pub(crate) use databases::Marker;
pub use databases::{BUS_CONNECTIONS, CloneOutcome};
pub use identity::{AdminCredentials, Identity, IdentityError};
pub use inventory::{DatabaseEntry, RoleEntry};
pub use prepare::{Problem, Requirements, SUPERUSER_SETUP, ServerFacts};
pub use roles::{RoleGroup, RoleSpec};
pub use session::Session;

use crate::keys::PoolKeyRing;
use crate::names::DatabaseName;

/// Clones that one process runs on one server at once. Eight at once take several times as long each, and every one
/// holds a lock a relation of the template, in the lock table that all connections of the server share.
const CLONES_AT_ONCE: usize = 4;

/// How long a connection may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The longest statement of ours: a clone of a large template on a busy disk.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(120);

/// Where a pool's processes, and tenants' own roles, reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolHost {
    /// A directory with the server's Unix socket: no network is needed at all.
    Socket(PathBuf),
    /// A host name or address, for a server that runs elsewhere.
    Tcp(String),
}

impl PoolHost {
    /// Reads a setting: an absolute path is a socket directory, anything else a host.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.starts_with('/') {
            Self::Socket(text.into())
        } else {
            Self::Tcp(text.to_owned())
        }
    }
}

/// Where a pool's processes find their Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseEndpoint {
    /// The socket directory or host.
    pub host: PoolHost,
    /// The port; it also names the socket file.
    pub port: u16,
    /// libpq's `sslmode`.
    pub ssl_mode: &'static str,
}

/// What can go wrong on a tenants' server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is not a Postgres URL. Does not repeat it, since it holds a password.
    #[error("the tenants' server's address is not a Postgres URL with user, host and port")]
    Url,
    /// No connection could be had.
    #[error("cannot connect to {target}")]
    Connect {
        /// Which database, as whom.
        target: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A statement failed.
    #[error("{doing} failed")]
    Statement {
        /// What the statement was for.
        doing: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The server did not answer in time.
    #[error("{doing} took longer than {after:?}")]
    Deadline {
        /// What the statement was for.
        doing: &'static str,
        /// The time it was given.
        after: Duration,
    },
    /// Another session works on the same target.
    #[error("{target} is locked by another session")]
    Locked {
        /// The target.
        target: String,
    },
    /// The session's name has no epoch, so it can't tell which sessions it supersedes.
    #[error("session name {name:?} does not end with an epoch")]
    NoEpoch {
        /// The session's `application_name`.
        name: String,
    },
    /// A database of this name belongs to someone else, and is left alone.
    #[error("database {database} belongs to role {owner}, not to the platform")]
    ForeignDatabase {
        /// The database.
        database: DatabaseName,
        /// Its owner.
        owner: String,
    },
    /// A role of this name has rights that no role of the platform has; it is left alone.
    #[error("role {role} may do more than a pool's role may: {rights}")]
    ForeignRole {
        /// The role.
        role: DatabaseName,
        /// What it may do.
        rights: String,
    },
    /// The template is not there, or was never finished.
    #[error("template {template} is not ready")]
    TemplateNotReady {
        /// The template.
        template: DatabaseName,
    },
    /// A finished database stands where a clone of another template was asked for.
    #[error("database {database} was made from {actual}, not from {wanted}")]
    OtherTemplate {
        /// The database.
        database: DatabaseName,
        /// The template it was made from.
        actual: String,
        /// The template that was asked for.
        wanted: DatabaseName,
    },
    /// The server lacks what only its administrator can give; each problem says what to do.
    #[error("the tenants' server is not prepared: {}", Problem::list(.problems))]
    NotPrepared {
        /// Everything that is wrong, each with its remedy.
        problems: Vec<Problem>,
    },
    /// None of the pool's keys opens the tenant's database.
    #[error("no key of the pool opens database {database}")]
    NoKeyFits {
        /// The database.
        database: DatabaseName,
    },
}

impl ServerError {
    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Statement { source, .. } => match source.as_database_error()
            {
                // 08 connection, 40 rolled back, 53 out of resources, 55 not in the needed state (in use),
                // 57 operator intervention.
                Some(error) => error.code().is_some_and(|code| {
                    ["08", "40", "53", "55", "57"]
                        .iter()
                        .any(|class| code.starts_with(class))
                }),
                None => !matches!(source, sqlx::Error::Configuration(_)),
            },
            Self::Deadline { .. } | Self::Locked { .. } => true,
            Self::Url
            | Self::NoEpoch { .. }
            | Self::ForeignDatabase { .. }
            | Self::ForeignRole { .. }
            | Self::TemplateNotReady { .. }
            | Self::OtherTemplate { .. }
            | Self::NotPrepared { .. }
            | Self::NoKeyFits { .. } => false,
        }
    }
}

/// A tenants' Postgres server. Cheap to clone; clones share the limit of databases that are made at once.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    admin: PgConnectOptions,
    endpoint: DatabaseEndpoint,
    clones: Semaphore,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("endpoint", &self.shared.endpoint)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The server that `admin_url` (`postgres://role:password@host:port/postgres`) leads to, which pools reach at
    /// `pool_host` and the same port. Opens no connection.
    ///
    /// # Errors
    /// [`ServerError::Url`] when the URL can't be read.
    pub fn new(admin_url: &SecretString, pool_host: PoolHost) -> Result<Self, ServerError> {
        let mut admin = PgConnectOptions::from_str(admin_url.expose_secret())
            .map_err(|_| ServerError::Url)?
            // A statement is prepared for one use: a session is short and each of its statements another.
            .statement_cache_capacity(16)
            .options([(
                "statement_timeout",
                format!("{}ms", STATEMENT_DEADLINE.as_millis()),
            )])
            .disable_statement_logging();
        if admin.get_database().is_none() {
            admin = admin.database("postgres");
        }
        let ssl_mode = match admin.get_ssl_mode() {
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        };
        let endpoint = DatabaseEndpoint {
            host: pool_host,
            port: admin.get_port(),
            ssl_mode,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                admin,
                endpoint,
                clones: Semaphore::new(CLONES_AT_ONCE),
            }),
        })
    }

    /// Where pools reach this server.
    #[must_use]
    pub fn endpoint(&self) -> &DatabaseEndpoint {
        &self.shared.endpoint
    }

    /// The name of the admin role.
    #[must_use]
    pub fn admin_role(&self) -> &str {
        self.shared.admin.get_username()
    }

    /// Opens a session whose `application_name` is `name`: `job:<operation>:<epoch>` for a job, so that a later
    /// epoch can end it ([`Session::end_lower_epochs`]).
    ///
    /// # Errors
    /// [`ServerError::Connect`] or [`ServerError::Deadline`].
    pub async fn session(&self, name: &str) -> Result<Session, ServerError> {
        Session::open(self.clone(), name).await
    }

    /// Whether the role of `database` gets into it with this password. The connection, named `name`, is closed at once.
    ///
    /// # Errors
    /// The server's errors: why nobody can tell, such as a role that may not log in.
    pub async fn admits(
        &self,
        name: &str,
        database: &DatabaseName,
        password: &SecretString,
    ) -> Result<bool, ServerError> {
        let options = self
            .tenant_options(name, database)
            .password(password.expose_secret());
        match connect(&options).await {
            Ok(connection) => {
                within("closing a connection", connection.close()).await?;
                Ok(true)
            }
            Err(ServerError::Connect { source, .. }) if is_wrong_password(&source) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// A connection as the admin role: to the server's maintenance database, or to a database that no tenant has
    /// used yet.
    async fn connect_admin(
        &self,
        name: &str,
        database: Option<&DatabaseName>,
    ) -> Result<PgConnection, ServerError> {
        let mut options = self.shared.admin.clone().application_name(name);
        if let Some(database) = database {
            options = options.database(database.as_str());
        }
        connect(&options).await
    }

    /// A connection to a tenant's database as the tenant's own role, with the first key of the ring that opens it.
    async fn connect_tenant(
        &self,
        name: &str,
        database: &DatabaseName,
        keys: &PoolKeyRing,
    ) -> Result<PgConnection, ServerError> {
        for password in keys.keys().map(|key| key.password_for(database)) {
            let options = self
                .tenant_options(name, database)
                .password(password.expose_secret());
            match connect(&options).await {
                Err(ServerError::Connect { source, .. }) if is_wrong_password(&source) => {}
                other => return other,
            }
        }
        Err(ServerError::NoKeyFits {
            database: database.clone(),
        })
    }

    fn tenant_options(&self, name: &str, database: &DatabaseName) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().ssl_mode(self.shared.admin.get_ssl_mode());
        let options = match &self.shared.endpoint.host {
            PoolHost::Socket(directory) => options.socket(directory),
            PoolHost::Tcp(host) => options.host(host),
        };
        options
            .port(self.shared.endpoint.port)
            .username(database.as_str())
            .database(database.as_str())
            .application_name(name)
            .options([("statement_timeout", "10s"), ("lock_timeout", "5s")])
            .disable_statement_logging()
    }
}

fn is_wrong_password(error: &sqlx::Error) -> bool {
    // 28P01 invalid_password
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "28P01")
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, ServerError> {
    let target = || {
        format!(
            "{} as {}",
            options.get_database().unwrap_or("the server"),
            options.get_username()
        )
    };
    match tokio::time::timeout(CONNECT_DEADLINE, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(ServerError::Connect {
            target: target(),
            source,
        }),
        Err(_) => Err(ServerError::Deadline {
            doing: "connecting",
            after: CONNECT_DEADLINE,
        }),
    }
}

/// Runs one statement's future with the server's deadline and names what it was for.
async fn within<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, ServerError> {
    // The server ends the statement by its own timeout first; this one is for a server that answers nothing.
    let after = STATEMENT_DEADLINE + Duration::from_secs(5);
    match tokio::time::timeout(after, work).await {
        Ok(result) => result.map_err(|source| ServerError::Statement { doing, source }),
        Err(_) => Err(ServerError::Deadline { doing, after }),
    }
}
