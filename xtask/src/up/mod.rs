//! `cargo xtask up`: from a bare machine to a tenant that answers, stage by stage. Every stage finds what an earlier
//! run left and goes on from there.

mod client;
mod demo;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::access::Access;
use crate::build::{self, Artifact};
use crate::docker::{self, Engine};
use crate::http::{self, Address, Body, Request};
use crate::install::{self, Purpose};
use crate::instance::{Instance, Name};
use crate::ports::{self, Overrides};
use crate::postgres::{self, Cluster, Postgres};
use crate::screen::{self, Failure, stage};
use crate::services::{self, Context};
use crate::supervisor::{self, Firewall, Manifest, Record, Service};
use crate::users::Accounts;
use crate::{control, firewall, image, interrupt, process, redis};

pub(crate) use self::client::Client;
pub(crate) use self::demo::{probe as probe_demo, url as demo_url};

/// Runs the command.
pub(crate) fn command(overrides: &Overrides) -> Result<ExitCode> {
    interrupt::watch()?;
    let begin = Instant::now();
    let mut instance = Instance::chosen()?;
    instance.ports.apply(overrides)?;
    bring_up(&instance, Purpose::Run, None, Extent::Platform)?;
    let access = Access::read(&instance).context("access.json was just written")?;
    screen::say(&format!(
        "\nready after {}\n\n\
         API        {api}   (documentation: {api}/docs)\n\
         owner      {email}, password in {file}\n\
         tenant     {tenant}\n\
         login      {login}\n\
         password   {password}\n\n\
         all of it for programs: {json}\n\
         next: cargo xtask status | logs | test | down",
        screen::seconds(begin.elapsed()),
        api = access.api_url,
        email = access.owner_email,
        file = visible(&instance, "secrets/owner-password"),
        tenant = access.tenant_url,
        login = access.tenant_login,
        password = access.tenant_password,
        json = visible(&instance, "access.json"),
    ));
    Ok(ExitCode::SUCCESS)
}

/// How much of an instance is brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Databases, Redis and the Docker Engine with its image.
    Stores,
    /// All of it, with the demo tenant.
    Platform,
}

/// What was found or made on the way.
pub(crate) struct Facts {
    /// The Engine in use.
    pub(crate) engine: Engine,
    /// Id of the Odoo image.
    pub(crate) image: String,
    /// Users of the processes.
    pub(crate) accounts: Accounts,
}

/// Brings an instance up, or finds that it is. Programs that were compiled already are given; else they are compiled.
pub(crate) fn bring_up(
    instance: &Instance,
    purpose: Purpose,
    compiled: Option<&[Artifact]>,
    extent: Extent,
) -> Result<Facts> {
    instance.create()?;
    let _lock = instance.lock()?;
    control::demand_whole(instance)?;
    stage("packages", Some(&instance.log("packages")), || {
        install::ensure(instance, purpose)
    })?;
    demand_ports(instance)?;
    instance.remember_ports()?;
    let accounts = stage("users, folders and keys", None, || {
        let accounts = Accounts::ensure()?;
        services::prepare(instance, &accounts)?;
        Ok(accounts)
    })?;
    stage("firewall", None, || guard_networks(instance))?;
    let (engine, image) = prepare(instance, &accounts, compiled, extent)?;
    let facts = Facts {
        engine,
        image,
        accounts,
    };
    if extent == Extent::Platform {
        start_and_welcome(instance, &facts)?;
    }
    Ok(facts)
}

/// From migrations to a demo tenant that answers.
fn start_and_welcome(instance: &Instance, facts: &Facts) -> Result<()> {
    let Facts {
        engine,
        image,
        accounts,
    } = facts;
    let context = Context {
        instance,
        accounts,
        engine,
        image,
    };
    stage("migrations", None, || context.migrate())?;
    stage("api, worker and edge", None, || start_platform(&context))?;
    let login = stage("tenant demo answers", None, || demo::ensure(instance))?;
    Access {
        api_url: instance.public_url(),
        owner_email: services::owner_email(),
        owner_password: services::owner_password(instance)?,
        tenant_url: demo_url(instance),
        tenant_login: login.login,
        tenant_password: login.password,
    }
    .write(instance)
}

