//! Makes a control plane of a backup. Everything is opened and compared first; then the database is filled beside what may
//! be there, and takes its place at the end. From the first change to the last a mark says that a restore is under way:
//! nothing starts until it has been run to its end, again if it was killed.

use std::fs;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::parts::{self, DUMP, Manifest};
use super::{Target, Workshop, demand_own_database, envelope};
use crate::install::{self, Purpose};
use crate::instance::Instance;
use crate::postgres::{self, IN_TURNS, Postgres};
use crate::screen::{Failure, say, stage};
use crate::users::Accounts;
use crate::{exec, files, interrupt, supervisor, up};

/// Longest time of filling the database.
const DEADLINE: Duration = Duration::from_secs(3600);

/// What `up` must not find half-way: these stop, and `up` starts them again.
const STOPPED: [&str; 3] = ["api", "worker", "redis"];

/// Runs the command.
pub(crate) fn command(instance: &Instance, target: &Target, replace: bool) -> Result<ExitCode> {
    interrupt::watch()?;
    demand_own_database()?;
    let passphrase = target.passphrase()?;
    let workshop = Workshop::open(instance, "restore")?;
    let manifest = stage("the backup is whole", None, || {
        open(target, &passphrase, workshop.path())
    })?;
    if holds_something(instance) && !replace && !mark(instance).exists() {
        bail!(Failure::new(
            format!("there is a control plane in {}", instance.state.display()),
            "to give it up for the one in the backup, say `--replace`"
        ));
    }
    instance.create()?;
    let _lock = instance.lock()?;
    stage("packages", Some(&instance.log("packages")), || {
        install::ensure(instance, Purpose::Run)
    })?;
    files::write(
        &mark(instance),
        target.file.as_os_str().as_encoded_bytes(),
        0o600,
        None,
    )?;
    let accounts = Accounts::ensure()?;
    let control = stage("database server", None, || {
        up::stop(instance, &STOPPED)?;
        up::start_control(instance, &accounts)
    })?;
    stage("database", None, || fill(&control, &manifest, workshop.path()))?;
    stage("keys and passwords", None, || {
        put_keys(instance, &manifest, workshop.path())
    })?;
    stage("in its place", None, || {
        // What Redis held belongs to the database that goes: the api announces anew whatever waits.
        files::remove_tree(&instance.state.join("redis"))?;
        control.sql("postgres", &format!("{IN_TURNS}{TAKE_PLACE}"))?;
        // The roles' passwords are those of the restored files from now on.
        postgres::prepare_control(&control)
    })?;
    fs::remove_file(mark(instance)).context("the mark of the restore cannot be removed")?;
    if manifest.instance != instance.id {
        say("· the backup is of an instance in another place: its pools' containers are made anew");
    }
    say(&format!(
        "\nthe control plane is as it was at {}, of version {}.\nnext: cargo xtask up",
        supervisor::timestamp(manifest.made_at),
        manifest.product
    ));
    Ok(ExitCode::SUCCESS)
}

/// Refuses to work with a control plane whose restore was broken off.
pub(crate) fn demand_whole(instance: &Instance) -> Result<()> {
    if mark(instance).exists() {
        bail!(Failure::new(
            "a restore of the control plane has begun here and not ended",
            "run `cargo xtask restore-control` again"
        ));
    }
    Ok(())
}

fn mark(instance: &Instance) -> PathBuf {
    instance.state.join("restoring")
}

fn holds_something(instance: &Instance) -> bool {
    let has = |path: &str| instance.state.join(path).exists();
    has("postgres/data/PG_VERSION") || has("secrets/master.key")
}

/// Decrypts the backup into the workshop and compares every checksum.
fn open(target: &Target, passphrase: &str, folder: &Path) -> Result<Manifest> {
    let file =
        fs::File::open(&target.file).with_context(|| format!("cannot read {}", target.file.display()))?;
    let stream = folder.join("stream");
    let mut output = BufWriter::new(fs::File::create_new(&stream)?);
    envelope::open(passphrase, BufReader::new(file), &mut output)?;
    output.flush()?;
    let manifest = parts::unpack(&stream, folder)?;
    fs::remove_file(stream)?;
    Ok(manifest)
}

/// Drops the database that a restore fills, and makes it again.
const MAKE_ROOM: &str = "SET client_min_messages = warning;\n\
    DROP DATABASE IF EXISTS platform_restoring WITH (FORCE);\n\
    CREATE DATABASE platform_restoring OWNER platform_migrator TEMPLATE template0;\n\
    REVOKE ALL ON DATABASE platform_restoring FROM PUBLIC;\n";

/// Between these two statements the mark alone says that there is a control plane.
const TAKE_PLACE: &str = "SET client_min_messages = warning;\n\
    DROP DATABASE IF EXISTS platform WITH (FORCE);\n\
    ALTER DATABASE platform_restoring RENAME TO platform;\n";

fn fill(control: &Postgres<'_>, manifest: &Manifest, folder: &Path) -> Result<()> {
    control.sql("postgres", &format!("{IN_TURNS}{MAKE_ROOM}"))?;
    let index = manifest.parts.iter().position(|part| part.name == DUMP);
    let dump = parts::unpacked(folder, index.context("a backup has a dump")?);
    let mut command = control.client("pg_restore");
    command
        .args([
            "--exit-on-error",
            "--single-transaction",
            "--dbname=platform_restoring",
        ])
        .stdin(fs::File::open(dump)?)
        .stdout(Stdio::null());
    exec::piped(&mut command, DEADLINE)
}

/// Puts the files where `up` finds them, which then gives each to the user that reads it.
fn put_keys(instance: &Instance, manifest: &Manifest, folder: &Path) -> Result<()> {
    for (index, part) in manifest.parts.iter().enumerate() {
        let path = instance.state.join(&part.name);
        // Where the data plane lives on, it lives on its ports.
        if part.name == DUMP || (part.name == "ports.json" && path.exists()) {
            continue;
        }
        let content = fs::read(parts::unpacked(folder, index))?;
        files::write(&path, &content, part.mode, None)?;
    }
    Ok(())
}
