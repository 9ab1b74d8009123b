//! What can go wrong with the edge.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hostname::Hostname;
use super::pools::Generation;
use crate::names::DatabaseName;

/// Why a route or the pools could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The file system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Something that is not a route of ours stands at a host's place. It is left alone.
    #[error("{path} is not a route of the platform", path = .0.display())]
    Foreign(PathBuf),
    /// The host already leads to another tenant.
    #[error("{host} leads to {database} already")]
    HostTaken {
        /// The host.
        host: Hostname,
        /// Whose it is.
        database: DatabaseName,
    },
    /// The host is that of the API.
    #[error("{0} is the host of the API")]
    Reserved(Hostname),
    /// Only tenants' databases have visitors.
    #[error("{0} is not a tenant's database")]
    NotATenant(DatabaseName),
    /// This process stood still with the lock of the routes, and another one has taken it over.
    #[error("another process took the lock of the routes over")]
    Overtaken,
    /// Another process holds the lock of the routes and does not go on.
    #[error("{path} was held for {waited:?} by another process", path = .path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// For how long it was waited.
        waited: Duration,
    },
    /// Nginx did not load the pools in time.
    #[error("the edge did not load generation {expected} within {waited:?} ({seen})")]
    NotLoaded {
        /// What should have been loaded.
        expected: Generation,
        /// The generation that the edge has, or why it could not be asked.
        seen: String,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The client for the edge's own page could not be made.
    #[error("the client for the edge could not be made: {0}")]
    Client(#[source] reqwest::Error),
    /// The runtime is shutting down.
    #[error("the process is shutting down")]
    Stopped,
}

/// Adds the path to an error of the file system.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> EdgeError {
    move |source| EdgeError::Io {
        path: path.to_owned(),
        source,
    }
}
