//! Runs the process: the HTTP server, the metrics' own one, and beside them the relay, the sweeper, the firing of
//! schedules and the watcher of the job engine.

use std::{sync::Arc, time::Duration};

use actix_web::{App, HttpServer, web};
use jobs::{
    Bell, Relay, RelayOptions, Sweeper, SweeperOptions, Watcher, WatcherOptions,
    schedule::{Firing, FiringOptions},
};
use platform::{
    Platform,
    audit::Sealer,
    auth::{
        Rotation, SignInThrottle,
        bootstrap::{Bootstrap, bootstrap},
    },
    database::{self, Databases, Sight},
    limits::RateLimiter,
    mail::Mailer,
    reconcile::{self, Nudge},
    secrets::{DataKeyRotation, MasterKeys, Secrets, Tended},
    settings::ApiSettings,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use secrecy::ExposeSecret as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    drift_gauge::DriftGauge,
    housekeeping::Housekeeper,
    limits::RateLimits,
    metrics::HttpMetrics,
    openapi,
    problem::{ApiError, ErrorCode},
    request_id::RequestIds,
    state::State,
};

/// Under which the database knows this process.
const NAME: &str = "odoo-saas-api";
/// Redis keys of this process's limits.
const REDIS_PREFIX: &str = "platform:limits";
/// How long requests may take to end when the process is told to.
const SHUTDOWN_SECONDS: u64 = 20;
/// The Redis keys of the job engine; the worker names the same.
pub const JOBS_PREFIX: &str = "platform:jobs";

