//! Slows down guessing: ten failed sign-ins a minute for one account from one address. Never for the account alone, or
//! anybody could lock its owner out.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use quick_cache::sync::Cache;
use redis::{Script, aio::ConnectionManager};
use sha2::Sha256;

use crate::{error::Error, limits::network_of, secrets::Secrets};

/// Failed sign-ins that are let pass in a window.
const FAILURES: u32 = 10;
/// The window, from the first of them.
const WINDOW_MILLIS: u64 = 60_000;
const WINDOW: Duration = Duration::from_millis(WINDOW_MILLIS);
/// Longest wait for Redis; without it each process counts alone.
const DEADLINE: Duration = Duration::from_millis(250);

/// Counts an attempt and answers 0, or answers the milliseconds until one is let pass again.
const RESERVE: &str = r"
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then
  return math.max(redis.call('PTTL', KEYS[1]), 1)
end
redis.call('INCR', KEYS[1])
if count == 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
";

/// Takes an attempt back.
const RELEASE: &str = r"
if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then
  redis.call('DECR', KEYS[1])
end
return 0
";

/// Counts failed sign-ins.
#[derive(Debug)]
pub struct SignInThrottle {
    redis: ConnectionManager,
    prefix: String,
    key: [u8; 32],
    alone: Cache<String, std::sync::Arc<Mutex<Count>>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    since: Instant,
}

/// An attempt that counts as failed until it is known not to have: any number at the same time is counted too.
#[derive(Debug)]
pub(crate) struct Attempt(String);

impl SignInThrottle {
    /// Counts under keys of this prefix.
    ///
    /// # Errors
    /// The key that hides accounts and addresses can't be derived.
    pub async fn new(redis: ConnectionManager, prefix: &str, secrets: &Secrets) -> Result<Self, Error> {
        Ok(Self {
            redis,
            prefix: prefix.to_owned(),
            key: secrets.derive("sign-in-throttle").await?,
            alone: Cache::new(10_000),
        })
    }

    /// Counts an attempt before it is made.
    ///
    /// # Errors
    /// [`Error::TooManySignIns`].
    pub(crate) async fn attempt(&self, email: &str, address: IpAddr) -> Result<Attempt, Error> {
        let key = self.name(email, address);
        let wait = match self.run(RESERVE, &key).await {
            Some(millis) => Duration::from_millis(millis),
            None => self.attempt_alone(&key),
        };
        if wait.is_zero() {
            Ok(Attempt(key))
        } else {
            Err(Error::TooManySignIns { retry_after: wait })
        }
    }

    /// Takes the count of an attempt back, which did not fail.
    pub(crate) async fn release(&self, attempt: Attempt) {
        if self.run(RELEASE, &attempt.0).await.is_none()
            && let Some(count) = self.alone.get(&attempt.0)
        {
            let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
            count.failures = count.failures.saturating_sub(1);
        }
    }

    /// Account and address behind a keyed hash: Redis need not know who signs in from where.
    fn name(&self, email: &str, address: IpAddr) -> String {
        use base64::Engine as _;

        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        mac.update(email.to_lowercase().as_bytes());
        mac.update(&[0]);
        mac.update(&network_of(address));
        let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{}:sign-in:{hash}", self.prefix)
    }

    async fn run(&self, script: &str, key: &str) -> Option<u64> {
        let script = Script::new(script);
        let mut call = script.key(key);
        call.arg(FAILURES).arg(WINDOW_MILLIS);
        let mut redis = self.redis.clone();
        match tokio::time::timeout(DEADLINE, call.invoke_async::<u64>(&mut redis)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "sign-ins are counted by each process alone");
                None
            }
            Err(_) => {
                tracing::warn!("sign-ins are counted by each process alone: redis is slow");
                None
            }
        }
    }

    fn attempt_alone(&self, key: &str) -> Duration {
        let now = Instant::now();
        let fresh = || -> Result<_, std::convert::Infallible> {
            Ok(std::sync::Arc::new(Mutex::new(Count {
                failures: 0,
                since: now,
            })))
        };
        let Ok(count) = self.alone.get_or_insert_with(key, fresh);
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(count.since) >= WINDOW {
            *count = Count {
                failures: 0,
                since: now,
            };
        }
        if count.failures >= FAILURES {
            return WINDOW.saturating_sub(now.duration_since(count.since));
        }
        count.failures += 1;
        Duration::ZERO
    }
}
