//! The control plane's database as a process uses it. Every wait for it has an end.

mod reads;

use std::time::Duration;

pub(crate) use reads::Reads;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, sqlx::postgres::PgConnectOptions};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Platform, error::Error};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait for an answer of the database: a little longer than it lets a statement take.
const ANSWER: Duration = Duration::from_secs(20);

/// Connections of a process that serves requests: sixteen at most, however many wait.
const OWN_CONNECTIONS: u32 = 5;
const CHANGING_CONNECTIONS: u32 = 4;
const READING_CONNECTIONS: usize = 7;

/// Changes that hold a connection while something slow is waited for: so few at a time that the others have connections.
const SLOW_CHANGES: usize = 2;

/// The database as a process that serves requests uses it.
#[derive(Debug)]
pub struct Databases {
    /// For what is nobody's request, or is asked before it is known whose it is: sees all rows.
    pub own: DatabaseConnection,
    /// For requests that change something: sees what a transaction has entered (see `grants.sql`).
    pub(crate) changes: DatabaseConnection,
    /// For requests that read: sees what a statement has entered.
    pub(crate) reads: Reads,
    slow_changes: Semaphore,
}

impl Databases {
    /// Connects, under this name.
    ///
    /// # Errors
    /// It doesn't answer.
    pub async fn connect(url: &SecretString, name: &str) -> Result<Self, Error> {
        Ok(Self {
            own: connect(url, name, OWN_CONNECTIONS, Sight::All).await?,
            changes: connect(url, name, CHANGING_CONNECTIONS, Sight::Entered).await?,
            reads: Reads::connect(url, name, READING_CONNECTIONS)?,
            slow_changes: Semaphore::new(SLOW_CHANGES),
        })
    }
}

impl Platform {
    /// The turn of a change that waits in its transaction for a mail server, or for the hash of a password. To be taken
    /// before, and kept until it has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: those before it take too long.
    pub async fn slow_change(&self) -> Result<SemaphorePermit<'_>, Error> {
        match tokio::time::timeout(CONNECT, self.databases.slow_changes.acquire()).await {
            Ok(turn) => turn.map_err(Error::internal),
            Err(late) => Err(Error::Unavailable {
                part: "what sends mail and hashes passwords",
                retry_after: CONNECT,
                source: late.into(),
            }),
        }
    }
}

/// Which rows a connection sees, where the database restricts its role to those of an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// All: for the process's own work.
    All,
    /// Those of the organization that a statement or a transaction enters, and of those below.
    Entered,
}

/// Connects to the control plane's database.
///
/// # Errors
/// It doesn't answer.
pub async fn connect(
    url: &SecretString,
    name: &str,
    connections: u32,
    sight: Sight,
) -> Result<DatabaseConnection, Error> {
    let mut options = ConnectOptions::new(url.expose_secret());
    let name = name.to_owned();
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(CONNECT)
        .connect_timeout(CONNECT)
        .idle_timeout(Duration::from_secs(300))
        .sqlx_logging(false)
        // A change costs more than the question whether the connection survived the server's last restart.
        .test_before_acquire(sight == Sight::Entered)
        .map_sqlx_postgres_opts(move |postgres| bounded(postgres, &name, sight));
    Ok(Database::connect(options).await?)
}

/// A statement that outlives its client, or a lock that isn't given, must not hold a connection for ever.
fn bounded(postgres: PgConnectOptions, name: &str, sight: Sight) -> PgConnectOptions {
    postgres.application_name(name).options([
        ("statement_timeout", "15s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "30s"),
        (
            "platform.scope",
            match sight {
                Sight::All => "system",
                Sight::Entered => "entered",
            },
        ),
    ])
}

/// Waits for the database, but not for ever: a server that hangs answers nothing and closes nothing. What a request asks
/// first goes through here.
pub(crate) async fn answered<T, E: Into<Error>>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(late) => Err(Error::database_away(late)),
    }
}

/// Brings the control plane's database up to date, as the role that owns its tables.
///
/// # Errors
/// The database doesn't answer, or a migration failed; then nothing of it has been done.
pub async fn migrate(url: &SecretString) -> Result<(), Error> {
    let database = Database::connect(
        ConnectOptions::new(url.expose_secret())
            .max_connections(1)
            .sqlx_logging(false)
            .to_owned(),
    )
    .await?;
    Ok(migration::migrate(&database).await?)
}
