//! What a caller writes: a kind of operation, its input and its steps.
//!
//! Everything a step makes outside must have a name derived from the job, so that a second run finds what the first
//! one made: a step may be run again after any crash, and so may its undo.

use std::time::Duration;

use async_trait::async_trait;
use sea_orm::DatabaseTransaction;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Fault, JobContext, RetryPolicy, StepContext, StepError};

/// What an operation is asked to do. Lives where operations are enqueued; the steps live with the worker.
///
/// Persisted as JSON: no secrets, and within one `VERSION` only changes that old rows still parse under.
pub trait OperationInput: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the kind, e.g. `tenant.provision`.
    const KIND: &'static str;
    /// Version of the list of steps; raised when a step is added, removed, moved or changes its meaning. A worker that
    /// lacks a job's version leaves it queued. To finish old jobs, keep the old input and kind registered beside the new.
    const VERSION: i32 = 1;
}

/// A kind of operation: its steps and what its end means.
#[async_trait]
pub trait OperationKind: Sized + Send + Sync + 'static {
    /// What it is asked to do; names the kind and its version.
    type Input: OperationInput;
    /// What all kinds of one worker share: connections, settings.
    type World: Send + Sync + 'static;

    /// First step past which there is no undo: from its start on the job only goes forward, a cancel is refused, and a
    /// permanent error leaves a dead job.
    const PIVOT: Option<&'static str> = None;
    /// How failures are tried again.
    const RETRY: RetryPolicy = RetryPolicy::DEFAULT;

    /// The steps in order. Names are unique within a kind.
    fn steps() -> Vec<Box<dyn Step<Self>>>;

    /// Runs inside the transaction that ends the operation, so that the target's own row changes with it or not at
    /// all. Called again if that transaction fails. Not called for an operation cancelled before its first claim: that
    /// one ends in the transaction of [`cancel`](crate::cancel), whose caller does the same there.
    ///
    /// # Errors
    /// The end is tried again later, like a step. After the last attempt the job is dead, without this call's effect.
    async fn on_finish(
        _tx: &DatabaseTransaction,
        _cx: &JobContext<Self>,
        _outcome: &Outcome,
    ) -> Result<(), StepError> {
        Ok(())
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is done.
    Succeeded,
    /// Failed, and every step that had begun is undone.
    Failed(Fault),
    /// Cancelled, and every step that had begun is undone.
    Cancelled,
    /// Given up half-way: past its pivot, or an undo kept failing. Something may be left behind; the operation shows as
    /// failed. It can be retried by hand, and goes on where it stopped.
    Dead(Fault),
}

/// What `apply` and `undo` answer.
pub type StepResult = Result<(), StepError>;

/// One step of a kind. Both directions are idempotent.
#[async_trait]
pub trait Step<K: OperationKind>: Send + Sync {
    /// Name in the tables and in the API, `snake_case`.
    fn name(&self) -> &'static str;

    /// After this long the step is dropped mid-way and counts as failed, to be tried again.
    fn deadline(&self) -> Duration {
        Duration::from_secs(300)
    }

    /// Does it, or finds it done.
    async fn apply(&self, cx: &StepContext<K>) -> StepResult;

    /// Undoes it, whether it was done, half done or never begun. Any error is tried again; when attempts run out the
    /// job is dead.
    async fn undo(&self, cx: &StepContext<K>) -> StepResult;
}
