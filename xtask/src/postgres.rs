//! The instance's two Postgres clusters: the control plane's and the tenants'. Made once, listening on loopback only,
//! with scram everywhere; the superuser comes in by its Unix user alone (`peer`), and nothing is ever `trust`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::instance::Instance;
use crate::screen::Failure;
use crate::supervisor::{Leftovers, Service};
use crate::users::{self, Account};
use crate::{exec, files, process, secrets, supervisor};

/// One of the two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// The control plane's.
    Control,
    /// The tenants'.
    Tenants,
}

impl Cluster {
    /// Name of the service, its folder and its log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "postgres",
            Self::Tenants => "postgres-tenants",
        }
    }

    fn port(self, instance: &Instance) -> u16 {
        match self {
            Self::Control => instance.ports.postgres,
            Self::Tenants => instance.ports.tenant_postgres,
        }
    }

    /// Folder of its Unix socket. The tenants' one is what pools' containers see, and holds nothing else.
    pub(crate) fn socket_folder(self, instance: &Instance) -> PathBuf {
        instance.state.join("run").join(match self {
            Self::Control => "sql",
            Self::Tenants => "tenants-sql",
        })
    }

    fn data(self, instance: &Instance) -> PathBuf {
        instance.state.join(self.name()).join("data")
    }
}

/// Finds the newest server's programs; Debian keeps them outside PATH.
pub(crate) fn programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
        versions
            .flatten()
            .filter_map(|entry| {
                Some((
                    entry.file_name().to_str()?.parse::<u32>().ok()?,
                    entry.path().join("bin"),
                ))
            })
            .filter(|(_, folder)| folder.join("postgres").is_file() && folder.join("initdb").is_file())
            .max_by_key(|(version, _)| *version)
            .map(|(_, folder)| folder)
    });
    debian.or_else(|| {
        Some(exec::find("postgres")?.parent()?.to_owned()).filter(|folder| folder.join("initdb").is_file())
    })
}

/// A cluster and the programs that serve it.
pub(crate) struct Postgres<'a> {
    instance: &'a Instance,
    account: &'a Account,
    cluster: Cluster,
    programs: PathBuf,
}

impl<'a> Postgres<'a> {
    /// Prepares to work with a cluster; makes nothing.
    pub(crate) fn new(instance: &'a Instance, account: &'a Account, cluster: Cluster) -> Result<Self> {
        let programs = programs().context("there is no Postgres server on this machine")?;
        Ok(Self {
            instance,
            account,
            cluster,
            programs,
        })
    }

    /// Makes the cluster if it isn't there, writes its configuration and describes the service.
    pub(crate) fn service(&self) -> Result<Service> {
        let (instance, name) = (self.instance, self.cluster.name());
        let data = self.cluster.data(instance);
        self.initialise(&data)?;
        let socket = self.cluster.socket_folder(instance);
        let socket_mode = if self.cluster == Cluster::Tenants {
            0o755
        } else {
            0o750
        };
        files::directory(&socket, socket_mode, Some(self.account))?;
        let configuration = self.configuration();
        for (file, content) in [
            ("postgresql.conf", &configuration),
            ("pg_hba.conf", &self.host_based_access()),
            (
                "pg_ident.conf",
                &format!("platform {} postgres\n", self.account.name),
            ),
        ] {
            files::write(&data.join(file), content.as_bytes(), 0o600, Some(self.account))?;
        }
        let program = self.programs.join("postgres");
        let mut argv = Vec::new();
        if nix::unistd::geteuid().is_root() {
            argv.push("setpriv".to_owned());
            argv.extend(users::privileges(self.account, &[]));
        }
        argv.extend([
            program.display().to_string(),
            "-D".into(),
            data.display().to_string(),
        ]);
        let meta = fs::metadata(&program)?.len().to_string();
        Ok(Service {
            name: name.to_owned(),
            argv,
            environment: BTreeMap::from([
                ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
                ("LANG".into(), "C.UTF-8".into()),
                ("TZ".into(), "UTC".into()),
            ]),
            // Fast shutdown: ends sessions, writes a checkpoint.
            stop_signal: "INT".into(),
            stop_seconds: 60,
            tier: 0,
            leftovers: Leftovers::WorkingDirectory(data.clone()),
            // A killed postmaster that nobody has reaped yet looks alive to the next one.
            stale_files: vec![
                data.join("postmaster.pid"),
                socket.join(format!(".s.PGSQL.{}.lock", self.cluster.port(instance))),
            ],
            reload: None,
            fingerprint: files::fingerprint(&[
                configuration.as_bytes(),
                self.host_based_access().as_bytes(),
                meta.as_bytes(),
            ]),
        })
    }

