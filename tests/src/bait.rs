//! Things beside the platform: what pools must not reach, and what belongs to others and must stay as it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bollard::models::{
    ContainerCreateBody, HostConfig, Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use uuid::Uuid;

use crate::containers::Containers;
use crate::place::Place;
use crate::{sql, wait};

/// Where the baits listen.
pub const PORT: u16 = 18_888;

/// A container in a network of pools' range, as another pool would be, and one that has nothing to do with pools.
#[derive(Debug)]
pub struct Bait {
    /// The container that is no pool's.
    pub foreign: String,
    /// Its address.
    pub foreign_address: String,
    /// The host's address in its network.
    pub foreign_gateway: String,
    /// The address of the neighbouring pool's container.
    pub neighbour_address: String,
    made: Made,
}

/// What has to be removed again.
#[derive(Debug, Default)]
struct Made {
    containers: Vec<String>,
    networks: Vec<String>,
    volumes: Vec<String>,
}

impl Made {
    async fn remove(&self, containers: &Containers) -> Result<()> {
        let docker = &containers.docker;
        for container in &self.containers {
            let options = RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            docker.remove_container(container, Some(options)).await?;
        }
        for network in &self.networks {
            docker.remove_network(network).await?;
        }
        for volume in &self.volumes {
            docker.remove_volume(volume, None::<RemoveVolumeOptions>).await?;
        }
        Ok(())
    }

