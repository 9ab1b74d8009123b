//! What the platform may use of a machine.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::containers::Containers;
use tests::{services, sql, wait};

/// Resident memory of an idle api and of an idle worker.
const MOST_KIB: u64 = 40 * 1024;

#[tokio::test]
async fn idle_processes_of_the_control_plane_stay_small() -> Result<()> {
    for name in ["api", "worker"] {
        // What a burst of work took is given back within a while.
        wait::until(Duration::from_secs(20), &format!("{name} is small"), async || {
            let used = services::resident_kib(services::process(name)?)?;
            ensure!(used < MOST_KIB, "{name} holds {used} KiB, at most {MOST_KIB}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_pool_can_not_use_up_its_servers_connections() -> Result<()> {
    let containers = Containers::connect().await?;
    let script = "
import configparser
conf = configparser.ConfigParser()
conf.read('/etc/platform-pool/odoo.conf')
options = conf['options']
most, gevent = int(options['db_maxconn']), int(options['db_maxconn_gevent'])
print(int(options['workers']) * most + gevent + 2 * most + 2)
";
    let most: u32 = containers.python("web", script).await?.parse()?;
    let mut server = sql::tenants().await?;
    let allowed = sql::text(&mut server, "SELECT current_setting('max_connections')").await?;
    let allowed: u32 = allowed.context("a setting")?.parse()?;
    assert!(
        most + 30 <= allowed,
        "a pool may take {most} of {allowed} connections"
    );
    Ok(())
}
