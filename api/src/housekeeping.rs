//! What a process does now and then: it reads the keys again, replaces old ones, forgets what is too old.

use std::{fmt, sync::Arc, time::Duration};

use platform::{
    Platform,
    auth::{self, Rotation},
    secrets::{DataKeyRotation, Tended},
};
use sea_orm::{DatabaseConnection, DbErr};
use tokio_util::sync::CancellationToken;

/// How often the signing keys are read again, since a key is announced ten minutes before it signs, and what was counted
/// is written down.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// How often the rest is done, at the earliest.
const REST_EVERY: Duration = Duration::from_secs(600);

/// For how long it is recorded what schedules fired.
const FIRES_KEPT: Duration = Duration::from_hours(24 * 30);

/// Rows that one statement forgets.
const BATCH: u32 = 500;

/// Keeps one process's house.
pub struct Housekeeper {
    /// Whose it is.
    pub platform: Arc<Platform>,
    /// The control plane's database.
    pub database: DatabaseConnection,
    /// A signing key that is so old is replaced.
    pub key_age: chrono::Duration,
    /// A data key that is so old is replaced.
    pub data_key_age: chrono::Duration,
    /// An operation that ended so long ago is forgotten.
    pub operations_kept: Duration,
}

impl Housekeeper {
    /// Works until the process ends.
    pub async fn keep_house(&self, ending: CancellationToken) {
        let keys = async {
            loop {
                tokio::time::sleep(KEYS_EVERY).await;
                self.write_down().await;
                if let Err(error) = self.platform.read_keys_again().await {
                    tracing::warn!(%error, "can't read the signing keys again");
                }
            }
        };
        let rest = async {
            loop {
                // Spread, so that several processes don't all do it at once.
                tokio::time::sleep(REST_EVERY + Duration::from_secs(u64::from(random_seconds()))).await;
                self.forget_and_rotate().await;
            }
        };
        let data_keys = self.platform.secrets().keep_reading(ending.clone());
        let work = Box::pin(async { tokio::join!(keys, data_keys, rest) });
        ending.run_until_cancelled(work).await;
        self.write_down().await;
    }

    /// Writes down what was only counted.
    async fn write_down(&self) {
        if let Err(error) = self.platform.write_key_uses().await {
            tracing::warn!(%error, "it was not written down when API keys were last used");
        }
        if let Err(error) = self.platform.tell_of_unknown_sign_ins().await {
            tracing::warn!(%error, "sign-ins to unknown accounts are not in the audit log yet");
        }
    }

    async fn forget_and_rotate(&self) {
        let Self {
            platform,
            database,
            key_age,
            data_key_age,
            operations_kept,
        } = self;
        forget(
            "old answers to idempotent requests",
            platform.forget_old_answers(),
        )
        .await;
        let operations = in_batches(|| jobs::delete_finished(database, *operations_kept, BATCH));
        forget("operations that ended long ago", operations).await;
        let fires = in_batches(|| jobs::schedule::delete_fires(database, FIRES_KEPT, BATCH));
        forget("what schedules fired long ago", fires).await;
        let refresh_tokens = in_batches(|| auth::forget_refresh_tokens(database, BATCH));
        forget("refresh tokens that had expired", refresh_tokens).await;
        let sessions = in_batches(|| auth::forget_sessions(database, BATCH));
        forget("sessions that ended long ago", sessions).await;
        match platform.rotate_signing_key(Rotation::IfOlder(*key_age)).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("a new key will sign access tokens"),
            Err(error) => tracing::warn!(%error, "can't replace the signing key"),
        }
        match platform
            .secrets()
            .tend(DataKeyRotation::IfOlder(*data_key_age))
            .await
        {
            Ok(done) if done == Tended::default() => {}
            Ok(done) => tracing::info!(?done, "tended the data keys"),
            Err(error) => tracing::warn!(%error, "can't tend the data keys"),
        }
    }
}

/// Forgets rows and says how many, or why not.
async fn forget<E: fmt::Display>(what: &str, forgetting: impl Future<Output = Result<u64, E>>) {
    match forgetting.await {
        Ok(0) => {}
        Ok(forgotten) => tracing::info!(forgotten, "forgot {what}"),
        Err(error) => tracing::warn!(%error, "can't forget {what}"),
    }
}

/// Deletes until a batch is not full; short transactions keep everyone else's short.
async fn in_batches<F>(delete: impl Fn() -> F) -> Result<u64, DbErr>
where
    F: Future<Output = Result<u64, DbErr>>,
{
    let mut all = 0;
    loop {
        let deleted = delete().await?;
        all += deleted;
        if deleted < u64::from(BATCH) {
            return Ok(all);
        }
    }
}

fn random_seconds() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}
