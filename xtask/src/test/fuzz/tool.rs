//! Installs schemathesis, once for each list of requirements: an environment of its own in the cache, of wheels alone,
//! so that nothing is compiled and no package's installer runs code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::tools;
use crate::{files, screen};

/// Longest time of fetching and installing all of it.
const INSTALL: Duration = Duration::from_secs(300);

/// The interpreter, within the environment.
const INTERPRETER: &str = "bin/python";

/// The interpreter of the environment.
pub(super) fn ensure(files_of_check: &Path) -> Result<PathBuf> {
    let requirements = files_of_check.join("requirements.txt");
    let list = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let python = tools::python()?;
    // An environment is of one interpreter.
    let version = tools::run(Command::new(&python).arg("--version"), Duration::from_secs(20))?;
    let key = files::fingerprint(&[&list, version.trim().as_bytes()]);
    tools::cached(&format!("schemathesis-{key}"), INTERPRETER, |folder| {
        screen::say("· installing schemathesis");
        tools::run(Command::new(&python).args(["-m", "venv"]).arg(folder), INSTALL)?;
        tools::run(
            Command::new(folder.join(INTERPRETER))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--only-binary=:all:", "--requirement"])
                .arg(&requirements),
            INSTALL,
        )
        .map(drop)
    })
}
