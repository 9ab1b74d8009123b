//! How many requests a credential may make: a token bucket in Redis, shared by all processes. A process leases permits in
//! small blocks, so that most requests cost no round trip; a block that is not used up within a second is let go. Without
//! Redis each process limits by itself.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use entity::id::{ApiKeyId, SessionId};
use prometheus::{IntCounter, Registry};
use quick_cache::sync::Cache;
use redis::{Script, aio::ConnectionManager};

/// A block is this part of the burst, and grows up to the requests of a second while blocks are used up at once.
const BLOCKS_IN_A_BURST: u32 = 20;
/// How long a block is good, and so how old the numbers in an answer can be.
const BLOCK_LIFE: Duration = Duration::from_secs(1);
/// Longest wait for Redis.
const DEADLINE: Duration = Duration::from_millis(100);
/// After a failure Redis is left alone for so long, in milliseconds.
const PAUSE_MILLIS: u64 = 1000;
/// Subjects that are remembered at most; what is forgotten begins a new block.
const REMEMBERED: usize = 50_000;

/// Refills a bucket by the time that has passed and takes permits out of it: `{granted, left, milliseconds until the next}`.
const LEASE: &str = r"
local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'permits', 'at')
local permits = tonumber(bucket[1]) or burst
local at = tonumber(bucket[2]) or now
permits = math.min(burst, permits + math.max(0, now - at) * rate)
local granted = math.min(want, math.floor(permits))
permits = permits - granted
redis.call('HSET', KEYS[1], 'permits', tostring(permits), 'at', string.format('%.6f', math.max(now, at)))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - permits) / rate * 1000) + 1000)
local wait = 0
if granted == 0 then
  wait = math.ceil((1 - permits) / rate * 1000)
end
return {granted, math.floor(permits), wait}
";

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Those of a session.
    Session(SessionId),
    /// Those of an API key.
    Key(ApiKeyId),
    /// Those of an address that shows no good credential.
    Address(IpAddr),
}

impl Subject {
    fn name(self, prefix: &str) -> String {
        use std::fmt::Write as _;

        match self {
            Self::Session(session) => format!("{prefix}:rate:{session}"),
            Self::Key(key) => format!("{prefix}:rate:{key}"),
            Self::Address(address) => {
                let mut name = format!("{prefix}:rate:");
                for byte in network_of(address) {
                    write!(name, "{byte:02x}").expect("a string takes all");
                }
                name
            }
        }
    }
}

/// What counts as one address: an IPv6 customer has a whole /64.
pub(crate) fn network_of(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}

/// How a subject stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the request may go on.
    pub granted: bool,
    /// The most requests at once.
    pub limit: u32,
    /// How many of them are left.
    pub remaining: u32,
    /// When all are back again.
    pub reset: Duration,
    /// When the next is granted, if this one was not.
    pub retry_after: Duration,
}

/// Limits requests.
#[derive(Debug)]
pub struct RateLimiter {
    redis: ConnectionManager,
    prefix: String,
    script: Script,
    /// Requests a second.
    rate: u32,
    /// Requests at once.
    burst: u32,
    subjects: Cache<Subject, Arc<Lease>>,
    epoch: Instant,
    /// Milliseconds of `epoch` before which Redis is not asked.
    ask_from: AtomicU64,
    limited: IntCounter,
    alone: IntCounter,
}

/// What a process holds for a subject.
#[derive(Debug)]
struct Lease {
    state: Mutex<Permits>,
    /// One request at a time leases a new block.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Permits {
    /// How many were asked for.
    block: u32,
    /// In the present block.
    held: u32,
    /// In the bucket, when the block was leased.
    left: u32,
    good_until: Instant,
    refused_until: Instant,
    /// For times without Redis.
    bucket: f64,
    bucket_at: Instant,
}

