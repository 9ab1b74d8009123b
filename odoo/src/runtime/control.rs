//! What a pool's containers read from their control volume: the server-wide module, the scripts, the configuration
//! and the secrets. Secrets are files that only Odoo's user may read, never environment.

use std::path::Path;
use std::sync::LazyLock;

use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

use super::{ContainerUser, PoolSpec, TaskCommand};
use crate::server::PoolHost;

/// Files of the module and the scripts, by their path below `image/`.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/control_files.rs"));

/// The template of Odoo's configuration.
const CONFIGURATION: &str = "pool/odoo.conf.in";

/// Where the control volume is mounted.
pub(super) const CONTROL_PATH: &str = "/etc/platform-pool";

/// Where a pool finds the server's socket, whatever directory of the host it is in.
pub(super) const SOCKET_PATH: &str = "/run/platform-sql";

/// The file that tells what the volume holds; it is written last.
pub(super) const MANIFEST: &str = "manifest";

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for (path, content) in FILES {
        update(&mut digest, path.as_bytes());
        update(&mut digest, content);
    }
    hexadecimal(&digest.finalize())
});

/// The version of the module and the scripts that this library carries: it changes whenever one of them does.
#[must_use]
pub fn control_version() -> &'static str {
    &VERSION
}

/// A file of the control volume.
pub(super) struct ControlFile {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Zeroizing<Vec<u8>>,
}

impl ControlFile {
    fn new(path: &str, mode: u32, content: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            mode,
            content: Zeroizing::new(content.to_vec()),
        }
    }
}

impl ControlFile {
    /// Whether only Odoo's user may read it.
    pub(super) fn is_secret(&self) -> bool {
        self.mode & 0o077 == 0
    }
}

/// Everything that the pool's control volume holds, the manifest excepted.
pub(super) fn files(spec: &PoolSpec) -> Vec<ControlFile> {
    let mut files: Vec<ControlFile> = FILES
        .iter()
        .filter(|(path, _)| *path != CONFIGURATION)
        .map(|(path, content)| {
            let mode = if content.starts_with(b"#!") { 0o555 } else { 0o444 };
            ControlFile::new(path.strip_prefix("pool/").unwrap_or(path), mode, content)
        })
        .collect();
    files.push(ControlFile::new(
        "odoo.conf",
        0o444,
        configuration(spec).as_bytes(),
    ));
    files.push(ControlFile::new("pool.json", 0o444, settings(spec).as_bytes()));
    files.push(ControlFile::new(
        "pool.key",
        0o400,
        spec.keys.to_text().expose_secret().as_bytes(),
    ));
    files.push(ControlFile::new(
        "edge.secret",
        0o400,
        spec.edge_secret.expose().as_bytes(),
    ));
    files
}

/// Odoo's configuration: the template with its placeholders filled in.
fn configuration(spec: &PoolSpec) -> String {
    let (_, template) = FILES
        .iter()
        .find(|(path, _)| *path == CONFIGURATION)
        .expect("the configuration is embedded");
    let template = std::str::from_utf8(template).expect("the configuration is text");
    let values = [
        ("db_host", database_host(&spec.database.host).to_owned()),
        ("db_port", spec.database.port.to_string()),
        ("db_sslmode", spec.database.ssl_mode.to_owned()),
        ("db_maxconn", spec.limits.connections.to_string()),
        ("db_maxconn_gevent", spec.limits.gevent_connections.to_string()),
        ("workers", spec.limits.workers.to_string()),
    ];
    values.iter().fold(template.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    })
}

/// What the module needs to know of its pool.
fn settings(spec: &PoolSpec) -> String {
    serde_json::json!({ "pool": spec.pool, "bus_database": spec.pool.bus_database() }).to_string()
}

/// The fingerprint of the files, secrets and their owner included.
pub(super) fn manifest(files: &[ControlFile], owner: ContainerUser) -> String {
    let mut digest = Sha256::new();
    update(&mut digest, format!("{}:{}", owner.uid, owner.gid).as_bytes());
    for file in files {
        update(&mut digest, file.path.as_bytes());
        update(&mut digest, &file.mode.to_be_bytes());
        update(&mut digest, &file.content);
    }
    hexadecimal(&digest.finalize())
}

