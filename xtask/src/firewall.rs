//! Rules that keep pools' containers from this host, private networks, metadata services and each other. The public
//! internet (mail, currency rates) and the machine's own resolvers stay reachable.
//!
//! Each instance has two chains of its own and touches no rule of another; the supervisor puts them back when someone
//! flushes them. What pools forward is judged in the `mangle` table: in `filter`, the Docker Engine takes its jump to
//! `DOCKER-USER` away for a moment whenever a network is made, and connections that begin in that moment stay open.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::exec;
use crate::supervisor::Firewall;

/// What a pool has no business with: private, shared, link-local (metadata) and loopback addresses.
const FORBIDDEN: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
];

/// Puts the rules in place where they are missing or different. Returns whether anything was changed.
pub(crate) fn ensure(firewall: &Firewall) -> Result<bool> {
    let mut changed = false;
    for chain in chains(firewall) {
        let present = chain.run(firewall, &["-S", &chain.name]).unwrap_or_default();
        let wanted: Vec<String> = chain
            .rules
            .iter()
            .map(|rule| format!("-A {} {rule}", chain.name))
            .collect();
        let found: Vec<&str> = present
            .lines()
            .filter(|line| line.starts_with("-A"))
            .map(str::trim)
            .collect();
        if found != wanted {
            if present.is_empty() {
                chain.run(firewall, &["-N", &chain.name])?;
            }
            chain.run(firewall, &["-F", &chain.name])?;
            for rule in &chain.rules {
                let mut arguments = vec!["-A", chain.name.as_str()];
                arguments.extend(rule.split_whitespace());
                chain.run(firewall, &arguments)?;
            }
            changed = true;
        }
        // First in its parent: before whatever else accepts.
        let jump = format!("-A {} -s {} -j {}", chain.parent, firewall.range, chain.name);
        let parent = chain.run(firewall, &["-S", chain.parent])?;
        if !parent.lines().any(|line| line.trim() == jump) {
            chain.run(
                firewall,
                &["-I", chain.parent, "1", "-s", &firewall.range, "-j", &chain.name],
            )?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Removes the instance's rules; missing ones are fine.
pub(crate) fn remove(firewall: &Firewall) {
    for chain in chains(firewall) {
        // Each of these fails where there is nothing to remove.
        let jump = ["-D", chain.parent, "-s", &firewall.range, "-j", &chain.name];
        chain.run(firewall, &jump).ok();
        chain.run(firewall, &["-F", &chain.name]).ok();
        chain.run(firewall, &["-X", &chain.name]).ok();
    }
}

/// Chooses the `iptables` whose tables this kernel serves and, with a running Engine, the one that it uses.
/// The machine's alternatives are left as they are.
pub(crate) fn choose() -> Result<PathBuf> {
    let mut working = Vec::new();
    for name in ["iptables", "iptables-nft", "iptables-legacy"] {
        let Some(program) = exec::find(name) else { continue };
        let works = |arguments: &[&str]| {
            exec::capture(
                Command::new(&program).args(arguments),
                "",
                Duration::from_secs(10),
            )
            .is_ok_and(|outcome| outcome.status.success())
        };
        if works(&["-w", "5", "-n", "-L", "DOCKER-USER"]) {
            return Ok(program);
        }
        if works(&["-w", "5", "-t", "nat", "-n", "-L", "POSTROUTING"]) {
            working.push(program);
        }
    }
    match working.into_iter().next() {
        Some(program) => Ok(program),
        None => bail!("no iptables program of this machine works with its kernel"),
    }
}

struct Chain {
    table: &'static str,
    name: String,
    /// The chain of the table from which it is reached.
    parent: &'static str,
    rules: Vec<String>,
}

impl Chain {
    /// Runs a command of `iptables` on its table.
    fn run(&self, firewall: &Firewall, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&firewall.iptables);
        // Waits for others who change the tables at the same moment.
        command.args(["-w", "10", "-t", self.table]).args(arguments);
        let outcome = exec::capture(&mut command, "", Duration::from_secs(20))?;
        if !outcome.status.success() {
            bail!("iptables {}: {}", arguments.join(" "), outcome.stderr.trim());
        }
        Ok(outcome.stdout)
    }
}

fn chains(firewall: &Firewall) -> [Chain; 2] {
    let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned();
    let mut forwarded = vec![established.clone()];
    for resolver in resolvers() {
        for protocol in ["udp", "tcp"] {
            forwarded.push(format!(
                "-d {resolver}/32 -p {protocol} -m {protocol} --dport 53 -j RETURN"
            ));
        }
    }
    forwarded.extend(FORBIDDEN.map(|network| format!("-d {network} -j DROP")));
    [
        Chain {
            table: "filter",
            name: format!("PLATFORM-HOST-{}", firewall.id),
            parent: "INPUT",
            rules: vec![established, "-j DROP".to_owned()],
        },
        Chain {
            table: "mangle",
            name: format!("PLATFORM-POOLS-{}", firewall.id),
            parent: "FORWARD",
            rules: forwarded,
        },
    ]
}

/// IPv4 resolvers of this machine, except those on its loopback, which containers can't reach anyway.
fn resolvers() -> Vec<String> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<std::net::Ipv4Addr>().ok())
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect()
}
