//! One watched service: its process, its restarts and what is left of its predecessors.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::log;
use super::manifest::{Leftovers, Service};
use crate::process::{self, Identity};
use crate::{exec, files};

/// Environment variable by which a service's processes are recognised.
const MARKER: &str = "SUPERVISED_AS";
/// First pause before a restart; doubles with each quick end up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Cap of the pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A service that ran this long is restarted without a grown pause.
const STEADY: Duration = Duration::from_secs(1);

/// What is written about a started process beside its pid file, so that it can be recognised later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The process.
    pub(crate) identity: Identity,
    /// Fingerprint of the service as it was started.
    service: String,
}

impl Record {
    /// Reads the record of a service.
    pub(crate) fn read(state: &Path, name: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(state, name)).ok()?).ok()
    }

    /// Names of all recorded services.
    pub(super) fn names(state: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(state.join("run")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".started")?.to_owned()))
            .collect()
    }

    /// Records the present process.
    pub(super) fn of_self(state: &Path, name: &str) -> Result<()> {
        let identity = i32::try_from(std::process::id())
            .ok()
            .and_then(Identity::of)
            .context("this process runs")?;
        Self {
            identity,
            service: String::new(),
        }
        .write(state, name)
    }

    /// Removes the record and the pid file.
    pub(super) fn forget(state: &Path, name: &str) {
        fs::remove_file(pid_file(state, name)).ok();
        fs::remove_file(Self::path(state, name)).ok();
    }

    fn write(&self, state: &Path, name: &str) -> Result<()> {
        files::write(&Self::path(state, name), &serde_json::to_vec(self)?, 0o644, None)?;
        files::write(
            &pid_file(state, name),
            format!("{}\n", self.identity.pid).as_bytes(),
            0o644,
            None,
        )?;
        Ok(())
    }

    fn path(state: &Path, name: &str) -> PathBuf {
        state.join("run").join(format!("{name}.started"))
    }
}

fn pid_file(state: &Path, name: &str) -> PathBuf {
    state.join("run").join(format!("{name}.pid"))
}

/// Whether somebody wants a service to stay down for a while.
pub(crate) fn is_held(state: &Path, name: &str) -> bool {
    hold_file(state, name).exists()
}

/// Keeps a service down until it is released; the supervisor sees it within its next look.
pub(crate) fn hold(state: &Path, name: &str) -> Result<()> {
    files::write(&hold_file(state, name), b"", 0o644, None).map(drop)
}

/// Lets a service run again.
pub(crate) fn release(state: &Path, name: &str) -> Result<()> {
    match fs::remove_file(hold_file(state, name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{name} stays held"))
        }
        _ => Ok(()),
    }
}

fn hold_file(state: &Path, name: &str) -> PathBuf {
    state.join("run").join(format!("{name}.hold"))
}

/// What others may know of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Process id while it runs.
    pub(crate) pid: Option<i32>,
    /// How often it was started again since this supervisor took it.
    pub(crate) restarts: u32,
    /// How it last ended.
    pub(crate) last_end: Option<String>,
    /// Fingerprint of the service last started: tells `up` when a changed one has replaced the old.
    pub(crate) service: String,
}

/// A process of a service: started by this supervisor or adopted from its predecessor.
enum Process {
    Own(Child, Identity),
    Adopted(Identity),
}

impl Process {
    fn identity(&self) -> &Identity {
        match self {
            Self::Own(_, identity) | Self::Adopted(identity) => identity,
        }
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<String> {
        match self {
            Self::Own(child, _) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(exec::ending(status)),
                Err(error) => Some(format!("cannot be waited for: {error}")),
            },
            Self::Adopted(identity) => (!identity.is_alive()).then(|| "ended".to_owned()),
        }
    }
}

enum State {
    Down { start_at: Instant },
    Running { process: Process, since: Instant },
    Stopping { process: Process, kill_at: Instant },
    Discarded,
}

/// A service in the supervisor's hands.
pub(super) struct Watched {
    folder: PathBuf,
    service: Service,
    state: State,
    pause: Duration,
    discard: bool,
    status: Status,
    seen_reload: Option<Vec<u8>>,
}

