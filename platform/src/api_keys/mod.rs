//! API keys: credentials of an organization, for programs. The secret is shown once and kept as a hash.

mod change;
mod read;
mod uses;

use chrono::{DateTime, Utc};
pub use entity::api_key::Model as ApiKeyRow;
use entity::{id::OrganizationId, values::Role};
pub use read::{ApiKeyFilter, ApiKeyReader};
use secrecy::SecretString;
pub(crate) use uses::Uses;

use crate::{Platform, caller::Identity, precondition::Versioned};

/// The API keys that a caller can change: those of its organization and of the ones below.
#[derive(Debug)]
pub struct ApiKeys<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> ApiKeys<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }
}

/// A key to be.
#[derive(Debug)]
pub struct NewApiKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; the caller's own organization where none is given.
    pub organization: Option<OrganizationId>,
    /// Until when it is good; for ever where nothing is said.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key and its secret, which is answered once.
#[derive(Debug)]
pub struct Revealed {
    /// The key.
    pub key: ApiKeyRow,
    /// Its secret.
    pub secret: SecretString,
}

impl Versioned for ApiKeyRow {
    fn version(&self) -> String {
        let used = self.last_used_at.map_or(0, |at| at.timestamp_millis());
        format!("v{}.{used}", self.revision)
    }
}
