//! Keeps the services of a state folder running: starts what the manifest lists, restarts what dies, within a second.
//!
//! The manifest is a file that `up` replaces; the supervisor makes the world match it. All it knows is on disk, so
//! that it can itself be killed at any moment: the services go on, and the next supervisor adopts them.
//! It must never signal a process that it (or its predecessor) did not start.

mod manifest;
mod rotate;
mod service;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

pub(crate) use self::manifest::{Firewall, Leftovers, Manifest, Reload, Service};
pub(crate) use self::service::{Record, Status, fingerprint, hold, is_held, release};
use crate::process::{self, Identity};
use crate::{exec, files, firewall, instance, interrupt};

/// Whether this process is a supervisor.
static SUPERVISING: AtomicBool = AtomicBool::new(false);

/// How often the supervisor looks at its services.
const TICK: Duration = Duration::from_millis(50);

/// Runs as the supervisor of a state folder until its manifest says to stop.
///
/// No signal is handled: a blocked or handled one would be inherited by every service. A killed supervisor leaves its
/// services running; the next one adopts them.
pub(crate) fn command(state: &Path) -> Result<ExitCode> {
    SUPERVISING.store(true, Ordering::Relaxed);
    // A session of its own: the terminal that `up` ran in may close.
    nix::unistd::setsid().ok();
    // Orphans of services become children of this process, which reaps them, whatever the machine's first process does.
    nix::sys::prctl::set_child_subreaper(true).ok();
    let _lock = instance::lock(&state.join("run/supervisor.lock"), Duration::from_secs(10))
        .context("another supervisor watches this folder")?;
    Record::of_self(state, "supervisor")?;
    Watch::new(state).run();
    Record::forget(state, "supervisor");
    Ok(ExitCode::SUCCESS)
}

/// What a supervisor has in hand.
struct Watch {
    state: PathBuf,
    manifest_text: Vec<u8>,
    stop: bool,
    firewall: Option<Firewall>,
    firewall_checked: Option<Instant>,
    services: Vec<service::Watched>,
    status_written: String,
    chores_done: Instant,
}

