//! New data keys for old ones. A new one seals from the moment it is committed; the old ones still open. What is stored is
//! then sealed again under the new one, each secret in a statement of its own, and a key that nothing refers to any more
//! is deleted after a while. Every step may be the last one that a process takes, and be taken by two at once.

use chrono::{Duration, Utc};
use entity::data_key;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseTransaction, DbErr, EntityTrait as _, QueryFilter as _,
    Statement, TransactionTrait as _, sea_query::Expr,
};
use secrecy::ExposeSecret as _;

use super::{
    Secrets, context, current,
    first::NewDataKey,
    provider,
    sealed::beginning,
    stored::{PLACES, Place},
    wrapped,
};
use crate::error::Error;

/// For how long an old data key is kept at least, though nothing refers to it: far longer than a transaction that sealed
/// under it may take to be committed.
const OVERLAP: Duration = Duration::hours(24);

/// Secrets that are read at a time.
const BATCH: u32 = 100;

/// When a data key is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKeyRotation {
    /// Only if it is at least this old.
    IfOlder(Duration),
    /// Now.
    Now,
}

/// What was done to data keys and stored secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    /// Whether there is a new data key.
    pub rotated: bool,
    /// Data keys that were wrapped anew, since the provider's key is another one.
    pub rewrapped: u64,
    /// Secrets that were sealed again under the present data key.
    pub resealed: u64,
    /// Secrets that could not be.
    pub stuck: u64,
    /// Old data keys that were deleted.
    pub deleted: u64,
}

/// Lets one process at a time change the data keys.
pub(super) async fn lock(transaction: &DatabaseTransaction) -> Result<(), Error> {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('data_keys'))";
    transaction.execute_unprepared(LOCK).await?;
    Ok(())
}

impl Secrets {
    /// Does all that data keys and stored secrets are due for.
    ///
    /// # Errors
    /// The database or the provider doesn't answer; what was done until then stays.
    pub async fn tend(&self, rotation: DataKeyRotation) -> Result<Tended, Error> {
        let rotated = self.rotate(rotation).await?;
        self.read_again().await?;
        let rewrapped = self.rewrap().await?;
        let (resealed, stuck) = self.reseal().await?;
        let deleted = self.delete_unused().await?;
        self.read_again().await?;
        Ok(Tended {
            rotated,
            rewrapped,
            resealed,
            stuck,
            deleted,
        })
    }

    /// Makes a new data key, if it is due.
    async fn rotate(&self, rotation: DataKeyRotation) -> Result<bool, Error> {
        let now = Utc::now();
        let mut present = data_key::Entity::find().filter(data_key::Column::RetiredAt.is_null());
        if let DataKeyRotation::IfOlder(age) = rotation {
            present = present.filter(data_key::Column::CreatedAt.lte(now - age));
        }
        let Some(present) = present.one(&self.database).await? else {
            return Ok(false);
        };
        let new = NewDataKey::generate(self).await?;
        let transaction = self.database.begin().await?;
        lock(&transaction).await?;
        if current(&transaction).await? != Some(present.id) {
            // Another process was faster.
            return Ok(false);
        }
        data_key::Entity::update_many()
            .col_expr(data_key::Column::RetiredAt, Expr::value(now))
            .filter(data_key::Column::RetiredAt.is_null())
            .exec(&transaction)
            .await?;
        new.insert(&transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Wraps data keys anew that an earlier key of the provider's has wrapped: after that nobody needs that one.
    async fn rewrap(&self) -> Result<u64, Error> {
        let rows = data_key::Entity::find()
            .filter(data_key::Column::KeyId.ne(self.provider.key_id()))
            .all(&self.database)
            .await?;
        let mut rewrapped = 0;
        for row in rows {
            // Not from what this process remembers: what is stored must have been seen to open.
            let key = provider::unwrap(&*self.provider, &wrapped(&row), &context(row.id)).await?;
            let new = provider::wrap(&*self.provider, &key, &context(row.id)).await?;
            let updated = data_key::Entity::update_many()
                .col_expr(data_key::Column::KeyId, Expr::value(new.key_id))
                .col_expr(data_key::Column::Wrapped, Expr::value(new.bytes))
                .filter(data_key::Column::Id.eq(row.id))
                .filter(data_key::Column::Wrapped.eq(row.wrapped))
                .exec(&self.database)
                .await?;
            rewrapped += updated.rows_affected;
        }
        Ok(rewrapped)
    }

    /// Seals again what is sealed under another data key than the present one. Answers how many were, and how many could
    /// not be: one that doesn't open keeps none of the others.
    async fn reseal(&self) -> Result<(u64, u64), Error> {
        let (mut resealed, mut stuck) = (0, 0);
        let Some(present) = current(&self.database).await? else {
            return Ok((0, 0));
        };
        for place in &PLACES {
            let mut after = String::new();
            loop {
                let batch = place
                    .not_beginning_with(&self.database, &beginning(present), &after, BATCH)
                    .await?;
                let Some(last) = batch.last() else {
                    break;
                };
                after = last.id.clone();
                for found in batch {
                    let opened = match self.open(&found.belongs_to, &found.sealed).await {
                        Ok(opened) => opened,
                        Err(away @ Error::Unavailable { .. }) => return Err(away),
                        Err(error) => {
                            tracing::error!(table = place.table, %error, "a secret can't be sealed again");
                            stuck += 1;
                            continue;
                        }
                    };
                    let again = self
                        .seal(&self.database, &found.belongs_to, opened.expose_secret())
                        .await?;
                    resealed += u64::from(place.replace(&self.database, &found, again).await?);
                }
            }
        }
        Ok((resealed, stuck))
    }

    /// Deletes data keys that have been old for a while and that nothing refers to.
    async fn delete_unused(&self) -> Result<u64, Error> {
        let transaction = self.database.begin().await?;
        lock(&transaction).await?;
        // A policy that hides rows from this role must make this fail, not hide that a key is needed.
        transaction
            .execute_unprepared("SET LOCAL row_security = off")
            .await?;
        let deleted = delete_unused(&transaction).await?;
        transaction.commit().await?;
        Ok(deleted)
    }
}

async fn delete_unused(transaction: &DatabaseTransaction) -> Result<u64, DbErr> {
    let unused: Vec<String> = PLACES
        .iter()
        .map(|Place { table, column, .. }| {
            format!("AND NOT EXISTS (SELECT FROM {table} WHERE substring({column} FROM 5 FOR 16) = uuid_send(k.id))")
        })
        .collect();
    let sql = format!(
        "DELETE FROM data_keys k WHERE k.retired_at < $1 {}",
        unused.join(" ")
    );
    let before = Utc::now() - OVERLAP;
    let statement = Statement::from_sql_and_values(transaction.get_database_backend(), sql, [before.into()]);
    Ok(transaction.execute_raw(statement).await?.rows_affected())
}
