//! Whether programs written against a released document still work with the present one, by oasdiff. Within `/v1`
//! changes only add: what warns elsewhere fails here, and `levels.txt` raises what oasdiff takes for harmless or for
//! allowed after a deprecation, such as an optional field that is answered no more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Outcome;
use super::lint::DOCUMENT;
use crate::instance::Instance;
use crate::{exec, screen, tools};

/// Released documents, one a version, below the checkout.
pub(crate) const RELEASED: &str = "openapi/released";

/// Module and version of the program.
const MODULE: &str = "github.com/oasdiff/oasdiff";
const VERSION: &str = "v1.37.0";

/// Longest time of fetching and compiling it.
const INSTALL: Duration = Duration::from_secs(600);

/// Longest time of one comparison.
const COMPARE: Duration = Duration::from_secs(60);

/// Where Go's own installer puts it, outside most PATHs (<https://go.dev/doc/install>).
const USUAL_GO: &str = "/usr/local/go/bin/go";

/// What counts as a break.
const LEVELS: &str = "xtask/src/test/breaking/levels.txt";

/// Runs the check.
pub(super) fn run(instance: &Instance) -> Result<Outcome> {
    let released = released(&instance.checkout)?;
    if released.is_empty() {
        return Ok(Outcome::NotChecked(format!(
            "{RELEASED} holds no document yet; `cargo xtask openapi release VERSION` writes one"
        )));
    }
    let program = match program() {
        Ok(program) => program,
        Err(error) => return Ok(Outcome::NotChecked(format!("oasdiff cannot be had: {error:#}"))),
    };
    let present = instance.checkout.join(DOCUMENT);
    let levels = instance.checkout.join(LEVELS);
    let mut broken = Vec::new();
    for document in released {
        if let Some(report) = compare(&program, &levels, &document, &present)? {
            let version = document.file_stem().unwrap_or_default().to_string_lossy();
            screen::say(&format!("\nbroken since {version}:\n{report}"));
            broken.push(version.into_owned());
        }
    }
    if broken.is_empty() {
        return Ok(Outcome::Checked);
    }
    Ok(Outcome::Failed(format!(
        "changes break programs written against {}, as listed above",
        broken.join(", ")
    )))
}

/// Compares two documents; a report where the later one breaks what the earlier one promised.
fn compare(program: &Path, levels: &Path, earlier: &Path, later: &Path) -> Result<Option<String>> {
    let mut command = Command::new(program);
    command
        .args([
            "breaking",
            "--fail-on",
            "WARN",
            "--format",
            "singleline",
            "--color",
            "never",
        ])
        // Nothing but the two files is read, whatever they refer to.
        .arg("--allow-external-refs=false")
        .arg("--severity-levels")
        .args([levels, earlier, later]);
    let outcome = exec::capture(&mut command, "", COMPARE)?;
    match outcome.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(outcome.stdout.trim().to_owned())),
        _ => bail!(
            "oasdiff on {} {}: {}",
            earlier.display(),
            exec::ending(outcome.status),
            outcome.stderr.trim()
        ),
    }
}

/// All released documents, in the order of their names.
fn released(checkout: &Path) -> Result<Vec<PathBuf>> {
    let folder = checkout.join(RELEASED);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut documents = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            documents.push(path);
        }
    }
    documents.sort();
    Ok(documents)
}

/// The program, which Go compiles into the cache at the first time.
fn program() -> Result<PathBuf> {
    tools::cached(&format!("oasdiff-{VERSION}"), "oasdiff", |folder| {
        let go = exec::find("go")
            .or_else(|| Some(PathBuf::from(USUAL_GO)).filter(|path| path.is_file()))
            .context("the Go toolchain is missing")?;
        screen::say(&format!("· compiling oasdiff {VERSION}"));
        tools::run(
            Command::new(go)
                .args(["install", &format!("{MODULE}@{VERSION}")])
                .current_dir(folder)
                .env("GOFLAGS", "-mod=mod")
                .env("GOBIN", folder)
                .env_remove("GOOS")
                .env_remove("GOARCH"),
            INSTALL,
        )
        .map(drop)
    })
}
