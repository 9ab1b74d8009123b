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
/// Longest time of one cargo command: everything, cold, on a slow machine.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// What to compile. Cargo chooses the features of dependencies for all selected packages together, so what is used
/// together is compiled together, or it would be compiled twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection<'a> {
    /// The platform's programs.
    Programs,
    /// All tests of the workspace, and the programs.
    Tests,
    /// The test programs of these names, and the programs.
    Named(&'a [String]),
    /// The benchmarks and the programs, in release mode.
    Benchmarks,
}

impl<'a> Selection<'a> {
    fn arguments(self) -> Vec<&'a str> {
        match self {
            Self::Programs => vec!["--package", PROGRAMS[0], "--package", PROGRAMS[1]],
            Self::Tests => vec!["--workspace", "--all-targets"],
            Self::Named(names) => {
                let named = names.iter().flat_map(|name| ["--test", name.as_str()]);
                ["--workspace", "--bins"].into_iter().chain(named).collect()
            }
            Self::Benchmarks => {
                vec![
                    "--release",
                    "--bins",
                    "--package",
                    PROGRAMS[0],
                    "--package",
                    PROGRAMS[1],
                    "--package",
                    "tests",
                ]
            }
        }
    }
}

/// A program that cargo compiled.
#[derive(Clone, Debug)]
pub(crate) struct Artifact {
    /// Its package.
    pub(crate) package: String,
    /// Its target.
    pub(crate) name: String,
    /// The program.
    pub(crate) path: PathBuf,
    /// The package's folder.
    pub(crate) folder: PathBuf,
    /// Whether it runs tests.
    pub(crate) is_test: bool,
}

impl Artifact {
    /// Reads a message of cargo's
    /// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
    fn read(message: &Value) -> Option<Self> {
        let path = message["executable"]
            .as_str()
            .filter(|_| message["reason"] == "compiler-artifact")?;
        // `path+file:///checkout/jobs#0.1.0`, or `…/api#odoo-saas-api@0.1.0` where the folder has another name.
        let (location, version) = message["package_id"].as_str()?.rsplit_once('#')?;
        let package = version
            .split_once('@')
            .map_or_else(|| location.rsplit('/').next(), |(name, _)| Some(name))?;
        Some(Self {
            package: package.to_owned(),
            name: message["target"]["name"].as_str()?.to_owned(),
            path: path.into(),
            folder: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
            is_test: message["profile"]["test"] == true,
        })
    }
}

/// Path of an installed program.
pub(crate) fn program(instance: &Instance, name: &str) -> PathBuf {
    instance.state.join("bin").join(name)
}

/// Installs the platform's programs from what was compiled. `ODOO_SAAS_PROGRAMS` names a folder with programs that were
/// compiled elsewhere.
pub(crate) fn install(instance: &Instance, compiled: Option<&[Artifact]>) -> Result<()> {
    let given = std::env::var_os("ODOO_SAAS_PROGRAMS");
    let own = match (&given, compiled) {
        (None, None) => compile(instance, Selection::Programs, Some(&log(instance)))?,
        _ => Vec::new(),
    };
    for name in PROGRAMS {
        let source = match &given {
            Some(folder) => Path::new(folder).join(name),
            None => compiled
                .unwrap_or(&own)
                .iter()
                .find(|artifact| artifact.name == name && !artifact.is_test)
                .map(|artifact| artifact.path.clone())
                .with_context(|| format!("cargo built no program {name}"))?,
        };
        files::install(&source, &program(instance, name))?;
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

/// Compiles. The compiler's words go to a log, or to the screen where there is none.
pub(crate) fn compile(
    instance: &Instance,
    selection: Selection<'_>,
    log: Option<&Path>,
) -> Result<Vec<Artifact>> {
    let mut command = cargo(instance);
    command
        .args(["build", "--message-format=json-render-diagnostics"])
        .args(selection.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some(log) = log {
        command.stderr(exec::append(log)?);
    }
    let mut child = interrupt::spawn(&mut command).context("cannot start cargo")?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
        lines
            .filter_map(|line| Artifact::read(&serde_json::from_str(&line).ok()?))
            .collect()
    });
    let status = exec::wait(&mut child, "cargo build", DEADLINE)?;
    if let Some(log) = log {
        writeln!(exec::append(log)?, "cargo build {}", exec::ending(status))?;
    }
    if !status.success() {
        let failure = Failure::new(
            format!("cargo build {}", exec::ending(status)),
            "read the compiler's messages; then run it again",
        );
        bail!(match log {
            Some(log) => failure.log(log),
            None => failure,
        });
    }
    Ok(reader.join().unwrap_or_default())
}

/// Log of the compiler.
pub(crate) fn log(instance: &Instance) -> PathBuf {
    instance.log("build")
}