impl Watched {
    /// Takes a service, adopting its process where it runs.
    pub(super) fn new(folder: &Path, service: Service) -> Self {
        let mut watched = Self {
            folder: folder.to_owned(),
            state: State::Down {
                start_at: Instant::now(),
            },
            pause: FIRST_PAUSE,
            discard: false,
            status: Status::default(),
            seen_reload: None,
            service,
        };
        if let Some(record) =
            Record::read(folder, &watched.service.name).filter(|record| record.identity.is_alive())
        {
            log(&format!(
                "{}: adopted process {}",
                watched.service.name, record.identity.pid
            ));
            watched.status.pid = Some(record.identity.pid);
            watched.status.service.clone_from(&record.service);
            watched.seen_reload = watched.reload_content();
            let unchanged = record.service == fingerprint(&watched.service);
            watched.state = State::Running {
                process: Process::Adopted(record.identity),
                since: Instant::now(),
            };
            if !unchanged {
                watched.begin_stop();
            }
        }
        watched
    }

    pub(super) fn name(&self) -> &str {
        &self.service.name
    }

    pub(super) fn tier(&self) -> u8 {
        self.service.tier
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    pub(super) fn pid(&self) -> Option<i32> {
        match &self.state {
            State::Running { process, .. } | State::Stopping { process, .. } => Some(process.identity().pid),
            State::Down { .. } | State::Discarded => None,
        }
    }

    /// Whether it was stopped for good.
    pub(super) fn is_discarded(&self) -> bool {
        matches!(self.state, State::Discarded)
    }

    /// Stops it for good.
    pub(super) fn discard(&mut self) {
        self.discard = true;
        match self.state {
            State::Running { .. } => self.begin_stop(),
            State::Down { .. } => self.end_discarded(),
            State::Stopping { .. } | State::Discarded => {}
        }
    }

    /// Takes a new version of the service; restarts it where it differs.
    pub(super) fn replace(&mut self, service: Service) {
        let changed = service != self.service;
        self.service = service;
        if changed {
            self.pause = FIRST_PAUSE;
            match &mut self.state {
                State::Running { .. } => self.begin_stop(),
                State::Down { start_at } => *start_at = Instant::now(),
                State::Stopping { .. } | State::Discarded => {}
            }
        }
    }

    /// Moves on: sees ends, starts what is due, kills what does not end.
    pub(super) fn tick(&mut self) {
        let held = is_held(&self.folder, &self.service.name);
        match &mut self.state {
            State::Running { .. } if held => {
                log(&format!("{}: held", self.service.name));
                self.begin_stop();
            }
            State::Running { process, since } => {
                if let Some(how) = process.ended() {
                    let ran = since.elapsed();
                    self.ended(&how, ran);
                } else {
                    self.reload();
                }
            }
            State::Stopping { process, kill_at } => {
                if process.ended().is_some() {
                    self.clear_leftovers();
                    if self.discard {
                        self.end_discarded();
                    } else {
                        self.status.pid = None;
                        self.state = State::Down {
                            start_at: Instant::now(),
                        };
                        if !held {
                            self.start();
                        }
                    }
                } else if Instant::now() >= *kill_at {
                    log(&format!("{}: does not end, killed", self.service.name));
                    process.identity().signal(Signal::SIGKILL);
                    *kill_at = Instant::now() + Duration::from_secs(5);
                }
            }
            State::Down { start_at } => {
                if !held && Instant::now() >= *start_at {
                    self.start();
                }
            }
            State::Discarded => {}
        }
    }

    fn ended(&mut self, how: &str, ran: Duration) {
        if ran >= STEADY {
            self.pause = FIRST_PAUSE;
        }
        log(&format!(
            "{}: {how}; starting again in {} ms",
            self.service.name,
            self.pause.as_millis()
        ));
        self.status.pid = None;
        self.status.restarts += 1;
        self.status.last_end = Some(how.to_owned());
        self.state = State::Down {
            start_at: Instant::now() + self.pause,
        };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn start(&mut self) {
        self.clear_leftovers();
        self.status.service = fingerprint(&self.service);
        match self.spawn() {
            Ok(process) => {
                log(&format!(
                    "{}: started, process {}",
                    self.service.name,
                    process.identity().pid
                ));
                self.status.pid = Some(process.identity().pid);
                self.state = State::Running {
                    process,
                    since: Instant::now(),
                };
            }
            Err(error) => self.ended(&format!("could not be started: {error:#}"), Duration::ZERO),
        }
    }

    fn spawn(&mut self) -> Result<Process> {
        let service = &self.service;
        self.seen_reload = self.reload_content();
        let out = exec::append(&self.folder.join("logs").join(format!("{}.log", service.name)))?;
        let (program, arguments) = service.argv.split_first().context("it has no program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&service.environment)
            .env(MARKER, self.marker())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let Some(identity) = i32::try_from(child.id()).ok().and_then(Identity::of) else {
            let status = child.wait()?;
            anyhow::bail!("it {} at once", exec::ending(status));
        };
        let record = Record {
            identity: identity.clone(),
            service: fingerprint(service),
        };
        if let Err(error) = record.write(&self.folder, &service.name) {
            // Unrecorded it could not be stopped later.
            child.kill().ok();
            child.wait().ok();
            return Err(error);
        }
        Ok(Process::Own(child, identity))
    }

    fn begin_stop(&mut self) {
        let State::Running { process, .. } = std::mem::replace(
            &mut self.state,
            State::Down {
                start_at: Instant::now(),
            },
        ) else {
            return;
        };
        let signal = match self.service.stop_signal.as_str() {
            "INT" => Signal::SIGINT,
            "QUIT" => Signal::SIGQUIT,
            _ => Signal::SIGTERM,
        };
        process.identity().signal(signal);
        let kill_at = Instant::now() + Duration::from_secs(self.service.stop_seconds);
        self.state = State::Stopping { process, kill_at };
    }

    fn end_discarded(&mut self) {
        self.clear_leftovers();
        Record::forget(&self.folder, &self.service.name);
        self.status.pid = None;
        self.state = State::Discarded;
    }

    /// Ends what a dead predecessor left running and removes the files that say it runs.
    ///
    /// A killed Postgres leaves backends that hold its shared memory, a killed Nginx leaves workers that hold its ports:
    /// neither starts again before they are gone.
    fn clear_leftovers(&self) {
        let name = &self.service.name;
        let find = || match &self.service.leftovers {
            Leftovers::Nothing => Vec::new(),
            Leftovers::Group => {
                let mut found =
                    Record::read(&self.folder, name).map_or_else(Vec::new, |record| record.identity.group());
                found.extend(process::with_environment(&format!("{MARKER}={}", self.marker())));
                found
            }
            Leftovers::WorkingDirectory(directory) => process::running_in(directory),
        };
        let left = find();
        if !left.is_empty() {
            log(&format!("{name}: ending {} leftover process(es)", left.len()));
            // SIGQUIT is Postgres's and Nginx's word for "at once"; what ignores it is killed.
            if matches!(self.service.leftovers, Leftovers::WorkingDirectory(_)) {
                process::kill_all(&left, Signal::SIGQUIT);
            }
            process::kill_all(&find(), Signal::SIGKILL);
        }
        for file in &self.service.stale_files {
            fs::remove_file(file).ok();
        }
    }

    fn reload(&mut self) {
        let Some(reload) = &self.service.reload else {
            return;
        };
        let content = self.reload_content();
        if content == self.seen_reload {
            return;
        }
        self.seen_reload = content;
        let Some((program, arguments)) = reload.check.split_first() else {
            return;
        };
        let mut check = Command::new(program);
        check.args(arguments).env_clear().envs(&self.service.environment);
        match exec::capture(&mut check, "", Duration::from_secs(10)) {
            Ok(outcome) if outcome.status.success() => {
                log(&format!("{}: reloaded", self.service.name));
                if let State::Running { process, .. } = &self.state {
                    process.identity().signal(Signal::SIGHUP);
                }
            }
            Ok(outcome) => log(&format!(
                "{}: not reloaded: {}",
                self.service.name,
                outcome.stderr.trim()
            )),
            Err(error) => log(&format!("{}: not reloaded: {error:#}", self.service.name)),
        }
    }

    fn reload_content(&self) -> Option<Vec<u8>> {
        self.service
            .reload
            .as_ref()
            .and_then(|reload| fs::read(&reload.watch).ok())
    }

    /// Marks the processes of this service of this folder, whatever they become.
    fn marker(&self) -> String {
        format!("{}#{}", self.folder.display(), self.service.name)
    }
}

/// Fingerprint of a service's whole description.
pub(crate) fn fingerprint(service: &Service) -> String {
    let text = serde_json::to_vec(service).unwrap_or_default();
    files::fingerprint(&[&text])
}