/// Does at once what doesn't depend on each other: the compiler, the Docker Engine with its image, the stores.
fn prepare(
    instance: &Instance,
    accounts: &Accounts,
    compiled: Option<&[Artifact]>,
    extent: Extent,
) -> Result<(Engine, String)> {
    std::thread::scope(|scope| {
        let built = scope.spawn(|| match extent {
            Extent::Stores => Ok(()),
            Extent::Platform => stage("programs", Some(&build::log(instance)), || {
                build::install(instance, compiled)
            }),
        });
        let imaged = scope.spawn(|| {
            let engine = stage("docker engine", None, || docker::ensure(instance))?;
            let id = stage("odoo image", Some(&image::log(instance)), || {
                image::ensure(instance, &engine)
            })?;
            anyhow::Ok((engine, id))
        });
        let stores = start_stores(instance, accounts);
        let built = built
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let imaged = imaged
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        stores?;
        built?;
        imaged
    })
}

/// Starts both Postgres clusters and Redis, except where others are given, and prepares them.
fn start_stores(instance: &Instance, accounts: &Accounts) -> Result<()> {
    let given = |variable: &str| std::env::var_os(variable).is_some();
    let control = (!given("DATABASE_URL"))
        .then(|| Postgres::new(instance, &accounts.postgres, Cluster::Control))
        .transpose()?;
    let tenants = (!given("TENANT_DATABASE_URL"))
        .then(|| Postgres::new(instance, &accounts.postgres, Cluster::Tenants))
        .transpose()?;
    let with_redis = !given("REDIS_URL");
    stage("databases and redis", None, || {
        let mut described = std::thread::scope(|scope| {
            let made = [&control, &tenants]
                .map(|cluster| scope.spawn(move || cluster.as_ref().map(Postgres::service)));
            made.into_iter()
                .filter_map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Result<Vec<Service>>>()
        })?;
        if with_redis {
            described.push(redis::service(instance, &accounts.redis)?);
        }
        put(instance, described)?;
        for cluster in [&control, &tenants].into_iter().flatten() {
            cluster.wait_ready()?;
        }
        if with_redis {
            redis::wait_ready(instance)?;
        }
        control.as_ref().map_or(Ok(()), postgres::prepare_control)?;
        tenants.as_ref().map_or(Ok(()), postgres::prepare_tenants)
    })
}

/// Starts api, worker and Nginx and waits until they serve.
fn start_platform(context: &Context<'_>) -> Result<()> {
    let instance = context.instance;
    restart_stopped_containers(context);
    let nginx = context.nginx()?;
    services::check_nginx(&nginx)?;
    put(instance, vec![context.api()?, context.worker()?, nginx])?;
    wait_for_api(instance)
}

/// Closes the pools' networks before the first container can start.
fn guard_networks(instance: &Instance) -> Result<()> {
    let mut manifest = Manifest::read_to_run(&instance.state);
    manifest.firewall = if !docker::is_local(instance)? {
        None
    } else if nix::unistd::geteuid().is_root() {
        Some(Firewall {
            id: instance.id.clone(),
            range: instance.network_range.clone(),
            iptables: firewall::choose()?,
        })
    } else {
        screen::say(
            "· firewall: not root, so Odoo's containers are not kept from this host and private networks",
        );
        None
    };
    if let Some(rules) = &manifest.firewall {
        firewall::ensure(rules).context("the firewall's rules for the pools' networks could not be set")?;
    }
    manifest.write(&instance.state)
}

/// Pools' containers that `down` stopped; the worker makes those that are missing.
fn restart_stopped_containers(context: &Context<'_>) {
    for container in context
        .engine
        .containers(&context.instance.id)
        .unwrap_or_default()
    {
        let serves = matches!(container.role.as_str(), "web" | "gevent" | "cron");
        if serves && container.state == "exited" {
            // One that can't be started is replaced by the worker.
            context.engine.start(&container.id).ok();
        }
    }
}

/// Starts the control plane's database server alone, with its roles.
pub(crate) fn start_control<'a>(instance: &'a Instance, accounts: &'a Accounts) -> Result<Postgres<'a>> {
    let control = Postgres::new(instance, &accounts.postgres, Cluster::Control)?;
    put(instance, vec![control.service()?])?;
    control.wait_ready()?;
    postgres::prepare_control(&control)?;
    Ok(control)
}

/// Stops services until `up` puts them back.
pub(crate) fn stop(instance: &Instance, names: &[&str]) -> Result<()> {
    let mut manifest = Manifest::read_to_run(&instance.state);
    manifest
        .services
        .retain(|service| !names.contains(&service.name.as_str()));
    manifest.write(&instance.state)?;
    supervisor::ensure(&instance.state)?;
    for name in names {
        let gone = || Record::read(&instance.state, name).is_none_or(|record| !record.identity.is_alive());
        if !process::wait_until(Duration::from_secs(60), gone) {
            bail!(Failure::new(format!("{name} does not end"), "see its log").log(&instance.log(name)));
        }
    }
    Ok(())
}

