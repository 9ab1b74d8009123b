//! When keys were last used: remembered by each process and written now and then, so that a request writes nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use entity::id::ApiKeyId;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use crate::{Platform, error::Error};

/// The uses since they were last written.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<ApiKeyId, DateTime<Utc>>>);

impl Uses {
    /// A key is used now.
    pub(crate) fn note(&self, key: ApiKeyId) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.insert(key, Utc::now());
    }

    fn take(&self) -> HashMap<ApiKeyId, DateTime<Utc>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Platform {
    /// Writes down when keys were last used by this process.
    ///
    /// # Errors
    /// The database doesn't answer; then these uses are not written down.
    pub async fn write_key_uses(&self) -> Result<(), Error> {
        const WRITE: &str = "UPDATE api_keys SET last_used_at = greatest(last_used_at, used.at)
            FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at) WHERE api_keys.id = used.id";

        let uses = self.key_uses.take();
        if uses.is_empty() {
            return Ok(());
        }
        let (keys, moments): (Vec<uuid::Uuid>, Vec<DateTime<Utc>>) =
            uses.into_iter().map(|(key, at)| (key.0, at)).unzip();
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, WRITE, [keys.into(), moments.into()]);
        crate::answered(self.database().execute_raw(statement)).await?;
        Ok(())
    }
}
