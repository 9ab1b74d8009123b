//! The Docker Engine: the one that answers on this machine is used as it is; otherwise a private one is kept for all
//! instances of the machine, with its own socket, data and pid file. Only what carries our label is ever touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use serde_json::Value;

use crate::http::{self, Address, Body, Request, Response};
use crate::instance::{self, Instance};
use crate::screen::Failure;
use crate::supervisor::{self, Leftovers, Manifest, Service};
use crate::{exec, files, firewall, process};

/// An Engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    address: Address,
    /// As `DOCKER_HOST` has it.
    pub(crate) host: String,
    /// Group that may use its socket.
    pub(crate) socket_gid: Option<u32>,
    is_local: bool,
}

/// The machine's own Engine, if one answers: `DOCKER_HOST`, or the usual sockets.
pub(crate) fn existing() -> Result<Option<Engine>> {
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !host.is_empty()
    {
        let engine = Engine::at(&host)?;
        engine
            .ping()
            .with_context(|| format!("no Docker Engine answers at DOCKER_HOST={host}"))?;
        return Ok(Some(engine));
    }
    let mut candidates = vec!["unix:///var/run/docker.sock".to_owned()];
    if let Ok(runtime) = std::env::var("XDG_RUNTIME_DIR") {
        candidates.push(format!("unix://{runtime}/docker.sock"));
    }
    for host in candidates {
        let engine = Engine::at(&host)?;
        if engine.ping().is_ok() {
            return Ok(Some(engine));
        }
    }
    Ok(None)
}

/// The Engine that holds an instance's containers, if it answers; starts nothing. An instance that began with the
/// private one stays there when the machine gets another.
pub(crate) fn current(instance: &Instance) -> Result<Option<Engine>> {
    if std::env::var_os("DOCKER_HOST").is_none() && is_user_of_private(instance)? {
        let engine = Engine::at(&private_host()?)?;
        return Ok(engine.ping().is_ok().then_some(engine));
    }
    existing()
}

/// Whether the instance's Engine runs on this machine (or will), so that its networks pass this machine's firewall.
pub(crate) fn is_local(instance: &Instance) -> Result<bool> {
    Ok(current(instance)?.is_none_or(|engine| engine.is_local))
}

/// Whether the instance's containers are in the private Engine, be it running or not.
pub(crate) fn is_user_of_private(instance: &Instance) -> Result<bool> {
    Ok(private_folder()?.join("users").join(&instance.id).exists())
}

fn private_host() -> Result<String> {
    Ok(format!(
        "unix://{}",
        private_folder()?.join("docker.sock").display()
    ))
}

/// The Engine for an instance: the machine's, or the private one, started if need be.
pub(crate) fn ensure(instance: &Instance) -> Result<Engine> {
    if let Some(engine) = current(instance)? {
        return Ok(engine);
    }
    if !geteuid().is_root() {
        bail!(Failure::new(
            "no Docker Engine answers, and only root can start one",
            "start Docker (and be a member of its group), set DOCKER_HOST, or run as root",
        ));
    }
    let folder = private_folder()?;
    for (name, mode) in [
        ("", 0o711),
        ("run", 0o755),
        ("logs", 0o755),
        ("bin", 0o755),
        ("users", 0o700),
    ] {
        files::directory(&folder.join(name), mode, None)?;
    }
    let _lock = instance::lock(&folder.join("lock"), Duration::from_secs(120))?;
    files::write(
        &folder.join("users").join(&instance.id),
        instance.state.as_os_str().as_encoded_bytes(),
        0o600,
        None,
    )?;
    let engine = Engine::at(&private_host()?)?;
    let manifest = private_manifest(&folder)?;
    if engine.ping().is_err() || supervisor::running(&folder).is_none() {
        manifest.write(&folder)?;
        supervisor::ensure(&folder)?;
    }
    if !process::wait_until(Duration::from_secs(60), || engine.ping().is_ok()) {
        bail!(
            Failure::new(
                "the private Docker Engine does not start",
                "see its log; then run `cargo xtask up` again"
            )
            .log(&folder.join("logs/dockerd.log"))
        );
    }
    // The socket's group is known only now.
    Engine::at(&engine.host)
}

/// Tells the private Engine that this instance needs it no more; the last one stops it, and what still runs in it.
pub(crate) fn release(instance: &Instance) -> Result<()> {
    let folder = private_folder()?;
    if !folder.join("users").is_dir() || !geteuid().is_root() {
        return Ok(());
    }
    let _lock = instance::lock(&folder.join("lock"), Duration::from_secs(120))?;
    fs::remove_file(folder.join("users").join(&instance.id)).ok();
    let others = fs::read_dir(folder.join("users"))?.flatten().any(|entry| {
        fs::read_to_string(entry.path())
            .is_ok_and(|state| supervisor::running(Path::new(state.trim())).is_some())
    });
    if others || supervisor::running(&folder).is_none() {
        return Ok(());
    }
    if let Ok(engine) = Engine::at(&private_host()?) {
        // Containers outlive this Engine's daemon, so they are stopped first. It is private: all of them are ours.
        for container in engine.containers("").unwrap_or_default() {
            engine.stop(&container.id).ok();
        }
    }
    supervisor::stop(&folder, Duration::from_secs(60))
}

