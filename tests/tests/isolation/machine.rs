//! What code inside a pool's container reaches of the machine, and what the platform leaves alone on it.

use anyhow::{Context as _, Result, ensure};
use bollard::models::NetworkCreateRequest;
use serde_json::json;
use tests::api::Api;
use tests::bait;
use tests::containers::Containers;
use tests::place::Place;
use tests::tenant::Tenant;

use crate::{end, pair};

/// Tries to open TCP connections and prints those that succeed.
const PROBE: &str = "
import json, socket
from concurrent.futures import ThreadPoolExecutor
def opens(target):
    host, port = target
    try:
        with socket.create_connection((host, port), 3):
            return True
    except OSError:
        return False
targets = json.loads('TARGETS')
with ThreadPoolExecutor(32) as pool:
    print(json.dumps([t for t, yes in zip(targets, pool.map(opens, targets)) if yes]))
";

/// Begins a connection to a metadata service every ten milliseconds, for five seconds, and prints how many were taken.
const KNOCK: &str = "
import socket, time
def taken(knock):
    try:
        knock.getpeername()
        return True
    except OSError:
        return False
knocks = []
end = time.monotonic() + 5
while time.monotonic() < end:
    knock = socket.socket()
    knock.setblocking(False)
    knock.connect_ex(('169.254.169.254', 80))
    knocks.append(knock)
    time.sleep(0.01)
time.sleep(1)
print(sum(map(taken, knocks)))
";

async fn reachable(
    containers: &Containers,
    container: &str,
    targets: &[(String, u16)],
) -> Result<Vec<(String, u16)>> {
    let script = PROBE.replace("TARGETS", &serde_json::to_string(targets)?);
    let output = containers.python_in(container, &script).await?;
    serde_json::from_str(&output).with_context(|| output)
}

#[tokio::test]
async fn a_container_of_a_pool_reaches_neither_the_host_nor_metadata_nor_another_pool() -> Result<()> {
    let containers = Containers::connect().await?;
    let place = Place::get();
    // A service of the host that certainly listens on all of its addresses.
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    let bait_port = listener.local_addr()?.port();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let bait = bait::Bait::start(&containers).await?;
    let outcome = async {
        // The probe itself: from a container that is no pool's, the host's service and the bait's neighbour open.
        let free = reachable(
            &containers,
            &bait.foreign,
            &[(bait.foreign_gateway.clone(), bait_port)],
        )
        .await?;
        ensure!(
            free.len() == 1,
            "the probe finds nothing where there is something"
        );
        let from_host = tokio::net::TcpStream::connect((bait.neighbour_address.as_str(), bait::PORT)).await;
        from_host.context("the neighbouring pool's service does not listen")?;

        for role in ["web", "gevent", "cron"] {
            let container = containers.of_role(role).await?;
            let id = container.id.context("an id")?;
            let networks = container
                .network_settings
                .and_then(|settings| settings.networks)
                .context("networks")?;
            ensure!(networks.len() == 1, "{role} is in {} networks", networks.len());
            let gateway = networks
                .into_values()
                .next()
                .and_then(|network| network.gateway)
                .context("a gateway")?;
            let mut targets = vec![
                ("169.254.169.254".to_owned(), 80),
                ("169.254.170.2".to_owned(), 80),
                ("100.100.100.200".to_owned(), 80),
                (bait.neighbour_address.clone(), bait::PORT),
                (bait.foreign_address.clone(), bait::PORT),
            ];
            let mut ports = vec![bait_port, 22, 5432, 6379, 2375, 2376];
            for setting in ["EDGE_LISTEN", "EDGE_API", "METRICS_LISTEN"] {
                if let Some(port) = place
                    .worker
                    .environment
                    .get(setting)
                    .and_then(|value| value.rsplit_once(':')?.1.parse().ok())
                {
                    ports.push(port);
                }
            }
            for url in [&place.database_url, &place.tenant_database_url] {
                ports.push(url.parse::<sqlx::postgres::PgConnectOptions>()?.get_port());
            }
            let mut hosts = host_addresses()?;
            hosts.push(gateway);
            for host in hosts {
                targets.extend(ports.iter().map(|port| (host.clone(), *port)));
            }
            for other in ["web", "gevent"] {
                let networks = containers
                    .of_role(other)
                    .await?
                    .network_settings
                    .and_then(|settings| settings.networks);
                let address = networks
                    .context("networks")?
                    .into_values()
                    .next()
                    .and_then(|network| network.ip_address);
                if other != role {
                    targets.push((
                        address.context("an address")?,
                        if other == "web" { 8069 } else { 8072 },
                    ));
                }
            }
            let open = reachable(&containers, &id, &targets).await?;
            ensure!(open.is_empty(), "{role} reaches {open:?}");
        }
        let web = containers.of_role("web").await?.id.context("an id")?;
        let own = reachable(&containers, &web, &[("127.0.0.1".to_owned(), 8069)]).await?;
        ensure!(
            own.len() == 1,
            "the probe does not work inside a pool's container"
        );
        anyhow::Ok(())
    }
    .await;
    bait.remove(&containers).await?;
    outcome
}

