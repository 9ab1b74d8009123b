//! Second processes with the settings of one that runs: to be timed, stopped and killed without harm to the first.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

use tests::place::Place;

/// The settings of a running process, for another one.
#[derive(Debug, Clone)]
pub struct Copy {
    program: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Copy {
    /// Of a supervised service, such as `api`.
    ///
    /// # Errors
    /// It does not run.
    pub fn of(service: &str) -> Result<Self> {
        let pid = std::fs::read_to_string(Place::get().state.join(format!("run/{service}.pid")))?;
        let pid = pid
            .split_whitespace()
            .next()
            .context("a pid file names a process")?;
        let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
        let environment = environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| {
                let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect();
        Ok(Self {
            program: std::fs::read_link(format!("/proc/{pid}/exe"))?,
            environment,
        })
    }

    /// A setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// The same with another setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Starts the same program.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self) -> Result<Running> {
        self.start_program(&self.program, &[])
    }

    /// Starts another program with these settings.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_program(&self, program: &Path, arguments: &[&str]) -> Result<Running> {
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("can't start {}", program.display()))?;
        Ok(Running(child))
    }
}

/// A process that is killed when nobody needs it any more.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is just as well.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