/// The fingerprint of what a process reads once, when it starts: everything but the secrets, which are read again
/// when they change.
pub(super) fn fingerprint(spec: &PoolSpec) -> String {
    let files: Vec<ControlFile> = files(spec).into_iter().filter(|file| !file.is_secret()).collect();
    manifest(&files, spec.user)
}

/// The arguments of the entry script for a task.
pub(super) fn task_arguments(command: &TaskCommand) -> Vec<String> {
    match command {
        TaskCommand::BuildTemplate { database, modules } => {
            vec!["template".to_owned(), database.to_string(), modules.join(",")]
        }
    }
}

/// What `db_host` is inside the container.
fn database_host(host: &PoolHost) -> &str {
    match host {
        PoolHost::Socket(_) => SOCKET_PATH,
        PoolHost::Tcp(host) => host,
    }
}

/// The directory of this machine that is mounted for the database, if there is one.
pub(super) fn socket_directory(host: &PoolHost) -> Option<&Path> {
    match host {
        PoolHost::Socket(directory) => Some(directory),
        PoolHost::Tcp(_) => None,
    }
}

/// With its length in front, so that two parts never look like another two.
fn update(digest: &mut Sha256, part: &[u8]) {
    digest.update(part.len().to_be_bytes());
    digest.update(part);
}

/// Bytes as lower-case hexadecimal text.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{EdgeSecret, PoolKey, PoolKeyRing};
    use crate::names::PoolId;
    use crate::runtime::PoolLimits;
    use crate::server::DatabaseEndpoint;

    fn spec() -> PoolSpec {
        PoolSpec {
            pool: PoolId::new(uuid::Uuid::from_u128(7)),
            image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            user: ContainerUser { uid: 1000, gid: 1000 },
            web_port: 8600,
            gevent_port: 8601,
            database: DatabaseEndpoint {
                host: PoolHost::Socket("/srv/sql".into()),
                port: 5433,
                ssl_mode: "prefer",
            },
            filestore: "/srv/filestore/tenants".into(),
            keys: PoolKeyRing::new(PoolKey::generate()),
            edge_secret: EdgeSecret::generate(),
            limits: PoolLimits::default(),
        }
    }

    #[test]
    fn the_volume_holds_the_module_the_scripts_and_two_secrets_that_only_odoo_reads() {
        let spec = spec();
        let files = files(&spec);
        let mode = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.mode);
        assert_eq!(mode("pool.key"), Some(0o400));
        assert_eq!(mode("edge.secret"), Some(0o400));
        assert_eq!(mode("entry.sh"), Some(0o555));
        assert_eq!(mode("health.sh"), Some(0o555));
        assert_eq!(mode("addons/platform_pool/__init__.py"), Some(0o444));
        assert_eq!(files.iter().filter(|file| file.is_secret()).count(), 2);
        assert_eq!(mode("odoo.conf.in"), None);
    }

    #[test]
    fn every_placeholder_of_the_configuration_is_filled_in() {
        let text = configuration(&spec());
        // The head explains the placeholders in words.
        let settings = text.lines().filter(|line| !line.starts_with(';'));
        assert!(settings.clone().all(|line| !line.contains("{{")), "{text}");
        assert!(
            settings.clone().any(|line| line == "db_host = /run/platform-sql"),
            "{text}"
        );
        assert!(settings.clone().any(|line| line == "db_port = 5433"), "{text}");
        assert!(settings.clone().any(|line| line == "workers = 2"), "{text}");
    }

    #[test]
    fn a_new_key_changes_the_volume_but_restarts_nobody() {
        let (old, mut new) = (spec(), spec());
        new.keys = old.keys.clone().with_newest(PoolKey::generate());
        new.edge_secret = EdgeSecret::generate();
        assert_ne!(manifest(&files(&old), old.user), manifest(&files(&new), new.user));
        assert_eq!(fingerprint(&old), fingerprint(&new));
        new.limits.workers = 4;
        assert_ne!(fingerprint(&old), fingerprint(&new));
    }
}
