//! Pools on a Docker Engine of this machine (20.10 or newer; the API's version is negotiated).
//!
//! A pool is a bridge network of its own, two volumes and three containers. Docker's restart policy supervises them,
//! with its own back-off. Ports are published on the loopback address only.

mod containers;
mod network;
mod tasks;
mod volumes;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
    HealthStatusEnum,
};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    RestartContainerOptionsBuilder,
};
use tokio::sync::{Mutex, OnceCell};

pub use network::SubnetRange;

use super::{
    ContainerEntry, ContainerState, ImageId, PoolEndpoints, PoolReport, PoolRole, PoolSpec, PoolState,
    Runtime, RuntimeError, TaskOutcome, TaskSpec,
};
use crate::names::PoolId;
use containers::Capabilities;

/// The label of everything that belongs to this platform instance.
pub const INSTANCE_LABEL: &str = "platform.instance";
/// The label that names the pool.
pub const POOL_LABEL: &str = "platform.pool";
/// The label that tells what a container is for.
pub const ROLE_LABEL: &str = "platform.role";
/// The label with the fingerprint of a container's specification.
const SPEC_LABEL: &str = "platform.spec";

/// How long a call to the engine may take, stopping a container excepted.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// How long Odoo may take to end the requests that it is answering.
const STOP_SECONDS: i32 = 60;

/// A Docker Engine.
#[derive(Debug)]
pub struct DockerRuntime {
    address: String,
    instance: String,
    range: SubnetRange,
    engine: OnceCell<Engine>,
    /// Two networks made at once could choose the same subnet.
    networks: Mutex<()>,
    /// What control volumes were last seen to hold.
    filled: std::sync::Mutex<HashMap<PoolId, volumes::Filled>>,
}

#[derive(Debug)]
struct Engine {
    docker: Docker,
    capabilities: Capabilities,
}

