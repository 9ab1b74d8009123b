//! Where pools run: containers of Odoo, made to a specification and kept to it.
//!
//! A runtime supervises what it has started by itself: tenants go on being served while the platform's own
//! processes are down. It touches only what carries the platform instance's label, and makes names from the pool's
//! id, so that a second run finds what a killed first one left.

mod control;
pub mod docker;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use control::control_version;
pub use docker::{DockerRuntime, SubnetRange};

use crate::keys::{EdgeSecret, PoolKeyRing};
use crate::names::{DatabaseName, PoolId};
use crate::server::DatabaseEndpoint;

/// An image by its content: `sha256:` and 64 hexadecimal digits. Never a tag, which may mean another image tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The id as the runtime knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageId {
    type Err = RuntimeError;

    fn from_str(text: &str) -> Result<Self, RuntimeError> {
        let digest = text.strip_prefix("sha256:").unwrap_or_default();
        let hexadecimal = digest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if digest.len() == 64 && hexadecimal {
            Ok(Self(text.to_owned()))
        } else {
            Err(RuntimeError::NotAnImageId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = RuntimeError;

    fn try_from(text: String) -> Result<Self, RuntimeError> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process of a pool, in a container of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolRole {
    /// Answers HTTP requests.
    Web,
    /// Holds websockets.
    Gevent,
    /// Runs scheduled actions.
    Cron,
}

impl PoolRole {
    /// All processes of a pool, in the order they are started.
    pub const ALL: [Self; 3] = [Self::Web, Self::Gevent, Self::Cron];

    /// The role's name: in labels, in container names and for the entry script.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Gevent => "gevent",
            Self::Cron => "cron",
        }
    }
}

/// What one container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ContainerLimits {
    /// Memory in bytes; beyond it the kernel ends the container.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What the containers of a pool may use, and how many connections they open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PoolLimits {
    /// The container that answers requests.
    pub web: ContainerLimits,
    /// The container that holds websockets.
    pub gevent: ContainerLimits,
    /// The container that runs scheduled actions.
    pub cron: ContainerLimits,
    /// Processes that answer requests.
    pub workers: u16,
    /// Connections to Postgres that each process of web and cron may hold.
    pub connections: u16,
    /// Connections to Postgres that the websocket process may hold.
    pub gevent_connections: u16,
}

impl Default for PoolLimits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            web: ContainerLimits {
                memory: 6 * GIB,
                pids: 256,
            },
            gevent: ContainerLimits {
                memory: 3 * GIB,
                pids: 256,
            },
            cron: ContainerLimits {
                memory: 3 * GIB,
                pids: 256,
            },
            workers: 2,
            connections: 16,
            gevent_connections: 16,
        }
    }
}

impl PoolLimits {
    /// Connections that the whole pool may hold at once, its listeners on the bus database included: what the
    /// server must allow (see [`crate::server::Requirements`]).
    #[must_use]
    pub const fn most_connections(&self) -> u32 {
        // Cron has two processes: one that works and one that waits for changes.
        let processes = self.workers as u32 + 2;
        processes * (self.connections as u32 + 1) + self.gevent_connections as u32 + 1
    }
}

/// The user that Odoo runs as, by number: the image need not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ContainerUser {
    /// User id.
    pub uid: u32,
    /// Group id: the group that shares the filestore.
    pub gid: u32,
}

/// A pool as it should be.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// Which pool.
    pub pool: PoolId,
    /// The image of all its containers.
    pub image: ImageId,
    /// Whom Odoo runs as.
    pub user: ContainerUser,
    /// The port on this machine's loopback that leads to web.
    pub web_port: u16,
    /// The port on this machine's loopback that leads to gevent.
    pub gevent_port: u16,
    /// Where the pool finds Postgres.
    pub database: DatabaseEndpoint,
    /// The directory of tenants' filestores ([`crate::filestore::Filestore::tenants`]).
    pub filestore: PathBuf,
    /// The pool's keys.
    pub keys: PoolKeyRing,
    /// What the edge shows.
    pub edge_secret: EdgeSecret,
    /// What it may use.
    pub limits: PoolLimits,
}

/// Where a pool answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolEndpoints {
    /// HTTP requests.
    pub web: SocketAddr,
    /// Websockets.
    pub gevent: SocketAddr,
}

/// What making a pool came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolReport {
    /// Where it answers, once it is ready.
    pub endpoints: PoolEndpoints,
    /// Containers that were made, or made anew; the others already were as they should be.
    pub made: Vec<PoolRole>,
    /// Limits that this machine cannot keep, and the like.
    pub warnings: Vec<String>,
}

/// What one container of a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// There is none.
    Missing,
    /// It has been made and not started, or it has ended.
    Stopped,
    /// It ended and waits to be started again.
    Restarting,
    /// It runs and has not yet answered its check.
    Starting,
    /// It runs and answers.
    Healthy,
    /// It runs and does not answer.
    Unhealthy,
}

/// What the containers of a pool do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolState {
    /// Each process, in the order of [`PoolRole::ALL`].
    pub containers: Vec<(PoolRole, ContainerState)>,
}