#[tokio::test]
async fn a_network_that_is_being_made_opens_no_way_out_of_another() -> Result<()> {
    let containers = Containers::connect().await?;
    let name = format!("somebody-elses-{}", uuid::Uuid::new_v4().simple());
    // The Docker Engine arranges its firewall rules anew each time.
    let making = async {
        for _ in 0..10 {
            let request = NetworkCreateRequest {
                name: name.clone(),
                ..Default::default()
            };
            containers.docker.create_network(request).await?;
            containers.docker.remove_network(&name).await?;
        }
        anyhow::Ok(())
    };
    let (made, taken) = tokio::join!(making, containers.python("web", KNOCK));
    made?;
    assert_eq!(taken?.trim(), "0", "so many connections were taken");
    Ok(())
}

/// IPv4 addresses of this machine, loopback too.
fn host_addresses() -> Result<Vec<String>> {
    let mut found: Vec<String> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            interface
                .address
                .and_then(|address| address.as_sockaddr_in().map(|v4| v4.ip().to_string()))
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

#[tokio::test]
async fn odoos_user_can_not_change_a_file_that_tenants_share() -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = pair(&api).await?;
    let mut shared = Vec::new();
    for folder in std::fs::read_dir(Place::get().filestore(&a.database))?.flatten() {
        for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let twin = Place::get()
                .filestore(&b.database)
                .join(folder.file_name())
                .join(file.file_name());
            if file.metadata()?.is_file()
                && twin
                    .metadata()
                    .is_ok_and(|twin| file.metadata().is_ok_and(|own| own.ino() == twin.ino()))
            {
                shared.push(format!(
                    "{}/{}",
                    folder.file_name().display(),
                    file.file_name().display()
                ));
            }
        }
    }
    ensure!(
        !shared.is_empty(),
        "no file is shared: the template has none, or they were copied"
    );
    let script = "
import json, os
tree = '/var/lib/odoo/filestore/DATABASE'
done = []
def attempt(name, work):
    try:
        work()
        done.append(name)
    except OSError:
        pass
for name in json.loads('FILES'):
    path = os.path.join(tree, name)
    assert open(path, 'rb').read(1)
    attempt(f'write {name}', lambda: open(path, 'r+b'))
    attempt(f'append {name}', lambda: open(path, 'ab'))
    attempt(f'truncate {name}', lambda: os.truncate(path, 0))
    attempt(f'chmod {name}', lambda: os.chmod(path, 0o666))
    attempt(f'chown {name}', lambda: os.chown(path, os.getuid(), -1))
    attempt(f'utime {name}', lambda: os.utime(path, (0, 0)))
