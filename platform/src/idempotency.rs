//! A POST with an `Idempotency-Key` is carried out once: the key is claimed by an advisory lock and stored, with what
//! was answered, in the transaction of the effect. A failed request stores nothing and may be sent again.

use entity::idempotency_record;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait as _, DatabaseTransaction, EntityTrait as _,
    QueryFilter as _, Statement, TransactionTrait as _,
};
use serde_json::Value;
use sha2::Sha256;
use uuid::Uuid;

use crate::{Platform, error::Error};

/// How long an answer is kept.
const KEPT_HOURS: i64 = 24;

/// A key and the request that it was sent with.
#[derive(Debug, Clone)]
pub struct Once {
    /// What the client calls the request.
    pub key: String,
    /// Hash of method, path and body.
    pub request_hash: Vec<u8>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Effect<T> {
    /// It was carried out now.
    Done(T),
    /// It was carried out before; this is what was recorded then.
    Replayed(Value),
}

impl Platform {
    /// What is kept of a request with a key.
    fn request_mac(&self, request_hash: &[u8]) -> Vec<u8> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.idempotency_key).expect("HMAC takes keys of every length");
        mac.update(request_hash);
        mac.finalize().into_bytes().to_vec()
    }

    /// Forgets answers that are too old to be replayed.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn forget_old_answers(&self) -> Result<u64, Error> {
        let deleted = idempotency_record::Entity::delete_many()
            .filter(
                idempotency_record::Column::CreatedAt
                    .lt(chrono::Utc::now() - chrono::Duration::hours(KEPT_HOURS)),
            )
            .exec(self.database())
            .await?;
        Ok(deleted.rows_affected)
    }
}

/// Claims the key, looks for its answer, and carries out the work where there is none.
async fn attempt<T>(
    platform: &Platform,
    transaction: &DatabaseTransaction,
    credential: Uuid,
    once: Option<&Once>,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, Error>,
    record: impl FnOnce(&T) -> Value,
) -> Result<Effect<T>, Error> {
    // Under a key that is not in the database: a request may hold a password, which could be guessed by its hash.
    let hash = once.map(|once| platform.request_mac(&once.request_hash));
    if let Some(once) = once {
        let claimed = transaction
            .query_one_raw(Statement::from_sql_and_values(
                sea_orm::DbBackend::Postgres,
                "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS claimed",
                [format!("idempotency:{credential}:{}", once.key).into()],
            ))
            .await?
            .ok_or_else(|| Error::internal("no answer to a lock"))?
            .try_get::<bool>("", "claimed")?;
        if !claimed {
            return Err(Error::IdempotencyInFlight);
        }
        let known = idempotency_record::Entity::find_by_id((credential, once.key.clone()))
            .one(transaction)
            .await?;
        if let Some(known) = known {
            if known.created_at > chrono::Utc::now() - chrono::Duration::hours(KEPT_HOURS) {
                return if Some(known.request_hash) == hash {
                    Ok(Effect::Replayed(known.answer))
                } else {
                    Err(Error::IdempotencyKeyReused)
                };
            }
            idempotency_record::Entity::delete_by_id((credential, once.key.clone()))
                .exec(transaction)
                .await?;
        }
    }
    let done = work(transaction).await?;
    if let Some((once, hash)) = once.zip(hash) {
        idempotency_record::Entity::insert(idempotency_record::ActiveModel {
            credential_id: Set(credential),
            key: Set(once.key.clone()),
            request_hash: Set(hash),
            answer: Set(record(&done)),
            created_at: Set(chrono::Utc::now()),
        })
        .exec(transaction)
        .await?;
    }
    Ok(Effect::Done(done))
}

/// Ends the transaction as its work did.
async fn ended<T>(
    transaction: DatabaseTransaction,
    effect: Result<Effect<T>, Error>,
) -> Result<Effect<T>, Error> {
    if let Ok(Effect::Done(_)) = effect {
        transaction.commit().await?;
    } else if let Err(error) = transaction.rollback().await {
        // Rolled back before the answer, since a transaction that is only dropped still holds the key when the
        // client sends it again. Nothing was changed in any case, and the answer is as good.
        tracing::warn!(%error, "a transaction was not rolled back");
    }
    effect
}

impl Platform {
    /// Carries out `work` in a transaction of the platform's own, once for each key of a credential that is nobody's who
    /// has signed in: see [`crate::caller::Caller::once`].
    ///
    /// # Errors
    /// As there.
    pub async fn once<T>(
        &self,
        credential: Uuid,
        once: Option<&Once>,
        work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, Error>,
        record: impl FnOnce(&T) -> Value,
    ) -> Result<Effect<T>, Error> {
        let transaction = crate::answered(self.database().begin()).await?;
        let effect = attempt(self, &transaction, credential, once, work, record).await;
        ended(transaction, effect).await
    }
}

impl<P: crate::permissions::Permission> crate::caller::Caller<P> {
    /// Carries out `work` in a transaction, once for each key of the caller's. `record` says what a replay answers, and
    /// must leave secrets out.
    ///
    /// # Errors
    /// [`Error::IdempotencyInFlight`], [`Error::IdempotencyKeyReused`], or whatever `work` fails with; then nothing
    /// has been changed.
    pub async fn once<T>(
        &self,
        once: Option<&Once>,
        work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, Error>,
        record: impl FnOnce(&T) -> Value,
    ) -> Result<Effect<T>, Error> {
        let transaction = self.identity().begin(self.platform()).await?;
        let credential = self.identity().idempotent_as();
        let effect = attempt(self.platform(), &transaction, credential, once, work, record).await;
        ended(transaction, effect).await
    }
}
