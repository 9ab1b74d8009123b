//! Pools on a real Docker Engine with the real Odoo: what a container may do, what is left alone, and a tenant served.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures::{FutureExt as _, StreamExt as _};
use odoo::filestore::Filestore;
use odoo::names::{DatabaseName, PoolId};
use odoo::password::{GeneratedPassword, PasswordHash};
use odoo::probe::{Probe, ProbeError};
use odoo::runtime::{
    ContainerEntry, ContainerUser, DockerRuntime, ImageId, PoolEndpoints, PoolRole, PoolSpec, Runtime as _,
    RuntimeError, TaskCommand, TaskSpec,
};
use odoo::server::{AdminCredentials, Identity};
use odoo::template::{TemplateBuild, TemplateError};
use support::{Bench, session, template_spec, variable};
use uuid::Uuid;

const RANGE: &str = "10.213.0.0/16";

/// A pool of one test, in an instance of its own.
struct PoolBench {
    bench: Bench,
    runtime: DockerRuntime,
    docker: Docker,
    spec: PoolSpec,
    instance: String,
}

impl PoolBench {
    async fn new() -> Self {
        let mut bench = Bench::new().await;
        // A group of its own as in production; who is not root has only its own.
        let root = nix::unistd::geteuid().is_root();
        let user = if root {
            ContainerUser {
                uid: 61_234,
                gid: 61_235,
            }
        } else {
            ContainerUser {
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            }
        };
        bench.filestore = Filestore::new(bench.directory.path(), Some(user.gid));
        bench.filestore.prepare().await.unwrap();
        let host = variable("TEST_DOCKER_HOST");
        let instance = format!("test-{}", &Uuid::now_v7().simple().to_string()[20..]);
        let runtime = DockerRuntime::new(&host, &instance, RANGE.parse().unwrap()).unwrap();
        let docker = Docker::connect_with_unix(&host, 60, bollard::API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let image = runtime.resolve_image(&variable("TEST_ODOO_IMAGE")).await.unwrap();
        let spec = PoolSpec {
            image,
            user,
            web_port: free_port(),
            gevent_port: free_port(),
            filestore: bench.filestore.tenants(),
            ..support::pool_spec(&bench.keys)
        };
        Self {
            bench,
            runtime,
            docker,
            spec,
            instance,
        }
    }

    fn name(&self, part: &str) -> String {
        format!("odoo-{}-{}-{part}", self.instance, self.spec.pool)
    }

    async fn container_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for role in PoolRole::ALL {
            let name = self.name(role.as_str());
            let found = self
                .docker
                .inspect_container(&name, None::<InspectContainerOptions>)
                .await
                .unwrap();
            ids.push(found.id.unwrap());
        }
        ids
    }

