//! An instance: one running copy of the platform with a state folder, ports and secrets of its own. `up` uses `main`,
//! `test` and `bench` use theirs, so that all three run side by side; another checkout has other instances.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::files;
use crate::ports::Ports;
use crate::process;
use crate::screen;

/// Which instance of this checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// What `up` brings up.
    Main,
    /// What `test` brings up, tests with, and removes.
    Test,
    /// What `bench` measures.
    Bench,
}

impl Name {
    /// As it appears in paths.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Test => "test",
            Self::Bench => "bench",
        }
    }

    fn port_offset(self) -> u16 {
        match self {
            Self::Main => 0,
            Self::Test => 10_000,
            Self::Bench => 20_000,
        }
    }

    /// A quarter of the default range for pools' networks each.
    fn network_range(self) -> &'static str {
        match self {
            Self::Main => "10.213.0.0/18",
            Self::Test => "10.213.64.0/18",
            Self::Bench => "10.213.128.0/18",
        }
    }
}

/// An instance of this checkout.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Which one.
    pub(crate) name: Name,
    /// Short id for labels: 8 hexadecimal digits that no other instance of this machine has.
    pub(crate) id: String,
    /// The checkout.
    pub(crate) checkout: PathBuf,
    /// Everything the instance owns lives below.
    pub(crate) state: PathBuf,
    /// Its ports.
    pub(crate) ports: Ports,
    /// Range of its pools' networks.
    pub(crate) network_range: String,
}

impl Instance {
    /// What the commands for people work on: [`Name::Main`], except where a test has them work on its own.
    pub(crate) fn chosen() -> Result<Self> {
        Self::open(match std::env::var("ODOO_SAAS_INSTANCE").as_deref() {
            Err(_) | Ok("main") => Name::Main,
            Ok("test") => Name::Test,
            Ok("bench") => Name::Bench,
            Ok(other) => bail!("ODOO_SAAS_INSTANCE: there is no instance {other}"),
        })
    }

    /// Describes the instance; makes nothing.
    pub(crate) fn open(name: Name) -> Result<Self> {
        let checkout = checkout()?;
        let key = &files::fingerprint(&[checkout.as_os_str().as_encoded_bytes()])[..8];
        let state = state_root()?.join(format!("{}-{key}", name.as_str()));
        let ports = fs::read(state.join("ports.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_else(|| Ports::with_offset(name.port_offset()));
        let network_range =
            std::env::var("POOL_NETWORK_RANGE").unwrap_or_else(|_| name.network_range().to_owned());
        let id = files::fingerprint(&[state.as_os_str().as_encoded_bytes()])[..8].to_owned();
        Ok(Self {
            name,
            id,
            checkout,
            state,
            ports,
            network_range,
        })
    }

    /// Whether `up` ever ran.
    pub(crate) fn exists(&self) -> bool {
        self.state.join("run").is_dir()
    }

    /// Makes the state folder, for [`Name::Main`] with the link `.platform` to it.
    pub(crate) fn create(&self) -> Result<()> {
        // Postgres's socket must fit into 107 bytes (sun_path of unix(7)).
        let longest = self.state.join("run/tenants-sql/.s.PGSQL.65535");
        if longest.as_os_str().len() > 107 {
            bail!(
                "the path {} is too long for a socket; set ODOO_SAAS_STATE to a shorter folder",
                longest.display()
            );
        }
        for folder in ["", "run", "logs", "config", "bin", "secrets"] {
            files::directory(&self.state.join(folder), 0o755, None)?;
        }
        files::directory(&self.state.join("secrets"), 0o711, None)?;
        files::write(
            &self.state.join("checkout"),
            self.checkout.as_os_str().as_encoded_bytes(),
            0o644,
            None,
        )?;
        if self.name == Name::Main {
            link(&self.checkout.join(".platform"), &self.state)?;
        }
        Ok(())
    }

    /// Remembers the ports.
    pub(crate) fn remember_ports(&self) -> Result<()> {
        files::write(
            &self.state.join("ports.json"),
            &serde_json::to_vec_pretty(&self.ports)?,
            0o644,
            None,
        )?;
        Ok(())
    }

    /// Keeps a second `up` or `down` of this instance out.
    pub(crate) fn lock(&self) -> Result<Flock<fs::File>> {
        lock(&self.state.join("run/up.lock"), Duration::ZERO)
            .context("another `cargo xtask` works on this instance; wait for it to end")
    }

    /// Takes the instance for the whole of a run that makes and removes it; another such run is waited for.
    pub(crate) fn reserve(&self) -> Result<Flock<fs::File>> {
        let path = self.state.with_extension("lock");
        files::directory(&state_root()?, 0o755, None)?;
        if let Ok(reserved) = lock(&path, Duration::ZERO) {
            return Ok(reserved);
        }
        screen::say(&format!(
            "· another run uses the instance `{}`; waiting for it to end",
            self.name.as_str()
        ));
        lock(&path, Duration::from_secs(2 * 3600))
    }

    /// Log of a service or stage.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.state.join("logs").join(format!("{name}.log"))
    }

    /// The public address as people write it.
    pub(crate) fn public_url(&self) -> String {
        format!("http://localhost:{}", self.ports.edge)
    }
}

/// Takes a lock file, waiting at most as long as given.
pub(crate) fn lock(path: &Path, deadline: Duration) -> Result<Flock<fs::File>> {
    let open = || {
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
    };
    let mut held = None;
    process::wait_until(deadline, || {
        held = open()
            .ok()
            .and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
        held.is_some()
    });
    held.with_context(|| format!("{} is held by another process", path.display()))
}

/// Folder of all instances of this machine (or user).
pub(crate) fn state_root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("ODOO_SAAS_STATE") {
        return Ok(PathBuf::from(root));
    }
    if geteuid().is_root() {
        // Not below /root: the services' users could not enter it.
        return Ok(PathBuf::from("/var/lib/odoo-saas-platform"));
    }
    user_folder("XDG_STATE_HOME", ".local/state")
}

/// Folder of what is kept between instances: images and tools.
pub(crate) fn cache_root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("ODOO_SAAS_CACHE") {
        return Ok(PathBuf::from(root));
    }
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/cache/odoo-saas-platform"));
    }
    user_folder("XDG_CACHE_HOME", ".cache")
}

fn user_folder(variable: &str, below_home: &str) -> Result<PathBuf> {
    let base = match std::env::var_os(variable) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(below_home),
    };
    Ok(base.join("odoo-saas-platform"))
}

/// The checkout this program was built from. Cargo tells where it runs; a copy elsewhere uses the present folder.
pub(crate) fn checkout() -> Result<PathBuf> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_dir()?,
    };
    let found = start
        .ancestors()
        .find(|folder| folder.join("xtask/Cargo.toml").is_file())
        .with_context(|| format!("{} is not inside a checkout of this project", start.display()))?;
    found.canonicalize().context("cannot resolve the checkout's path")
}

fn link(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == target) {
        return Ok(());
    }
    match fs::symlink_metadata(link) {
        Ok(meta) if !meta.file_type().is_symlink() => {
            bail!(
                "{} is in the way: it should be a link to {}; move it away",
                link.display(),
                target.display()
            )
        }
        Ok(_) => fs::remove_file(link).with_context(|| format!("cannot replace {}", link.display()))?,
        Err(_) => {}
    }
    std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot link {}", link.display()))
}
