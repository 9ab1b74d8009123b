//! What shall run, as a file: `run/manifest.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::files;

/// Everything that a supervisor keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Services in the order of starting.
    pub(crate) services: Vec<Service>,
    /// Rules to keep in the machine's firewall.
    pub(crate) firewall: Option<Firewall>,
    /// Stop everything and end.
    #[serde(default)]
    pub(crate) stop: bool,
}

/// A program to keep running. Any difference restarts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Name: of its pid file, its log, and for people.
    pub(crate) name: String,
    /// Program and arguments. The program must not fork itself away: its pid is the service's.
    pub(crate) argv: Vec<String>,
    /// Its whole environment. Secrets are named by file, never here.
    pub(crate) environment: BTreeMap<String, String>,
    /// Signal that asks it to end.
    pub(crate) stop_signal: String,
    /// Seconds it may take to end before it is killed.
    pub(crate) stop_seconds: u64,
    /// Stopped before services of a lower tier.
    pub(crate) tier: u8,
    /// What a killed predecessor may have left running.
    pub(crate) leftovers: Leftovers,
    /// Files that a killed predecessor may have left and that would keep it from starting.
    pub(crate) stale_files: Vec<PathBuf>,
    /// When to make it read its configuration again.
    pub(crate) reload: Option<Reload>,
    /// Changes with whatever else must cause a restart: the program's content, its configuration.
    pub(crate) fingerprint: String,
}

/// Processes of a dead service that must be gone before it starts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leftovers {
    /// None, or they must live on (containers of a container daemon).
    Nothing,
    /// Its process group.
    Group,
    /// Postgres's, which each lead a session of their own: found by their working directory.
    WorkingDirectory(PathBuf),
}

/// Reload when a file's content changes, if a check passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reload {
    /// The file.
    pub(crate) watch: PathBuf,
    /// The check; the old configuration stays where it fails.
    pub(crate) check: Vec<String>,
}

/// See [`crate::firewall`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Firewall {
    /// The instance.
    pub(crate) id: String,
    /// Range of its pools' networks.
    pub(crate) range: String,
    /// The `iptables` whose tables the Docker Engine uses.
    pub(crate) iptables: PathBuf,
}

impl Manifest {
    /// Where it lives.
    pub(crate) fn path(state: &Path) -> PathBuf {
        state.join("run/manifest.json")
    }

    /// Reads the present one; empty where there is none.
    pub(crate) fn read(state: &Path) -> Self {
        fs::read(Self::path(state))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Replaces the file.
    pub(crate) fn write(&self, state: &Path) -> Result<()> {
        files::write(&Self::path(state), &serde_json::to_vec_pretty(self)?, 0o600, None)?;
        Ok(())
    }

    /// The present one to add to: what was to stop is forgotten.
    pub(crate) fn read_to_run(state: &Path) -> Self {
        Self {
            stop: false,
            ..Self::read(state)
        }
    }

    /// Adds a service or replaces the one of its name.
    pub(crate) fn put(&mut self, service: Service) {
        match self
            .services
            .iter_mut()
            .find(|present| present.name == service.name)
        {
            Some(present) => *present = service,
            None => self.services.push(service),
        }
    }
}
