//! `cargo xtask backup-control` and `restore-control`: the control plane's database, with the keys and passwords without
//! which nothing of it opens, in one encrypted file. Tenants' data is not in it: that lives on while the control plane is
//! lost.

mod backup;
mod envelope;
mod parts;
mod restore;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::fcntl::{Flock, FlockArg};

pub(crate) use self::backup::command as backup;
pub(crate) use self::restore::{command as restore, demand_whole};
use crate::files;
use crate::instance::{Instance, state_root};
use crate::screen::Failure;

/// A backup and what opens it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The backup
    file: PathBuf,
    /// A file with the passphrase that encrypts it, of at least 16 characters. Keep a copy of it elsewhere: without it the
    /// backup is worth nothing
    #[arg(long)]
    passphrase_file: PathBuf,
}

impl Target {
    fn passphrase(&self) -> Result<String> {
        let path = &self.passphrase_file;
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.chars().count() < 16 {
            bail!(Failure::new(
                format!(
                    "the passphrase in {} has fewer than 16 characters",
                    path.display()
                ),
                "whoever finds the backup can try passphrases at leisure: make one, as by `openssl rand -base64 24`"
            ));
        }
        Ok(text.to_owned())
    }
}

/// A folder for what is not encrypted, beside the state folder. It is removed in the end.
struct Workshop {
    path: PathBuf,
    _held: Flock<fs::File>,
}

impl Workshop {
    fn open(instance: &Instance, name: &str) -> Result<Self> {
        let path = instance.state.with_extension(name);
        files::directory(&state_root()?, 0o755, None)?;
        files::directory(&path, 0o700, None)?;
        let Ok(held) = Flock::lock(fs::File::open(&path)?, FlockArg::LockExclusiveNonblock) else {
            bail!("another run of this command works in {}", path.display());
        };
        // A run that was killed left them.
        for entry in fs::read_dir(&path)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { path, _held: held })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // The next run removes what this can't.
        files::remove_tree(&self.path).ok();
    }
}

/// Only a control plane whose database is the instance's own can be backed up here.
fn demand_own_database() -> Result<()> {
    if std::env::var_os("DATABASE_URL").is_some() {
        bail!(Failure::new(
            "DATABASE_URL names a database that is not this instance's own",
            "back it up with its server's own tools, and MASTER_KEY beside it"
        ));
    }
    Ok(())
}
