//! What all operations work with: the tenants' server, the runtime, the files, the edge.

use std::sync::Arc;

use jobs::{StepError, StepErrorExt as _};
use odoo::{
    edge::{Edge, Hostname, PoolEdge},
    filestore::Filestore,
    names,
    probe::Probe,
    runtime::{ContainerUser, DockerRuntime, ImageId, PoolLimits, PoolSpec, Runtime},
    server::{PoolHost, Requirements, Server},
};
use platform::{
    Platform,
    error::Error,
    id::{OperationId, PoolId},
    pools::{PoolKeys, PoolRow},
    secrets::{MasterKeys, Secrets},
    settings::{Domains, PoolSettings, WorkerSettings},
    tenants::SealedPassword,
};
use prometheus::{IntCounterVec, Opts};
use sea_orm::DatabaseConnection;
use tokio::sync::OnceCell;

/// Connections that a tenant's role may hold beside those of every process of its pool: for the platform's own work.
const SPARE_CONNECTIONS: u32 = 8;

/// What all operations work with.
pub struct World {
    /// The control plane's database.
    pub database: DatabaseConnection,
    /// The tenants' Postgres server.
    pub server: Server,
    /// What runs the pools.
    pub runtime: Arc<dyn Runtime>,
    /// Templates' and tenants' files.
    pub filestore: Filestore,
    /// What routes host names to pools.
    pub edge: Edge,
    /// Asks a pool whether it serves a tenant.
    pub probe: Probe,
    /// Public names.
    pub domains: Domains,
    /// How pools are made.
    pub pools: PoolSettings,
    /// Counts what was repaired, by the kind of drift.
    pub repaired: IntCounterVec,
    /// What opens sealed secrets.
    pub secrets: Arc<Secrets>,
    image: OnceCell<ImageId>,
}

/// What an operation needs to know of a pool to work with it.
pub struct Pool {
    /// Its row.
    pub row: PoolRow,
    /// Its keys.
    pub keys: PoolKeys,
    /// Where requests go.
    pub web_port: u16,
    /// Where websockets go.
    pub gevent_port: u16,
}

impl Pool {
    /// Its name outside the control plane.
    pub fn id(&self) -> names::PoolId {
        outside(self.row.id)
    }
}

/// A pool's id as the `odoo` crate names it.
pub fn outside(id: PoolId) -> names::PoolId {
    names::PoolId::new(id.0)
}

impl World {
    /// Touches nothing yet.
    pub fn new(
        settings: &WorkerSettings,
        database: DatabaseConnection,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let pools = settings.pools.clone();
        let pool_host = match &pools.database_host {
            Some(host) => PoolHost::parse(host),
            None => {
                use secrecy::ExposeSecret as _;
                let url = url::Url::parse(settings.tenant_database_url.expose_secret())?;
                PoolHost::parse(url.host_str().unwrap_or("127.0.0.1"))
            }
        };
        let secrets = Secrets::new(database.clone(), MasterKeys::of(&settings.shared)?);
        let edge_url = url::Url::parse(&format!("http://{}", settings.edge.listen))?;
        let admin_host: Hostname = settings.shared.domains.admin_domain.parse()?;
        Ok(Self {
            database,
            server: Server::new(&settings.tenant_database_url, pool_host)?,
            runtime: Arc::new(DockerRuntime::new(
                &settings.docker_host,
                &settings.instance,
                pools.network_range.parse()?,
            )?),
            filestore: Filestore::new(&settings.filestore_path, Some(pools.gid)),
            edge: Edge::new(settings.edge.path.clone(), &edge_url, admin_host)?,
            probe: Probe::new()?,
            domains: settings.shared.domains.clone(),
            pools,
            repaired: IntCounterVec::new(
                Opts::new(
                    "platform_drift_repaired_total",
                    "Things outside that were not as the tables say, and were repaired.",
                ),
                &["kind"],
            )?,
            secrets: Arc::new(secrets),
            image: OnceCell::new(),
        })
    }

    /// Makes the directories that everything else expects.
    pub async fn prepare(&self) -> Result<(), Box<dyn std::error::Error>> {
        self.filestore.prepare().await?;
        self.edge.prepare().await?;
        Ok(())
    }

    /// What a pool's processes may use.
    pub fn limits(&self) -> PoolLimits {
        PoolLimits {
            workers: self.pools.web_workers,
            ..PoolLimits::default()
        }
    }

