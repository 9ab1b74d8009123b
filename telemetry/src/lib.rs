//! How a process tells what it does: log lines for people or collectors, and a page for Prometheus on a port of its
//! own, so that metrics are never on a public one.

use std::{io, net::SocketAddr};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, web};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

/// Starts logging to the standard error. To be called once, before anything is logged. A `filter` that makes no sense
/// counts as `info`: settings have checked it.
pub fn start_logging(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// Whether a text is a filter that [`start_logging`] understands.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// A registry that has the process's own metrics: memory, CPU, open files.
///
/// # Errors
/// Never on Linux.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    Ok(registry)
}

/// Serves `/metrics` until the server is stopped.
///
/// # Errors
/// The address is taken.
#[allow(
    clippy::disallowed_methods,
    reason = "not the API: a port of its own with one page"
)]
pub fn serve_metrics(registry: Registry, listen: SocketAddr) -> io::Result<Server> {
    let registry = web::Data::new(registry);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(registry.clone())
            .route("/metrics", web::get().to(metrics_page))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .bind(listen)
    .map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("METRICS_LISTEN: can't listen on {listen}: {error}"),
        )
    })?
    .run();
    Ok(server)
}

async fn metrics_page(registry: web::Data<Registry>) -> HttpResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "metrics can't be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}
