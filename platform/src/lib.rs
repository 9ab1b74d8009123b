//! The rules of the platform: who may do what, what a tenant is and how it lives, what an operation means to its owner.
//! Holds no HTTP (that is `api`'s) and nothing that touches an Odoo (that is `odoo`'s, called by `worker`).

pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod caller;
pub mod error;
pub mod idempotency;
pub mod limits;
pub mod mail;
pub mod members;
pub mod operations;
pub mod organizations;
pub mod paging;
pub mod permissions;
pub mod pools;
pub mod precondition;
pub mod profile;
pub mod reader;
pub mod reconcile;
pub mod secrets;
pub mod settings;
pub mod tenants;
pub mod text;

use std::{
    sync::{Arc, RwLock, atomic::AtomicI64},
    time::Duration,
};

use auth::{SignInThrottle, TokenKeys};
use entity::id::OrganizationId;
pub use entity::{self, id, values};
use error::Error;
use paging::PageTokens;
use quick_cache::sync::Cache;
use sea_orm::{
    ColumnTrait as _, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, EntityTrait as _,
    QueryFilter as _,
};
use secrecy::{ExposeSecret as _, SecretString};
use secrets::Secrets;
use settings::Domains;

/// What all of the rules stand on. One for each process.
#[derive(Debug)]
pub struct Platform {
    /// For what is nobody's request, or is asked before it is known whose it is: sees all rows.
    database: DatabaseConnection,
    /// For requests: sees what the statement, or the transaction, has entered (see `grants.sql`).
    scoped: DatabaseConnection,
    secrets: Arc<Secrets>,
    domains: Domains,
    /// The organization at the root of the tree, which never changes.
    root: OrganizationId,
    page_tokens: PageTokens,
    token_keys: RwLock<Arc<TokenKeys>>,
    /// When the signing keys were last read again because a token named an unknown one, in milliseconds since 1970.
    keys_read_at: AtomicI64,
    throttle: SignInThrottle,
    /// API keys that this process has seen, by the hash of their secret.
    known_keys: Cache<Vec<u8>, Arc<auth::KnownKey>>,
    key_uses: api_keys::Uses,
    mailer: Option<mail::Mailer>,
    /// Proves that this platform sealed an event of the audit log.
    audit_key: [u8; 32],
}

/// API keys that are remembered.
const KEYS_REMEMBERED: usize = 20_000;

/// The database as a process uses it.
#[derive(Debug, Clone)]
pub struct Databases {
    /// Sees all rows.
    pub all: DatabaseConnection,
    /// Sees the rows of an organization that was entered.
    pub scoped: DatabaseConnection,
}

/// The organization at the root of the tree; none before the first start.
pub(crate) async fn root_organization(
    database: &impl ConnectionTrait,
) -> Result<Option<id::OrganizationId>, DbErr> {
    let root = entity::organization::Entity::find()
        .filter(entity::organization::Column::ParentId.is_null())
        .one(database)
        .await?;
    Ok(root.map(|root| root.id))
}

impl Platform {
    /// Opens the platform on a database that has been migrated and bootstrapped.
    ///
    /// # Errors
    /// The database doesn't answer, or its keys don't open.
    pub async fn open(
        databases: Databases,
        secrets: Arc<Secrets>,
        domains: Domains,
        throttle: SignInThrottle,
        mailer: Option<mail::Mailer>,
    ) -> Result<Arc<Self>, Error> {
        let Databases {
            all: database,
            scoped,
        } = databases;
        let token_keys = TokenKeys::load(&database, &secrets, chrono::Utc::now()).await?;
        let root = root_organization(&database)
            .await?
            .ok_or_else(|| Error::internal("there is no root organization"))?;
        let page_tokens = PageTokens::new(secrets.derive("page-token").await?);
        Ok(Arc::new(Self {
            database,
            scoped,
            audit_key: secrets.derive("audit-seal").await?,
            secrets,
            domains,
            root,
            page_tokens,
            token_keys: RwLock::new(Arc::new(token_keys)),
            keys_read_at: AtomicI64::new(0),
            throttle,
            known_keys: Cache::new(KEYS_REMEMBERED),
            key_uses: api_keys::Uses::default(),
            mailer,
        }))
    }

    /// The keys that sign and verify access tokens.
    #[must_use]
    pub fn token_keys(&self) -> Arc<TokenKeys> {
        self.token_keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Public names.
    #[must_use]
    pub fn domains(&self) -> &Domains {
        &self.domains
    }

    /// Whether the database answers, within two seconds.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn ping_database(&self) -> Result<(), Error> {
        match tokio::time::timeout(Duration::from_secs(2), self.database.ping()).await {
            Ok(answer) => Ok(answer?),
            Err(late) => Err(Error::Unavailable {
                part: "the database",
                retry_after: Duration::from_secs(2),
                source: Box::new(late),
            }),
        }
    }

    pub(crate) fn root(&self) -> OrganizationId {
        self.root
    }

    pub(crate) fn database(&self) -> &DatabaseConnection {
        &self.database
    }

    pub(crate) fn scoped(&self) -> &DatabaseConnection {
        &self.scoped
    }

    /// What sends mail; `None` where no server is set.
    #[must_use]
    pub fn mailer(&self) -> Option<&mail::Mailer> {
        self.mailer.as_ref()
    }

    /// What seals and opens secrets.
    #[must_use]
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    pub(crate) fn throttle(&self) -> &SignInThrottle {
        &self.throttle
    }

    pub(crate) fn page_tokens(&self) -> &PageTokens {
        &self.page_tokens
    }
}

/// Longest wait for an answer of the database: a little longer than it lets a statement take.
const ANSWER: Duration = Duration::from_secs(20);

/// Waits for the database, but not for ever: a server that hangs answers nothing and closes nothing. What a request asks
/// first goes through here.
pub(crate) async fn answered<T, E: Into<Error>>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(late) => Err(Error::Unavailable {
            part: "the database",
            retry_after: Duration::from_secs(2),
            source: Box::new(late),
        }),
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

/// Connects to the control plane's database. Every wait for it has an end.
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
        .acquire_timeout(Duration::from_secs(5))
        .connect_timeout(Duration::from_secs(5))
        .idle_timeout(Duration::from_secs(300))
        .sqlx_logging(false)
        .test_before_acquire(false)
        .map_sqlx_postgres_opts(move |postgres| {
            // A statement that outlives its client, or a lock that isn't given, must not hold a connection for ever.
            postgres.application_name(&name).options([
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
        });
    Ok(Database::connect(options).await?)
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