impl DockerRuntime {
    /// The engine at `address` (`unix:///path/to/docker.sock`), in which this platform instance owns what carries
    /// the label `platform.instance=<instance>`, with pools' networks in `range`. Connects at the first use.
    ///
    /// # Errors
    /// [`RuntimeError::Address`], [`RuntimeError::NotAnInstance`].
    pub fn new(address: &str, instance: &str, range: SubnetRange) -> Result<Self, RuntimeError> {
        if !address.starts_with("unix:///") {
            return Err(RuntimeError::Address(address.to_owned()));
        }
        let harmless = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=32).contains(&instance.len()) || !instance.bytes().all(harmless) {
            return Err(RuntimeError::NotAnInstance(instance.to_owned()));
        }
        Ok(Self {
            address: address.to_owned(),
            instance: instance.to_owned(),
            range,
            engine: OnceCell::new(),
            networks: Mutex::new(()),
            filled: std::sync::Mutex::new(HashMap::new()),
        })
    }

    async fn engine(&self) -> Result<&Engine, RuntimeError> {
        self.engine
            .get_or_try_init(|| async {
                let doing = "connecting to the container engine";
                let docker = Docker::connect_with_unix(
                    &self.address,
                    CALL_DEADLINE.as_secs(),
                    bollard::API_DEFAULT_VERSION,
                )
                .map_err(|source| engine_error(doing, source))?;
                let docker = call(doing, docker.negotiate_version()).await?;
                let capabilities =
                    Capabilities::of(&call(doing, docker.info()).await?, &docker.client_version());
                Ok(Engine { docker, capabilities })
            })
            .await
    }

    async fn docker(&self) -> Result<&Docker, RuntimeError> {
        Ok(&self.engine().await?.docker)
    }

    /// The name of something of a pool. Starts with the instance, since names are shared by all of the engine.
    fn name(&self, pool: PoolId, part: &str) -> String {
        format!("odoo-{}-{pool}-{part}", self.instance)
    }

    fn labels(&self, pool: PoolId, role: &str) -> HashMap<String, String> {
        HashMap::from([
            (INSTANCE_LABEL.to_owned(), self.instance.clone()),
            (POOL_LABEL.to_owned(), pool.to_string()),
            (ROLE_LABEL.to_owned(), role.to_owned()),
        ])
    }

    /// The engine's filter for what is this instance's, of one pool or of all.
    fn ours(&self, pool: Option<PoolId>) -> HashMap<String, Vec<String>> {
        let mut labels = vec![format!("{INSTANCE_LABEL}={}", self.instance)];
        labels.extend(pool.map(|pool| format!("{POOL_LABEL}={pool}")));
        HashMap::from([("label".to_owned(), labels)])
    }

    /// Refuses to go on with something of our name that another made.
    fn check_ours(
        &self,
        kind: &'static str,
        name: &str,
        labels: Option<&HashMap<String, String>>,
    ) -> Result<(), RuntimeError> {
        if labels.and_then(|labels| labels.get(INSTANCE_LABEL)) == Some(&self.instance) {
            Ok(())
        } else {
            Err(RuntimeError::Foreign {
                kind,
                name: name.to_owned(),
            })
        }
    }

    /// The container of this name, if there is one and it is ours.
    async fn container(&self, name: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let docker = self.docker().await?;
        let found = docker.inspect_container(name, None::<InspectContainerOptions>);
        let Some(found) = if_found(call("reading a container", found).await)? else {
            return Ok(None);
        };
        self.check_ours(
            "container",
            name,
            found.config.as_ref().and_then(|config| config.labels.as_ref()),
        )?;
        Ok(Some(found))
    }

    /// A listed container that is ours. None: it is being removed and has no name any more.
    fn entry(&self, container: ContainerSummary) -> Option<ContainerEntry> {
        let name = container.names?.into_iter().next()?;
        let name = name.trim_start_matches('/').to_owned();
        let pool: Option<PoolId> = container
            .labels
            .and_then(|labels| labels.get(POOL_LABEL)?.parse().ok());
        let role = pool.and_then(|pool| {
            PoolRole::ALL
                .into_iter()
                .find(|role| name == self.name(pool, role.as_str()))
        });
        let runs = matches!(
            container.state,
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::RESTARTING)
        );
        Some(ContainerEntry {
            name,
            pool,
            role,
            runs,
        })
    }

    /// Ends and removes the container of this name, if there is one and it is ours.
    async fn remove_container(&self, name: &str, gently: bool) -> Result<(), RuntimeError> {
        if self.container(name).await?.is_none() {
            return Ok(());
        }
        if gently {
            self.stop_container(name).await?;
        }
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let docker = self.docker().await?;
        if_found(
            call(
                "removing a container",
                docker.remove_container(name, Some(options)),
            )
            .await,
        )?;
        Ok(())
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn resolve_image(&self, reference: &str) -> Result<ImageId, RuntimeError> {
        let docker = self.docker().await?;
        if_found(call("reading the image", docker.inspect_image(reference)).await)?
            .and_then(|image| image.id)
            .ok_or_else(|| RuntimeError::NoImage(reference.to_owned()))?
            .parse()
    }

    async fn ensure_pool(&self, spec: &PoolSpec) -> Result<PoolReport, RuntimeError> {
        self.ensure_surroundings(spec).await?;
        let mut made = Vec::new();
        let mut warnings = self.engine().await?.capabilities.warnings();
        for role in PoolRole::ALL {
            // Boxed: descriptions of containers are large.
            if Box::pin(self.ensure_container(spec, role, &mut warnings)).await? {
                made.push(role);
            }
        }
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let endpoints = PoolEndpoints {
            web: loopback(spec.web_port),
            gevent: loopback(spec.gevent_port),
        };
        Ok(PoolReport {
            endpoints,
            made,
            warnings,
        })
    }

    async fn pool_state(&self, pool: PoolId) -> Result<PoolState, RuntimeError> {
        let mut containers = Vec::new();
        for role in PoolRole::ALL {
            let found = self.container(&self.name(pool, role.as_str())).await?;
            containers.push((role, found.as_ref().map_or(ContainerState::Missing, state_of)));
        }
        Ok(PoolState { containers })
    }

    async fn restart(&self, pool: PoolId, role: PoolRole) -> Result<(), RuntimeError> {
        let name = self.name(pool, role.as_str());
        if self.container(&name).await?.is_none() {
            return Ok(());
        }
        let docker = self.docker().await?;
        let options = RestartContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        let deadline = CALL_DEADLINE + Duration::from_secs(STOP_SECONDS.unsigned_abs().into());
        call_within(
            deadline,
            "restarting a container",
            docker.restart_container(&name, Some(options)),
        )
        .await
    }

    async fn remove_pool(&self, pool: PoolId) -> Result<(), RuntimeError> {
        self.filled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pool);
        let docker = self.docker().await?;
        let filter = self.ours(Some(pool));
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        for container in call("listing containers", docker.list_containers(Some(options))).await? {
            if let Some(name) = container.names.and_then(|names| names.into_iter().next()) {
                self.remove_container(name.trim_start_matches('/'), false).await?;
            }
        }
        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        for volume in call("listing volumes", docker.list_volumes(Some(options)))
            .await?
            .volumes
            .unwrap_or_default()
        {
            let removed = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>);
            if_found(call("removing a volume", removed).await)?;
        }
        let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
        for network in call("listing networks", docker.list_networks(Some(options))).await? {
            if let Some(id) = network.id {
                if_found(call("removing a network", docker.remove_network(&id)).await)?;
            }
        }
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<ContainerEntry>, RuntimeError> {
        let docker = self.docker().await?;
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&self.ours(None))
            .build();
        let found = call("listing containers", docker.list_containers(Some(options))).await?;
        Ok(found
            .into_iter()
            .filter_map(|container| self.entry(container))
            .collect())
    }

    async fn pools(&self) -> Result<Vec<PoolId>, RuntimeError> {
        let docker = self.docker().await?;
        let filter = self.ours(None);
        let containers = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        let volumes = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let networks = ListNetworksOptionsBuilder::default().filters(&filter).build();
        let of_containers = call("listing containers", docker.list_containers(Some(containers))).await?;
        let of_volumes = call("listing volumes", docker.list_volumes(Some(volumes)))
            .await?
            .volumes;
        let of_networks = call("listing networks", docker.list_networks(Some(networks))).await?;
        let labels = (of_containers.into_iter().filter_map(|container| container.labels))
            .chain(of_volumes.into_iter().flatten().map(|volume| volume.labels))
            .chain(of_networks.into_iter().filter_map(|network| network.labels));
        let mut pools: Vec<PoolId> = labels
            .filter_map(|labels| labels.get(POOL_LABEL)?.parse().ok())
            .collect();
        pools.sort();
        pools.dedup();
        Ok(pools)
    }

    async fn run_task(&self, pool: &PoolSpec, task: &TaskSpec) -> Result<TaskOutcome, RuntimeError> {
        self.ensure_surroundings(pool).await?;
        self.run_to_the_end(pool, task).await
    }

    async fn end_task(&self, pool: PoolId, name: &str) -> Result<(), RuntimeError> {
        self.remove_container(&self.task_name(pool, name), false).await
    }
}

