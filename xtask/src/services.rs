//! The platform's own processes as services: which settings each one gets, and as whom it runs. A process gets the
//! secrets it needs and no others, each by the name of a file.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::docker::Engine;
use crate::instance::Instance;
use crate::postgres::{self, Cluster};
use crate::screen::Failure;
use crate::supervisor::{Leftovers, Service};
use crate::users::{self, Account, Accounts};
use crate::{build, exec, files, redis, secrets};

/// First owner's e-mail address where none is given.
const OWNER_EMAIL: &str = "owner@example.com";

/// The file of the master key that `master.key` replaces.
const PREVIOUS_KEY: &str = "master.previous.key";

/// What the settings are made of.
pub(crate) struct Context<'a> {
    /// The instance.
    pub(crate) instance: &'a Instance,
    /// Its users.
    pub(crate) accounts: &'a Accounts,
    /// The Docker Engine.
    pub(crate) engine: &'a Engine,
    /// Id of the Odoo image.
    pub(crate) image: &'a str,
}

/// A setting's environment variables.
type Environment = BTreeMap<String, String>;

impl Context<'_> {
    /// The api.
    pub(crate) fn api(&self) -> Result<Service> {
        self.service(
            "api",
            "odoo-saas-api",
            &self.accounts.api,
            self.api_environment()?,
            &[],
        )
    }

    /// The worker. It alone may use the Docker Engine's socket.
    pub(crate) fn worker(&self) -> Result<Service> {
        let groups: Vec<u32> = self.engine.socket_gid.into_iter().collect();
        self.service(
            "worker",
            "odoo-saas-worker",
            &self.accounts.worker,
            self.worker_environment()?,
            &groups,
        )
    }

    /// Brings the control plane's tables up to date, as the one role that may.
    pub(crate) fn migrate(&self) -> Result<()> {
        let mut environment = self.api_environment()?;
        let account = &self.accounts.migrator;
        environment.insert(
            "DATABASE_URL_FILE".into(),
            self.secret_file(
                "migrator.database-url",
                &self.control_url("platform_migrator")?,
                account,
            )?,
        );
        let mut command = users::as_user(account, build::program(self.instance, "odoo-saas-api"));
        command
            .arg("migrate")
            .current_dir("/")
            .env_clear()
            .envs(environment);
        let log = self.instance.log("migrate");
        exec::logged(&mut command, &log, Duration::from_secs(300)).map_err(|error| {
            Failure::new(
                format!("the control plane's tables could not be brought up to date: {error}"),
                "see the log; then run `cargo xtask up` again",
            )
            .log(&log)
        })?;
        Ok(())
    }

    /// Nginx with the configuration that the worker's program renders from its settings.
    pub(crate) fn nginx(&self) -> Result<Service> {
        let instance = self.instance;
        let edge = instance.state.join("edge");
        let program = exec::find("nginx").context("nginx is missing")?;
        let own = instance.state.join("nginx");
        files::directory(&own, 0o711, None)?;
        let mut command = users::as_user(
            &self.accounts.worker,
            build::program(instance, "odoo-saas-worker"),
        );
        command
            .arg("edge-config")
            .arg("--pid-file")
            .arg(own.join("nginx.pid"))
            .arg("--temp-path")
            .arg(&own)
            .arg("--access-log")
            .arg(instance.log("nginx-access"))
            .arg("--error-log")
            .arg(instance.log("nginx"))
            .current_dir("/")
            .env_clear()
            .envs(self.worker_environment()?);
        let outcome = exec::capture(&mut command, "", Duration::from_secs(30))?;
        if !outcome.status.success() || outcome.stdout.trim().is_empty() {
            bail!(
                "the edge's configuration could not be made: {}",
                outcome.stderr.trim()
            );
        }
        let file = instance.state.join("config/nginx.conf");
        files::write(&file, outcome.stdout.as_bytes(), 0o644, None)?;
        let argv = vec![
            program.display().to_string(),
            "-p".into(),
            edge.display().to_string(),
            // Where errors go before the configuration is read.
            "-e".into(),
            instance.log("nginx").display().to_string(),
            "-c".into(),
            file.display().to_string(),
        ];
        let mut check = argv.clone();
        check.push("-t".into());
        Ok(Service {
            name: "nginx".into(),
            argv,
            environment: system_environment(),
            // Fast: connections of browsers would keep it for minutes.
            stop_signal: "TERM".into(),
            stop_seconds: 10,
            tier: 2,
            leftovers: Leftovers::Group,
            stale_files: Vec::new(),
            reload: Some(crate::supervisor::Reload {
                watch: edge.join("generation"),
                check,
            }),
            fingerprint: files::fingerprint(&[outcome.stdout.as_bytes()]),
        })
    }

    fn service(
        &self,
        name: &str,
        program: &str,
        account: &Account,
        environment: Environment,
        groups: &[u32],
    ) -> Result<Service> {
        let path = build::program(self.instance, program);
        let mut argv = Vec::new();
        if nix::unistd::geteuid().is_root() {
            argv.push("setpriv".to_owned());
            argv.extend(users::privileges(account, groups));
        }
        argv.push(path.display().to_string());
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let secrets = self.secrets_fingerprint(&environment);
        Ok(Service {
            name: name.to_owned(),
            argv,
            environment,
            stop_signal: "TERM".into(),
            // Time for requests and jobs in flight.
            stop_seconds: 40,
            tier: 1,
            leftovers: Leftovers::Group,
            stale_files: Vec::new(),
            reload: None,
            fingerprint: files::fingerprint(&[&content, secrets.as_bytes()]),
        })
    }

    fn api_environment(&self) -> Result<Environment> {
        let (instance, account) = (self.instance, &self.accounts.api);
        let mut environment = self.shared_environment("api", account)?;
        let database = self.control_url("platform_api")?;
        let owner_password = owner_password(instance)?;
        for (name, value) in [
            ("LISTEN", format!("127.0.0.1:{}", instance.ports.api)),
            (
                "METRICS_LISTEN",
                format!("127.0.0.1:{}", instance.ports.api_metrics),
            ),
            (
                "DATABASE_URL_FILE",
                self.secret_file("api.database-url", &database, account)?,
            ),
            ("BOOTSTRAP_EMAIL", owner_email()),
            (
                "BOOTSTRAP_PASSWORD_FILE",
                self.secret_file("api.owner-password", &owner_password, account)?,
            ),
        ] {
            environment.insert(name.to_owned(), value);
        }
        Ok(environment)
    }

    fn worker_environment(&self) -> Result<Environment> {
        let (instance, account) = (self.instance, &self.accounts.worker);
        let mut environment = self.shared_environment("worker", account)?;
        let database = self.control_url("platform_worker")?;
        let tenants = tenants_url(instance)?;
        let state = |name: &str| instance.state.join(name).display().to_string();
        for (name, value) in [
            (
                "METRICS_LISTEN",
                format!("127.0.0.1:{}", instance.ports.worker_metrics),
            ),
            (
                "DATABASE_URL_FILE",
                self.secret_file("worker.database-url", &database, account)?,
            ),
            (
                "TENANT_DATABASE_URL_FILE",
                self.secret_file("worker.tenant-database-url", &tenants, account)?,
            ),
            ("TENANT_DATABASE_POOL_HOST", pool_host(instance, &tenants)),
            ("DOCKER_HOST", self.engine.host.clone()),
            ("ODOO_IMAGE", self.image.to_owned()),
            ("FILESTORE_PATH", state("filestore")),
            ("EDGE_PATH", state("edge")),
            ("EDGE_LISTEN", format!("127.0.0.1:{}", instance.ports.edge)),
            ("EDGE_API", format!("127.0.0.1:{}", instance.ports.api)),
            ("POOL_NETWORK_RANGE", instance.network_range.clone()),
            ("POOL_UID", self.accounts.odoo.uid.to_string()),
            ("POOL_GID", self.accounts.odoo.gid.to_string()),
            ("POOL_PORTS", instance.ports.pool_range()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        if nix::unistd::geteuid().is_root() {
            environment.insert("EDGE_USER".into(), self.accounts.edge.name.clone());
        }
        Ok(environment)
    }

    fn shared_environment(&self, process: &str, account: &Account) -> Result<Environment> {
        let instance = self.instance;
        let mut environment = system_environment();
        let redis = match std::env::var("REDIS_URL") {
            Ok(given) => given,
            Err(_) => redis::url(instance)?,
        };
        let master = secrets::path(instance, "master.key");
        for (name, value) in [
            ("PLATFORM_INSTANCE", instance.id.clone()),
            ("RUNTIME", "docker".into()),
            ("DOMAIN", "localhost".into()),
            ("ADMIN_DOMAIN", "localhost".into()),
            ("PUBLIC_SCHEME", "http".into()),
            ("PUBLIC_PORT", instance.ports.edge.to_string()),
            (
                "REDIS_URL_FILE",
                self.secret_file(&format!("{process}.redis-url"), &redis, account)?,
            ),
            ("MASTER_KEY_FILE", master.display().to_string()),
            ("LOG_FORMAT", "text".into()),
            ("RUST_BACKTRACE", "1".into()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        // While the master key is being replaced (docs/runbook.md).
        let previous = secrets::path(instance, PREVIOUS_KEY);
        if previous.is_file() {
            environment.insert("MASTER_KEY_PREVIOUS_FILE".into(), previous.display().to_string());
        }
        for passed in [
            "LOG_LEVEL",
            "LOG_FORMAT",
            "POOL_CAPACITY",
            "POOL_WEB_WORKERS",
            "WORKER_CONCURRENCY",
            "WORKER_JOBS_PER_ORGANIZATION",
        ] {
            if let Ok(value) = std::env::var(passed) {
                environment.insert(passed.to_owned(), value);
            }
        }
        Ok(environment)
    }

    fn control_url(&self, role: &str) -> Result<String> {
        match std::env::var("DATABASE_URL") {
            Ok(given) => Ok(given),
            Err(_) => postgres::url(
                self.instance,
                Cluster::Control,
                role,
                &format!("{role}.password"),
                "platform",
            ),
        }
    }

    fn secret_file(&self, name: &str, content: &str, account: &Account) -> Result<String> {
        Ok(secrets::write(self.instance, name, content, Some(account))?
            .display()
            .to_string())
    }

    /// A process reads its secrets once, at start: changed ones must restart it.
    fn secrets_fingerprint(&self, environment: &Environment) -> String {
        let contents: Vec<Vec<u8>> = environment
            .iter()
            .filter(|(name, _)| name.ends_with("_FILE"))
            .map(|(_, path)| fs::read(path).unwrap_or_default())
            .collect();
        let parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        files::fingerprint(&parts)
    }
}

/// Makes the folders and the key that the platform's processes share.
pub(crate) fn prepare(instance: &Instance, accounts: &Accounts) -> Result<()> {
    let odoo_group = Account {
        gid: accounts.odoo.gid,
        ..accounts.worker.clone()
    };
    // Group and set-group-id: Odoo (another user) writes below, and the worker can delete what it wrote.
    for folder in ["filestore", "filestore/tenants", "filestore/templates"] {
        files::directory(&instance.state.join(folder), 0o2775, Some(&odoo_group))?;
    }
    let edge_group = Account {
        gid: accounts.edge.gid,
        ..accounts.worker.clone()
    };
    files::directory(&instance.state.join("edge"), 0o2750, Some(&edge_group))?;
    // Read by the api and the worker.
    let readers = Account {
        uid: 0,
        gid: accounts.platform_gid,
        ..accounts.api.clone()
    };
    let path = secrets::path(instance, "master.key");
    let present = fs::read_to_string(&path).unwrap_or_default();
    let key = if present.trim().is_empty() {
        secrets::key()?
    } else {
        present
    };
    files::write(&path, key.as_bytes(), 0o440, Some(&readers))?;
    let path = secrets::path(instance, PREVIOUS_KEY);
    if let Ok(key) = fs::read(&path) {
        files::write(&path, &key, 0o440, Some(&readers))?;
    }
    Ok(())
}

/// Connection URL of the tenants' server for the platform's admin role.
pub(crate) fn tenants_url(instance: &Instance) -> Result<String> {
    match std::env::var("TENANT_DATABASE_URL") {
        Ok(given) => Ok(given),
        Err(_) => postgres::url(
            instance,
            Cluster::Tenants,
            "platform_admin",
            "platform_admin.password",
            "postgres",
        ),
    }
}

/// How pools reach the tenants' server: through the socket of our own, or over the network to a given one.
fn pool_host(instance: &Instance, tenants: &str) -> String {
    if let Ok(given) = std::env::var("TENANT_DATABASE_POOL_HOST") {
        return given;
    }
    if std::env::var_os("TENANT_DATABASE_URL").is_none() {
        return Cluster::Tenants.socket_folder(instance).display().to_string();
    }
    let authority = tenants
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split(['/', '?']).next())
        .unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned()
}

/// The first owner's e-mail address.
pub(crate) fn owner_email() -> String {
    std::env::var("BOOTSTRAP_EMAIL").unwrap_or_else(|_| OWNER_EMAIL.to_owned())
}

/// The first owner's password: given, or made once.
pub(crate) fn owner_password(instance: &Instance) -> Result<String> {
    if let Some(present) = secrets::read(instance, "owner-password") {
        return Ok(present);
    }
    let password = match std::env::var("BOOTSTRAP_PASSWORD") {
        Ok(given) => given,
        Err(_) => secrets::password()?,
    };
    secrets::write(instance, "owner-password", &password, None)?;
    Ok(password)
}

fn system_environment() -> Environment {
    BTreeMap::from([
        (
            "PATH".into(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        ),
        ("LANG".into(), "C.UTF-8".into()),
        ("TZ".into(), "UTC".into()),
    ])
}

/// Runs nothing; tells whether Nginx accepts the written configuration.
pub(crate) fn check_nginx(service: &Service) -> Result<()> {
    let Some(reload) = &service.reload else {
        return Ok(());
    };
    let Some((program, arguments)) = reload.check.split_first() else {
        return Ok(());
    };
    let outcome = exec::capture(Command::new(program).args(arguments), "", Duration::from_secs(20))?;
    if !outcome.status.success() {
        bail!("Nginx refuses its configuration: {}", outcome.stderr.trim());
    }
    Ok(())
}