own = os.path.join(tree, 'checklist-e2e')
open(own, 'w').write('x'); os.chmod(own, 0o600); os.unlink(own)
for name in os.listdir('/var/lib/odoo/filestore'):
    if name.startswith('tpl_'): done.append(f'sees {name}')
print(json.dumps(done))
";
    let script = script
        .replace("DATABASE", &a.database)
        .replace("FILES", &serde_json::to_string(&shared)?);
    for role in ["web", "cron", "gevent"] {
        let done = containers.python(role, &script).await?;
        assert_eq!(done, "[]", "{role} can {done}");
    }
    end(a, b).await
}

#[tokio::test]
async fn containers_may_do_nothing_that_odoo_does_not_need() -> Result<()> {
    let containers = Containers::connect().await?;
    let info = containers.docker.info().await?;
    for role in ["web", "gevent", "cron"] {
        let container = containers.of_role(role).await?;
        let (config, host) = (
            container.config.context("a configuration")?,
            container.host_config.context("a host's part")?,
        );
        let user = config.user.unwrap_or_default();
        assert!(
            user.contains(':') && !user.starts_with("0:") && !user.starts_with("root"),
            "{role} runs as {user:?}"
        );
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]), "{role}");
        assert!(
            host.cap_add.unwrap_or_default().is_empty() && host.privileged != Some(true),
            "{role}"
        );
        let options = host.security_opt.unwrap_or_default();
        assert!(
            options
                .iter()
                .any(|option| option.starts_with("no-new-privileges")),
            "{role}: {options:?}"
        );
        assert_eq!(host.readonly_rootfs, Some(true), "{role}");
        if info.pids_limit == Some(true) {
            assert!(
                host.pids_limit.is_some_and(|limit| limit > 0),
                "{role} may start any number of processes"
            );
        }
        if info.memory_limit == Some(true) {
            assert!(
                host.memory.is_some_and(|limit| limit > 0),
                "{role} may take all memory"
            );
        }
        assert!(
            host.network_mode
                .is_some_and(|mode| mode != "host" && mode != "default" && mode != "bridge"),
            "{role}"
        );
        assert!(
            [&host.pid_mode, &host.ipc_mode]
                .iter()
                .all(|mode| mode.as_deref() != Some("host")),
            "{role}"
        );
        assert!(host.devices.unwrap_or_default().is_empty(), "{role}");
        for bindings in host.port_bindings.unwrap_or_default().into_values().flatten() {
            for binding in bindings {
                assert_eq!(
                    binding.host_ip.as_deref(),
                    Some("127.0.0.1"),
                    "{role} is published to the network"
                );
            }
        }
        assert!(
            container.image.is_some_and(|image| image.starts_with("sha256:")),
            "{role}: an image that is not pinned"
        );
        for variable in config.env.unwrap_or_default() {
            let name = variable.split('=').next().unwrap_or_default().to_uppercase();
            let secret = ["PASS", "SECRET", "KEY", "TOKEN", "PGPASSWORD"]
                .iter()
                .any(|word| name.contains(word));
            assert!(!secret, "{role} has {name} in its environment");
        }
        for mount in container.mounts.unwrap_or_default() {
            let (source, target) = (
                mount.source.unwrap_or_default(),
                mount.destination.unwrap_or_default(),
            );
            assert!(!source.contains("docker.sock"), "{role} sees the engine");
            let writable = mount.rw == Some(true);
            let may_write = ["/var/lib/odoo/sessions", "/var/lib/odoo/filestore"].contains(&target.as_str());
            assert!(!writable || may_write, "{role} can write {target}");
        }
        let script = "