fn state_of(container: &ContainerInspectResponse) -> ContainerState {
    let Some(state) = &container.state else {
        return ContainerState::Stopped;
    };
    match state.status {
        Some(ContainerStateStatusEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerStateStatusEnum::RUNNING) => {
            match state.health.as_ref().and_then(|health| health.status) {
                Some(HealthStatusEnum::HEALTHY) => ContainerState::Healthy,
                Some(HealthStatusEnum::UNHEALTHY) => ContainerState::Unhealthy,
                _ => ContainerState::Starting,
            }
        }
        _ => ContainerState::Stopped,
    }
}

fn engine_error(doing: &str, source: Error) -> RuntimeError {
    RuntimeError::Engine {
        doing: doing.to_owned(),
        source: Box::new(source),
    }
}

/// A call to the engine with the usual deadline.
async fn call<T>(doing: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, RuntimeError> {
    call_within(CALL_DEADLINE, doing, work).await
}

async fn call_within<T>(
    after: Duration,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(after, work).await {
        Ok(result) => result.map_err(|source| engine_error(doing, source)),
        Err(_) => Err(RuntimeError::Deadline {
            doing: doing.to_owned(),
            after,
        }),
    }
}

/// Nothing, where the engine says that there is no such thing.
fn if_found<T>(result: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(RuntimeError::Engine { source, .. }) if has_status(&source, 404) => Ok(None),
        Err(other) => Err(other),
    }
}

fn has_status(error: &Error, wanted: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == wanted)
}
