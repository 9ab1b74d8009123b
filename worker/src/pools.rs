//! Keeps the pools as they should be: at the start and then now and again, each pool that is ready is compared with
//! what the runtime has, and mended. Takes no input and may run anywhere, any number of times. The data plane needs
//! none of this to go on: a container that ends is restarted by the runtime itself.

use std::time::Duration;

use jobs::StepError;
use odoo::{
    runtime::{PoolRole, RuntimeError},
    server::ServerError,
};
use platform::{reconcile, values::Readiness};
use tokio_util::sync::CancellationToken;

use crate::world::{Pool, World};

/// How often pools are looked at.
const EVERY: Duration = Duration::from_secs(30);

/// Age from which no request can still be using the file of a replaced route.
const SETTLED: Duration = Duration::from_secs(60);

/// Keeps them until told to end.
pub async fn keep(world: &World, ending: CancellationToken) {
    let work = async {
        loop {
            look(world).await;
            tokio::time::sleep(EVERY).await;
        }
    };
    ending.run_until_cancelled(work).await;
}

async fn look(world: &World) {
    let pools = match world.all_pools().await {
        Ok(pools) => pools,
        Err(error) => return tracing::warn!(%error, "pools can't be looked at"),
    };
    if pools.is_empty() {
        return;
    }
    for pool in pools.iter().filter(|pool| pool.row.status == Readiness::Ready) {
        match mend_unless_worked_on(world, pool).await {
            Ok(made) if made.is_empty() => {}
            Ok(made) => {
                tracing::warn!(pool = %pool.row.id, ?made, "made containers of a pool that were missing");
            }
            Err(error) => tracing::warn!(pool = %pool.row.id, %error, "a pool could not be mended"),
        }
    }
    if let Err(error) = world.open_edge().await {
        log_edge(&error);
    }
    match world.edge.sweep(SETTLED).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed files of routes that are no more"),
        Err(error) => tracing::warn!(%error, "files of routes that are no more could not be removed"),
    }
}

fn log_edge(error: &StepError) {
    tracing::warn!(%error, "the edge could not be told of the pools");
}

async fn mend_unless_worked_on(
    world: &World,
    pool: &Pool,
) -> Result<Vec<PoolRole>, Box<dyn std::error::Error + Send + Sync>> {
    // Whoever holds the lock is at work on the pool already.
    let mut session = world.server.session("pools").await?;
    let id = pool.id();
    match session
        .lock_within(&id.to_string(), Duration::from_millis(100))
        .await
    {
        Ok(()) => {}
        Err(ServerError::Locked { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    // Read again under the lock: an operation lets go of it between its steps, and what one has removed since must not come
    // back.
    let tables = reconcile::without_tenants(&world.database).await?;
    let id = pool.row.id;
    let is_ready = tables
        .pools
        .iter()
        .any(|row| row.id == id && row.status == Readiness::Ready);
    let made = if is_ready && !tables.is_worked_on("pool", id.0) {
        mend(world, pool).await?
    } else {
        Vec::new()
    };
    session.close().await;
    Ok(made)
}

/// Makes those of a pool's containers that are missing or differ, and starts those that have ended. The caller holds
/// the lock on the pool. Says which were made.
pub async fn mend(world: &World, pool: &Pool) -> Result<Vec<PoolRole>, RuntimeError> {
    let report = world.runtime.ensure_pool(&world.spec(pool).await?).await?;
    Ok(report.made)
}
