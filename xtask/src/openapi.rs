//! `cargo xtask openapi`: writes anew what is printed from the code, so that the committed files can be compared with it.
//! `cargo xtask openapi release VERSION` keeps the document of a release, which later ones must not break.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use serde_json::Value;

use crate::test::breaking::RELEASED;
use crate::{exec, files, instance, screen};

/// What to do with the document.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Keeps the committed document as that of a release; `cargo xtask test breaking` compares later ones with it
    Release {
        /// The release's version, such as 1.4.0
        version: String,
    },
}

/// Longest time of a build from nothing.
const DEADLINE: Duration = Duration::from_secs(3600);

/// What the api prints, and where it is kept.
const DOCUMENTS: [(&str, &str); 4] = [
    ("openapi", "openapi/openapi.json"),
    ("errors", "docs/errors.md"),
    ("permissions", "docs/permissions.md"),
    ("settings", "docs/configuration.md"),
];

/// Runs the command.
pub(crate) fn command(action: Option<&Action>) -> Result<ExitCode> {
    let checkout = instance::checkout()?;
    match action {
        None => print(&checkout)?,
        Some(Action::Release { version }) => release(&checkout, version)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(checkout: &Path) -> Result<()> {
    for (document, path) in DOCUMENTS {
        let mut command = Command::new("cargo");
        command
            .args(["run", "--quiet", "--package", "odoo-saas-api", "--", document])
            .current_dir(checkout);
        let outcome = exec::capture(&mut command, "", DEADLINE)?;
        ensure!(
            outcome.status.success(),
            "{document} can't be printed: {}",
            outcome.stderr.trim()
        );
        let changed = files::write(&checkout.join(path), outcome.stdout.as_bytes(), 0o644, None)?;
        screen::say(&format!(
            "{path}{}",
            if changed {
                " written"
            } else {
                " was as it should be"
            }
        ));
    }
    Ok(())
}

/// Keeps the committed document. What was released once is never written again: programs were made from it.
fn release(checkout: &Path, version: &str) -> Result<()> {
    ensure!(
        is_version(version),
        "{version} is no version, such as 1.4.0 or 1.4.0-rc.1"
    );
    let text = fs::read(checkout.join(DOCUMENTS[0].1)).context("there is no committed document")?;
    let document: Value = serde_json::from_slice(&text).context("the committed document is not JSON")?;
    let path = format!("{RELEASED}/{version}.json");
    if checkout.join(&path).exists() {
        bail!("{path} is there already, and a released document never changes");
    }
    files::directory(&checkout.join(RELEASED), 0o755, None)?;
    files::write(&checkout.join(&path), &text, 0o644, None)?;
    screen::say(&format!("{path} written"));
    let says = document["info"]["version"].as_str().unwrap_or_default();
    if says != version {
        screen::say(&format!("· the document calls itself {says}"));
    }
    Ok(())
}

/// `1.4.0`, or with a pre-release after a hyphen (<https://semver.org>). It becomes a file's name.
fn is_version(text: &str) -> bool {
    let (numbers, rest) = text
        .split_once('-')
        .map_or((text, None), |(numbers, rest)| (numbers, Some(rest)));
    let fine = |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric());
    numbers.split('.').count() == 3
        && numbers.split('.').all(|number| number.parse::<u32>().is_ok())
        && rest.is_none_or(|rest| rest.split('.').all(fine))
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn only_versions_become_names_of_files() {
        for version in ["1.4.0", "0.1.0", "10.20.30-rc.1"] {
            assert!(is_version(version), "{version}");
        }
        for other in [
            "",
            "1.4",
            "v1.4.0",
            "1.4.x",
            "../1.4.0",
            "1.4.0-",
            "1.4.0-../x",
            "1.4.0-a/b",
        ] {
            assert!(!is_version(other), "{other}");
        }
    }
}