    /// What a shell in the container says, and its exit code.
    async fn shell(&self, role: PoolRole, script: &str) -> (i64, String) {
        let options = CreateExecOptions {
            cmd: Some(vec!["/bin/sh", "-c", script]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self
            .docker
            .create_exec(&self.name(role.as_str()), options)
            .await
            .unwrap()
            .id;
        let mut text = String::new();
        if let StartExecResults::Attached { mut output, .. } =
            self.docker.start_exec(&exec, None).await.unwrap()
        {
            while let Some(line) = output.next().await {
                text.push_str(&line.unwrap().to_string());
            }
        }
        (
            self.docker.inspect_exec(&exec).await.unwrap().exit_code.unwrap(),
            text,
        )
    }

    async fn wait_ready(&self) {
        let give_up = Instant::now() + Duration::from_secs(90);
        loop {
            let state = self.runtime.pool_state(self.spec.pool).await.unwrap();
            if state.is_ready() {
                return;
            }
            assert!(Instant::now() < give_up, "{state:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn serves(&self, endpoints: PoolEndpoints, name: &DatabaseName) -> Result<(), ProbeError> {
        Probe::new()
            .unwrap()
            .serves(endpoints.web, "acme.localhost:8080", name, &self.spec.edge_secret)
            .await
    }
}

/// Runs the test and removes the pool whatever comes of it.
async fn with_pool(test: impl AsyncFnOnce(&mut PoolBench)) {
    let mut pool = PoolBench::new().await;
    let outcome = std::panic::AssertUnwindSafe(test(&mut pool)).catch_unwind().await;
    let removed = pool.runtime.remove_pool(pool.spec.pool).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    removed.unwrap();
    assert_eq!(pool.runtime.pools().await.unwrap(), []);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// An address of this machine other than loopback, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn a_pool_of_real_odoo_serves_a_clone_of_a_template_that_it_built() {
    with_pool(async |pool| {
        let (server, keys) = (&pool.bench.server.clone(), &pool.bench.keys.clone());
        let filestore = &pool.bench.filestore.clone();
        let mut session = session(server).await;
        let bus = pool.spec.pool.bus_database();
        session
            .ensure_bus_database(pool.spec.pool, &keys.password_for(&bus))
            .await
            .unwrap();
        session
            .ensure_bus_database(pool.spec.pool, &keys.password_for(&bus))
            .await
            .unwrap();

        let wanted = template_spec(pool.spec.image.clone());
        let build = TemplateBuild {
            spec: &wanted,
            filestore,
            keys,
        };
        let began = Instant::now();
        build.begin(&mut session).await.unwrap();
        build.install(&pool.runtime, &pool.spec).await.unwrap();
        let template = build.finish(&mut session, "test-1").await.unwrap();
        eprintln!("template {:?}: {template:?}", began.elapsed());
        assert_eq!(build.finish(&mut session, "test-2").await.unwrap(), template);
        assert_eq!(template.languages, ["en_US"]);
        assert!(template.files > 20, "{}", template.files);
        assert!(session.templates().await.unwrap().contains(&template));

        let began = Instant::now();
        let report = pool.runtime.ensure_pool(&pool.spec).await.unwrap();
        eprintln!("pool {:?} {:?}", began.elapsed(), report.warnings);
        assert_eq!(report.made, PoolRole::ALL);

        let name = DatabaseName::tenant(Uuid::now_v7());
        let generated = GeneratedPassword::generate();
        let identity = Identity {
            base_url: "http://acme.localhost:8080".to_owned(),
            admin: AdminCredentials {
                login: "ada".to_owned(),
                email: "ada@example.com".to_owned(),
                password: PasswordHash::of_generated(&generated),
            },
            language: Some("en_US".to_owned()),
            country: Some("CH".to_owned()),
            company_name: "Acme".to_owned(),
        };
        let mut parts = Vec::new();
        let mut began = Instant::now();
        let mut part = |name| {
            parts.push((name, began.elapsed()));
            began = Instant::now();
        };
        pool.bench.make_role(&mut session, &name, false).await;
        part("role");
        session.clone_database(&template.database, &name).await.unwrap();
        part("clone");
        session.write_identity(&name, &identity).await.unwrap();
        part("identity");
        filestore
            .clone_template(&template.database, &name, "test-1")
            .await
            .unwrap();
        part("filestore");
        session.set_login(&name, true).await.unwrap();
        part("login");
        eprintln!("{parts:?}");

        pool.wait_ready().await;
        let probe = Probe::new().unwrap();
        probe.answers(report.endpoints.web).await.unwrap();
        probe.answers(report.endpoints.gevent).await.unwrap();
        let began = Instant::now();
        pool.serves(report.endpoints, &name).await.unwrap();
        eprintln!("first page {:?}", began.elapsed());
        let another = DatabaseName::tenant(Uuid::now_v7());
        assert!(pool.serves(report.endpoints, &another).await.is_err());

        check_containers(pool, &name).await;
        check_upkeep(pool, report.endpoints, &name).await;

        // A new password opens the door, and the old session is over: through Odoo's own sign-in.
        let (chosen, login) = ("correct horse".to_owned(), "ada".to_owned());
        let hash = PasswordHash::of_chosen(chosen.clone().into()).await;
        assert_eq!(
            server
                .set_admin_password("test", &name, keys, &hash)
                .await
                .unwrap(),
            login
        );
        assert!(signs_in(pool, report.endpoints, &name, &login, &chosen).await);
        assert!(!signs_in(pool, report.endpoints, &name, &login, "wrong").await);

        build.remove(&mut session).await.unwrap();
        pool.serves(report.endpoints, &name).await.unwrap();
        pool.runtime.remove_pool(pool.spec.pool).await.unwrap();
        pool.bench.forget(&[&name, &bus]).await;
        filestore.delete(&name).await.unwrap();
    })
    .await;
}

/// Whether Odoo takes the password, asked over XML-RPC.
async fn signs_in(
    pool: &PoolBench,
    endpoints: PoolEndpoints,
    name: &DatabaseName,
    login: &str,
    password: &str,
) -> bool {
    let value = |text: &str| format!("<param><value><string>{text}</string></value></param>");
    let params = [name.as_str(), login, password].map(value).concat();
    let body = format!(
        "<methodCall><methodName>authenticate</methodName><params>{params}\
         <param><value><struct></struct></value></param></params></methodCall>"
    );
    let response = reqwest::Client::new()
        .post(format!("http://{}/xmlrpc/2/common", endpoints.web))
        .header("x-platform-edge", pool.spec.edge_secret.expose())
        .header("x-platform-database", name.as_str())
        .header("host", "acme.localhost:8080")
        .header("content-type", "text/xml")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap().contains("<int>2</int>")
}

/// What Odoo's processes may do, and may not.
async fn check_containers(pool: &PoolBench, name: &DatabaseName) {
    let listed = pool.runtime.containers().await.unwrap();
    for role in PoolRole::ALL {
        let of_role =
            |entry: &&ContainerEntry| entry.pool == Some(pool.spec.pool) && entry.role == Some(role);
        assert!(
            listed.iter().find(of_role).is_some_and(|entry| entry.runs),
            "{listed:?}"
        );
    }
    let uid = pool.spec.user.uid;
    for role in PoolRole::ALL {
        let (_, text) = pool
            .shell(
                role,
                "stat -c '%a %u %n' /etc/platform-pool/pool.key /etc/platform-pool/edge.secret",
            )
            .await;
        for file in ["pool.key", "edge.secret"] {
            assert!(
                text.contains(&format!("400 {uid} /etc/platform-pool/{file}")),
                "{text}"
            );
        }
        let (_, text) = pool
            .shell(
                role,
                "grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Uid)' /proc/self/status; env; cat /proc/1/environ",
            )
            .await;
        assert_eq!(text.matches("0000000000000000").count(), 2, "{text}");
        assert!(
            text.contains("NoNewPrivs:\t1") && text.contains(&format!("Uid:\t{uid}\t{uid}")),
            "{text}"
        );
        for secret in [
            pool.spec.edge_secret.expose().to_owned(),
            password_text(pool, name),
        ] {
            assert!(!text.contains(&secret));
        }
        for forbidden in [
            "touch /etc/here",
            "touch /usr/here",
            "touch /etc/platform-pool/here",
            "touch /run/platform-sql/here",
            "rm /run/platform-sql/.s*",
            "mkdir /var/lib/odoo/filestore/here",
        ] {
            let (exit, text) = pool.shell(role, forbidden).await;
            assert_ne!(exit, 0, "{forbidden}: {text}");
        }
        let found = pool
            .docker
            .inspect_container(&pool.name(role.as_str()), None::<InspectContainerOptions>)
            .await
            .unwrap();
        let host = found.host_config.unwrap();
        assert!(host.memory.unwrap() > 0 && host.pids_limit.unwrap() > 0);
        assert_eq!(found.config.unwrap().image.unwrap(), pool.spec.image.to_string());
    }
    // A file that is the template's own: Odoo's user may neither write it nor make it writable.
    let tree = format!("/var/lib/odoo/filestore/{name}");
    let (_, file) = pool
        .shell(PoolRole::Web, &format!("find {tree} -type f -perm 444 | head -1"))
        .await;
    let file = file.trim();
    assert!(file.starts_with(&tree), "{file}");
    for forbidden in [
        format!("echo x >> {file}"),
        format!("chmod u+w {file}"),
        format!("truncate -s 0 {file}"),
    ] {
        let (exit, text) = pool.shell(PoolRole::Web, &forbidden).await;
        assert_ne!(exit, 0, "{forbidden}: {text}");
    }
    let own = format!("mkdir -p {tree}/zz && echo x > {tree}/zz/own && stat -c %a {tree}/zz");
    let (exit, text) = pool.shell(PoolRole::Web, &own).await;
    assert_eq!(
        (exit, text.trim()),
        (0, "2755"),
        "made with the shell's own umask"
    );

    // Loopback only.
    TcpStream::connect(("127.0.0.1", pool.spec.web_port)).unwrap();
    if let Some(outer) = outer_address() {
        for port in [pool.spec.web_port, pool.spec.gevent_port] {
            let address = (outer, port).into();
            assert!(
                TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err(),
                "{address}"
            );
        }
    }
    // Neighbours on the pool's own network are not reached.
    let found = pool
        .docker
        .inspect_container(&pool.name("gevent"), None::<InspectContainerOptions>)
        .await
        .unwrap();
    let networks = found.network_settings.unwrap().networks.unwrap();
    let address = networks.values().next().unwrap().ip_address.clone().unwrap();
    let reach =
        format!("timeout 2 python3 -c \"import socket; socket.create_connection(('{address}', 8072), 1)\"");
    assert_ne!(pool.shell(PoolRole::Web, &reach).await.0, 0);
    assert_eq!(pool.shell(PoolRole::Gevent, &reach).await.0, 0);
}

fn password_text(pool: &PoolBench, name: &DatabaseName) -> String {
    use secrecy::ExposeSecret as _;
    pool.bench.keys.password_for(name).expose_secret().to_owned()
}

/// What stays as it is, what is made anew, and what comes back by itself.
async fn check_upkeep(pool: &mut PoolBench, endpoints: PoolEndpoints, name: &DatabaseName) {
    let before = pool.container_ids().await;
    let report = pool.runtime.ensure_pool(&pool.spec).await.unwrap();
    assert_eq!(
        (report.made, pool.container_ids().await),
        (vec![], before.clone())
    );

    // A new key and a new edge secret reach the running processes without a restart.
    let old_secret = std::mem::replace(&mut pool.spec.edge_secret, odoo::keys::EdgeSecret::generate());
    pool.spec.keys = pool
        .spec
        .keys
        .clone()
        .with_newest(odoo::keys::PoolKey::generate());
    let report = pool.runtime.ensure_pool(&pool.spec).await.unwrap();
    assert_eq!(
        (report.made, pool.container_ids().await),
        (vec![], before.clone())
    );
    pool.serves(endpoints, name).await.unwrap();
    let refused = Probe::new()
        .unwrap()
        .serves(endpoints.web, "acme.localhost:8080", name, &old_secret)
        .await;
    assert!(matches!(refused, Err(ProbeError::Status(_))), "{refused:?}");

    // Another process of the platform, which has not seen what this one has, changes nothing either.
    let host = variable("TEST_DOCKER_HOST");
    let another = DockerRuntime::new(&host, &pool.instance, RANGE.parse().unwrap()).unwrap();
    assert_eq!(another.ensure_pool(&pool.spec).await.unwrap().made, []);
    assert_eq!(pool.container_ids().await, before);

    // A changed limit makes one container anew.
    pool.spec.limits.gevent.pids += 1;
    let report = pool.runtime.ensure_pool(&pool.spec).await.unwrap();
    assert_eq!(report.made, [PoolRole::Gevent]);
    let after = pool.container_ids().await;
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);

    // One that was removed is made again, one that died is started again by the engine alone.
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    pool.docker
        .remove_container(&pool.name("cron"), Some(force))
        .await
        .unwrap();
    assert_eq!(
        pool.runtime.ensure_pool(&pool.spec).await.unwrap().made,
        [PoolRole::Cron]
    );
    let found = pool
        .docker
        .inspect_container(&pool.name("web"), None::<InspectContainerOptions>)
        .await
        .unwrap();
    let first = nix::unistd::Pid::from_raw(found.state.unwrap().pid.unwrap().try_into().unwrap());
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
    let give_up = Instant::now() + Duration::from_secs(30);
    while pool.serves(endpoints, name).await.is_err() {
        assert!(Instant::now() < give_up, "web did not come back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let began = Instant::now();
    pool.runtime.restart(pool.spec.pool, PoolRole::Web).await.unwrap();
    eprintln!("restart {:?}", began.elapsed());
    pool.wait_ready().await;
    pool.serves(endpoints, name).await.unwrap();
}

#[tokio::test]
async fn what_others_made_under_our_names_is_left_alone() {
    with_pool(async |pool| {
        let (net, control, web, neighbour) = (
            pool.name("net"),
            pool.name("control"),
            pool.name("web"),
            pool.name("web-of-another"),
        );
        let labels = HashMap::from([("platform.instance".to_owned(), "another".to_owned())]);
        let body = || ContainerCreateBody {
            image: Some(pool.spec.image.to_string()),
            cmd: Some(vec!["true".to_owned()]),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        let create = |name: &str| CreateContainerOptionsBuilder::default().name(name).build();
        pool.docker
            .create_container(Some(create(&neighbour)), body())
            .await
            .unwrap();

        let network = NetworkCreateRequest {
            name: net.clone(),
            ..Default::default()
        };
        pool.docker.create_network(network).await.unwrap();
        assert_foreign(pool, "network", &net).await;
        pool.docker.remove_network(&net).await.unwrap();

        let volume = VolumeCreateRequest {
            name: Some(control.clone()),
            ..Default::default()
        };
        pool.docker.create_volume(volume).await.unwrap();
        assert_foreign(pool, "volume", &control).await;
        pool.runtime.remove_pool(pool.spec.pool).await.unwrap();
        pool.docker.inspect_volume(&control).await.unwrap();
        pool.docker
            .remove_volume(&control, None::<bollard::query_parameters::RemoveVolumeOptions>)
            .await
            .unwrap();

        pool.docker
            .create_container(Some(create(&web)), body())
            .await
            .unwrap();
        assert_foreign(pool, "container", &web).await;
        assert!(matches!(
            pool.runtime
                .restart(pool.spec.pool, PoolRole::Web)
                .await
                .unwrap_err(),
            RuntimeError::Foreign { .. }
        ));
        pool.runtime.remove_pool(pool.spec.pool).await.unwrap();
        for name in [&web, &neighbour] {
            pool.docker
                .inspect_container(name, None::<InspectContainerOptions>)
                .await
                .unwrap();
            pool.docker.remove_container(name, None).await.unwrap();
        }
    })
    .await;
}

async fn assert_foreign(pool: &PoolBench, kind: &str, name: &str) {
    match pool.runtime.ensure_pool(&pool.spec).await {
        Err(RuntimeError::Foreign {
            kind: found,
            name: named,
        }) => assert_eq!((found, named.as_str()), (kind, name)),
        other => panic!("{kind} {name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_task_ends_at_its_deadline_and_a_failed_one_says_why() {
    with_pool(async |pool| {
        let database = DatabaseName::template("not there");
        let task = TaskSpec {
            name: database.to_string(),
            command: TaskCommand::BuildTemplate {
                database,
                modules: vec!["base".to_owned()],
            },
            deadline: Duration::from_secs(60),
        };
        let outcome = pool.runtime.run_task(&pool.spec, &task).await.unwrap();
        assert_ne!(outcome.exit, 0);
        assert!(outcome.log.contains("tpl_"), "{}", outcome.log);

        let hurried = TaskSpec {
            deadline: Duration::from_millis(1),
            ..task.clone()
        };
        let ended = pool.runtime.run_task(&pool.spec, &hurried).await.unwrap_err();
        assert!(matches!(ended, RuntimeError::Deadline { .. }), "{ended}");

        // A run that was cut off leaves its container; the next run of the same name removes it first.
        let cut =
            tokio::time::timeout(Duration::from_secs(1), pool.runtime.run_task(&pool.spec, &task)).await;
        assert!(cut.is_err());
        let outcome = pool.runtime.run_task(&pool.spec, &task).await.unwrap();
        assert_ne!(outcome.exit, 0);
        let cut =
            tokio::time::timeout(Duration::from_secs(1), pool.runtime.run_task(&pool.spec, &task)).await;
        assert!(cut.is_err());
        pool.runtime.end_task(pool.spec.pool, &task.name).await.unwrap();
        pool.runtime.end_task(pool.spec.pool, &task.name).await.unwrap();
        let filters = HashMap::from([("label", vec![format!("platform.instance={}", pool.instance)])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        assert!(
            pool.docker
                .list_containers(Some(options))
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn a_failed_template_build_keeps_odoos_last_words_and_can_be_run_again() {
    with_pool(async |pool| {
        let Bench {
            server,
            keys,
            filestore,
            ..
        } = &pool.bench;
        let mut session = session(server).await;
        let bus = pool.spec.pool.bus_database();
        session
            .ensure_bus_database(pool.spec.pool, &keys.password_for(&bus))
            .await
            .unwrap();
        let wanted = odoo::template::TemplateSpec::new(pool.spec.image.clone(), ["NoModule".to_owned()]);
        let build = TemplateBuild {
            spec: &wanted,
            filestore,
            keys,
        };
        build.begin(&mut session).await.unwrap();
        let failed = build.install(&pool.runtime, &pool.spec).await.unwrap_err();
        let TemplateError::Install { exit, log } = failed else {
            panic!("{failed}")
        };
        assert!(
            exit != 0 && log.contains("a module name has small letters"),
            "{exit} {log}"
        );
        // The next try finds what the failed one left and begins anew.
        build.begin(&mut session).await.unwrap();
        build.remove(&mut session).await.unwrap();
        build.remove(&mut session).await.unwrap();
        assert_eq!(session.roles(Some(&wanted.database())).await.unwrap(), []);
        pool.bench.forget(&[&bus]).await;
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_not_there_and_an_engine_that_is_not_there_are_named() {
    let pool = PoolBench::new().await;
    assert!(matches!(
        pool.runtime.resolve_image("nobody/nothing:1").await,
        Err(RuntimeError::NoImage(_))
    ));
    let mut spec = pool.spec.clone();
    spec.image = format!("sha256:{:064x}", 1).parse::<ImageId>().unwrap();
    spec.pool = PoolId::new(Uuid::now_v7());
    spec.filestore = PathBuf::from("/nowhere");
    assert!(matches!(
        pool.runtime.ensure_pool(&spec).await,
        Err(RuntimeError::NoImage(_))
    ));
    assert!(matches!(
        DockerRuntime::new("tcp://127.0.0.1:2375", "x", RANGE.parse().unwrap()),
        Err(RuntimeError::Address(_))
    ));
    assert!(matches!(
        DockerRuntime::new("unix:///x", "Not_An_Instance", RANGE.parse().unwrap()),
        Err(RuntimeError::NotAnInstance(_))
    ));
    let nowhere = DockerRuntime::new("unix:///nowhere/docker.sock", "x", RANGE.parse().unwrap()).unwrap();
    assert!(nowhere.pools().await.unwrap_err().is_transient());
}
