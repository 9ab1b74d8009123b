//! `cargo xtask openapi`: writes anew what is printed from the code, so that the committed files can be compared with it.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{exec, files, screen};

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
pub(crate) fn command() -> Result<ExitCode> {
    let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the xtask crate lies in the checkout")?;
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
    Ok(ExitCode::SUCCESS)
}
