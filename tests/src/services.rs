//! The platform's own processes: found by their pid files, killed, and seen to come back.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::Place;
use crate::wait;

/// The process of a service: `api`, `worker`, `nginx`, `redis`, `postgres`, `postgres-tenants`.
///
/// # Errors
/// It does not run.
pub fn process(name: &str) -> Result<i32> {
    let file = Place::get().state.join("run").join(format!("{name}.pid"));
    let text = fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))?;
    let pid = text.trim().parse().context("a pid file holds a number")?;
    kill(Pid::from_raw(pid), None).with_context(|| format!("{name} does not run"))?;
    Ok(pid)
}

/// Kills a service the hard way and waits until the supervisor has started another. Answers how long that took.
///
/// # Errors
/// None came.
pub async fn kill_hard(name: &str) -> Result<Duration> {
    let old = process(name)?;
    let begin = std::time::Instant::now();
    kill(Pid::from_raw(old), Signal::SIGKILL)?;
    wait::until(
        Duration::from_secs(20),
        &format!("{name} is started again"),
        async || {
            let new = process(name)?;
            ensure!(new != old, "still process {old}");
            Ok(())
        },
    )
    .await?;
    Ok(begin.elapsed())
}

/// Resident memory of a process in KiB.
///
/// # Errors
/// It does not run.
pub fn resident_kib(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .context("VmRSS is a number")
}

/// A service that is down for as long as a test holds it. It is started again when the test lets go of it.
#[derive(Debug)]
pub struct Hold {
    file: std::path::PathBuf,
}

impl Hold {
    /// Ends a service in an orderly way and keeps it down.
    ///
    /// # Errors
    /// It does not end.
    pub async fn of(name: &str) -> Result<Self> {
        let pid = process(name)?;
        let hold = Self {
            file: Place::get().state.join("run").join(format!("{name}.hold")),
        };
        fs::write(&hold.file, b"")?;
        wait::until(Duration::from_secs(45), &format!("{name} ends"), async || {
            ensure!(
                kill(Pid::from_raw(pid), None).is_err(),
                "process {pid} still runs"
            );
            Ok(())
        })
        .await?;
        Ok(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        fs::remove_file(&self.file).ok();
    }
}
