//! The Odoo 19 image: the official one where an image registry answers, otherwise built from Debian packages. Built
//! once for a machine: the result is kept in the cache under the recipe's checksum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::docker::Engine;
use crate::instance::{self, Instance};
use crate::screen::{self, Failure};
use crate::{exec, files};

/// The official image.
const OFFICIAL: (&str, &str) = ("odoo", "19");
/// Name of the image that is built here.
const BUILT: &str = "odoo-saas/odoo";
/// How long a registry may take to answer, and between two pieces of the image.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(20);

/// The recipe for building the image, and where its result is kept.
struct Recipe {
    script: PathBuf,
    key: String,
    changes: Vec<String>,
    tar: PathBuf,
}

/// Returns the id of an Odoo image that the Engine has, getting or building it first.
pub(crate) fn ensure(instance: &Instance, engine: &Engine) -> Result<String> {
    if let Ok(given) = std::env::var("ODOO_IMAGE") {
        return engine
            .image(&given)?
            .with_context(|| format!("the Docker Engine has no image ODOO_IMAGE={given}: pull it first"));
    }
    let recipe = Recipe::of(instance)?;
    let tag = format!("19-{}", &recipe.key[..12]);
    if let Some(id) = engine.image(&format!("{BUILT}:{tag}"))? {
        return Ok(id);
    }
    let (name, official_tag) = OFFICIAL;
    let official = format!("{name}:{official_tag}");
    if let Some(id) = engine.image(&official)? {
        return Ok(id);
    }
    if !recipe.tar.is_file() {
        match engine.pull(name, official_tag, REGISTRY_PATIENCE) {
            Ok(()) => {
                return engine
                    .image(&official)?
                    .with_context(|| format!("{official} was pulled and is not there"));
            }
            Err(error) => screen::say(&format!(
                "· image: no registry gives {official} ({}); building it from Debian packages, once, about 3 minutes",
                short(&error.to_string())
            )),
        }
        recipe.build(instance)?;
    }
    engine.import(&recipe.tar, BUILT, &tag, &recipe.changes)?;
    engine
        .image(&format!("{BUILT}:{tag}"))?
        .context("the image was imported and is not there")
}

/// Whether building may become necessary: then its tools are, too.
pub(crate) fn may_be_built(instance: &Instance) -> bool {
    Recipe::of(instance).is_ok_and(|recipe| !recipe.tar.is_file())
}

impl Recipe {
    fn of(instance: &Instance) -> Result<Self> {
        let folder = instance.checkout.join("odoo/image");
        let script = folder.join("build-from-packages.sh");
        let outcome = exec::capture(
            Command::new("sha256sum").arg(&script),
            "",
            Duration::from_secs(30),
        )?;
        let key = outcome
            .stdout
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        if key.len() != 64 {
            bail!(
                "cannot take the checksum of {}: {}",
                script.display(),
                outcome.stderr.trim()
            );
        }
        let changes = fs::read_to_string(folder.join("image.changes"))
            .unwrap_or_default()
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        let tar = instance::cache_root()?
            .join("odoo-image")
            .join(format!("{key}.tar"));
        Ok(Self {
            script,
            key,
            changes,
            tar,
        })
    }

    fn build(&self, instance: &Instance) -> Result<()> {
        let log = log(instance);
        if !geteuid().is_root() {
            bail!(Failure::new(
                "no image registry answers, and building the Odoo image from packages needs root",
                "run `cargo xtask up` once as root, pull odoo:19, or set ODOO_IMAGE to an Odoo 19 image",
            ));
        }
        let folder = self.tar.parent().context("the cache has a folder")?;
        files::directory(folder, 0o755, None)?;
        // Another instance may be building it at this moment.
        let _lock = instance::lock(&folder.join("lock"), Duration::from_secs(1800))?;
        if self.tar.is_file() {
            return Ok(());
        }
        let staged: &Path = &self.tar.with_extension("tmp");
        let mut command = Command::new("/bin/sh");
        command.arg(&self.script).arg(staged);
        exec::logged(&mut command, &log, Duration::from_secs(1800)).map_err(|error| {
            Failure::new(
                format!("the Odoo image could not be built: {error}"),
                "see the log (a mirror that was away?); then run `cargo xtask up` again",
            )
            .log(&log)
        })?;
        fs::rename(staged, &self.tar)?;
        Ok(())
    }
}

/// Log of the image's building.
pub(crate) fn log(instance: &Instance) -> PathBuf {
    instance.log("image")
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}
