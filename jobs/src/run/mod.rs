//! Drives one claimed job: forward through its steps, back through their undos, to its end.
//!
//! Decides nothing by itself: `protocol` does. Writes nothing past the fence: `store` does.

mod drive;
mod end;
mod write;

use std::{
    any::Any,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sea_orm::{DatabaseConnection, DbErr, TransactionTrait};

use self::drive::Drive;
use crate::{
    Interference, JobContext, Metrics, Outcome,
    context::Lease,
    error::{Fault, chain},
    kind::{OperationKind, Step},
    protocol::Standing,
    store::{self, Claimed, End, Ended},
    worker::Changes,
};

/// A write that Postgres does not take is tried for so long; then the job is left to its lease's end.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// What a worker lends to a running job.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) db: DatabaseConnection,
    pub(crate) metrics: Metrics,
    pub(crate) changes: Changes,
    pub(crate) interference: Option<Arc<dyn Interference>>,
}

/// How a worker parted from a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Ended; its row says how.
    Ended,
    /// Released, to be claimed again later.
    Released,
    /// The lease is another's, or unknown: neither the job nor its entry may be touched.
    Lost,
}

/// A kind whose types are hidden.
#[async_trait]
pub(crate) trait Runnable: Send + Sync {
    fn step_names(&self) -> Vec<&'static str>;
    fn pivot(&self) -> Option<usize>;
    async fn run(&self, engine: &Engine, claimed: Claimed, lease: Arc<Lease>) -> Left;
}

pub(crate) struct Runner<K: OperationKind> {
    pub(crate) steps: Vec<Box<dyn Step<K>>>,
    pub(crate) pivot: Option<usize>,
    pub(crate) world: Arc<K::World>,
}

#[async_trait]
impl<K: OperationKind> Runnable for Runner<K> {
    fn step_names(&self) -> Vec<&'static str> {
        self.steps.iter().map(|step| step.name()).collect()
    }

    fn pivot(&self) -> Option<usize> {
        self.pivot
    }

    async fn run(&self, engine: &Engine, mut claimed: Claimed, lease: Arc<Lease>) -> Left {
        let input = match serde_json::from_value(claimed.input.take()) {
            Ok(input) => input,
            Err(error) => return bury(engine, &claimed, &error).await,
        };
        let outputs = if claimed.epoch == 1 {
            BTreeMap::new()
        } else {
            let read = patiently(&lease, || store::steps(&engine.db, claimed.operation_id)).await;
            let Some(rows) = read else { return Left::Lost };
            rows.into_iter()
                .filter_map(|row| Some((row.name, row.output?)))
                .collect()
        };
        let job = JobContext::new(
            &claimed,
            input,
            Arc::clone(&self.world),
            outputs,
            Arc::clone(&lease),
            engine,
        );
        let standing = Standing {
            attempts: claimed.attempts,
            limit: K::RETRY.attempts,
            cancel_requested: claimed.cancel_requested,
            pivoted: claimed.pivoted,
            ending: claimed.ending,
        };
        let position = usize::try_from(claimed.position)
            .unwrap_or(0)
            .min(self.steps.len());
        let drive = Drive {
            runner: self,
            engine,
            job: Arc::new(job),
            lease,
            slot_of: claimed.slot_of,
            standing,
            position,
            fault: claimed.fault.clone(),
        };
        drive.run(&claimed).await
    }
}

/// Ends a job whose input this version can't read: it never began, or is past anyone's help.
async fn bury(engine: &Engine, claimed: &Claimed, error: &serde_json::Error) -> Left {
    let fault = Fault::new("invalid_input", "The operation's input can't be read.").detailed(error);
    let ended = async {
        let tx = store::bounded(engine.db.begin()).await?;
        let end = End {
            operation_id: claimed.operation_id,
            epoch: claimed.epoch,
            serial_key: claimed.serial_key.as_deref(),
            slot_of: claimed.slot_of,
            outcome: &Outcome::Dead(fault),
            last: None,
        };
        let ended = store::finish(&tx, &end).await?;
        store::bounded(tx.commit()).await?;
        Ok::<_, DbErr>(ended)
    };
    match ended.await {
        Ok(Ended::Done { revision }) => {
            engine.changes.send(claimed.operation_id, revision);
            Left::Ended
        }
        Ok(Ended::CancelledFirst | Ended::Lost) => Left::Lost,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "a job with an unreadable input could not be ended"
            );
            Left::Lost
        }
    }
}

/// Runs a write until Postgres takes it, while the lease lives. A write repeated after its answer was lost changes
/// nothing more. None: given up.
async fn patiently<T, F>(lease: &Lease, mut write: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, DbErr>>,
{
    let begun = Instant::now();
    let mut wait = Duration::from_millis(50);
    loop {
        match write().await {
            Ok(done) => return Some(done),
            Err(error) => {
                tracing::warn!(operation_id = %lease.operation_id, error = chain(&error), "Postgres refused a write");
                if begun.elapsed() > WRITE_PATIENCE {
                    return None;
                }
            }
        }
        lease.kill.run_until_cancelled(tokio::time::sleep(wait)).await?;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

fn gave_up(cause: Option<Fault>) -> Fault {
    let fault = Fault::new("gave_up", "The operation was tried too often without progress.");
    match cause {
        Some(cause) => fault.detailed(cause),
        None => fault,
    }
}

fn count(steps: usize) -> i32 {
    i32::try_from(steps).unwrap_or(i32::MAX)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
