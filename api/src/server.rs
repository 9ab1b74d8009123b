//! Runs the process: the HTTP server, the metrics' own one, and beside them the relay, the sweeper and the watcher of
//! the job engine.

use std::{sync::Arc, time::Duration};

use actix_web::{App, HttpServer, web};
use jobs::{Bell, Relay, RelayOptions, Sweeper, SweeperOptions, Watcher, WatcherOptions};
use platform::{
    Platform,
    auth::bootstrap::{Bootstrap, bootstrap},
    seal::MasterKey,
    settings::ApiSettings,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use secrecy::ExposeSecret as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    metrics::HttpMetrics,
    openapi,
    problem::{ApiError, ErrorCode},
    request_id::RequestIds,
    state::State,
};

/// Database connections of one process.
const DATABASE_CONNECTIONS: u32 = 16;
/// The Redis keys of the job engine; the worker names the same.
pub const JOBS_PREFIX: &str = "platform:jobs";

/// Serves until the process is told to end, then finishes what has begun.
///
/// # Errors
/// Something that a start needs is not there.
pub async fn serve(settings: ApiSettings) -> Result<(), Box<dyn std::error::Error>> {
    let shared = &settings.shared;
    let master = MasterKey::from_base64(&shared.master_key)?;
    let database = platform::connect(&shared.database_url, "odoo-saas-api", DATABASE_CONNECTIONS).await?;
    bootstrap(
        &database,
        &master,
        &Bootstrap {
            email: &settings.bootstrap_email,
            password: settings.bootstrap_password.as_ref(),
            password_out: &settings.bootstrap_password_out,
            pool_capacity: settings.pool_capacity,
        },
    )
    .await?;
    let platform = Platform::open(database.clone(), master, shared.domains.clone()).await?;

    let registry = telemetry::registry()?;
    let http_metrics = HttpMetrics::new(&registry)?;
    let job_metrics = jobs::Metrics::new();
    job_metrics.register(&registry)?;

    let bell = Bell::open(shared.redis_url.expose_secret(), JOBS_PREFIX)?;
    let redis = ConnectionManager::new_lazy_with_config(
        redis::Client::open(shared.redis_url.expose_secret())?,
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)))
            .set_number_of_retries(1),
    )?;
    let watcher = Watcher::new(database.clone(), bell.clone(), WatcherOptions::default());
    let relay = Relay::new(
        database.clone(),
        bell.clone(),
        RelayOptions::default(),
        job_metrics.clone(),
    );
    let sweeper = Sweeper::new(database, bell, SweeperOptions::default(), job_metrics);

    let ending = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (token, task) = (ending.clone(), watcher.clone());
    tasks.spawn(async move { task.run(token).await });
    let token = ending.clone();
    tasks.spawn(async move { relay.run(token).await });
    let token = ending.clone();
    tasks.spawn(async move { sweeper.run(token).await });
    let (token, housekeeper) = (ending.clone(), platform.clone());
    tasks.spawn(async move { keep_house(&housekeeper, token).await });

    let table = Arc::new(crate::table());
    let state = web::Data::new(State {
        platform,
        watcher,
        redis,
        openapi: openapi::text(&table).into(),
    });
    let server = HttpServer::new(move || {
        // One server thread's application: the route table behind the middleware that sees the end of every request.
        App::new()
            .app_data(state.clone())
            .configure(|config| table.configure(config))
            .default_service(web::to(no_such_route))
            .wrap(RequestIds::new(http_metrics.clone()))
    })
    .workers(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
    .client_request_timeout(Duration::from_secs(30))
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(20)
    .bind(settings.listen)
    .map_err(|error| format!("LISTEN: can't listen on {}: {error}", settings.listen))?
    .run();
    let metrics_server = telemetry::serve_metrics(registry, shared.metrics_listen)?;
    tracing::info!(listen = %settings.listen, metrics = %shared.metrics_listen, "the api is listening");

    let metrics_handle = metrics_server.handle();
    let metrics_task = tokio::spawn(metrics_server);
    let served = server.await;
    ending.cancel();
    metrics_handle.stop(true).await;
    metrics_task.await??;
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(10), tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("a background task did not end in time");
    }
    tracing::info!("the api has ended");
    Ok(served?)
}

async fn no_such_route() -> Result<&'static str, ApiError> {
    Err(ApiError::new(ErrorCode::NotFound).detail("There is no such path."))
}

/// Forgets what is too old, now and then.
async fn keep_house(platform: &Platform, ending: CancellationToken) {
    let work = async {
        loop {
            // Spread, so that several processes don't all do it at once.
            tokio::time::sleep(Duration::from_secs(600 + u64::from(rand_seconds()))).await;
            match platform.forget_old_answers().await {
                Ok(0) => {}
                Ok(forgotten) => tracing::info!(forgotten, "forgot old answers to idempotent requests"),
                Err(error) => tracing::warn!(%error, "can't forget old answers"),
            }
        }
    };
    ending.run_until_cancelled(work).await;
}

fn rand_seconds() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}
