//! The ports of an instance: chosen once, remembered, each settable, and a taken one names its holder.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::process;
use crate::screen::Failure;

/// Ports given on the command line (each also by a variable, `EDGE_PORT=…`); they are remembered for the next run.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// The public door: the API at localhost, tenants at <slug>.localhost [default: 8080]
    #[arg(long)]
    edge_port: Option<u16>,
    /// The API behind the edge [default: 8081]
    #[arg(long)]
    api_port: Option<u16>,
    /// Metrics of the API [default: 9081]
    #[arg(long)]
    api_metrics_port: Option<u16>,
    /// Metrics of the worker [default: 9082]
    #[arg(long)]
    worker_metrics_port: Option<u16>,
    /// The control plane's Postgres [default: 8541]
    #[arg(long)]
    postgres_port: Option<u16>,
    /// The tenants' Postgres [default: 8542]
    #[arg(long)]
    tenant_postgres_port: Option<u16>,
    /// Redis [default: 8637]
    #[arg(long)]
    redis_port: Option<u16>,
    /// First of a hundred ports for pools' containers [default: 8700]
    #[arg(long)]
    pool_first_port: Option<u16>,
}

/// Ports of an instance, all on 127.0.0.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// Nginx.
    pub(crate) edge: u16,
    /// The api.
    pub(crate) api: u16,
    /// The api's metrics.
    pub(crate) api_metrics: u16,
    /// The worker's metrics.
    pub(crate) worker_metrics: u16,
    /// Control plane's Postgres.
    pub(crate) postgres: u16,
    /// Tenants' Postgres.
    pub(crate) tenant_postgres: u16,
    /// Redis.
    pub(crate) redis: u16,
    /// First of [`Ports::POOL_COUNT`] ports for containers.
    pub(crate) pool_first: u16,
}

impl Ports {
    /// How many ports an instance's pools may take.
    const POOL_COUNT: u16 = 100;

    /// The documented ports, moved up by `offset` for instances that must not collide with the main one.
    pub(crate) fn with_offset(offset: u16) -> Self {
        Self {
            edge: 8080 + offset,
            api: 8081 + offset,
            api_metrics: 9081 + offset,
            worker_metrics: 9082 + offset,
            postgres: 8541 + offset,
            tenant_postgres: 8542 + offset,
            redis: 8637 + offset,
            pool_first: 8700 + offset,
        }
    }

    /// Applies what was given by hand, on the command line or in the environment.
    pub(crate) fn apply(&mut self, overrides: &Overrides) -> Result<()> {
        for (target, given, variable) in [
            (&mut self.edge, overrides.edge_port, "EDGE_PORT"),
            (&mut self.api, overrides.api_port, "API_PORT"),
            (
                &mut self.api_metrics,
                overrides.api_metrics_port,
                "API_METRICS_PORT",
            ),
            (
                &mut self.worker_metrics,
                overrides.worker_metrics_port,
                "WORKER_METRICS_PORT",
            ),
            (&mut self.postgres, overrides.postgres_port, "POSTGRES_PORT"),
            (
                &mut self.tenant_postgres,
                overrides.tenant_postgres_port,
                "TENANT_POSTGRES_PORT",
            ),
            (&mut self.redis, overrides.redis_port, "REDIS_PORT"),
            (&mut self.pool_first, overrides.pool_first_port, "POOL_FIRST_PORT"),
        ] {
            if let Some(port) = given {
                *target = port;
            } else if let Ok(text) = std::env::var(variable) {
                *target = text.parse().ok().filter(|port| *port != 0).with_context(|| {
                    format!("{variable}={text:?} is not a port: give a number from 1 to 65535")
                })?;
            }
        }
        Ok(())
    }

    /// `8700-8799`.
    pub(crate) fn pool_range(&self) -> String {
        format!(
            "{}-{}",
            self.pool_first,
            self.pool_first.saturating_add(Self::POOL_COUNT - 1)
        )
    }

    /// Moves taken ports to free ones: for test instances, whose ports nobody types.
    pub(crate) fn move_taken(&mut self) {
        let mut used: Vec<u16> = Vec::new();
        for port in [
            &mut self.edge,
            &mut self.api,
            &mut self.api_metrics,
            &mut self.worker_metrics,
            &mut self.postgres,
            &mut self.tenant_postgres,
            &mut self.redis,
        ] {
            while used.contains(port) || !is_free(*port) {
                *port += 1;
            }
            used.push(*port);
        }
        while (self.pool_first..=self.pool_first + 20).any(|port| used.contains(&port) || !is_free(port)) {
            self.pool_first += Self::POOL_COUNT;
        }
    }
}

/// Whether a port of 127.0.0.1 can be taken now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Checks that a service can have its port. `ours` are the processes of the service itself, where it runs already.
pub(crate) fn demand(service: &str, port: u16, variable: &str, ours: &[i32]) -> Result<()> {
    if is_free(port) {
        return Ok(());
    }
    let holders = holders(port);
    if holders.iter().any(|pid| ours.contains(pid)) {
        return Ok(());
    }
    if holders.is_empty() && !connectable(port) {
        // Nobody listens: a connection that lingers, which the service's own bind gets past.
        return Ok(());
    }
    taken(service, port, variable, &holders)
}

fn taken(service: &str, port: u16, variable: &str, holders: &[i32]) -> Result<()> {
    let who = holders.first().map_or_else(
        || "a process of another user".to_owned(),
        |pid| format!("process {pid} ({})", process::command_line(*pid)),
    );
    bail!(Failure::new(
        format!("port {port} of 127.0.0.1, wanted by {service}, is taken by {who}"),
        format!("end that process, or choose another port: {variable}=… cargo xtask up"),
    ))
}

fn connectable(port: u16) -> bool {
    std::net::TcpStream::connect_timeout(
        &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        std::time::Duration::from_millis(300),
    )
    .is_ok()
}

/// Processes that listen on a port, from the socket tables of /proc and the processes' descriptors.
pub(crate) fn holders(port: u16) -> Vec<i32> {
    let mut inodes = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let listens = *state == "0A";
            let same = local
                .rsplit(':')
                .next()
                .is_some_and(|hex| u16::from_str_radix(hex, 16) == Ok(port));
            if listens && same {
                inodes.insert(format!("socket:[{inode}]"), ());
            }
        }
    }
    if inodes.is_empty() {
        return Vec::new();
    }
    process::all()
        .into_iter()
        .filter(|pid| {
            fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
                descriptors
                    .flatten()
                    .filter_map(|entry| fs::read_link(entry.path()).ok())
                    .any(|link| link.to_str().is_some_and(|link| inodes.contains_key(link)))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let own = i32::try_from(std::process::id()).expect("pids fit");
        assert_eq!(holders(port), vec![own]);
        let message = demand("edge", port, "EDGE_PORT", &[])
            .expect_err("taken")
            .to_string();
        assert!(message.contains(&format!("process {own}")), "{message}");
        assert!(demand("edge", port, "EDGE_PORT", &[own]).is_ok());
    }
}
