//! Compiles the platform's programs and copies them into the instance: service users can't enter a checkout below
//! /root, and the next build must not disturb what runs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::instance::Instance;
use crate::screen::Failure;
use crate::{exec, files, interrupt};

/// The programs of the platform: package and binary have one name.
const PROGRAMS: [&str; 2] = ["odoo-saas-api", "odoo-saas-worker"];

/// How to compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For development and tests.
    Dev,
    /// For benchmarks.
    Release,
}

/// Path of an installed program.
pub(crate) fn program(instance: &Instance, name: &str) -> PathBuf {
    instance.state.join("bin").join(name)
}

/// Compiles and installs. `ODOO_SAAS_PROGRAMS` names a folder with programs that were compiled elsewhere.
pub(crate) fn ensure(instance: &Instance, profile: Profile) -> Result<()> {
    let built = match std::env::var_os("ODOO_SAAS_PROGRAMS") {
        Some(folder) => PROGRAMS
            .iter()
            .map(|name| Path::new(&folder).join(name))
            .collect(),
        None => compile(instance, profile)?,
    };
    for (source, name) in built.iter().zip(PROGRAMS) {
        files::install(source, &program(instance, name))?;
    }
    Ok(())
}

/// Cargo, as it runs this program.
pub(crate) fn cargo(instance: &Instance) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&instance.checkout);
    // Set for this program by the cargo that runs it; they would make another package's build look changed.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            command.env_remove(&name);
        }
    }
    command
}

fn compile(instance: &Instance, profile: Profile) -> Result<Vec<PathBuf>> {
    let log = log(instance);
    let failed = |what: String| {
        Failure::new(
            what,
            "read the compiler's message above; then run `cargo xtask up` again",
        )
        .log(&log)
    };
    let mut command = cargo(instance);
    command.args(["build", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    for name in PROGRAMS {
        command.args(["--package", name]);
    }
    let errors = exec::append(&log)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = interrupt::spawn(&mut command).context("cannot start cargo")?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let reader = std::thread::spawn(move || {
        let mut found = [const { None }; PROGRAMS.len()];
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let name = message["target"]["name"].as_str().unwrap_or_default();
            if let (Some(index), Some(path)) = (
                PROGRAMS.iter().position(|program| *program == name),
                message["executable"].as_str(),
            ) {
                found[index] = Some(PathBuf::from(path));
            }
        }
        found
    });
    let status = exec::wait(&mut child, "cargo build", Duration::from_secs(3600))?;
    let found = reader.join().unwrap_or_default();
    writeln!(exec::append(&log)?, "cargo build {}", exec::ending(status))?;
    if !status.success() {
        bail!(failed("the platform's programs do not compile".to_owned()));
    }
    found
        .into_iter()
        .zip(PROGRAMS)
        .map(|(path, name)| path.ok_or_else(|| failed(format!("cargo built no program {name}")).into()))
        .collect()
}

/// Log of the compiler.
pub(crate) fn log(instance: &Instance) -> PathBuf {
    instance.log("build")
}
