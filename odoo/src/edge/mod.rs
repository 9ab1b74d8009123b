//! The edge: one stock Nginx (1.22 or newer) in front of the API and of all tenants.
//!
//! [`EdgeConfig`] renders its configuration; [`Edge`] changes where hosts lead, without a reload, since a reload keeps
//! a whole old process for every open websocket. It must never let a request choose its own database, nor a file.
//!
//! # The directory of routes (`EDGE_PATH`)
//!
//! | entry | what it is |
//! | --- | --- |
//! | `hosts/<host>` | symbolic link to `../to/<web port>-<gevent port>-<pool>/<database>.<state>`, replaced by a rename |
//! | `to/…` | empty files, only there so that the links have a real path, which Nginx takes apart |
//! | `pools.map` | the pools' secrets and the generation, loaded by Nginx; mode 0640 |
//! | `generation` | the generation of `pools.map`, written after it |
//! | `lock` | held during a change |
//!
//! The directory belongs to the worker's user and to a group of Nginx's user, mode 2750: only these two read it.
//!
//! # Who reloads
//!
//! The worker can't signal Nginx, whose master may be root's. So whoever supervises Nginx
//! 1. starts it as `nginx -e <error log> -c <configuration>`;
//! 2. when the *content* of `generation` changes (a look every 100 ms is enough), runs `nginx -t` with the same
//!    arguments and, when that succeeds, sends SIGHUP to the master. When it fails, it logs what `nginx -t` said and
//!    keeps what is loaded; the wait in [`Edge::wait_loaded`] then ends with an error;
//! 3. does the same when it has written another configuration. A start needs nothing: Nginx loads what is there.
//!
//! The loaded generation is answered at `/.edge/generation` on the API's host, to loopback addresses only.

mod config;
mod error;
mod hostname;
mod lock;
mod notices;
mod pools;
mod routes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use config::{EdgeConfig, EdgeConfigError, PublicScheme};
pub use error::EdgeError;
pub use hostname::{Hostname, HostnameError};
pub use notices::own_answers;
pub use pools::{Generation, PoolEdge};
pub use routes::{Route, RouteState, Routes};

use crate::names::DatabaseName;
use pools::GenerationProbe;
use routes::RouteDirectory;

/// The edge as the worker sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Edge {
    directory: RouteDirectory,
    probe: GenerationProbe,
    admin_host: Hostname,
}

impl Edge {
    /// The edge whose routes are in `path` (`EDGE_PATH`) and that answers at `url` (`EDGE_URL`, as
    /// `http://127.0.0.1:8080`); `admin_host` is that of the API. Touches nothing.
    ///
    /// # Errors
    /// [`EdgeError::Client`] when no HTTP client can be made.
    pub fn new(path: PathBuf, url: &Url, admin_host: Hostname) -> Result<Self, EdgeError> {
        let probe = GenerationProbe::new(url, admin_host.clone())?;
        Ok(Self {
            directory: RouteDirectory::new(path),
            probe,
            admin_host,
        })
    }

    /// The directory of routes.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the directories that are missing. Idempotent.
    ///
    /// # Errors
    /// [`EdgeError::Io`].
    pub async fn prepare(&self) -> Result<(), EdgeError> {
        self.blocking(RouteDirectory::prepare).await
    }

    /// Lets `host` lead to `route`, at once and atomically; whether anything changed. Changing state, ports or pool
    /// of a tenant is the same call: requests see the old route or the new one, nothing in between.
    ///
    /// `writer` names the attempt that publishes (`job:<id>:<epoch>`) and goes into the name under which the link is
    /// staged, so that two attempts never meet there. The links are not synced to disk: after a crash of the machine
    /// the reconciler publishes what is missing.
    ///
    /// # Errors
    /// [`EdgeError::HostTaken`] when the host leads to another database (withdraw it there first: a late attempt of
    /// a deleted tenant must not steal its host's next owner), [`EdgeError::Foreign`] when something else stands in
    /// its place, [`EdgeError::Reserved`] for the API's host, [`EdgeError::NotATenant`], [`EdgeError::Locked`],
    /// [`EdgeError::Io`].
    pub async fn publish(&self, host: &Hostname, route: &Route, writer: &str) -> Result<bool, EdgeError> {
        if *host == self.admin_host || config::ADMIN_ALIASES.contains(&host.as_str()) {
            return Err(EdgeError::Reserved(host.clone()));
        }
        let (host, route, writer) = (host.clone(), route.clone(), writer.to_owned());
        self.blocking(move |directory| directory.publish(&host, &route, &writer))
            .await
    }

    /// Lets `host` lead nowhere (404) if it leads to `database`; whether it did. A host that leads nowhere or to
    /// another database is left as it is.
    ///
    /// # Errors
    /// [`EdgeError::Foreign`], [`EdgeError::Locked`], [`EdgeError::Io`].
    pub async fn withdraw(&self, host: &Hostname, database: &DatabaseName) -> Result<bool, EdgeError> {
        let (host, database) = (host.clone(), database.clone());
        self.blocking(move |directory| directory.withdraw(&host, &database))
            .await
    }

    /// Where `host` leads.
    ///
    /// # Errors
    /// [`EdgeError::Foreign`] when something else stands in its place, [`EdgeError::Io`].
    pub async fn route(&self, host: &Hostname) -> Result<Option<Route>, EdgeError> {
        let host = host.clone();
        self.blocking(move |directory| directory.route(&host)).await
    }

    /// Where all hosts lead. Hosts that come or go meanwhile may be among them or not.
    ///
    /// # Errors
    /// [`EdgeError::Io`].
    pub async fn routes(&self) -> Result<Routes, EdgeError> {
        self.blocking(RouteDirectory::routes).await
    }

    /// Removes what no host leads to and what interrupted attempts left, if it is older than `min_age` (a minute is
    /// plenty: only a request that is being routed at this moment may still need it). The number of files removed.
    ///
    /// # Errors
    /// [`EdgeError::Locked`], [`EdgeError::Io`].
    pub async fn sweep(&self, min_age: Duration) -> Result<usize, EdgeError> {
        self.blocking(move |directory| directory.sweep(min_age)).await
    }

    /// Replaces the list of pools and asks for a reload. Idempotent: the same pools give the same generation and no
    /// reload. The caller makes sure that of two callers the one with the newer list comes last.
    ///
    /// # Errors
    /// [`EdgeError::Locked`], [`EdgeError::Io`].
    pub async fn set_pools(&self, pools: &[PoolEdge]) -> Result<Generation, EdgeError> {
        let pools = pools.to_vec();
        self.blocking(move |directory| pools::set(directory, &pools))
            .await
    }

    /// Waits until Nginx serves `generation` on every new connection, `within` at most.
    ///
    /// # Errors
    /// [`EdgeError::NotLoaded`], which names what the edge has instead.
    pub async fn wait_loaded(&self, generation: &Generation, within: Duration) -> Result<(), EdgeError> {
        self.probe.wait(generation, within).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RouteDirectory) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<T, EdgeError> {
        let directory = self.directory.clone();
        match tokio::task::spawn_blocking(move || work(&directory)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(EdgeError::Stopped),
            },
        }
    }
}
