//! Installs schemathesis, once for each list of requirements: an environment of its own in the cache, of wheels alone,
//! so that nothing is compiled and no package's installer runs code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::instance;
use crate::{exec, files, screen};

/// Longest time of fetching and installing all of it.
const INSTALL: Duration = Duration::from_secs(300);

/// The interpreter of the environment.
pub(super) fn ensure(files_of_check: &Path) -> Result<PathBuf> {
    let requirements = files_of_check.join("requirements.txt");
    let list = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let python = exec::find("python3").context("python3 is missing")?;
    // An environment is of one interpreter.
    let version = run(Command::new(&python).arg("--version"), Duration::from_secs(20))?;
    let key = files::fingerprint(&[&list, version.trim().as_bytes()]);
    let folder = instance::cache_root()?
        .join("tools")
        .join(format!("schemathesis-{key}"));
    let interpreter = |folder: &Path| folder.join("bin/python");
    if interpreter(&folder).exists() {
        return Ok(interpreter(&folder));
    }
    screen::say("· installing schemathesis");
    let staged = folder.with_extension("staged");
    files::remove_tree(&staged)?;
    files::directory(staged.parent().context("the cache has a folder")?, 0o755, None)?;
    run(Command::new(&python).args(["-m", "venv"]).arg(&staged), INSTALL)?;
    run(
        Command::new(interpreter(&staged))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--only-binary=:all:", "--requirement"])
            .arg(&requirements),
        INSTALL,
    )?;
    files::remove_tree(&folder)?;
    fs::rename(&staged, &folder)?;
    Ok(interpreter(&folder))
}

fn run(command: &mut Command, deadline: Duration) -> Result<String> {
    let outcome = exec::capture(command, "", deadline)?;
    if !outcome.status.success() {
        let words = if outcome.stderr.trim().is_empty() {
            outcome.stdout
        } else {
            outcome.stderr
        };
        bail!(
            "{}",
            words.trim().lines().last().unwrap_or("python3 failed").to_owned()
        );
    }
    Ok(outcome.stdout)
}
