//! A pool's network: a bridge of its own, whose containers do not see each other, in a subnet of the platform's
//! range. What the range may reach is the machine's firewall's business.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};
use sha2::{Digest, Sha256};

use super::{DockerRuntime, RuntimeError, call, if_found};
use crate::names::PoolId;

/// Length of a pool's prefix: 14 addresses for three containers, tasks and the gateway.
const POOL_PREFIX: u8 = 28;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        if prefix > 32 {
            return None;
        }
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        Some(Self {
            first: u32::from(address) & !hosts,
            prefix,
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

/// The range that pools' networks are cut from, `10.213.0.0/16` for instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetRange(Subnet);

impl FromStr for SubnetRange {
    type Err = RuntimeError;

    fn from_str(text: &str) -> Result<Self, RuntimeError> {
        Subnet::parse(text)
            .filter(|subnet| (8..=POOL_PREFIX).contains(&subnet.prefix))
            .map(Self)
            .ok_or_else(|| RuntimeError::NotARange(text.to_owned()))
    }
}

impl fmt::Display for SubnetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SubnetRange {
    /// All subnets for pools, beginning at a place that `seed` determines: platform instances that share a machine
    /// but not an engine would otherwise all take the first.
    fn candidates(self, seed: &str) -> impl Iterator<Item = Subnet> + use<> {
        let count = 1_u32 << (POOL_PREFIX - self.0.prefix);
        let digest = Sha256::digest(seed.as_bytes());
        let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % count;
        let first = self.0.first;
        (0..count).map(move |step| {
            let index = (start + step) % count;
            Subnet {
                first: first + (index << (32 - POOL_PREFIX)),
                prefix: POOL_PREFIX,
            }
        })
    }
}

impl DockerRuntime {
    /// The name of the pool's network, which is there when this returns.
    pub(super) async fn ensure_network(&self, pool: PoolId) -> Result<String, RuntimeError> {
        let name = self.name(pool, "net");
        let _turn = self.networks.lock().await;
        let docker = self.docker().await?;
        let found = docker.inspect_network(&name, None::<InspectNetworkOptions>);
        if let Some(found) = if_found(call("reading a network", found).await)? {
            self.check_ours("network", &name, found.labels.as_ref())?;
            return Ok(name);
        }
        let networks = call(
            "listing networks",
            docker.list_networks(None::<ListNetworksOptions>),
        )
        .await?;
        let taken: Vec<Subnet> = networks
            .into_iter()
            .filter_map(|network| network.ipam?.config)
            .flatten()
            .filter_map(|config| Subnet::parse(&config.subnet?))
            .collect();
        let free = self
            .range
            .candidates(&name)
            .filter(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)));
        for subnet in free {
            match call(
                "making a network",
                docker.create_network(self.network(pool, &name, subnet)),
            )
            .await
            {
                Ok(_) => return Ok(name),
                // An address of the machine or another engine's network, which the engine's list does not show.
                Err(RuntimeError::Engine { source, .. }) if source.to_string().contains("overlap") => {}
                Err(other) => return Err(other),
            }
        }
        Err(RuntimeError::NoSubnet {
            range: self.range.to_string(),
        })
    }

    fn network(&self, pool: PoolId, name: &str, subnet: Subnet) -> NetworkCreateRequest {
        let config = IpamConfig {
            subnet: Some(subnet.to_string()),
            ..Default::default()
        };
        NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            ipam: Some(Ipam {
                config: Some(vec![config]),
                ..Default::default()
            }),
            options: Some(HashMap::from([(
                "com.docker.network.bridge.enable_icc".to_owned(),
                "false".to_owned(),
            )])),
            labels: Some(self.labels(pool, "network")),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_subnets_that_do_not_overlap() {
        let range: SubnetRange = "10.213.4.7/26".parse().unwrap();
        assert_eq!(range.to_string(), "10.213.4.0/26");
        let mut subnets: Vec<String> = range
            .candidates("a pool")
            .map(|subnet| subnet.to_string())
            .collect();
        subnets.sort();
        assert_eq!(
            subnets,
            [
                "10.213.4.0/28",
                "10.213.4.16/28",
                "10.213.4.32/28",
                "10.213.4.48/28"
            ]
        );
    }

    #[test]
    fn only_ipv4_ranges_that_hold_a_pool_are_taken() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/29",
            "10.0.0.0/4",
            "fd00::/8",
            "10.0.0/16",
            "10.0.0.0/x",
        ] {
            assert!(text.parse::<SubnetRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlaps_are_seen_from_both_sides() {
        let net = |text| Subnet::parse(text).unwrap();
        assert!(net("10.213.0.0/16").overlaps(net("10.213.4.16/28")));
        assert!(net("10.213.4.16/28").overlaps(net("10.213.0.0/16")));
        assert!(!net("10.213.4.16/28").overlaps(net("10.213.4.32/28")));
        assert!(net("0.0.0.0/0").overlaps(net("10.213.4.32/28")));
    }
}
