//! The worker: it takes operations from the queue and carries them out, and keeps the pools as they should be. It alone
//! may touch tenants' databases, files and containers.

mod nudges;
mod operations;
mod pools;
mod world;

use std::{sync::Arc, time::Duration};

use jobs::{Bell, Interference, KnownKind, Names, Registry, Worker, WorkerOptions};
use platform::{
    id::{OperationId, OrganizationId},
    operations::Target,
    settings::WorkerSettings,
};
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// The Redis keys of the job engine; the api names the same.
const JOBS_PREFIX: &str = "platform:jobs";
/// Database connections beside those of running operations: claims, heartbeats, acknowledgements.
const SPARE_CONNECTIONS: u32 = 4;

/// Logs name things as the API does.
const NAMES: Names = Names {
    operation: |id| OperationId(id).to_string(),
    scope: |id| OrganizationId(id).to_string(),
    target: |kind, id| Target::of_columns(kind, id).map_or_else(|| id.to_string(), Target::id_text),
};

/// What a start or an end can fail with.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How a test has the worker work.
pub struct Mischief {
    /// What lays hands on its operations.
    pub interference: Arc<dyn Interference>,
    /// How long a lease lasts.
    pub lease: Duration,
}

/// Every kind of operation that the worker carries out.
///
/// # Errors
/// Two kinds have one name, or a kind's steps make no sense.
pub fn kinds(settings: &WorkerSettings) -> Result<Vec<KnownKind>, Box<dyn std::error::Error>> {
    let world = World::new(settings, sea_orm::DatabaseConnection::default())?;
    let registry = operations::register(Registry::new(Arc::new(world)))?;
    Ok(registry.kinds().collect())
}

/// Works until the process is told to end.
///
/// # Errors
/// Something that a start needs is not there.
pub async fn run(settings: WorkerSettings, mischief: Option<Mischief>) -> Outcome {
    let shared = &settings.shared;
    telemetry::start_logging(shared.log.format, &shared.log.level);

    let concurrency = settings.concurrency;
    let connections = u32::try_from(concurrency)? + SPARE_CONNECTIONS;
    let database = platform::database::connect(
        &shared.database_url,
        "odoo-saas-worker",
        connections,
        platform::database::Sight::All,
    )
    .await?;
    let world = Arc::new(World::new(&settings, database.clone())?);
    world.prepare().await?;
    // None yet before the api's first start; a wrong master key ends this one.
    world.secrets.read_again().await?;

    let metrics_registry = telemetry::registry()?;
    metrics_registry.register(Box::new(world.repaired.clone()))?;
    let metrics = jobs::Metrics::new();
    metrics.register(&metrics_registry)?;
    let metrics_server = telemetry::serve_metrics(metrics_registry, shared.metrics_listen)?;
    let metrics_handle = metrics_server.handle();
    let metrics_task = tokio::spawn(metrics_server);

    let bell = Bell::open(shared.redis_url.expose_secret(), JOBS_PREFIX)?;
    let kinds = operations::register(Registry::new(world.clone()))?;
    let mut options = WorkerOptions {
        concurrency,
        scope_cap: Some(settings.jobs_per_organization),
        names: NAMES,
        ..WorkerOptions::default()
    };
    if let Some(mischief) = &mischief {
        options.lease = mischief.lease;
    }
    let mut worker = Worker::new(database, bell, kinds, options, metrics);
    if let Some(mischief) = mischief {
        worker = worker.interfered_by(mischief.interference);
    }

    let ending = CancellationToken::new();
    let (pools_token, pools_world) = (ending.clone(), world.clone());
    let pools_task = tokio::spawn(async move { pools::keep(&pools_world, pools_token).await });
    let (nudges_token, nudges_world) = (ending.clone(), world.clone());
    let nudges_task = tokio::spawn(async move { nudges::keep(&nudges_world.database, nudges_token).await });
    let (keys_token, secrets) = (ending.clone(), world.secrets.clone());
    let keys_task = tokio::spawn(async move { secrets.keep_reading(keys_token).await });
    let signal_token = ending.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let signal_task = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        signal_token.cancel();
    });
    tracing::info!(metrics = %shared.metrics_listen, concurrency, jobs_per_organization = settings.jobs_per_organization, "the worker is listening");
    worker.run(ending.clone()).await;

    ending.cancel();
    signal_task.abort();
    pools_task.await?;
    nudges_task.await?;
    keys_task.await?;
    metrics_handle.stop(true).await;
    metrics_task.await??;
    tracing::info!("the worker has ended");
    Ok(())
}
