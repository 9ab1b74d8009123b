//! Making, rotating and revoking API keys.

use chrono::{Duration, Utc};
use entity::{api_key, id::ApiKeyId};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{ApiKeyRow, ApiKeys, NewApiKey, Revealed};
use crate::{
    audit::{self, Entry, Subject},
    auth::{opaque, secret},
    error::{Error, Violation},
    organizations,
    precondition::Precondition,
    text,
};

/// How long the old secret stays good after a rotation where nothing is said, in seconds: a day.
pub(super) const OVERLAP_SECONDS: i64 = 24 * 3600;
/// And at most: a week.
const OVERLAP_SECONDS_AT_MOST: i64 = 7 * 24 * 3600;

impl ApiKeys<'_> {
    /// Makes a key within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub async fn create(
        &self,
        transaction: &DatabaseTransaction,
        new: &NewApiKey,
    ) -> Result<Revealed, Error> {
        let now = Utc::now();
        let mut violations = Vec::new();
        let name = text::display_name(&new.name).map_err(|violation| violations.push(violation));
        self.identity.check_given_role(new.role, &mut violations);
        if new.expires_at.is_some_and(|at| at <= now) {
            violations.push(Violation::at(
                "/expires_at",
                "invalid_expiry",
                "must be in the future",
            ));
        }
        let name = match name {
            Ok(name) if violations.is_empty() => name,
            _ => return Err(Error::Invalid(violations)),
        };
        let organization =
            organizations::named(transaction, self.identity, "/organization_id", new.organization).await?;
        let secret = secret::generate();
        let row = api_key::ActiveModel {
            id: Set(ApiKeyId::new()),
            organization_id: Set(organization.id),
            name: Set(name),
            role: Set(new.role),
            prefix: Set(secret::shown(secret.expose_secret())),
            secret_hash: Set(opaque::hash(&secret)),
            previous_hash: Set(None),
            previous_until: Set(None),
            created_at: Set(now),
            rotated_at: Set(None),
            expires_at: Set(new.expires_at),
            last_used_at: Set(None),
            revision: Set(1),
        };
        let key = crate::answered(api_key::Entity::insert(row).exec_with_returning(transaction)).await?;
        self.log(transaction, &key, None, Some(snapshot(&key))).await?;
        Ok(Revealed { key, secret })
    }

    /// Gives a key a new secret within the caller's transaction. The old one stays good for so many seconds; one before
    /// it ends now.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::ApiKeyExpired`].
    pub async fn rotate(
        &self,
        transaction: &DatabaseTransaction,
        id: ApiKeyId,
        overlap_seconds: Option<i64>,
    ) -> Result<Revealed, Error> {
        let overlap = overlap_seconds.unwrap_or(OVERLAP_SECONDS);
        let before = self.lock(transaction, id).await?;
        if !(0..=OVERLAP_SECONDS_AT_MOST).contains(&overlap) {
            return Err(Error::invalid(
                "/overlap_seconds",
                "invalid_overlap",
                format!("must be 0 to {OVERLAP_SECONDS_AT_MOST}"),
            ));
        }
        if before.role > self.identity.role {
            return Err(Error::Forbidden {
                permission: "api_keys.manage",
            });
        }
        let now = Utc::now();
        if before.expires_at.is_some_and(|at| at <= now) {
            return Err(Error::ApiKeyExpired);
        }
        let secret = secret::generate();
        let (previous, until) = if overlap == 0 {
            (None, None)
        } else {
            (
                Some(before.secret_hash.clone()),
                Some(now + Duration::seconds(overlap)),
            )
        };
        let updated = api_key::Entity::update_many()
            .col_expr(api_key::Column::PreviousHash, Expr::value(previous))
            .col_expr(api_key::Column::PreviousUntil, Expr::value(until))
            .col_expr(api_key::Column::SecretHash, Expr::value(opaque::hash(&secret)))
            .col_expr(
                api_key::Column::Prefix,
                Expr::value(secret::shown(secret.expose_secret())),
            )
            .col_expr(api_key::Column::RotatedAt, Expr::value(Some(now)))
            .col_expr(
                api_key::Column::Revision,
                Expr::col(api_key::Column::Revision).add(1),
            )
            .filter(api_key::Column::Id.eq(id))
            .exec_with_returning(transaction);
        let key = crate::answered(updated)
            .await?
            .into_iter()
            .next()
            .ok_or(Error::NotFound)?;
        self.log(transaction, &key, Some(snapshot(&before)), Some(snapshot(&key)))
            .await?;
        Ok(Revealed { key, secret })
    }

    /// Revokes a key: its secrets are worth nothing from now on, on every process.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`].
    pub async fn revoke(&self, id: ApiKeyId, precondition: &Precondition) -> Result<(), Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let before = self.lock(&transaction, id).await?;
        precondition.check(&before)?;
        // Before the row goes: a key that revokes itself is named in the log too.
        self.log(&transaction, &before, Some(snapshot(&before)), None)
            .await?;
        crate::answered(api_key::Entity::delete_by_id(id).exec(&transaction)).await?;
        crate::answered(transaction.commit()).await
    }

    async fn lock(&self, transaction: &DatabaseTransaction, id: ApiKeyId) -> Result<ApiKeyRow, Error> {
        let query = api_key::Entity::find()
            .filter(self.identity.sees("api_keys.organization_id"))
            .filter(api_key::Column::Id.eq(id))
            .lock_exclusive();
        crate::answered(query.one(transaction))
            .await?
            .ok_or(Error::NotFound)
    }

    async fn log(
        &self,
        transaction: &DatabaseTransaction,
        key: &ApiKeyRow,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        let entry = Entry {
            organization: key.organization_id,
            subject: Some(Subject::ApiKey(key.id)),
            before,
            after,
        };
        audit::record(transaction, self.identity, entry).await
    }
}

/// What the log shows of a key.
fn snapshot(key: &ApiKeyRow) -> Value {
    json!({
        "name": key.name,
        "role": key.role,
        "prefix": key.prefix,
        "expires_at": key.expires_at,
        "previous_until": key.previous_until,
    })
}
