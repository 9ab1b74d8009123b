//! Waiting with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until the answer is no error. The last error says what was missing.
///
/// # Errors
/// The deadline has passed.
pub async fn until<T>(deadline: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let give_up = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= give_up => {
                return Err(error).with_context(|| format!("waited {deadline:?} in vain until {what}"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
