//! Makes a backup while everything runs.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::parts::{DUMP, Manifest};
use super::{Target, Workshop, demand_own_database, envelope};
use crate::instance::Instance;
use crate::postgres::{Cluster, Postgres};
use crate::screen::{Failure, say, stage};
use crate::users::Accounts;
use crate::{exec, interrupt};

/// Longest time of a dump.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Runs the command.
pub(crate) fn command(instance: &Instance, target: &Target) -> Result<ExitCode> {
    interrupt::watch()?;
    demand_own_database()?;
    let passphrase = target.passphrase()?;
    if !instance.exists() {
        bail!(Failure::new(
            "there is nothing to back up",
            "`cargo xtask up` never ran here"
        ));
    }
    // Nothing changes the keys meanwhile. The database says itself what belongs together: the dump is of one moment.
    let _lock = instance.lock()?;
    super::demand_whole(instance)?;
    let accounts = Accounts::ensure()?;
    let workshop = Workshop::open(instance, "backup")?;
    let dump = workshop.path().join(DUMP);
    stage("database", None, || {
        let output = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&dump)?;
        let control = Postgres::new(instance, &accounts.postgres, Cluster::Control)?;
        let mut command = control.client("pg_dump");
        command.args(["--format=custom", "--lock-wait-timeout=30s", "platform"]);
        exec::piped(command.stdout(output), DEADLINE)
    })?;
    let mut files = vec![(dump, DUMP.to_owned(), 0o600)];
    files.extend(keys(instance)?);
    let manifest = Manifest::of(&instance.id, &files)?;
    stage("encryption", None, || {
        write(target, &passphrase, &manifest, &files)
    })?;
    say(&format!(
        "\n{} holds the control plane's database and {} files of keys and passwords.\n\
         Keep it on another machine, and the passphrase in {} on a third.",
        target.file.display(),
        files.len() - 1,
        target.passphrase_file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Everything that `up` made once and can't make again.
fn keys(instance: &Instance) -> Result<Vec<(PathBuf, String, u32)>> {
    let mut names = vec!["access.json".to_owned(), "ports.json".to_owned()];
    for entry in fs::read_dir(instance.state.join("secrets"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // One on its way by a rename is of no use to anybody.
        if !name.contains(".staged-") {
            names.push(format!("secrets/{name}"));
        }
    }
    names.sort();
    let mut files = Vec::new();
    for name in names {
        let path = instance.state.join(&name);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => files.push((path, name, meta.permissions().mode() & 0o7777)),
            _ => {}
        }
    }
    if !files.iter().any(|(_, name, _)| name == "secrets/master.key") {
        bail!("the instance has no master key: {}", instance.state.display());
    }
    Ok(files)
}

/// Under another name first: a backup is there whole or not at all.
fn write(
    target: &Target,
    passphrase: &str,
    manifest: &Manifest,
    files: &[(PathBuf, String, u32)],
) -> Result<()> {
    let mut staged = target.file.clone().into_os_string();
    staged.push(format!(".staged-{}", std::process::id()));
    let staged = PathBuf::from(staged);
    let whole = (|| {
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)
            .with_context(|| format!("cannot write {}", staged.display()))?;
        let mut output = BufWriter::new(file);
        envelope::seal(passphrase, manifest.stream(files)?, &mut output)?;
        output.flush()?;
        output.get_ref().sync_all()?;
        fs::rename(&staged, &target.file).with_context(|| format!("cannot write {}", target.file.display()))
    })();
    if whole.is_err() {
        fs::remove_file(&staged).ok();
    }
    whole
}