    fn initialise(&self, data: &Path) -> Result<()> {
        let parent = data.parent().context("a cluster has a folder")?;
        files::directory(parent, 0o700, Some(self.account))?;
        if data.join("PG_VERSION").is_file() {
            return self.demand_same_version(data);
        }
        // Under another name first: a cluster is there whole or not at all. Under one that no killed command's `initdb`
        // writes to any more; what such a one leaves is removed the next time at the latest.
        for left in fs::read_dir(parent)?.flatten() {
            if left.file_name().to_string_lossy().starts_with(STAGED) {
                fs::remove_dir_all(left.path()).ok();
            }
        }
        let staged = parent.join(format!("{STAGED}-{}", std::process::id()));
        files::remove_tree(&staged)?;
        let mut command = users::as_user(self.account, self.programs.join("initdb"));
        command
            .args([
                "--username=postgres",
                "--auth-local=peer",
                "--auth-host=scram-sha-256",
            ])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"])
            .arg(&staged)
            .current_dir("/")
            .env("LC_ALL", "C.UTF-8");
        exec::logged(
            &mut command,
            &self.instance.log(self.cluster.name()),
            Duration::from_secs(120),
        )?;
        fs::rename(&staged, data)?;
        Ok(())
    }

    fn demand_same_version(&self, data: &Path) -> Result<()> {
        let made = fs::read_to_string(data.join("PG_VERSION"))?.trim().to_owned();
        let outcome = exec::capture(
            Command::new(self.programs.join("postgres")).arg("--version"),
            "",
            Duration::from_secs(10),
        )?;
        let found = outcome
            .stdout
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned();
        if !found.starts_with(&format!("{made}.")) && !outcome.stdout.contains(&format!(") {made}")) {
            bail!(Failure::new(
                format!(
                    "{} was made by Postgres {made}, but this machine now has {found}",
                    data.display()
                ),
                format!("install Postgres {made} again, or start anew with `cargo xtask down --purge`"),
            ));
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        let instance = self.instance;
        let common = format!(
            "# Written by `cargo xtask up`: a change made here by hand is lost.\n\
             cluster_name = '{name}-{id}'\n\
             listen_addresses = '127.0.0.1'\n\
             port = {port}\n\
             unix_socket_directories = '{socket}'\n\
             unix_socket_permissions = 0777\n\
             password_encryption = 'scram-sha-256'\n\
             # A statement that failed may hold a password.\n\
             log_min_error_statement = panic\n\
             log_line_prefix = '%m [%p] %q%u@%d %a '\n\
             log_timezone = 'UTC'\n\
             timezone = 'UTC'\n\
             lc_messages = 'C.UTF-8'\n\
             fsync = on\n\
             # After a crash one call instead of opening each file of each tenant.\n\
             recovery_init_sync_method = 'syncfs'\n",
            name = self.cluster.name(),
            id = instance.id,
            port = self.cluster.port(instance),
            socket = self.cluster.socket_folder(instance).display(),
        );
        common
            + &match self.cluster {
                Cluster::Control => "max_connections = 200\nshared_buffers = 64MB\n".to_owned(),
                // A template of 700 tables takes 4,904 locks when it changes hands; a pool of Odoo processes takes
                // processes × db_maxconn connections; clones write their whole database to the log, faster where old
                // segments can be taken again. A clone fills 20 MB of buffers: whoever makes the next one should find
                // clean ones, so there are many, and they are written out as fast as clones come.
                Cluster::Tenants => {
                    format!(
                        "max_connections = 400\nshared_buffers = {}MB\nmax_locks_per_transaction = 1024\n\
                         max_wal_size = 4GB\nmin_wal_size = 1GB\n\
                         bgwriter_delay = 20ms\nbgwriter_lru_maxpages = 1000\nbgwriter_lru_multiplier = 4\n",
                        tenants_buffers()
                    )
                }
            }
    }

    /// Order matters: the first line that fits decides.
    fn host_based_access(&self) -> String {
        let range = &self.instance.network_range;
        let superuser = "local all postgres peer map=platform\n";
        // Tests look behind the scenes; only their own instance lets the superuser in by password.
        let test = if self.instance.name == crate::instance::Name::Main {
            ""
        } else {
            "host all postgres 127.0.0.1/32 scram-sha-256\n"
        };
        match self.cluster {
            Cluster::Control => format!(
                "{superuser}{test}local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
                 local all all reject\nhost all all all reject\n"
            ),
            Cluster::Tenants => format!(
                "{superuser}{test}\
                 local all platform_admin scram-sha-256\n\
                 host all platform_admin 127.0.0.1/32 scram-sha-256\n\
                 local sameuser +tenants scram-sha-256\n\
                 local sameuser +pools scram-sha-256\n\
                 host sameuser +tenants {range} scram-sha-256\n\
                 host sameuser +pools {range} scram-sha-256\n\
                 local all all reject\n\
                 host all all all reject\n"
            ),
        }
    }

    /// Waits until the cluster answers.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let ready = || self.sql("postgres", "SELECT 1").is_ok();
        let name = self.cluster.name();
        let failing = || {
            supervisor::status(&self.instance.state)
                .get(name)
                .is_some_and(|status| status.restarts >= 6)
        };
        let mut gave_up = false;
        let up = process::wait_until(Duration::from_secs(120), || {
            gave_up = failing();
            gave_up || ready()
        });
        if !up || gave_up {
            bail!(
                Failure::new(
                    format!("{name} does not start"),
                    "see its log; then run `cargo xtask up` again"
                )
                .log(&self.instance.log(name))
            );
        }
        Ok(())
    }

