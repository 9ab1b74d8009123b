//! The first start: a data key, and the secret that keys for other purposes are derived from. Two processes that start at
//! once make one of each.

use entity::{data_key, platform_secret};
use sea_orm::{
    ActiveValue::Set, DatabaseTransaction, EntityTrait as _, TransactionTrait as _, TryInsertResult,
    sea_query::OnConflict,
};
use secrecy::{ExposeSecret as _, SecretSlice};
use uuid::Uuid;

use super::{
    DERIVATION, Secrets, context, current,
    provider::{self, Wrapped},
    rotation::lock,
    sealed::{KEY_LEN, Sealed},
    stored,
};
use crate::error::Error;

/// A data key that no row holds yet.
pub(super) struct NewDataKey {
    id: Uuid,
    wrapped: Wrapped,
}

impl NewDataKey {
    /// Has one wrapped. This waits for the provider, which no transaction should.
    pub(super) async fn generate(secrets: &Secrets) -> Result<Self, Error> {
        let (id, key) = (Uuid::now_v7(), random());
        let wrapped = provider::wrap(&*secrets.provider, &key, &context(id)).await?;
        Ok(Self { id, wrapped })
    }

    pub(super) async fn insert(self, transaction: &DatabaseTransaction) -> Result<(), Error> {
        data_key::Entity::insert(data_key::ActiveModel {
            id: Set(self.id),
            key_id: Set(self.wrapped.key_id),
            wrapped: Set(self.wrapped.bytes),
            created_at: Set(chrono::Utc::now()),
            retired_at: Set(None),
        })
        .exec(transaction)
        .await?;
        Ok(())
    }
}

/// Makes the first data key, where there is none.
pub(super) async fn make_data_key(secrets: &Secrets) -> Result<(), Error> {
    if current(&secrets.database).await?.is_some() {
        return Ok(());
    }
    let new = NewDataKey::generate(secrets).await?;
    let transaction = secrets.database.begin().await?;
    lock(&transaction).await?;
    if current(&transaction).await?.is_none() {
        demand_right_master_key(secrets, &transaction).await?;
        new.insert(&transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// An installation that is older than data keys has secrets that were sealed under its master key. A data key that another
/// master key wraps must not come to stand beside them: then neither would open all.
async fn demand_right_master_key(secrets: &Secrets, transaction: &DatabaseTransaction) -> Result<(), Error> {
    for place in stored::PLACES {
        for found in place.all(transaction).await? {
            let old = Sealed::parse(&found.sealed).is_none();
            if old && secrets.open_old_form(&found.belongs_to, &found.sealed).is_none() {
                return Err(Error::Internal(format!(
                    "MASTER_KEY: it does not open the secret of {}, so it is not the key that was in use; give that one \
                     as MASTER_KEY, or as MASTER_KEY_PREVIOUS",
                    found.belongs_to
                )));
            }
        }
    }
    Ok(())
}

/// Makes the secret that keys for other purposes are derived from, where there is none.
pub(super) async fn make_derivation(secrets: &Secrets) -> Result<(), Error> {
    let present = platform_secret::Entity::find_by_id(DERIVATION).one(&secrets.database);
    if present.await?.is_some() {
        return Ok(());
    }
    let transaction = secrets.database.begin().await?;
    let sealed = secrets
        .seal(&transaction, DERIVATION, random().expose_secret())
        .await?;
    let inserted = platform_secret::Entity::insert(platform_secret::ActiveModel {
        name: Set(DERIVATION.to_owned()),
        sealed: Set(sealed),
        created_at: Set(chrono::Utc::now()),
    })
    .on_conflict(
        OnConflict::column(platform_secret::Column::Name)
            .do_nothing()
            .to_owned(),
    )
    .try_insert()
    .exec_without_returning(&transaction)
    .await?;
    // Another process was faster.
    if !matches!(inserted, TryInsertResult::Inserted(_)) {
        tracing::debug!("the secret that keys are derived from was there");
    }
    transaction.commit().await?;
    Ok(())
}

fn random() -> SecretSlice<u8> {
    rand::random::<[u8; KEY_LEN]>().to_vec().into()
}
