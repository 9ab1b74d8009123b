//! The rules of the platform: who may do what, what a tenant is and how it lives, what an operation means to its owner.
//! Holds no HTTP (that is `api`'s) and nothing that touches an Odoo (that is `odoo`'s, called by `worker`).

pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod caller;
pub mod database;
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
pub(crate) use database::answered;
use database::{Databases, Reads};
use entity::id::OrganizationId;
pub use entity::{self, id, values};
use error::Error;
use paging::PageTokens;
use quick_cache::sync::Cache;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait as _, QueryFilter as _,
};
use secrets::Secrets;
use settings::Domains;

/// What all of the rules stand on. One for each process.
#[derive(Debug)]
pub struct Platform {
    databases: Databases,
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
    /// By which a request that is sent again is known.
    idempotency_key: [u8; 32],
}

/// API keys that are remembered.
const KEYS_REMEMBERED: usize = 20_000;

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
        let token_keys = TokenKeys::load(&databases.own, &secrets, chrono::Utc::now()).await?;
        let root = root_organization(&databases.own)
            .await?
            .ok_or_else(|| Error::internal("there is no root organization"))?;
        let page_tokens = PageTokens::new(secrets.derive("page-token").await?);
        Ok(Arc::new(Self {
            databases,
            audit_key: secrets.derive("audit-seal").await?,
            idempotency_key: secrets.derive("idempotency").await?,
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
        match tokio::time::timeout(Duration::from_secs(2), self.database().ping()).await {
            Ok(answer) => Ok(answer?),
            Err(late) => Err(Error::database_away(late)),
        }
    }

    pub(crate) fn root(&self) -> OrganizationId {
        self.root
    }

    /// For what is nobody's request, or is asked before it is known whose it is.
    pub(crate) fn database(&self) -> &DatabaseConnection {
        &self.databases.own
    }

    /// For requests that change something.
    pub(crate) fn changes(&self) -> &DatabaseConnection {
        &self.databases.changes
    }

    /// For requests that read.
    pub(crate) fn reads(&self) -> &Reads {
        &self.databases.reads
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
