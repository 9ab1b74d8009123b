//! Breaks things.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::query_parameters::KillContainerOptionsBuilder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tests::containers::Containers;
use tests::services::{self, Hold};
use tests::sql;
use tokio_util::sync::CancellationToken;

/// Something to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mischief {
    KillWorker,
    StopWorker,
    EndWorker,
    KillApi,
    KillRedis,
    WipeRedis,
    KillControlPostgres,
    KillTenantsPostgres,
    BreakControlConnections,
    BreakTenantsConnections,
    KillContainer,
    KillEdge,
}

/// What there is, the worker's more often than the rest: it is the one who carries the work.
const ALL: [Mischief; 16] = [
    Mischief::KillWorker,
    Mischief::KillWorker,
    Mischief::KillWorker,
    Mischief::StopWorker,
    Mischief::StopWorker,
    Mischief::EndWorker,
    Mischief::KillApi,
    Mischief::KillRedis,
    Mischief::WipeRedis,
    Mischief::WipeRedis,
    Mischief::KillControlPostgres,
    Mischief::KillTenantsPostgres,
    Mischief::BreakControlConnections,
    Mischief::BreakTenantsConnections,
    Mischief::KillContainer,
    Mischief::KillEdge,
];

/// What was broken, how often.
#[derive(Debug, Default)]
pub struct Account(BTreeMap<Mischief, u32>);

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (mischief, times)) in self.0.iter().enumerate() {
            write!(f, "{}{mischief:?} {times}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Breaks one thing after another until there shall be peace.
pub async fn run(mut random: StdRng, peace: CancellationToken) -> Account {
    let mut account = Account::default();
    while !peace.is_cancelled() {
        let pause = Duration::from_millis(random.random_range(500..9_000));
        if peace
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            break;
        }
        let Some(mischief) = ALL.choose(&mut random).copied() else {
            break;
        };
        match break_it(mischief, &mut random).await {
            Ok(()) => *account.0.entry(mischief).or_default() += 1,
            // What it wanted to break was broken already.
            Err(error) => println!("  {mischief:?} had nothing to break: {error:#}"),
        }
    }
    account
}

async fn break_it(mischief: Mischief, random: &mut StdRng) -> Result<()> {
    match mischief {
        Mischief::KillWorker => signal("worker", Signal::SIGKILL),
        Mischief::StopWorker => {
            let pid = Pid::from_raw(services::process("worker")?);
            kill(pid, Signal::SIGSTOP)?;
            // Sometimes longer than a lease lasts.
            tokio::time::sleep(Duration::from_millis(random.random_range(500..25_000))).await;
            kill(pid, Signal::SIGCONT).context("it ended meanwhile")
        }
        Mischief::EndWorker => {
            let _held = Hold::of("worker").await?;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..5_000))).await;
            Ok(())
        }
        Mischief::KillApi => signal("api", Signal::SIGKILL),
        Mischief::KillRedis => signal("redis", Signal::SIGKILL),
        Mischief::WipeRedis => {
            let client = redis::Client::open(tests::place::variable("TEST_REDIS_URL"))?;
            let wipe = async {
                let mut redis = client.get_multiplexed_async_connection().await?;
                redis::cmd("FLUSHALL").exec_async(&mut redis).await
            };
            Ok(tokio::time::timeout(Duration::from_secs(5), wipe).await??)
        }
        Mischief::KillControlPostgres => signal("postgres", Signal::SIGKILL),
        Mischief::KillTenantsPostgres => signal("postgres-tenants", Signal::SIGKILL),
        Mischief::BreakControlConnections => {
            let mut control = sql::control().await?;
            sql::execute(&mut control, BREAK).await.map(drop)
        }
        Mischief::BreakTenantsConnections => {
            let mut tenants = sql::tenants().await?;
            sql::execute(&mut tenants, BREAK_JOBS).await.map(drop)
        }
        Mischief::KillContainer => {
            let containers = Containers::connect().await?;
            let role = ["web", "gevent", "cron"].choose(random).context("a role")?;
            let id = containers.of_role(role).await?.id.context("an id")?;
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            Ok(containers.docker.kill_container(&id, Some(options)).await?)
        }
        Mischief::KillEdge => signal("nginx", Signal::SIGKILL),
    }
}

/// All sessions of the platform on the control plane's server.
const BREAK: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname = 'platform'";

/// All sessions of operations on the tenants' server.
const BREAK_JOBS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND application_name LIKE 'job:%'";

fn signal(service: &str, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(services::process(service)?), signal)?)
}
