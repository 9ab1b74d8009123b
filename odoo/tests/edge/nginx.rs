//! One real Nginx a test, with directories and ports of its own.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use odoo::edge::{Edge, EdgeConfig, Generation, Hostname, PoolEdge, PublicScheme, Route, RouteState};
use odoo::keys::EdgeSecret;
use odoo::names::{DatabaseName, PoolId};
use tokio::net::TcpSocket;
use uuid::Uuid;

use super::fake_upstream::FakeUpstream;

/// The writer that tests publish as.
pub(crate) const WRITER: &str = "job:test:1";

/// As whom Nginx runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As the user of the test.
    Tester,
    /// The master as root, the processes that serve as another user (needs root).
    RootMaster,
    /// All of it as another user (needs root).
    Unprivileged,
}

/// A user that owns nothing, with its group, on every Debian.
const OTHER: (u32, u32, &str, &str) = (65534, 65534, "nobody", "nogroup");

/// A running edge with one pool and the API behind it, all ended with the value.
pub(crate) struct TestEdge {
    pub(crate) edge: Edge,
    pub(crate) address: SocketAddr,
    pub(crate) secret: EdgeSecret,
    pub(crate) pool: PoolId,
    pub(crate) web: FakeUpstream,
    pub(crate) gevent: FakeUpstream,
    _api: FakeUpstream,
    _port: ReservedPort,
    config: EdgeConfig,
    nginx: Child,
    directory: tempfile::TempDir,
}

impl TestEdge {
    /// An edge of plain HTTP.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// An edge whose settings differ from the usual ones.
    pub(crate) async fn start_with(change: impl FnOnce(&mut EdgeConfig)) -> Self {
        Self::start_as(Identity::Tester, change).await
    }

