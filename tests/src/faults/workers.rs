//! Workers that run into planned faults, in place of the platform's own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Plans;
use crate::place::Place;
use crate::services::Hold;

/// Several of them; one that dies is replaced. Each takes one operation at a time, so that what befalls one befalls no
/// other. The platform's own worker is back when they are dropped.
pub struct Workers {
    ending: CancellationToken,
    keepers: Vec<JoinHandle<()>>,
    _own: Hold,
}

impl Workers {
    /// Starts so many, of the program at `path`, with leases of this length.
    ///
    /// # Errors
    /// They can't be started.
    pub async fn start(path: &str, plans: &Plans, count: usize, lease: Duration) -> Result<Self> {
        let own = Hold::of("worker").await?;
        // Where the worker's user may read it.
        let program = plans.folder().join("faulty-worker");
        std::fs::copy(path, &program).with_context(|| format!("{path} can't be copied"))?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        let ending = CancellationToken::new();
        let keepers = (0..count)
            .map(|_| tokio::spawn(keep(program.clone(), plans.clone(), lease, ending.clone())))
            .collect();
        Ok(Self {
            ending,
            keepers,
            _own: own,
        })
    }

    /// Ends them as they are ended every day.
    pub async fn end(mut self) {
        self.ending.cancel();
        for keeper in self.keepers.drain(..) {
            keeper.await.ok();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}

async fn keep(program: PathBuf, plans: Plans, lease: Duration, ending: CancellationToken) {
    while !ending.is_cancelled() {
        let mut child = match start(&program, &plans, lease) {
            Ok(child) => child,
            Err(error) => return eprintln!("a faulty worker can't be started: {error:#}"),
        };
        tokio::select! {
            _ = child.wait() => {}
            () = ending.cancelled() => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
                if let Some(pid) = pid {
                    kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
                }
                tokio::time::timeout(Duration::from_secs(30), child.wait()).await.ok();
            }
        }
    }
}

fn start(program: &Path, plans: &Plans, lease: Duration) -> Result<Child> {
    let own = &Place::get().worker;
    let (_, privileges) = own.argv.split_last().context("the worker has a program")?;
    let mut argv = privileges.iter().cloned().chain([program.display().to_string()]);
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(Place::get().state.join("logs/faulty-worker.log"))?;
    let mut command = Command::new(argv.next().context("a program")?);
    command
        .args(argv)
        .current_dir("/")
        .env_clear()
        .envs(&own.environment)
        .env("WORKER_CONCURRENCY", "1")
        .env("METRICS_LISTEN", "127.0.0.1:0")
        .env("FAULTS_FOLDER", plans.folder())
        .env("FAULTS_LEASE_MS", lease.as_millis().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().context("a faulty worker")
}