/// Puts services into the manifest and waits until the supervisor runs exactly these.
fn put(instance: &Instance, services: Vec<Service>) -> Result<()> {
    let mut manifest = Manifest::read_to_run(&instance.state);
    let wanted: Vec<(String, String)> = services
        .iter()
        .map(|service| (service.name.clone(), supervisor::fingerprint(service)))
        .collect();
    for service in services {
        // Whoever wants it up wants it held no longer.
        supervisor::release(&instance.state, &service.name)?;
        manifest.put(service);
    }
    manifest.write(&instance.state)?;
    supervisor::ensure(&instance.state)?;
    let runs = |name: &str, fingerprint: &str| {
        supervisor::status(&instance.state)
            .get(name)
            .is_some_and(|status| status.service == fingerprint)
    };
    let deadline = Duration::from_secs(120);
    if !process::wait_until(deadline, || {
        wanted.iter().all(|(name, fingerprint)| runs(name, fingerprint))
    }) {
        bail!(
            Failure::new("the supervisor does not start the services", "see its log")
                .log(&instance.log("supervisor"))
        );
    }
    Ok(())
}

/// Restarts a service and waits until the API is ready again.
fn restart(instance: &Instance, name: &str) -> Result<()> {
    if let Some(record) = Record::read(&instance.state, name) {
        record.identity.signal(nix::sys::signal::Signal::SIGTERM);
        record.identity.wait_gone(Duration::from_secs(45));
    }
    wait_for_api(instance)
}

/// Waits until the API, asked through the edge, says that it is ready.
fn wait_for_api(instance: &Instance) -> Result<()> {
    let mut last = String::new();
    let mut crashing = None;
    let ready = process::wait_until(Duration::from_secs(90), || {
        match readiness(instance) {
            Ok(()) => return true,
            Err(error) => last = format!("{error:#}"),
        }
        let status = supervisor::status(&instance.state);
        crashing = ["api", "worker", "nginx"]
            .into_iter()
            .find(|name| status.get(*name).is_some_and(|status| status.restarts >= 10));
        crashing.is_some()
    });
    if ready && crashing.is_none() {
        return Ok(());
    }
    let name = crashing.unwrap_or("api");
    bail!(
        Failure::new(
            format!("{name} is not ready: {last}"),
            "see its log; then run `cargo xtask up` again"
        )
        .log(&instance.log(name))
    )
}

/// Whether the API, asked through the edge, says that it is ready.
pub(crate) fn readiness(instance: &Instance) -> Result<()> {
    let host = format!("localhost:{}", instance.ports.edge);
    let answer = http::send(
        &Address::Loopback(instance.ports.edge),
        Request {
            method: "GET",
            target: "/readyz",
            host: &host,
            headers: Vec::new(),
            body: Body::Empty,
            patience: Duration::from_secs(5),
        },
    )?;
    if answer.status == 200 {
        return Ok(());
    }
    bail!("/readyz answers {}: {}", answer.status, answer.text().trim())
}

/// Every port must be free or held by the instance's own service.
fn demand_ports(instance: &Instance) -> Result<()> {
    let ports = &instance.ports;
    let given = |variable: &str| std::env::var_os(variable).is_some();
    for (service, port, variable, unneeded) in [
        ("nginx", ports.edge, "EDGE_PORT", false),
        ("api", ports.api, "API_PORT", false),
        ("api", ports.api_metrics, "API_METRICS_PORT", false),
        ("worker", ports.worker_metrics, "WORKER_METRICS_PORT", false),
        ("postgres", ports.postgres, "POSTGRES_PORT", given("DATABASE_URL")),
        (
            "postgres-tenants",
            ports.tenant_postgres,
            "TENANT_POSTGRES_PORT",
            given("TENANT_DATABASE_URL"),
        ),
        ("redis", ports.redis, "REDIS_PORT", given("REDIS_URL")),
    ] {
        if !unneeded {
            let ours = Record::read(&instance.state, service)
                .map_or_else(Vec::new, |record| record.identity.group());
            ports::demand(service, port, variable, &ours)?;
        }
    }
    Ok(())
}

/// A path as people reach it: below the checkout's link.
fn visible(instance: &Instance, path: &str) -> String {
    match instance.name {
        Name::Main => format!(".platform/{path}"),
        Name::Test | Name::Bench => instance.state.join(path).display().to_string(),
    }
}
