//! What all requests of a process share.

use std::sync::Arc;

use jobs::Watcher;
use platform::Platform;
use redis::aio::ConnectionManager;

/// What all requests of a process share.
#[derive(Clone)]
pub struct State {
    /// The rules.
    pub platform: Arc<Platform>,
    /// Tells when an operation changes.
    pub watcher: Watcher,
    /// Redis, for the readiness check.
    pub redis: ConnectionManager,
    /// The OpenAPI document, as it is served.
    pub openapi: Arc<str>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
