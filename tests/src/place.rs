//! Where the platform under test is. `cargo xtask test` starts one and says so in the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::Deserialize;

/// The platform under test.
#[derive(Debug)]
pub struct Place {
    /// Addresses and credentials, as the platform hands them to its operator.
    pub access: Access,
    /// Folder with `run/`, `logs/` and the rest.
    pub state: PathBuf,
    /// The control plane's database server, as its superuser.
    pub database_url: String,
    /// The tenants' server, as the platform's administrator there.
    pub tenant_database_url: String,
    /// Folder of the tenants' server's Unix socket: the one that pools' containers see.
    pub tenant_socket: PathBuf,
    /// The container engine, `unix:///…`.
    pub docker_host: String,
    /// The Odoo image.
    pub odoo_image: String,
    /// How the worker's process is started, from the manifest of services.
    pub worker: Program,
    /// The same of the API's.
    pub api: Program,
}

/// A service as it is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
}

/// `access.json`.
#[derive(Debug, Deserialize)]
pub struct Access {
    /// The API.
    pub api_url: String,
    /// The first owner's e-mail address.
    pub owner_email: String,
    /// Their password.
    pub owner_password: String,
    /// The demo tenant.
    pub tenant_url: String,
    /// Its administrator.
    pub tenant_login: String,
    /// Their password.
    pub tenant_password: String,
}

impl Place {
    /// The platform under test.
    ///
    /// # Panics
    /// Where the tests were not started by `cargo xtask test`.
    #[must_use]
    pub fn get() -> &'static Self {
        static PLACE: OnceLock<Place> = OnceLock::new();
        PLACE.get_or_init(Self::read)
    }

    fn read() -> Self {
        let state = PathBuf::from(variable("TEST_STATE_DIR"));
        let access = std::fs::read(variable("TEST_ACCESS_FILE")).expect("access.json can be read");
        let manifest =
            std::fs::read(state.join("run/manifest.json")).expect("the services' manifest can be read");
        let manifest: Manifest = serde_json::from_slice(&manifest).expect("the services' manifest is JSON");
        let service = |name: &str| {
            let found = manifest.services.iter().find(|service| service.name == name);
            let Service {
                argv, environment, ..
            } = found.unwrap_or_else(|| panic!("{name} is one of the services"));
            Program {
                argv: argv.clone(),
                environment: environment.clone(),
            }
        };
        Self {
            access: serde_json::from_slice(&access).expect("access.json has its fields"),
            database_url: variable("TEST_DATABASE_URL"),
            tenant_database_url: variable("TEST_TENANT_DATABASE_URL"),
            tenant_socket: variable("TEST_TENANT_SOCKET_DIR").into(),
            docker_host: variable("TEST_DOCKER_HOST"),
            odoo_image: variable("TEST_ODOO_IMAGE"),
            worker: service("worker"),
            api: service("api"),
            state,
        }
    }

    /// A setting of the worker.
    ///
    /// # Panics
    /// Where it has no such setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> &str {
        self.worker
            .environment
            .get(name)
            .unwrap_or_else(|| panic!("the worker has no setting {name}"))
    }

    /// The API's own address, past the edge, without a path.
    #[must_use]
    pub fn api_directly(&self) -> String {
        format!("http://{}", self.api_listen())
    }

    /// Where the API's process listens.
    #[must_use]
    pub fn api_listen(&self) -> SocketAddr {
        self.api.environment["LISTEN"]
            .parse()
            .expect("the API listens at an address")
    }

    /// The API's metrics.
    #[must_use]
    pub fn api_metrics(&self) -> String {
        format!("http://{}/metrics", self.api.environment["METRICS_LISTEN"])
    }

    /// Where the edge listens; the names that it serves may resolve nowhere.
    #[must_use]
    pub fn edge(&self) -> SocketAddr {
        self.setting("EDGE_LISTEN")
            .parse()
            .expect("the edge listens at an address")
    }

    /// The host part, with its port, of a tenant's address.
    #[must_use]
    pub fn host_of(&self, slug: &str) -> String {
        let (_, api) = self
            .access
            .tenant_url
            .split_once("://")
            .expect("an address has a scheme");
        let (_, domain) = api.split_once('.').expect("the demo tenant has a domain");
        format!("{slug}.{}", domain.trim_end_matches('/'))
    }

    /// A file or folder of the tenants' filestore.
    #[must_use]
    pub fn filestore(&self, database: &str) -> PathBuf {
        PathBuf::from(self.setting("FILESTORE_PATH"))
            .join("tenants")
            .join(database)
    }

    /// The edge's route of a host without its port.
    #[must_use]
    pub fn route(&self, host: &str) -> PathBuf {
        let name = host.split(':').next().unwrap_or(host);
        PathBuf::from(self.setting("EDGE_PATH")).join("hosts").join(name)
    }
}

#[derive(Deserialize)]
struct Manifest {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    name: String,
    argv: Vec<String>,
    environment: BTreeMap<String, String>,
}

/// A variable that `cargo xtask test` sets.
///
/// # Panics
/// Where it is missing.
#[must_use]
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through `cargo xtask test`"))
}
