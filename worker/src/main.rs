//! The worker's process: it takes operations from the queue and carries them out, and keeps the pools as they should
//! be. It alone may touch tenants' databases, files and containers.

mod edge_config;
mod nudges;
mod operations;
mod pools;
mod world;

use std::{process::ExitCode, sync::Arc};

use jobs::{Bell, Registry, Worker, WorkerOptions};
use platform::settings::WorkerSettings;
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// The Redis keys of the job engine; the api names the same.
const JOBS_PREFIX: &str = "platform:jobs";
/// Database connections beside those of running operations: claims, heartbeats, acknowledgements.
const SPARE_CONNECTIONS: u32 = 4;

const USAGE: &str = "usage: odoo-saas-worker [run | edge-config …]\n\n\
  run          carry out operations (the default)\n\
  edge-config  print the edge's configuration for Nginx: see --help\n";

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match (arguments.next().as_deref(), arguments.next()) {
        (None | Some("run"), None) => run().await,
        (Some("edge-config"), _) => edge_config::print().await,
        (Some("help" | "--help" | "-h"), None) => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("odoo-saas-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome {
    let settings = WorkerSettings::load()?;
    let shared = &settings.shared;
    telemetry::start_logging(shared.log.format, &shared.log.level);

    let concurrency = settings.concurrency;
    let connections = u32::try_from(concurrency)? + SPARE_CONNECTIONS;
    let database = platform::connect(&shared.database_url, "odoo-saas-worker", connections).await?;
    let world = Arc::new(World::new(&settings, database.clone())?);
    world.prepare().await?;

    let metrics_registry = telemetry::registry()?;
    metrics_registry.register(Box::new(world.repaired.clone()))?;
    let metrics = jobs::Metrics::new();
    metrics.register(&metrics_registry)?;
    let metrics_server = telemetry::serve_metrics(metrics_registry, shared.metrics_listen)?;
    let metrics_handle = metrics_server.handle();
    let metrics_task = tokio::spawn(metrics_server);

    let bell = Bell::open(shared.redis_url.expose_secret(), JOBS_PREFIX)?;
    let kinds = operations::register(Registry::new(world.clone()))?;
    let options = WorkerOptions {
        concurrency,
        ..WorkerOptions::default()
    };
    let worker = Worker::new(database, bell, kinds, options, metrics);

    let ending = CancellationToken::new();
    let (pools_token, pools_world) = (ending.clone(), world.clone());
    let pools_task = tokio::spawn(async move { pools::keep(&pools_world, pools_token).await });
    let (nudges_token, nudges_world) = (ending.clone(), world.clone());
    let nudges_task = tokio::spawn(async move { nudges::keep(&nudges_world.database, nudges_token).await });
    let signal_token = ending.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let signal_task = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        signal_token.cancel();
    });
    tracing::info!(metrics = %shared.metrics_listen, concurrency, "the worker is listening");
    worker.run(ending.clone()).await;

    ending.cancel();
    signal_task.abort();
    pools_task.await?;
    nudges_task.await?;
    metrics_handle.stop(true).await;
    metrics_task.await??;
    tracing::info!("the worker has ended");
    Ok(())
}