impl PoolState {
    /// Whether all processes answer.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.containers.len() == PoolRole::ALL.len()
            && self
                .containers
                .iter()
                .all(|(_, state)| *state == ContainerState::Healthy)
    }
}

/// A container of this platform instance, for whoever compares what should be with what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEntry {
    /// Its name.
    pub name: String,
    /// The pool that its label names, if it names one.
    pub pool: Option<PoolId>,
    /// Which process of that pool it is. None: it only carries our labels, or runs a task.
    pub role: Option<PoolRole>,
    /// Whether it runs, or waits to be started again after it ended.
    pub runs: bool,
}

/// What a container that ends by itself should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskCommand {
    /// Install the modules in the empty database, without demonstration data, and make its asset bundles.
    BuildTemplate {
        /// The database, whose role can log in.
        database: DatabaseName,
        /// Technical names of modules.
        modules: Vec<String>,
    },
}

/// A container that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpec {
    /// Derived from what the task works on: a new run of the same name first ends an old one.
    pub name: String,
    /// What it does.
    pub command: TaskCommand,
    /// How long it may take.
    pub deadline: Duration,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOutcome {
    /// Its exit code.
    pub exit: i64,
    /// The last lines that it wrote.
    pub log: String,
}

/// What can go wrong with a runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime's address can't be used.
    #[error("{0} is not an address of a container engine: unix:///path/to/docker.sock")]
    Address(String),
    /// The engine failed.
    #[error("{doing} failed")]
    Engine {
        /// What was asked of it.
        doing: String,
        /// The client's error.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// The engine did not answer in time.
    #[error("{doing} took longer than {after:?}")]
    Deadline {
        /// What was asked of it.
        doing: String,
        /// The time it was given.
        after: Duration,
    },
    /// Something of this name exists and is not ours.
    #[error("{kind} {name} exists and does not belong to this platform instance: rename or remove it")]
    Foreign {
        /// Container, volume or network.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The engine has no such image.
    #[error("the container engine has no image {0}")]
    NoImage(String),
    /// A text that is not an image's id.
    #[error("{0:?} is not an image's id (sha256:…)")]
    NotAnImageId(String),
    /// Every subnet of the range is taken.
    #[error("no subnet of {range} is free for a pool's network")]
    NoSubnet {
        /// The range.
        range: String,
    },
    /// A range that is not an IPv4 network between /8 and /28.
    #[error("{0:?} is not an IPv4 network such as 10.213.0.0/16")]
    NotARange(String),
    /// An instance's id that can't be part of a name.
    #[error("{0:?} is not an instance id: 1 to 32 characters of a-z, 0-9 and '-'")]
    NotAnInstance(String),
}

impl RuntimeError {
    /// Whether the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Engine { source, .. } => match source.as_ref() {
                bollard::errors::Error::DockerResponseServerError { status_code, .. } => {
                    *status_code >= 500 || *status_code == 409
                }
                _ => true,
            },
            Self::Deadline { .. } => true,
            Self::Address(_)
            | Self::Foreign { .. }
            | Self::NoImage(_)
            | Self::NotAnImageId(_)
            | Self::NoSubnet { .. }
            | Self::NotARange(_)
            | Self::NotAnInstance(_) => false,
        }
    }
}

/// Makes pools and keeps them as they should be. Every method can be called twice, or again after it was cut off.
#[async_trait]
pub trait Runtime: fmt::Debug + Send + Sync {
    /// The id of the image that a name, tag or digest means now.
    async fn resolve_image(&self, reference: &str) -> Result<ImageId, RuntimeError>;

    /// Makes the pool, or what of it is missing or differs; what is as it should be is left alone. Returns when the
    /// containers are started, not when they answer: see [`Runtime::pool_state`].
    async fn ensure_pool(&self, spec: &PoolSpec) -> Result<PoolReport, RuntimeError>;

    /// What the pool's containers do.
    async fn pool_state(&self, pool: PoolId) -> Result<PoolState, RuntimeError>;

    /// Restarts one process of the pool, letting it end what it does within a minute.
    async fn restart(&self, pool: PoolId, role: PoolRole) -> Result<(), RuntimeError>;

    /// Removes the pool's containers, volumes and network. Databases and filestores stay.
    async fn remove_pool(&self, pool: PoolId) -> Result<(), RuntimeError>;

    /// Every container of this platform instance, whatever it does.
    async fn containers(&self) -> Result<Vec<ContainerEntry>, RuntimeError>;

    /// The pools that have anything in this runtime.
    async fn pools(&self) -> Result<Vec<PoolId>, RuntimeError>;

    /// Runs a task in a container of the pool and removes the container. The pool itself need not be running.
    async fn run_task(&self, pool: &PoolSpec, task: &TaskSpec) -> Result<TaskOutcome, RuntimeError>;

    /// Ends a task and removes its container, if a run that was cut off left one. [`Runtime::run_task`] does so by
    /// itself; this is for who must be sure that the task works on nothing any more.
    async fn end_task(&self, pool: PoolId, name: &str) -> Result<(), RuntimeError>;
}