    /// What the tenants' server must allow for so many pools.
    pub fn requirements(&self, pools: usize) -> Requirements {
        let pools = u32::try_from(pools).unwrap_or(u32::MAX);
        Requirements {
            pool_connections: pools.saturating_mul(self.limits().most_connections()),
        }
    }

    /// Connections that a tenant's role may hold at once; `None` where a pool has more processes than that can be.
    pub fn tenant_connections(&self) -> Option<u16> {
        u16::try_from(self.limits().most_connections() + SPARE_CONNECTIONS).ok()
    }

    /// The Odoo image, pinned when it is first asked for.
    pub async fn image(&self) -> Result<&ImageId, odoo::runtime::RuntimeError> {
        self.image
            .get_or_try_init(|| self.runtime.resolve_image(&self.pools.image))
            .await
    }

    /// A pool that has its ports.
    pub async fn pool(&self, id: PoolId) -> Result<Pool, Error> {
        self.opened(platform::pools::get(&self.database, id).await?).await
    }

    /// Every pool that has its ports.
    pub async fn all_pools(&self) -> Result<Vec<Pool>, Error> {
        self.open_all(platform::pools::all(&self.database).await?).await
    }

    /// Those of the rows that have their ports.
    pub async fn open_all(&self, rows: Vec<PoolRow>) -> Result<Vec<Pool>, Error> {
        let mut pools = Vec::with_capacity(rows.len());
        for row in rows.into_iter().filter(|row| row.web_port.is_some()) {
            pools.push(self.opened(row).await?);
        }
        Ok(pools)
    }

    /// The keys of a pool.
    pub async fn keys(&self, row: &PoolRow) -> Result<PoolKeys, Error> {
        PoolKeys::open(&self.secrets, row).await
    }

    async fn opened(&self, row: PoolRow) -> Result<Pool, Error> {
        let port = |port: Option<i32>| {
            port.and_then(|port| u16::try_from(port).ok())
                .ok_or_else(|| Error::internal("the pool has no ports yet"))
        };
        let (web_port, gevent_port) = (port(row.web_port)?, port(row.gevent_port)?);
        Ok(Pool {
            keys: self.keys(&row).await?,
            row,
            web_port,
            gevent_port,
        })
    }

    /// What the runtime is to make of a pool.
    pub async fn spec(&self, pool: &Pool) -> Result<PoolSpec, odoo::runtime::RuntimeError> {
        Ok(PoolSpec {
            pool: pool.id(),
            image: self.image().await?.clone(),
            user: ContainerUser {
                uid: self.pools.uid,
                gid: self.pools.gid,
            },
            web_port: pool.web_port,
            gevent_port: pool.gevent_port,
            database: self.server.endpoint().clone(),
            filestore: self.filestore.tenants(),
            keys: pool.keys.ring.clone(),
            edge_secret: pool.keys.edge.clone(),
            limits: self.limits(),
        })
    }

    /// Tells the edge of every pool, and waits until it knows.
    pub async fn open_edge(&self) -> Result<(), StepError> {
        let pools = self
            .all_pools()
            .await
            .retry("database_away", "The platform's database does not answer.")?;
        let known: Vec<PoolEdge> = pools
            .iter()
            .map(|pool| PoolEdge {
                id: pool.id(),
                secret: pool.keys.edge.clone(),
            })
            .collect();
        let generation = self
            .edge
            .set_pools(&known)
            .await
            .retry("edge_failed", "The edge could not be told of the pool.")?;
        self.edge
            .wait_loaded(&generation, std::time::Duration::from_secs(10))
            .await
            .retry("edge_failed", "The edge did not take up the pool.")
    }

    /// The host name of a tenant.
    pub fn host(&self, slug: &str) -> Result<Hostname, StepError> {
        self.domains
            .tenant_host(slug)
            .parse::<Hostname>()
            .permanent("invalid_host", "The slug makes no host name.")
    }

    /// The password that an operation was given.
    pub async fn password(&self, operation: OperationId) -> Result<SealedPassword, StepError> {
        Platform::operation_password(&self.database, &self.secrets, operation)
            .await
            .retry("database_away", "The platform's database does not answer.")?
            .ok_or_else(|| {
                StepError::permanent("password_gone", "The password was erased before it was set.")
            })
    }
}