impl RateLimiter {
    /// A limiter that counts under keys of this prefix, with its metrics.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(
        redis: ConnectionManager,
        prefix: &str,
        rate: u32,
        burst: u32,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let limited = IntCounter::new("rate_limited_requests_total", "Requests over their limit.")?;
        let alone = IntCounter::new(
            "rate_limit_without_redis_total",
            "Requests that were counted by this process alone, since Redis did not answer.",
        )?;
        registry.register(Box::new(limited.clone()))?;
        registry.register(Box::new(alone.clone()))?;
        Ok(Self {
            redis,
            prefix: prefix.to_owned(),
            script: Script::new(LEASE),
            rate: rate.max(1),
            burst: burst.max(1),
            subjects: Cache::new(REMEMBERED),
            epoch: Instant::now(),
            ask_from: AtomicU64::new(0),
            limited,
            alone,
        })
    }

    /// Counts a request.
    pub async fn take(&self, subject: Subject) -> Standing {
        let fresh = || -> Result<_, std::convert::Infallible> { Ok(Arc::new(Lease::new(self.burst))) };
        let Ok(lease) = self.subjects.get_or_insert_with(&subject, fresh);
        let standing = match self.take_held(&lease) {
            Some(standing) => standing,
            None => {
                let _turn = lease.turn.lock().await;
                // Whoever had the turn before may have leased enough for both.
                match self.take_held(&lease) {
                    Some(standing) => standing,
                    None => self.lease_and_take(&lease, subject).await,
                }
            }
        };
        if !standing.granted {
            self.limited.inc();
        }
        standing
    }

    /// Takes a permit of the present block. `None`: a new one must be leased.
    fn take_held(&self, lease: &Lease) -> Option<Standing> {
        let now = Instant::now();
        let mut permits = lease.lock();
        if permits.refused_until > now {
            return Some(self.standing(false, 0, permits.refused_until - now));
        }
        if permits.held > 0 && permits.good_until > now {
            permits.held -= 1;
            return Some(self.standing(true, permits.left + permits.held, Duration::ZERO));
        }
        None
    }

    async fn lease_and_take(&self, lease: &Lease, subject: Subject) -> Standing {
        let block = self.next_block(lease);
        let Some((granted, left, wait)) = self.lease(subject, block).await else {
            self.alone.inc();
            return self.take_alone(lease);
        };
        let now = Instant::now();
        let mut permits = lease.lock();
        if granted == 0 {
            let wait = Duration::from_millis(wait);
            permits.refused_until = now + wait;
            return self.standing(false, 0, wait);
        }
        permits.block = block;
        permits.held = granted - 1;
        permits.left = left;
        permits.good_until = now + BLOCK_LIFE;
        self.standing(true, left + permits.held, Duration::ZERO)
    }

    /// How many permits to ask for: twice as many as before if those did not last.
    fn next_block(&self, lease: &Lease) -> u32 {
        let least = (self.burst / BLOCKS_IN_A_BURST).max(1);
        let permits = lease.lock();
        let used_up = permits.held == 0 && permits.good_until > Instant::now();
        if used_up {
            (permits.block * 2).clamp(least, self.rate.min(self.burst).max(least))
        } else {
            least
        }
    }

    async fn lease(&self, subject: Subject, block: u32) -> Option<(u32, u32, u64)> {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.ask_from.load(Ordering::Relaxed) > now {
            return None;
        }
        let mut call = self.script.key(subject.name(&self.prefix));
        call.arg(self.rate).arg(self.burst).arg(block);
        let mut redis = self.redis.clone();
        let answer = tokio::time::timeout(DEADLINE, call.invoke_async(&mut redis)).await;
        let error = match answer {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {DEADLINE:?}"),
        };
        self.ask_from
            .store(now.saturating_add(PAUSE_MILLIS), Ordering::Relaxed);
        tracing::warn!(
            error,
            "redis does not answer: this process limits requests by itself"
        );
        None
    }

    /// Takes a permit of this process's own bucket.
    fn take_alone(&self, lease: &Lease) -> Standing {
        let now = Instant::now();
        let mut permits = lease.lock();
        let passed = now.duration_since(permits.bucket_at).as_secs_f64();
        permits.bucket = (permits.bucket + passed * f64::from(self.rate)).min(f64::from(self.burst));
        permits.bucket_at = now;
        if permits.bucket < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - permits.bucket) / f64::from(self.rate));
            return self.standing(false, 0, wait);
        }
        permits.bucket -= 1.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the burst"
        )]
        let left = permits.bucket as u32;
        self.standing(true, left, Duration::ZERO)
    }

    fn standing(&self, granted: bool, remaining: u32, retry_after: Duration) -> Standing {
        let remaining = remaining.min(self.burst);
        Standing {
            granted,
            limit: self.burst,
            remaining,
            reset: Duration::from_secs_f64(f64::from(self.burst - remaining) / f64::from(self.rate)),
            retry_after,
        }
    }
}

impl Lease {
    fn new(burst: u32) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(Permits {
                block: 0,
                held: 0,
                left: 0,
                good_until: now,
                refused_until: now,
                bucket: f64::from(burst),
                bucket_at: now,
            }),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Permits> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