    /// One of Postgres's own programs that connects to the cluster as its superuser, through the socket and by its Unix
    /// user: no password travels.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = users::as_user(self.account, self.programs.join(program));
        command
            .arg(format!(
                "--host={}",
                self.cluster.socket_folder(self.instance).display()
            ))
            .arg(format!("--port={}", self.cluster.port(self.instance)))
            .arg("--username=postgres")
            .current_dir("/")
            .env_remove("PGPASSWORD")
            .env_remove("PGSERVICE")
            .env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// Runs SQL as the superuser. It goes through standard input: arguments are visible to every user.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.client("psql");
        command
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
            ])
            .args(["--dbname", database]);
        let outcome = exec::capture(&mut command, sql, Duration::from_secs(60))?;
        if !outcome.status.success() {
            bail!("psql on {}: {}", self.cluster.name(), outcome.stderr.trim());
        }
        Ok(outcome.stdout)
    }
}

/// Names of the control plane's roles.
const CONTROL_ROLES: [&str; 3] = ["platform_migrator", "platform_api", "platform_worker"];

/// How the folder begins in which a cluster is made.
const STAGED: &str = "data.staged";

/// What a killed command asked for may still be under way in the server, and two that change one role or database at once
/// fail: a session that begins so waits for its end.
pub(crate) const IN_TURNS: &str =
    "DO $$ BEGIN PERFORM pg_advisory_lock(hashtext('control-plane')); END $$;\n";

/// Makes the control plane's database and roles.
pub(crate) fn prepare_control(postgres: &Postgres<'_>) -> Result<()> {
    let mut sql = String::from("SET log_statement = 'none';\nSET client_min_messages = warning;\n");
    sql.push_str(IN_TURNS);
    for role in CONTROL_ROLES {
        let password = secrets::ensure(postgres.instance, &format!("{role}.password"), None)?;
        sql.push_str(&login_role(role, &password));
    }
    sql.push_str(
        "SELECT 'CREATE DATABASE platform OWNER platform_migrator'
           WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'platform') \\gexec\n\
         REVOKE ALL ON DATABASE platform, postgres, template1 FROM PUBLIC;\n\
         GRANT CONNECT, TEMPORARY ON DATABASE platform TO platform_migrator, platform_api, platform_worker;\n",
    );
    if postgres.instance.name != crate::instance::Name::Main {
        let password = secrets::ensure(postgres.instance, "control-superuser.password", None)?;
        sql.push_str(&format!("ALTER ROLE postgres PASSWORD '{password}';\n"));
    }
    postgres.sql("postgres", &sql)?;
    Ok(())
}

/// Makes the tenants' server ready for the platform's admin role, which is no superuser.
pub(crate) fn prepare_tenants(postgres: &Postgres<'_>) -> Result<()> {
    let setup = postgres.instance.checkout.join("odoo/server-setup.sql");
    let mut sql = String::from("SET client_min_messages = warning;\n");
    sql.push_str(&fs::read_to_string(&setup).with_context(|| format!("cannot read {}", setup.display()))?);
    let password = secrets::ensure(postgres.instance, "platform_admin.password", None)?;
    sql.push_str(&format!(
        "\nSET log_statement = 'none';\nALTER ROLE platform_admin PASSWORD '{password}';\n"
    ));
    if postgres.instance.name != crate::instance::Name::Main {
        let password = secrets::ensure(postgres.instance, "tenants-superuser.password", None)?;
        sql.push_str(&format!("ALTER ROLE postgres PASSWORD '{password}';\n"));
    }
    postgres.sql("postgres", &sql)?;
    Ok(())
}

/// Connection URL of a role; secrets are base64url, which needs no escaping.
pub(crate) fn url(
    instance: &Instance,
    cluster: Cluster,
    role: &str,
    secret: &str,
    database: &str,
) -> Result<String> {
    let password = secrets::ensure(instance, secret, None)?;
    Ok(format!(
        "postgres://{role}:{password}@127.0.0.1:{}/{database}",
        cluster.port(instance)
    ))
}

fn login_role(role: &str, password: &str) -> String {
    format!(
        "SELECT 'CREATE ROLE {role}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') \\gexec\n\
         ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{password}';\n"
    )
}

/// Buffers of the tenants' server in MB: a sixteenth of the machine's memory, within bounds.
fn tenants_buffers() -> u64 {
    const LEAST: u64 = 256;
    const MOST: u64 = 2048;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    (kilobytes / 1024 / 16).clamp(LEAST, MOST)
}