    /// A container that serves an empty folder over HTTP.
    async fn serve(
        &mut self,
        containers: &Containers,
        name: &str,
        network: &str,
    ) -> Result<(String, String)> {
        let port = PORT.to_string();
        let body = ContainerCreateBody {
            image: Some(Place::get().odoo_image.clone()),
            entrypoint: Some(
                ["python3", "-m", "http.server", &port, "--directory", "/media"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            cmd: Some(Vec::new()),
            user: Some("65534:65534".to_owned()),
            host_config: Some(HostConfig {
                network_mode: Some(network.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let id = containers.docker.create_container(Some(options), body).await?.id;
        self.containers.push(id.clone());
        containers.docker.start_container(&id, None).await?;
        let inspected = containers
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?;
        let networks = inspected
            .network_settings
            .and_then(|settings| settings.networks)
            .unwrap_or_default();
        let address = networks
            .into_values()
            .next()
            .and_then(|network| network.ip_address)
            .context("no address")?;
        wait::until(Duration::from_secs(30), "the bait listens", async || {
            Ok(tokio::net::TcpStream::connect((address.as_str(), PORT))
                .await
                .map(drop)?)
        })
        .await?;
        Ok((id, address))
    }
}

/// A name that no other test has.
fn name(part: &str) -> String {
    format!("e2e-{part}-{}", &Uuid::new_v4().simple().to_string()[..8])
}

impl Bait {
    /// Starts both.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn start(containers: &Containers) -> Result<Self> {
        let mut made = Made::default();
        match Self::start_into(&mut made, containers).await {
            Ok((foreign, foreign_address, foreign_gateway, neighbour_address)) => Ok(Self {
                foreign,
                foreign_address,
                foreign_gateway,
                neighbour_address,
                made,
            }),
            Err(error) => {
                made.remove(containers).await?;
                Err(error)
            }
        }
    }

    async fn start_into(
        made: &mut Made,
        containers: &Containers,
    ) -> Result<(String, String, String, String)> {
        let docker = &containers.docker;
        let outside = name("outside");
        docker
            .create_network(NetworkCreateRequest {
                name: outside.clone(),
                ..Default::default()
            })
            .await?;
        made.networks.push(outside.clone());
        let (foreign, foreign_address) = made.serve(containers, &name("foreign"), &outside).await?;
        let network = docker
            .inspect_network(&outside, None::<InspectNetworkOptions>)
            .await?;
        let gateway = network
            .ipam
            .and_then(|ipam| ipam.config?.into_iter().next()?.gateway)
            .context("no gateway")?;

        let inside = name("inside");
        let mut refusals = String::new();
        for subnet in last_subnets(Place::get().setting("POOL_NETWORK_RANGE"))? {
            let config = IpamConfig {
                subnet: Some(subnet),
                ..Default::default()
            };
            let request = NetworkCreateRequest {
                name: inside.clone(),
                ipam: Some(Ipam {
                    config: Some(vec![config]),
                    ..Default::default()
                }),
                ..Default::default()
            };
            match docker.create_network(request).await {
                Ok(_) => {
                    made.networks.push(inside.clone());
                    let (_, address) = made.serve(containers, &name("neighbour"), &inside).await?;
                    return Ok((foreign, foreign_address, gateway, address));
                }
                Err(error) => writeln!(refusals, "{error}")?,
            }
        }
        bail!("no subnet of the pools' range is free: {refusals}")
    }

    /// Removes both.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn remove(&self, containers: &Containers) -> Result<()> {
        self.made.remove(containers).await
    }
}

/// The last few subnets of a range; pools begin elsewhere.
fn last_subnets(range: &str) -> Result<Vec<String>> {
    let (address, prefix) = range.split_once('/').context("a range has a prefix")?;
    let (address, prefix): (Ipv4Addr, u32) = (address.parse()?, prefix.parse()?);
    let end = u64::from(u32::from(address)) + (1_u64 << (32 - prefix));
    (1..=8)
        .map(|step| Ok(format!("{}/28", Ipv4Addr::from(u32::try_from(end - step * 16)?))))
        .collect()
}

/// Containers, volumes, networks, databases, roles and files of someone else, named much like the platform's.
#[derive(Debug)]
pub struct Foreign {
    made: Made,
    database: String,
}

impl Foreign {
    /// Makes them.
    ///
    /// # Errors
    /// The engine or the server refuses.
    pub async fn make(containers: &Containers) -> Result<Self> {
        let suffix: String = Uuid::new_v4().simple().to_string().chars().take(25).collect();
        let mut foreign = Self {
            made: Made::default(),
            database: format!("t_0{suffix}"),
        };
        match foreign.fill(containers).await {
            Ok(()) => Ok(foreign),
            Err(error) => {
                foreign.remove(containers).await?;
                Err(error)
            }
        }
    }

    async fn fill(&mut self, containers: &Containers) -> Result<()> {
        let docker = &containers.docker;
        let ours = containers.of_role("web").await?.name.context("a name")?;
        let similar = format!("{}-{}", ours.trim_start_matches('/'), &self.database[3..11]);
        let other = HashMap::from([
            (
                "platform.instance".to_owned(),
                format!("{}0", Place::get().setting("PLATFORM_INSTANCE")),
            ),
            ("platform.role".to_owned(), "web".to_owned()),
        ]);
        let network = format!("{similar}-net");
        let request = NetworkCreateRequest {
            name: network.clone(),
            labels: Some(other.clone()),
            ..Default::default()
        };
        docker.create_network(request).await?;
        self.made.networks.push(network.clone());
        let volume = format!("{similar}-sessions");
        let request = VolumeCreateRequest {
            name: Some(volume.clone()),
            labels: Some(other),
            ..Default::default()
        };
        docker.create_volume(request).await?;
        self.made.volumes.push(volume);
        self.made.serve(containers, &similar, &network).await?;

        let mut server = sql::tenants_superuser().await?;
        sql::execute(&mut server, &format!("CREATE ROLE {} NOLOGIN", self.database)).await?;
        sql::execute(&mut server, &format!("CREATE DATABASE {}", self.database)).await?;
        let files = Place::get().filestore(&self.database);
        std::fs::create_dir(&files)?;
        std::fs::write(files.join("theirs"), "theirs")?;
        Ok(())
    }

    /// The name of the database, role and folder, which the platform's could have too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.database
    }

    /// All that could show a touch.
    ///
    /// # Errors
    /// Something is gone.
    pub async fn look(&self, containers: &Containers) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        for container in &self.made.containers {
            let found = containers
                .docker
                .inspect_container(container, None::<InspectContainerOptions>)
                .await?;
            seen.push(format!(
                "{:?} {:?} {:?}",
                found.id, found.state, found.restart_count
            ));
        }
        for volume in &self.made.volumes {
            let found = containers.docker.inspect_volume(volume).await?;
            seen.push(format!("{:?} {:?}", found.created_at, found.mountpoint));
        }
        for network in &self.made.networks {
            let found = containers
                .docker
                .inspect_network(network, None::<InspectNetworkOptions>)
                .await?;
            seen.push(format!(
                "{:?} {:?}",
                found.id,
                found.containers.map(|containers| containers.len())
            ));
        }
        let mut server = sql::tenants_superuser().await?;
        let name = &self.database;
        for catalog in [
            format!(
                "SELECT oid || ':' || datallowconn || ':' || datdba FROM pg_database WHERE datname = '{name}'"
            ),
            format!("SELECT oid || ':' || rolcanlogin FROM pg_roles WHERE rolname = '{name}'"),
        ] {
            seen.push(
                sql::text(&mut server, &catalog)
                    .await?
                    .context("a database or role is gone")?,
            );
        }
        seen.push(std::fs::read_to_string(
            Place::get().filestore(name).join("theirs"),
        )?);
        Ok(seen)
    }

    /// Removes them.
    ///
    /// # Errors
    /// The engine or the server refuses.
    pub async fn remove(&self, containers: &Containers) -> Result<()> {
        let mut server = sql::tenants_superuser().await?;
        sql::execute(&mut server, &format!("DROP DATABASE IF EXISTS {}", self.database)).await?;
        sql::execute(&mut server, &format!("DROP ROLE IF EXISTS {}", self.database)).await?;
        let files = Place::get().filestore(&self.database);
        if files.exists() {
            std::fs::remove_dir_all(files)?;
        }
        self.made.remove(containers).await
    }
}