    /// An edge whose Nginx and worker are different users, as in an installation.
    pub(crate) async fn start_as(identity: Identity, change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (web, gevent, api) = (
            FakeUpstream::start("web").await,
            FakeUpstream::start("gevent").await,
            FakeUpstream::start("api").await,
        );
        let port = ReservedPort::new();
        let address = port.address;
        for name in ["temp", "edge", "logs"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        if identity != Identity::Tester {
            let mode =
                |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            mode(&root, 0o755);
            // The routes are the worker's; Nginx reads them as a member of the group. Its own directories are its own.
            chown(root.join("edge"), None, Some(OTHER.1)).unwrap();
            mode(&root.join("edge"), 0o2750);
            for own in ["temp", "logs"] {
                chown(root.join(own), Some(OTHER.0), Some(OTHER.1)).unwrap();
            }
        }
        let mut config = EdgeConfig {
            listen: vec![address],
            admin_domain: "console.example.com".parse().unwrap(),
            public_scheme: PublicScheme::Http,
            api: api.address,
            pools: "127.0.0.1".parse().unwrap(),
            edge_path: root.join("edge"),
            pid_file: root.join("logs/nginx.pid"),
            temp_path: root.join("temp"),
            access_log: root.join("logs/access.log"),
            error_log: root.join("logs/error.log"),
            user: match identity {
                // The directories of the test belong to who runs it, and root's Nginx would serve as another.
                Identity::Tester => nix::unistd::geteuid()
                    .is_root()
                    .then(|| ("root".to_owned(), None)),
                Identity::RootMaster => Some((OTHER.2.to_owned(), Some(OTHER.3.to_owned()))),
                Identity::Unprivileged => None,
            },
            open_files: None,
            trusted_proxies: Vec::new(),
            daemon: false,
        };
        change(&mut config);
        std::fs::write(root.join("nginx.conf"), config.render().unwrap()).unwrap();

        let url = format!("http://{address}").parse().unwrap();
        let edge = Edge::new(config.edge_path.clone(), &url, config.admin_domain.clone()).unwrap();
        edge.prepare().await.unwrap();
        let (pool, secret) = (PoolId::new(Uuid::from_u128(1)), EdgeSecret::generate());
        edge.set_pools(&[PoolEdge {
            id: pool,
            secret: secret.clone(),
        }])
        .await
        .unwrap();

        let mut command = nginx(&root);
        if identity == Identity::Unprivileged {
            command.uid(OTHER.0).gid(OTHER.1);
        }
        let nginx = command.stderr(Stdio::null()).spawn().expect("Nginx starts");
        let mut test = Self {
            edge,
            address,
            secret,
            pool,
            web,
            gevent,
            _api: api,
            _port: port,
            config,
            nginx,
            directory,
        };
        test.wait_until_it_listens().await;
        test
    }

    async fn wait_until_it_listens(&mut self) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            let ended = self.nginx.try_wait().unwrap();
            assert!(ended.is_none(), "Nginx ended: {}", self.error_log());
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "Nginx does not listen: {}",
                self.error_log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A route to the pool.
    pub(crate) fn route(&self, number: u128, state: RouteState) -> Route {
        Route {
            pool: self.pool,
            web_port: self.web.address.port(),
            gevent_port: self.gevent.address.port(),
            database: database(number),
            state,
        }
    }

    /// Publishes `host` as the tenant with this number.
    pub(crate) async fn publish(&self, host: &str, number: u128, state: RouteState) {
        self.edge
            .publish(&name(host), &self.route(number, state), WRITER)
            .await
            .unwrap();
    }

    /// What the supervisor does when the generation changed: test, then reload. Whether the test succeeded.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let Output { status, stderr, .. } = nginx(self.directory.path()).arg("-t").output().unwrap();
        if !status.success() {
            return Err(String::from_utf8_lossy(&stderr).into_owned());
        }
        let master = nix::unistd::Pid::from_raw(self.nginx.id().try_into().unwrap());
        nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGHUP).unwrap();
        Ok(())
    }

    /// Reloads and waits for the generation.
    pub(crate) async fn load(&self, generation: &Generation) {
        self.reload().unwrap();
        self.edge
            .wait_loaded(generation, Duration::from_secs(10))
            .await
            .unwrap();
    }

    pub(crate) fn error_log(&self) -> String {
        std::fs::read_to_string(&self.config.error_log).unwrap_or_default()
    }

    /// The lines of the access log, as soon as there are `count`: they are written after the answers.
    pub(crate) async fn access_log(&self, count: usize) -> Vec<serde_json::Value> {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(&self.config.access_log).unwrap();
            if text.lines().count() >= count {
                return text
                    .lines()
                    .map(|line| serde_json::from_str(line).expect(line))
                    .collect();
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        if self.nginx.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let master = nix::unistd::Pid::from_raw(self.nginx.id().try_into().expect("a process id"));
        // SIGTERM, as SIGKILL of the master would leave its processes.
        let told = nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGTERM);
        let ended = self.nginx.wait();
        if let (Err(error), _) | (_, Err(error)) = (told.map_err(std::io::Error::from), ended) {
            eprintln!("Nginx was not ended: {error}");
        }
    }
}

/// The Nginx under test with the configuration of `root`.
fn nginx(root: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .arg("-e")
        .arg(root.join("logs/error.log"))
        .arg("-c")
        .arg(root.join("nginx.conf"));
    command
}

/// `TEST_NGINX`, or the one in PATH or where Debian puts it.
fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("TEST_NGINX") {
        return given.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join("nginx"))
        .find(|candidate| candidate.is_file())
        .expect("TEST_NGINX names an Nginx, or there is one in PATH: run through `cargo xtask test`")
}

/// A port that nobody else is given: a socket that is bound to it and never listens. Connections to it are refused,
/// unless a server that sets SO_REUSEADDR, as Nginx does, is told to listen there.
pub(crate) struct ReservedPort {
    pub(crate) address: SocketAddr,
    _socket: TcpSocket,
}

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}

pub(crate) fn name(host: &str) -> Hostname {
    host.parse().unwrap()
}

pub(crate) fn database(number: u128) -> DatabaseName {
    DatabaseName::tenant(Uuid::from_u128(number))
}