/// Folder of the private Engine, one for all instances of the machine.
pub(crate) fn private_folder() -> Result<PathBuf> {
    Ok(instance::state_root()?.join("docker"))
}

fn private_manifest(folder: &Path) -> Result<Manifest> {
    let path = |name: &str| folder.join(name).display().to_string();
    let containerd = exec::find("containerd").context("containerd is missing")?;
    let dockerd = exec::find("dockerd").context("dockerd is missing")?;
    let configuration = format!(
        "# Written by `cargo xtask up`: a change made here by hand is lost.\n\
         version = 2\n\
         root = {root:?}\n\
         state = {state:?}\n\
         # Lowering it needs a right that some machines withhold.\n\
         oom_score = 0\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\n  address = {socket:?}\n\
         [debug]\n  level = \"warn\"\n",
        root = path("containerd/root"),
        state = path("containerd/state"),
        socket = path("containerd/containerd.sock"),
    );
    files::directory(&folder.join("containerd"), 0o711, None)?;
    files::write(
        &folder.join("containerd.toml"),
        configuration.as_bytes(),
        0o600,
        None,
    )?;
    // The Engine calls `iptables` by name: show it the one that works, without changing the machine's choice.
    files::directory(&folder.join("programs"), 0o755, None)?;
    let link = folder.join("programs/iptables");
    fs::remove_file(&link).ok();
    std::os::unix::fs::symlink(firewall::choose()?, &link)?;
    let environment = BTreeMap::from([
        (
            "PATH".to_owned(),
            format!(
                "{}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
                path("programs")
            ),
        ),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    // Proxies of the machine: the Engine pulls images itself.
    let mut daemon_environment = environment.clone();
    for variable in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ] {
        if let Ok(value) = std::env::var(variable) {
            daemon_environment.insert(variable.to_owned(), value);
        }
    }
    let service = |name: &str, argv: Vec<String>, environment, tier, leftovers, stale: &[&str]| Service {
        name: name.to_owned(),
        argv,
        environment,
        stop_signal: "TERM".into(),
        stop_seconds: 30,
        tier,
        leftovers,
        stale_files: stale.iter().map(|file| folder.join(file)).collect(),
        reload: None,
        fingerprint: files::fingerprint(&[configuration.as_bytes()]),
    };
    Ok(Manifest {
        services: vec![
            // A service of its own: containers live on whichever of the two daemons dies.
            service(
                "containerd",
                vec![
                    containerd.display().to_string(),
                    "--config".into(),
                    path("containerd.toml"),
                ],
                environment,
                0,
                Leftovers::Nothing,
                &[],
            ),
            service(
                "dockerd",
                vec![
                    dockerd.display().to_string(),
                    "--host".into(),
                    format!("unix://{}", path("docker.sock")),
                    "--containerd".into(),
                    path("containerd/containerd.sock"),
                    "--data-root".into(),
                    path("data"),
                    "--exec-root".into(),
                    path("exec"),
                    "--pidfile".into(),
                    path("dockerd.pid"),
                    "--group".into(),
                    "platform-worker".into(),
                    "--live-restore".into(),
                    "--log-level".into(),
                    "warn".into(),
                ],
                daemon_environment,
                1,
                Leftovers::Group,
                &["dockerd.pid"],
            ),
        ],
        firewall: None,
        stop: false,
    })
}

/// A container of the Engine.
pub(crate) struct Container {
    /// Id.
    pub(crate) id: String,
    /// Name.
    pub(crate) name: String,
    /// `running`, `exited`, …
    pub(crate) state: String,
    /// `Up 3 minutes (healthy)`.
    pub(crate) status: String,
    /// Value of the label `platform.role`.
    pub(crate) role: String,
}

impl Engine {
    /// Describes the Engine at an address as `DOCKER_HOST` has it.
    fn at(host: &str) -> Result<Self> {
        let (address, socket_gid, is_local) = if let Some(path) = host.strip_prefix("unix://") {
            let gid = fs::metadata(path).ok().map(|meta| meta.gid());
            (Address::Unix(path.into()), gid, true)
        } else if let Some(name) = host
            .strip_prefix("tcp://")
            .or_else(|| host.strip_prefix("http://"))
        {
            let local = name.starts_with("127.") || name.starts_with("localhost");
            (Address::Tcp(name.trim_end_matches('/').to_owned()), None, local)
        } else {
            bail!("DOCKER_HOST={host} is not understood: give unix:///path or tcp://host:port");
        };
        Ok(Self {
            address,
            host: host.to_owned(),
            socket_gid,
            is_local,
        })
    }

    /// Whether it answers.
    pub(crate) fn ping(&self) -> Result<()> {
        let answer = self.call("GET", "/_ping", Body::Empty, Duration::from_secs(5))?;
        if answer.is_success() {
            Ok(())
        } else {
            bail!("it answers {}: {}", answer.status, answer.text().trim())
        }
    }

    /// Id of an image, if the Engine has it.
    pub(crate) fn image(&self, name: &str) -> Result<Option<String>> {
        let answer = self.call(
            "GET",
            &format!("/images/{name}/json"),
            Body::Empty,
            Duration::from_secs(20),
        )?;
        match answer.status {
            200 => Ok(answer.json()?["Id"].as_str().map(str::to_owned)),
            404 => Ok(None),
            _ => bail!(
                "asked for image {name}, the Docker Engine answers: {}",
                answer.text().trim()
            ),
        }
    }

    /// Pulls an image. A registry that doesn't answer within `patience`, or stops sending that long, is given up.
    pub(crate) fn pull(&self, name: &str, tag: &str, patience: Duration) -> Result<()> {
        let target = format!("/images/create?fromImage={name}&tag={tag}");
        let answer = self.call("POST", &target, Body::Empty, patience)?;
        let text = String::from_utf8_lossy(&answer.body);
        let refused = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["error"].as_str().map(str::to_owned));
        match refused {
            _ if !answer.is_success() => bail!("{}", answer.text().trim()),
            Some(error) => bail!("{error}"),
            None => Ok(()),
        }
    }

    /// Imports a root file system as an image.
    pub(crate) fn import(&self, tar: &Path, name: &str, tag: &str, changes: &[String]) -> Result<()> {
        let mut target = format!("/images/create?fromSrc=-&repo={}&tag={tag}", escape(name));
        for change in changes {
            target.push_str(&format!("&changes={}", escape(change)));
        }
        let mut file = fs::File::open(tar).with_context(|| format!("cannot read {}", tar.display()))?;
        let length = file.metadata()?.len();
        let answer = self.call(
            "POST",
            &target,
            Body::Stream(&mut file, length),
            Duration::from_secs(300),
        )?;
        let text = String::from_utf8_lossy(&answer.body);
        if !answer.is_success() || text.contains("\"error\"") {
            bail!("the Docker Engine refuses the image: {}", answer.text().trim());
        }
        Ok(())
    }

    /// Containers whose label `platform.instance` is the given one; with an empty one, all.
    pub(crate) fn containers(&self, instance: &str) -> Result<Vec<Container>> {
        let list = self.list("/containers/json?all=true", instance)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(list
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| Container {
                id: text(&entry["Id"]),
                name: text(&entry["Names"][0]).trim_start_matches('/').to_owned(),
                state: text(&entry["State"]),
                status: text(&entry["Status"]),
                role: text(&entry["Labels"]["platform.role"]),
            })
            .collect())
    }

    /// Stops a container and keeps it.
    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        self.succeed("POST", &format!("/containers/{id}/stop?t=20"))
    }

    /// Starts a stopped container.
    pub(crate) fn start(&self, id: &str) -> Result<()> {
        self.succeed("POST", &format!("/containers/{id}/start"))
    }

    /// Removes the containers, networks and volumes of an instance.
    pub(crate) fn purge(&self, instance: &str) -> Result<()> {
        for container in self.containers(instance)? {
            self.succeed(
                "DELETE",
                &format!("/containers/{}?force=true&v=true", container.id),
            )?;
        }
        let networks = self.list("/networks", instance)?;
        for network in networks.as_array().into_iter().flatten() {
            if let Some(id) = network["Id"].as_str() {
                self.succeed("DELETE", &format!("/networks/{id}"))?;
            }
        }
        let volumes = self.list("/volumes", instance)?;
        for volume in volumes["Volumes"].as_array().into_iter().flatten() {
            if let Some(name) = volume["Name"].as_str() {
                self.succeed("DELETE", &format!("/volumes/{name}"))?;
            }
        }
        Ok(())
    }

    fn list(&self, target: &str, instance: &str) -> Result<Value> {
        let separator = if target.contains('?') { '&' } else { '?' };
        let mut target = target.to_owned();
        if !instance.is_empty() {
            let filter = escape(&format!("{{\"label\":[\"platform.instance={instance}\"]}}"));
            target.push_str(&format!("{separator}filters={filter}"));
        }
        let answer = self.call("GET", &target, Body::Empty, Duration::from_secs(30))?;
        if !answer.is_success() {
            bail!(
                "the Docker Engine answers {}: {}",
                answer.status,
                answer.text().trim()
            );
        }
        answer.json()
    }

    /// A call whose goal may have been reached already (304, 404) or is being reached (409).
    fn succeed(&self, method: &str, target: &str) -> Result<()> {
        let answer = self.call(method, target, Body::Empty, Duration::from_secs(60))?;
        if answer.is_success() || matches!(answer.status, 304 | 404 | 409) {
            return Ok(());
        }
        bail!(
            "the Docker Engine answers {} to {method} {target}: {}",
            answer.status,
            answer.text().trim()
        )
    }

    fn call<'a>(
        &self,
        method: &'a str,
        target: &'a str,
        body: Body<'a>,
        patience: Duration,
    ) -> Result<Response> {
        let request = Request {
            method,
            target,
            host: "docker",
            headers: Vec::new(),
            body,
            patience,
        };
        http::send(&self.address, request)
    }
}

/// Percent-encodes a query value (RFC 3986, section 2.3).
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