import json, os, time
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
wrong = [k for k in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb') if int(status[k], 16)]
if status['NoNewPrivs'].strip() != '1': wrong.append('NoNewPrivs')
for path in ('/etc', '/usr', '/etc/platform-pool', '/run/platform-sql', '/'):
    if os.access(path, os.W_OK): wrong.append(path)
for path in ('pool.key', 'edge.secret'):
    if os.stat(f'/etc/platform-pool/{path}').st_mode & 0o377: wrong.append(path)
def of_root():
    found = set()
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if os.stat(f'/proc/{pid}').st_uid == 0: found.add(pid)
        except FileNotFoundError: pass
    return found
# A command that the engine starts here is root's until it has given that up.
stayed = of_root()
for look in range(100):
    if not stayed: break
    time.sleep(0.1)
    stayed &= of_root()
wrong += [f'process {pid}' for pid in sorted(stayed)]
print(json.dumps(wrong))
";
        let wrong = containers.python(role, script).await?;
        assert_eq!(wrong, "[]", "{role}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_of_another_owner_is_touched() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let foreign = bait::Foreign::make(&containers).await?;
    let outcome = async {
        let before = foreign.look(&containers).await?;
        let tenant = Tenant::create(&api).await?;
        let another = Tenant::create(&api).await?;
        tenant.delete().await?;
        let accepted = Tenant::accept(
            &api,
            &tests::tenant::request(&tests::tenant::new_slug(), &json!({})),
            &[],
        )
        .await?;
        accepted.delete().await?;
        another.delete().await?;
        let after = foreign.look(&containers).await?;
        ensure!(before == after, "before {before:#?}\nafter {after:#?}");
        anyhow::Ok(())
    }
    .await;
    foreign.remove(&containers).await?;
    outcome
}

#[tokio::test]
async fn the_platforms_processes_are_different_users_and_only_the_worker_speaks_to_the_engine() -> Result<()>
{
    use std::os::unix::fs::MetadataExt as _;
    let owner = |name: &str| -> Result<u32> {
        Ok(std::fs::metadata(format!("/proc/{}", tests::services::process(name)?))?.uid())
    };
    let uids: Vec<u32> = ["api", "worker", "postgres", "redis"]
        .iter()
        .map(|name| owner(name))
        .collect::<Result<_>>()?;
    if nix::unistd::geteuid().is_root() {
        let mut unique = uids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert!(
            unique.len() == uids.len() && !uids.contains(&0),
            "api, worker, postgres, redis run as {uids:?}"
        );
    }
    let socket = Place::get().docker_host.trim_start_matches("unix://").to_owned();
    let group = std::fs::metadata(&socket)?.gid();
    let groups = |name: &str| -> Result<Vec<u32>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", tests::services::process(name)?))?;
        let fields = status
            .lines()
            .filter(|line| line.starts_with("Groups:") || line.starts_with("Gid:"));
        Ok(fields
            .flat_map(str::split_whitespace)
            .filter_map(|word| word.parse().ok())
            .collect())
    };
    assert!(
        groups("worker")?.contains(&group),
        "the worker can't reach the engine"
    );
    for name in ["api", "nginx", "postgres", "postgres-tenants", "redis"] {
        let privileged = name == "nginx" && owner(name)? == 0;
        assert!(
            privileged || !groups(name)?.contains(&group),
            "{name} can reach the engine"
        );
    }
    // Neither argument nor environment of a process holds a secret of the platform.
    let secrets = std::fs::read_dir(Place::get().state.join("secrets"))?;
    let secrets: Vec<String> = secrets
        .flatten()
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    ensure!(
        secrets.iter().any(|secret| secret.len() >= 16),
        "there are no secrets to look for"
    );
    for name in ["api", "worker", "nginx", "postgres", "postgres-tenants", "redis"] {
        let pid = tests::services::process(name)?;
        for file in ["cmdline", "environ"] {
            let text = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}"))?).into_owned();
            let told = secrets
                .iter()
                .any(|secret| secret.len() >= 12 && text.contains(secret.as_str()));
            assert!(!told, "{name} has a secret in its {file}");
        }
    }
    Ok(())
}
