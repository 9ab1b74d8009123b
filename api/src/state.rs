//! What all requests of a process share.

use std::{net::IpAddr, sync::Arc};

use jobs::Watcher;
use platform::{Platform, limits::RateLimiter};
use redis::aio::ConnectionManager;
use tokio_util::sync::CancellationToken;

/// What all requests of a process share.
#[derive(Clone)]
pub struct State {
    /// The rules.
    pub platform: Arc<Platform>,
    /// Tells when an operation changes.
    pub watcher: Watcher,
    /// Redis, for the readiness check.
    pub redis: ConnectionManager,
    /// Limits requests.
    pub limiter: Arc<RateLimiter>,
    /// Proxies whose word for a client's address is taken.
    pub trusted_proxies: Arc<[IpAddr]>,
    /// Cancelled when the process has been told to end.
    pub ending: CancellationToken,
    /// The OpenAPI document, as it is served.
    pub openapi: Arc<str>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
