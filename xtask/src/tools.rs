//! Programs of the checks and benchmarks that no Debian package holds: fetched once for each version, into the cache, under
//! a name that is given only when all of it is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{exec, files, instance, screen};

/// Longest time of fetching and installing a Python environment.
const INSTALL: Duration = Duration::from_secs(300);

/// The interpreter within a Python environment.
const INTERPRETER: &str = "bin/python";

/// The file `program` of the tool `name`, which `install` puts into the folder that it is given.
pub(crate) fn cached(
    name: &str,
    program: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = instance::cache_root()?.join("tools").join(name);
    let found = folder.join(program);
    if found.exists() {
        return Ok(found);
    }
    let staged = folder.with_extension("staged");
    files::remove_tree(&staged)?;
    files::directory(&staged, 0o755, None)?;
    install(&staged)?;
    ensure!(staged.join(program).exists(), "the package holds no {program}");
    files::remove_tree(&folder)?;
    fs::rename(&staged, &folder)?;
    Ok(found)
}

/// Python, which most of them come with.
pub(crate) fn python() -> Result<PathBuf> {
    exec::find("python3").context("python3 is missing")
}

/// Runs a step of an installation and answers what it says; its last words are the error.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<String> {
    let outcome = exec::capture(command, "", deadline)?;
    if !outcome.status.success() {
        let words = if outcome.stderr.trim().is_empty() {
            outcome.stdout
        } else {
            outcome.stderr
        };
        bail!(
            "{}",
            words.trim().lines().last().unwrap_or("the installation failed")
        );
    }
    Ok(outcome.stdout)
}

/// The interpreter of an environment with what a file of requirements lists: made once for each list, of wheels alone, so
/// that nothing is compiled and no package's installer runs code.
pub(crate) fn python_environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let list = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let python = python()?;
    // An environment is of one interpreter.
    let version = run(Command::new(&python).arg("--version"), Duration::from_secs(20))?;
    let key = files::fingerprint(&[&list, version.trim().as_bytes()]);
    cached(&format!("{name}-{key}"), INTERPRETER, |folder| {
        screen::say(&format!("· installing {name}"));
        run(Command::new(&python).args(["-m", "venv"]).arg(folder), INSTALL)?;
        run(
            Command::new(folder.join(INTERPRETER))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--only-binary=:all:", "--requirement"])
                .arg(requirements),
            INSTALL,
        )
        .map(drop)
    })
}