/// Serves until the process is told to end, then finishes what has begun.
///
/// # Errors
/// Something that a start needs is not there.
pub async fn serve(settings: ApiSettings) -> Result<(), Box<dyn std::error::Error>> {
    let shared = &settings.shared;
    let master_keys = MasterKeys::of(shared)?;
    let databases = Databases::connect(&shared.database_url, NAME).await?;
    let database = databases.own.clone();
    let secrets = Secrets::prepare(database.clone(), master_keys).await?;
    bootstrap(
        &database,
        &secrets,
        &Bootstrap {
            email: &settings.bootstrap_email,
            password: settings.bootstrap_password.as_ref(),
            password_out: &settings.bootstrap_password_out,
            pool_capacity: settings.pool_capacity,
        },
    )
    .await?;
    platform::reconcile::schedule(&database).await?;
    let redis = ConnectionManager::new_lazy_with_config(
        redis::Client::open(shared.redis_url.expose_secret())?,
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)))
            .set_number_of_retries(1),
    )?;
    let throttle = SignInThrottle::new(redis.clone(), REDIS_PREFIX, &secrets).await?;
    let mailer = match &settings.mail {
        Some(mail) => Some(Mailer::new(&mail.smtp_url, &mail.from)?),
        None => None,
    };
    let platform = Platform::open(databases, secrets, shared.domains.clone(), throttle, mailer).await?;

    let registry = telemetry::registry()?;
    let http_metrics = HttpMetrics::new(&registry)?;
    let drift_gauge = DriftGauge::new(&registry)?;
    let job_metrics = jobs::Metrics::new();
    job_metrics.register(&registry)?;

    let bell = Bell::open(shared.redis_url.expose_secret(), JOBS_PREFIX)?;
    let limiter = RateLimiter::new(
        redis.clone(),
        REDIS_PREFIX,
        settings.rate_limit,
        settings.rate_burst,
        &registry,
    )?;
    let watcher = Watcher::new(database.clone(), bell.clone(), WatcherOptions::default());
    let relay = Relay::new(
        database.clone(),
        bell.clone(),
        RelayOptions::default(),
        job_metrics.clone(),
    );
    let sweeper = Sweeper::new(
        database.clone(),
        bell,
        SweeperOptions::default(),
        job_metrics.clone(),
    );
    let firing = Firing::new(database.clone(), FiringOptions::default(), job_metrics);

    let ending = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (token, task) = (ending.clone(), watcher.clone());
    tasks.spawn(async move { task.run(token).await });
    let token = ending.clone();
    tasks.spawn(async move { relay.run(token).await });
    let token = ending.clone();
    tasks.spawn(async move { sweeper.run(token).await });
    let token = ending.clone();
    tasks.spawn(async move { firing.run(token).await });
    let (token, drift_database) = (ending.clone(), database.clone());
    tasks.spawn(async move { drift_gauge.keep(&drift_database, token).await });
    let housekeeper = Housekeeper {
        platform: platform.clone(),
        database,
        key_age: chrono::Duration::days(settings.signing_key_days.into()),
        data_key_age: chrono::Duration::days(settings.data_key_days.into()),
        operations_kept: Duration::from_hours(24) * settings.operations_kept_days.into(),
    };
    let token = ending.clone();
    tasks.spawn(async move { housekeeper.keep_house(token).await });
    let (token, sealer) = (ending.clone(), Sealer::new(platform.clone()));
    tasks.spawn(async move { sealer.run(token).await });
    // Waits and streams end before the server does, or it would wait for them.
    let closing = ending.child_token();

    let table = Arc::new(crate::table());
    let state = web::Data::new(State {
        platform,
        watcher,
        redis,
        limiter: Arc::new(limiter),
        trusted_proxies: settings.trusted_proxies.into(),
        ending: closing.clone(),
        openapi: openapi::text(&table).into(),
    });
    let server = HttpServer::new(move || {
        // One server thread's application: the route table behind the middleware that sees the end of every request.
        App::new()
            .app_data(state.clone())
            .configure(|config| table.configure(config))
            .default_service(web::to(no_such_route))
            .wrap(RateLimits)
            .wrap(RequestIds::new(http_metrics.clone()))
    })
    .workers(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
    .client_request_timeout(Duration::from_secs(30))
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals()
    .bind(settings.listen)
    .map_err(|error| format!("LISTEN: can't listen on {}: {error}", settings.listen))?
    .run();
    let metrics_server = telemetry::serve_metrics(registry, shared.metrics_listen)?;
    tracing::info!(listen = %settings.listen, metrics = %shared.metrics_listen, "the api is listening");

    let metrics_handle = metrics_server.handle();
    let metrics_task = tokio::spawn(metrics_server);
    let handle = server.handle();
    tasks.spawn(async move {
        told_to_end().await;
        tracing::info!("told to end: finishing what has begun");
        closing.cancel();
        handle.stop(true).await;
    });
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

/// Replaces the key that signs access tokens.
///
/// # Errors
/// Something that it needs is not there.
pub async fn rotate_signing_key(
    settings: &ApiSettings,
    rotation: Rotation,
) -> Result<(), Box<dyn std::error::Error>> {
    let secrets = prepared_secrets(settings).await?;
    let database = database::connect(&settings.shared.database_url, NAME, 1, Sight::All).await?;
    platform::auth::rotation::rotate(&database, &secrets, rotation).await?;
    Ok(())
}

/// Replaces the data key, and seals again what is stored.
///
/// # Errors
/// Something that it needs is not there.
pub async fn rotate_data_key(settings: &ApiSettings) -> Result<Tended, Box<dyn std::error::Error>> {
    let secrets = prepared_secrets(settings).await?;
    Ok(secrets.tend(DataKeyRotation::Now).await?)
}

/// With connections of their own: they look for a key that is new to them while another connection is in a transaction.
async fn prepared_secrets(settings: &ApiSettings) -> Result<Arc<Secrets>, Box<dyn std::error::Error>> {
    let shared = &settings.shared;
    let master_keys = MasterKeys::of(shared)?;
    let database = database::connect(&shared.database_url, NAME, 2, Sight::All).await?;
    Ok(Secrets::prepare(database, master_keys).await?)
}

/// Asks for a comparison of the tables with what is there.
///
/// # Errors
/// Something that it needs is not there.
pub async fn nudge_reconciler(settings: &ApiSettings) -> Result<Nudge, Box<dyn std::error::Error>> {
    let database = database::connect(&settings.shared.database_url, NAME, 1, Sight::All).await?;
    Ok(reconcile::nudge_now(&database).await?)
}

async fn no_such_route() -> Result<&'static str, ApiError> {
    Err(ApiError::new(ErrorCode::NotFound).detail("There is no such path."))
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};

    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            // Nothing but SIGKILL will end this process, which it survives like a crash.
            tracing::error!(%error, "can't listen for signals");
            std::future::pending::<()>().await;
        }
    }
}
