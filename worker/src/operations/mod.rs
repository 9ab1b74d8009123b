//! The operations, a file each.

mod build_template;
mod delete_tenant;
mod provision_tenant;
mod reconcile;
mod set_admin_password;
mod start_pool;

use std::time::Duration;

use jobs::{JobContext, OperationKind, Registry, RegistryError, StepError, StepErrorExt as _};
use odoo::server::{ServerError, Session};
use platform::id::OperationId;

use crate::world::World;

/// Every kind that this worker can carry out.
pub fn register(registry: Registry<World>) -> Result<Registry<World>, RegistryError> {
    registry
        .with::<provision_tenant::Provision>()?
        .with::<delete_tenant::Delete>()?
        .with::<set_admin_password::SetPassword>()?
        .with::<start_pool::Start>()?
        .with::<build_template::Build>()?
        .with::<reconcile::Compare>()
}

/// A session on the tenants' server that no older claim of the job can disturb: those are ended, the target is locked,
/// and the lease is asked for again under the lock.
async fn fenced_session<K: OperationKind<World = World>>(
    cx: &JobContext<K>,
    target: &str,
) -> Result<Session, StepError> {
    let mut session = server(cx.world().server.session(&cx.application_name()).await)?;
    server(session.end_lower_epochs().await)?;
    server(session.lock(target).await)?;
    cx.ensure_leased().await?;
    Ok(session)
}

/// Sorts a server's error: what may pass is tried again.
fn server<T>(result: Result<T, ServerError>) -> Result<T, StepError> {
    const CODE: &str = "database_server_failed";
    const MESSAGE: &str = "The tenants' database server did not do as asked.";
    match result {
        Ok(value) => Ok(value),
        Err(error) if error.is_transient() => Err(error).retry(CODE, MESSAGE),
        Err(error) => Err(error).permanent(CODE, MESSAGE),
    }
}

/// Sorts a runtime's error: what may pass is tried again.
fn runtime<T>(result: Result<T, odoo::runtime::RuntimeError>) -> Result<T, StepError> {
    const CODE: &str = "runtime_failed";
    const MESSAGE: &str = "What runs the pools did not do as asked.";
    match result {
        Ok(value) => Ok(value),
        Err(error) if error.is_transient() => Err(error).retry(CODE, MESSAGE),
        Err(error) => Err(error).permanent(CODE, MESSAGE),
    }
}

/// The platform's database is away.
fn database<T>(result: Result<T, platform::error::Error>) -> Result<T, StepError> {
    result.retry("database_away", "The platform's database does not answer.")
}

/// Files could not be handled: often a full disk, which someone may mend.
fn files<T>(result: Result<T, odoo::filestore::FilestoreError>) -> Result<T, StepError> {
    result.retry("filestore_failed", "The tenant's files could not be handled.")
}

/// The edge could not be changed.
fn edge<T>(result: Result<T, odoo::edge::EdgeError>) -> Result<T, StepError> {
    result.retry("edge_failed", "The tenant's address could not be changed.")
}

/// Names what a claim makes outside before it is published: no other claim has the same.
fn tag<K: OperationKind<World = World>>(cx: &JobContext<K>) -> String {
    format!("{}-{}", OperationId(cx.operation_id()).suffix(), cx.epoch())
}

/// An outside answer that is waited for: tried this often.
const POLL: Duration = Duration::from_millis(20);
