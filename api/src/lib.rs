//! The REST API. Handlers hold no rules and no SQL: they parse, call into `platform`, and shape the answer. Beside them
//! every process runs the relay and the sweeper of the job engine, so that work flows with any number of workers.

mod drift_gauge;
mod endpoints;
mod housekeeping;
mod limits;
mod metrics;
mod openapi;
mod permission_reference;
mod problem;
mod request_id;
mod route;
mod server;
mod state;

pub use endpoints::table;
pub use problem::reference as error_reference;
pub use server::{nudge_reconciler, rotate_data_key, rotate_signing_key, serve};

/// `docs/permissions.md`, as it is committed.
#[must_use]
pub fn permission_reference() -> String {
    permission_reference::permission_reference(&table())
}

/// The OpenAPI document, as it is served and committed.
#[must_use]
pub fn openapi_text() -> String {
    openapi::text(&table())
}
