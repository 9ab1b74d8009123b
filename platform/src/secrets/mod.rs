//! Secrets at rest. Each is sealed under a data key; data keys are stored wrapped by a key-encryption provider, which
//! alone can open them (docs/decisions/0010). A process holds them opened, and finds those that others make.
//!
//! A data key never changes and an old one goes on opening, so that a rotation may be broken off anywhere.

mod first;
mod master;
mod provider;
mod rotation;
mod sealed;
mod stored;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use entity::{data_key, platform_secret};
pub use master::MasterKeys;
pub use provider::{EncryptionContext, KeyEncryption, KeyError, Wrapped};
pub use rotation::{DataKeyRotation, Tended};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseConnection, EntityTrait as _, QueryFilter as _,
    QuerySelect as _,
};
use secrecy::SecretSlice;
pub use stored::columns;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::sealed::Sealed;
use crate::{answered, error::Error};

/// How often a process reads the data keys again.
const READ_EVERY: Duration = Duration::from_secs(60);

/// The name of the secret that keys for other purposes are derived from, and what it is sealed for.
const DERIVATION: &str = "derivation";

/// The data keys that a process has opened.
type DataKeys = BTreeMap<Uuid, SecretSlice<u8>>;

/// Seals and opens secrets. One for each process.
#[derive(Debug)]
pub struct Secrets {
    database: DatabaseConnection,
    provider: Arc<dyn KeyEncryption>,
    /// Opens what was sealed before there were data keys.
    old_form: MasterKeys,
    keys: RwLock<Arc<DataKeys>>,
}

impl Secrets {
    /// With the master keys as their provider. Nothing is read yet.
    #[must_use]
    pub fn new(database: DatabaseConnection, keys: MasterKeys) -> Self {
        Self::with_provider(database, Arc::new(keys.clone()), keys)
    }

    /// With a provider. The master keys open what was sealed before there were data keys.
    #[must_use]
    pub fn with_provider(
        database: DatabaseConnection,
        provider: Arc<dyn KeyEncryption>,
        old_form: MasterKeys,
    ) -> Self {
        Self {
            database,
            provider,
            old_form,
            keys: RwLock::default(),
        }
    }

    /// Makes what a first start lacks, and opens every data key.
    ///
    /// # Errors
    /// The database or the provider doesn't answer, or the provider's keys are not those that were in use.
    pub async fn prepare(database: DatabaseConnection, keys: MasterKeys) -> Result<Arc<Self>, Error> {
        let secrets = Self::new(database, keys);
        first::make_data_key(&secrets).await?;
        secrets.read_again().await?;
        first::make_derivation(&secrets).await?;
        Ok(Arc::new(secrets))
    }

    /// Seals a secret under the present data key. `belongs_to` names its row: a value moved to another row doesn't open.
    ///
    /// Which key is the present one is asked on the connection that then writes the secret: whatever becomes of that
    /// database, a value is never there without its key.
    ///
    /// # Errors
    /// The database doesn't answer, or the provider where the key is new to this process.
    pub async fn seal(
        &self,
        connection: &impl ConnectionTrait,
        belongs_to: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let id = current(connection)
            .await?
            .ok_or_else(|| Error::internal("there is no data key: the api makes it when it starts"))?;
        let key = self
            .key(id)
            .await?
            .ok_or_else(|| Error::Internal(format!("the data key {id} has gone")))?;
        Ok(sealed::seal(id, &key, belongs_to, secret))
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// It was sealed with another key, for another row, or has been changed; or the database or the provider doesn't
    /// answer where its key is new to this process.
    pub async fn open(&self, belongs_to: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, Error> {
        let Some(parts) = Sealed::parse(sealed) else {
            return self.open_old_form(belongs_to, sealed).ok_or_else(|| {
                Error::Internal(format!(
                    "the sealed secret of {belongs_to} does not open with this master key"
                ))
            });
        };
        match self.key(parts.data_key).await? {
            Some(key) => parts.open(&key, belongs_to).ok_or_else(|| {
                Error::Internal(format!(
                    "the sealed secret of {belongs_to} was changed, or moved there"
                ))
            }),
            None => self.open_old_form(belongs_to, sealed).ok_or_else(|| {
                Error::Internal(format!(
                    "the sealed secret of {belongs_to} names the data key {}, which is not in data_keys",
                    parts.data_key
                ))
            }),
        }
    }

    /// A key of 32 bytes for one purpose: the same in every process, whatever becomes of data keys and master keys.
    ///
    /// # Errors
    /// The database doesn't answer, or the secret that it is derived from doesn't open.
    pub async fn derive(&self, purpose: &str) -> Result<[u8; 32], Error> {
        let row = answered(platform_secret::Entity::find_by_id(DERIVATION).one(&self.database))
            .await?
            .ok_or_else(|| Error::internal("there is no secret to derive keys from"))?;
        Ok(master::derive(
            &self.open(DERIVATION, &row.sealed).await?,
            purpose,
        ))
    }

    /// Reads the data keys again, as another process may have changed them. Only those that are new to this process are
    /// opened: a process that knows them works on while its provider is away or has other keys.
    ///
    /// # Errors
    /// The database doesn't answer, or a key doesn't open; the others are known then.
    pub async fn read_again(&self) -> Result<(), Error> {
        let rows = answered(data_key::Entity::find().all(&self.database)).await?;
        let known = self.known();
        let (mut keys, mut outcome) = (DataKeys::new(), Ok(()));
        for row in rows {
            let opened = match known.get(&row.id) {
                Some(key) => Ok(key.clone()),
                None => provider::unwrap(&*self.provider, &wrapped(&row), &context(row.id)).await,
            };
            match opened {
                Ok(key) => drop(keys.insert(row.id, key)),
                Err(error) => outcome = Err(error),
            }
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        outcome
    }

    /// Reads the data keys again every minute, until the process ends.
    pub async fn keep_reading(&self, ending: CancellationToken) {
        let reading = async {
            loop {
                tokio::time::sleep(READ_EVERY).await;
                if let Err(error) = self.read_again().await {
                    tracing::warn!(%error, "can't read the data keys again");
                }
            }
        };
        ending.run_until_cancelled(reading).await;
    }

    fn open_old_form(&self, belongs_to: &str, sealed: &[u8]) -> Option<SecretSlice<u8>> {
        self.old_form.open_old_form(belongs_to, sealed)
    }

    fn known(&self) -> Arc<DataKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A data key; one that this process doesn't know is looked for, since another process may have made it.
    async fn key(&self, id: Uuid) -> Result<Option<SecretSlice<u8>>, Error> {
        if let Some(key) = self.known().get(&id) {
            return Ok(Some(key.clone()));
        }
        let outcome = self.read_again().await;
        match self.known().get(&id) {
            Some(key) => Ok(Some(key.clone())),
            None => outcome.map(|()| None),
        }
    }
}

/// The data key that seals.
async fn current(connection: &impl ConnectionTrait) -> Result<Option<Uuid>, Error> {
    let found = data_key::Entity::find()
        .select_only()
        .column(data_key::Column::Id)
        .filter(data_key::Column::RetiredAt.is_null())
        .into_tuple()
        .one(connection);
    answered(found).await
}

/// What a wrapped data key is bound to.
fn context(id: Uuid) -> EncryptionContext {
    EncryptionContext::from([
        ("purpose", "odoo-saas-platform/data-key".to_owned()),
        ("data_key", id.to_string()),
    ])
}

fn wrapped(row: &data_key::Model) -> Wrapped {
    Wrapped {
        key_id: row.key_id.clone(),
        bytes: row.wrapped.clone(),
    }
}