impl Watch {
    fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            manifest_text: Vec::new(),
            stop: false,
            firewall: None,
            firewall_checked: None,
            services: Vec::new(),
            status_written: String::new(),
            chores_done: Instant::now(),
        }
    }

    fn run(&mut self) {
        log("watching");
        loop {
            self.read_manifest();
            if self.stop {
                break;
            }
            for service in &mut self.services {
                service.tick();
            }
            self.services.retain(|service| !service.is_discarded());
            self.keep_firewall();
            self.write_status();
            if self.chores_done.elapsed() > Duration::from_secs(5) {
                self.chores_done = Instant::now();
                for logs in ["logs", "edge/logs"] {
                    rotate::folder(&self.state.join(logs));
                }
                reap_orphans(&self.services);
            }
            std::thread::sleep(TICK);
        }
        self.stop_all();
    }

    /// Takes over a changed manifest: new services are added, changed ones replaced, missing ones stopped.
    fn read_manifest(&mut self) {
        let Ok(text) = fs::read(Manifest::path(&self.state)) else {
            return;
        };
        if text == self.manifest_text {
            return;
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else {
            log("the manifest cannot be read; going on with the last one");
            self.manifest_text = text;
            return;
        };
        if self.manifest_text.is_empty() {
            self.end_unlisted(&manifest);
        }
        self.manifest_text = text;
        self.stop = manifest.stop;
        if self.stop {
            return;
        }
        self.firewall = manifest.firewall;
        self.firewall_checked = None;
        let mut listed: BTreeMap<String, Service> = manifest
            .services
            .iter()
            .map(|service| (service.name.clone(), service.clone()))
            .collect();
        for watched in &mut self.services {
            match listed.remove(watched.name()) {
                Some(service) => watched.replace(service),
                None => watched.discard(),
            }
        }
        // The manifest's order is the order of starting.
        for service in manifest.services {
            if listed.contains_key(&service.name) {
                self.services.push(service::Watched::new(&self.state, service));
            }
        }
    }

    /// Ends services that a predecessor started and that no one wants any more.
    fn end_unlisted(&self, manifest: &Manifest) {
        for name in Record::names(&self.state) {
            if name != "supervisor" && !manifest.services.iter().any(|service| service.name == name) {
                if let Some(record) = Record::read(&self.state, &name) {
                    log(&format!("{name}: ended, since it is listed no more"));
                    process::kill_all(&record.identity.group(), Signal::SIGTERM);
                    process::kill_all(&record.identity.group(), Signal::SIGKILL);
                }
                Record::forget(&self.state, &name);
            }
        }
    }

    fn keep_firewall(&mut self) {
        let due = self
            .firewall_checked
            .is_none_or(|last| last.elapsed() > Duration::from_secs(5));
        let Some(rules) = self.firewall.as_ref().filter(|_| due) else {
            return;
        };
        match firewall::ensure(rules) {
            Ok(true) => log("firewall: rules of the pools' networks put in place"),
            Ok(false) => {}
            Err(error) => log(&format!("firewall: {error:#}")),
        }
        self.firewall_checked = Some(Instant::now());
    }

    fn write_status(&mut self) {
        let all: BTreeMap<&str, &Status> = self
            .services
            .iter()
            .map(|service| (service.name(), service.status()))
            .collect();
        let Ok(text) = serde_json::to_string_pretty(&all) else {
            return;
        };
        if text != self.status_written
            && files::write(&self.state.join("run/status.json"), text.as_bytes(), 0o644, None).is_ok()
        {
            self.status_written = text;
        }
    }

    /// Stops everything: users of the stores first, then the stores.
    fn stop_all(&mut self) {
        let mut tiers: Vec<u8> = self.services.iter().map(service::Watched::tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        for tier in tiers.into_iter().rev() {
            for service in self.services.iter_mut().filter(|service| service.tier() == tier) {
                service.discard();
            }
            while self
                .services
                .iter()
                .any(|service| service.tier() == tier && !service.is_discarded())
            {
                for service in self.services.iter_mut().filter(|service| service.tier() == tier) {
                    service.tick();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.services.clear();
        self.write_status();
        log("stopped");
    }
}

/// Reaps orphans that became children of this process; the services' own ends are read elsewhere.
fn reap_orphans(services: &[service::Watched]) {
    let own: Vec<i32> = services.iter().filter_map(service::Watched::pid).collect();
    for pid in process::zombies_of(std::process::id()) {
        if !own.contains(&pid) {
            nix::sys::wait::waitpid(
                nix::unistd::Pid::from_raw(pid),
                Some(nix::sys::wait::WaitPidFlag::WNOHANG),
            )
            .ok();
        }
    }
}

/// Starts the supervisor of a state folder, or replaces one that runs another version of this program.
pub(crate) fn ensure(state: &Path) -> Result<()> {
    let program = state.join("bin/xtask");
    // Not by its name: cargo may have replaced that file meanwhile.
    let changed = files::install(Path::new("/proc/self/exe"), &program)?;
    if let Some(running) = running(state) {
        if !changed {
            return Ok(());
        }
        // Its services go on without it; the next one adopts them.
        running.signal(Signal::SIGKILL);
        running.wait_gone(Duration::from_secs(5));
    }
    let out = exec::append(&state.join("logs/supervisor.log"))?;
    let mut command = Command::new(&program);
    command.arg("supervise").arg(state).current_dir("/");
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let mut child = interrupt::spawn(&mut command).context("cannot start the supervisor")?;
    let mut ended = None;
    let up = process::wait_until(Duration::from_secs(15), || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || running(state).is_some()
    });
    if let Some(status) = ended {
        bail!("the supervisor {}", exec::ending(status));
    }
    if !up {
        bail!("the supervisor did not start");
    }
    Ok(())
}

/// The supervisor of a state folder, if it lives.
pub(crate) fn running(state: &Path) -> Option<Identity> {
    Record::read(state, "supervisor")
        .map(|record| record.identity)
        .filter(Identity::is_alive)
}

/// Stops the supervisor and all its services; where it is dead already, the services it left behind.
pub(crate) fn stop(state: &Path, deadline: Duration) -> Result<()> {
    let last = Manifest::read(state);
    if let Some(supervisor) = running(state) {
        Manifest {
            stop: true,
            ..Manifest::default()
        }
        .write(state)?;
        if !supervisor.wait_gone(deadline) {
            supervisor.signal(Signal::SIGKILL);
            supervisor.wait_gone(Duration::from_secs(5));
        }
    }
    let mut watch = Watch::new(state);
    watch.end_unlisted(&last);
    watch.services = last
        .services
        .into_iter()
        .filter(|service| Record::read(state, &service.name).is_some())
        .map(|service| service::Watched::new(state, service))
        .collect();
    watch.stop_all();
    Record::forget(state, "supervisor");
    // The next `up` starts with the stores, not with programs that expect them.
    Manifest {
        stop: true,
        ..Manifest::default()
    }
    .write(state)
}

/// What the supervisor last wrote of its services.
pub(crate) fn status(state: &Path) -> BTreeMap<String, Status> {
    fs::read(state.join("run/status.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// A line of the supervisor's own log: its standard output. `down` does the same work without saying it.
fn log(text: &str) {
    if !SUPERVISING.load(Ordering::Relaxed) {
        return;
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    println!("{} {text}", timestamp(now.as_secs()));
}

/// RFC 3339 in UTC, from seconds since 1970 (days to civil date after Howard Hinnant,
/// <https://howardhinnant.github.io/date_algorithms.html>).
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn timestamps_are_civil_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_795_577_407), "2026-11-25T03:30:07Z");
    }
}
