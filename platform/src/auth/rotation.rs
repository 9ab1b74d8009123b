//! New signing keys for old ones, without logging anybody out: a new key is announced first, then signs; the old one
//! verifies until its last token has ended. Every process reads the keys again each minute, and at once when it meets a
//! token of a key that it doesn't know.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use chrono::{DateTime, Duration, Utc};
use entity::signing_key;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseConnection, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, TransactionTrait as _, sea_query::Expr,
};

use super::{
    Claims, TokenKeys,
    tokens::{ACCESS_TOKEN_SECONDS, ANNOUNCEMENT, Refusal, create_signing_key},
};
use crate::{Platform, error::Error, secrets::Secrets};

/// How far apart the clocks of two processes may be.
const CLOCKS_APART: Duration = Duration::minutes(1);

/// An unknown key makes a process read the keys again, but no more often than this.
const READ_AGAIN_MILLIS: i64 = 1000;

/// How a key is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Only if the newest is at least this old.
    IfOlder(Duration),
    /// Now, with overlap: nobody notices.
    WithOverlap,
    /// Now, and the old keys' tokens are worth nothing any more: for a key that has become known. Clients refresh.
    AtOnce,
}

impl Platform {
    /// Checks a bearer token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn verify(&self, bearer: &str) -> Result<Arc<Claims>, Error> {
        let now = Utc::now();
        match self.token_keys().verify(bearer, now) {
            Ok(claims) => Ok(claims),
            Err(Refusal::UnknownKey) if self.may_read_keys_again(now) => {
                self.read_keys_again().await?;
                self.token_keys()
                    .verify(bearer, now)
                    .map_err(|_| Error::Unauthenticated)
            }
            Err(_) => Err(Error::Unauthenticated),
        }
    }

    fn may_read_keys_again(&self, now: DateTime<Utc>) -> bool {
        let now = now.timestamp_millis();
        let last = self.keys_read_at.load(Ordering::Relaxed);
        now - last >= READ_AGAIN_MILLIS
            && self
                .keys_read_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Reads the signing keys again, as another process may have changed them.
    ///
    /// # Errors
    /// The database doesn't answer; the old keys stay.
    pub async fn read_keys_again(&self) -> Result<(), Error> {
        let fresh = TokenKeys::load(self.database(), self.secrets(), Utc::now()).await?;
        let mut keys = self.token_keys.write().unwrap_or_else(PoisonError::into_inner);
        // The same keys keep the tokens that they have verified.
        if !keys.same_keys(&fresh) {
            *keys = Arc::new(fresh);
        }
        Ok(())
    }

    /// Replaces the signing key: see [`rotate`]. This process knows the new one at once.
    ///
    /// # Errors
    /// As there.
    pub async fn rotate_signing_key(&self, rotation: Rotation) -> Result<bool, Error> {
        let rotated = rotate(self.database(), self.secrets(), rotation).await?;
        self.read_keys_again().await?;
        Ok(rotated)
    }
}

/// Replaces the signing key, and forgets keys whose last token has ended. Answers whether there is a new one.
///
/// # Errors
/// The database doesn't answer; then nothing has changed.
pub async fn rotate(
    database: &DatabaseConnection,
    secrets: &Secrets,
    rotation: Rotation,
) -> Result<bool, Error> {
    // One of the processes rotates; the others find a young key.
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('signing_keys'))";

    let transaction = database.begin().await?;
    transaction.execute_unprepared(LOCK).await?;
    let now = Utc::now();
    signing_key::Entity::delete_many()
        .filter(signing_key::Column::VerifiesUntil.lte(now))
        .exec(&transaction)
        .await?;
    let newest = signing_key::Entity::find()
        .order_by_desc(signing_key::Column::CreatedAt)
        .one(&transaction)
        .await?;
    let due = match rotation {
        Rotation::IfOlder(age) => newest.is_none_or(|key| key.created_at + age <= now),
        Rotation::WithOverlap | Rotation::AtOnce => true,
    };
    if due {
        if rotation == Rotation::AtOnce {
            signing_key::Entity::delete_many().exec(&transaction).await?;
        } else {
            let signs_until = now + ANNOUNCEMENT + CLOCKS_APART;
            let verifies_until = signs_until + Duration::seconds(ACCESS_TOKEN_SECONDS) + CLOCKS_APART;
            signing_key::Entity::update_many()
                .col_expr(signing_key::Column::SignsUntil, Expr::value(signs_until))
                .col_expr(signing_key::Column::VerifiesUntil, Expr::value(verifies_until))
                .filter(signing_key::Column::SignsUntil.is_null())
                .exec(&transaction)
                .await?;
        }
        create_signing_key(&transaction, secrets).await?;
    }
    transaction.commit().await?;
    Ok(due)
}
