//! What a process does now and then: it reads the signing keys again, replaces an old one, forgets what is too old.

use std::time::Duration;

use platform::{Platform, auth::Rotation};
use tokio_util::sync::CancellationToken;

/// How often the signing keys are read again: a key is announced ten minutes before it signs.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// How often the rest is done, at the earliest.
const REST_EVERY: Duration = Duration::from_secs(600);

/// Works until the process ends. A signing key is replaced when it is `key_age` old.
pub async fn keep_house(platform: &Platform, key_age: chrono::Duration, ending: CancellationToken) {
    let keys = async {
        loop {
            tokio::time::sleep(KEYS_EVERY).await;
            if let Err(error) = platform.read_keys_again().await {
                tracing::warn!(%error, "can't read the signing keys again");
            }
        }
    };
    let rest = async {
        loop {
            // Spread, so that several processes don't all do it at once.
            tokio::time::sleep(REST_EVERY + Duration::from_secs(u64::from(random_seconds()))).await;
            forget_and_rotate(platform, key_age).await;
        }
    };
    let work = Box::pin(async { tokio::join!(keys, rest) });
    ending.run_until_cancelled(work).await;
}

async fn forget_and_rotate(platform: &Platform, key_age: chrono::Duration) {
    match platform.forget_old_answers().await {
        Ok(0) => {}
        Ok(forgotten) => tracing::info!(forgotten, "forgot old answers to idempotent requests"),
        Err(error) => tracing::warn!(%error, "can't forget old answers"),
    }
    match platform.rotate_signing_key(Rotation::IfOlder(key_age)).await {
        Ok(false) => {}
        Ok(true) => tracing::info!("a new key will sign access tokens"),
        Err(error) => tracing::warn!(%error, "can't replace the signing key"),
    }
}

fn random_seconds() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}
