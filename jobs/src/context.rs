//! What a step is given: the job's input, the worker's world, and the ways to speak to the control plane safely.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Direction, Interference, Moment, Point, StepError,
    bell::EntryId,
    kind::{OperationInput, OperationKind},
    run::Engine,
    store::{self, Claimed},
    worker::Changes,
};

/// Progress is shown at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// A claim of one job, and the ways in which it can be told to stop.
pub(crate) struct Lease {
    pub(crate) operation_id: Uuid,
    pub(crate) epoch: i64,
    /// Its entry in its stream.
    pub(crate) entry: EntryId,
    /// Ends the step where it stands: the lease is lost, or the process's patience.
    pub(crate) kill: CancellationToken,
    /// Asks the step to stop: as above, or the process is about to end. Child of `kill`.
    pub(crate) halt: CancellationToken,
    /// Asks a step before the pivot to stop: as above, or a cancel. Child of `halt`.
    pub(crate) stop: CancellationToken,
    lost: AtomicBool,
    cancelled: AtomicBool,
    /// The job is being let go of: that its row shows no lease of ours is then no news.
    parting: AtomicBool,
    /// Just before the last claim or renewal was sent, so never later than Postgres thinks.
    pub(crate) renewed: Mutex<Instant>,
}

impl Lease {
    pub(crate) fn new(operation_id: Uuid, epoch: i64, entry: EntryId, renewed: Instant) -> Self {
        let kill = CancellationToken::new();
        let halt = kill.child_token();
        let stop = halt.child_token();
        Self {
            operation_id,
            epoch,
            entry,
            kill,
            halt,
            stop,
            lost: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            parting: AtomicBool::new(false),
            renewed: Mutex::new(renewed),
        }
    }

    /// Before the write that lets go of the job.
    pub(crate) fn part(&self) {
        self.parting.store(true, Ordering::Release);
    }

    /// That write was not to be: the job is still ours.
    pub(crate) fn stay(&self) {
        self.parting.store(false, Ordering::Release);
    }

    pub(crate) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Acquire)
    }

    /// The epoch is dead, or must be thought so.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.kill.cancel();
    }

    /// Someone asked for the job's end.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.stop.cancel();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn renewed_at(&self, at: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub(crate) fn unrenewed_for(&self) -> Duration {
        self.renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// A claimed job, as its steps and its end see it.
pub struct JobContext<K: OperationKind> {
    input: K::Input,
    world: Arc<K::World>,
    request_id: Option<String>,
    scope: Uuid,
    target_type: String,
    target_id: Uuid,
    outputs: Mutex<BTreeMap<String, Json>>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) db: DatabaseConnection,
    changes: Changes,
    interference: Option<Arc<dyn Interference>>,
    /// The step that is being tried, and which way.
    at: Mutex<Option<(&'static str, Direction)>>,
}

impl<K: OperationKind> JobContext<K> {
    pub(crate) fn new(
        claimed: &Claimed,
        input: K::Input,
        world: Arc<K::World>,
        outputs: BTreeMap<String, Json>,
        lease: Arc<Lease>,
        engine: &Engine,
    ) -> Self {
        Self {
            input,
            world,
            request_id: claimed.request_id.clone(),
            scope: claimed.scope,
            target_type: claimed.target_type.clone(),
            target_id: claimed.target_id,
            outputs: Mutex::new(outputs),
            lease,
            db: engine.db.clone(),
            changes: engine.changes.clone(),
            interference: engine.interference.clone(),
            at: Mutex::default(),
        }
    }

    /// What the operation was asked to do.
    pub const fn input(&self) -> &K::Input {
        &self.input
    }

    /// What all kinds of this worker share.
    pub fn world(&self) -> &K::World {
        &self.world
    }

    /// The same, to be kept by a task of the step's own.
    pub fn shared_world(&self) -> Arc<K::World> {
        Arc::clone(&self.world)
    }

    /// The operation's id. Names of what the job makes outside derive from it or from the target's.
    pub fn operation_id(&self) -> Uuid {
        self.lease.operation_id
    }

    /// This claim's epoch. Later claims of the job have higher ones.
    pub fn epoch(&self) -> i64 {
        self.lease.epoch
    }

    /// Of the request that caused the operation.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Whose the operation is.
    pub const fn scope(&self) -> Uuid {
        self.scope
    }

    /// What the operation works on.
    pub fn target_type(&self) -> &str {
        &self.target_type
    }

    /// Which one.
    pub const fn target_id(&self) -> Uuid {
        self.target_id
    }

    /// `job:<operation>:<epoch>`: for `application_name` of sessions on other servers, so that a thief can tell its own
    /// from those of lower epochs and end these.
    pub fn application_name(&self) -> String {
        format!("job:{}:{}", self.lease.operation_id, self.lease.epoch)
    }

    /// Reads the epoch again: false means that another worker has the job now. Ask under the target's own lock, just
    /// before each effect outside; a yes from before the lock proves nothing.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn still_leased(&self) -> Result<bool, DbErr> {
        store::still_leased(&self.db, self.lease.operation_id, self.lease.epoch).await
    }

    /// The same as an error that ends the step when the job is another's.
    ///
    /// # Errors
    /// [`StepError::Stopped`], or the database's.
    pub async fn ensure_leased(&self) -> Result<(), StepError> {
        if self.still_leased().await? {
            return self.reach(Moment::Effect).await;
        }
        self.lease.lose();
        Err(StepError::Stopped)
    }

    /// A transaction on the control plane's database that can only commit while this claim's epoch lives.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(&self) -> Result<FencedTransaction, StepError> {
        let tx = store::bounded(self.db.begin()).await?;
        Ok(FencedTransaction {
            tx,
            lease: Arc::clone(&self.lease),
        })
    }

    /// What a step that is done remembered; none if it remembered nothing.
    ///
    /// # Errors
    /// When it is of another shape: permanent.
    pub fn recall<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, StepError> {
        let output = self
            .outputs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(step)
            .cloned();
        output.map(serde_json::from_value).transpose().map_err(|error| {
            StepError::permanent("internal", "A step left something that can't be read.")
                .detailed(format_args!("output of {step}: {error}"))
        })
    }

    pub(crate) fn keep(&self, step: &str, output: Json) {
        self.outputs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(step.to_owned(), output);
    }

    /// From here on a step is tried.
    pub(crate) fn enter(&self, step: &'static str, direction: Direction) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, direction));
    }

    /// Lets whoever interferes with this worker do so now.
    pub(crate) async fn reach(&self, moment: Moment) -> Result<(), StepError> {
        let Some(interference) = &self.interference else {
            return Ok(());
        };
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((step, direction)) = at else {
            return Ok(());
        };
        interference
            .at(Point {
                operation_id: self.lease.operation_id,
                epoch: self.lease.epoch,
                kind: K::Input::KIND,
                request_id: self.request_id(),
                step,
                direction,
                moment,
            })
            .await
    }

    pub(crate) fn changed(&self, revision: i64) {
        self.changes.send(self.lease.operation_id, revision);
    }
}

/// A job in one of its steps.
pub struct StepContext<K: OperationKind> {
    job: Arc<JobContext<K>>,
    token: CancellationToken,
    /// Steps before this one, and all of them.
    done: i32,
    total: i32,
    remembered: Mutex<Option<Json>>,
    shown: Mutex<Option<Instant>>,
}

impl<K: OperationKind> StepContext<K> {
    pub(crate) fn new(job: Arc<JobContext<K>>, token: CancellationToken, done: i32, total: i32) -> Self {
        Self {
            job,
            token,
            done,
            total,
            remembered: Mutex::new(None),
            shown: Mutex::new(None),
        }
    }

    /// Fires when the step should stop early and answer [`StepError::Stopped`]: a cancel (before the pivot and not while
    /// undoing), the process's end, or a lost lease, upon which the step is also dropped where it stands.
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// For between two parts of a long step.
    ///
    /// # Errors
    /// [`StepError::Stopped`] once the token has fired.
    pub fn check(&self) -> Result<(), StepError> {
        if self.token.is_cancelled() {
            Err(StepError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Shows how far this step is (0 to 100) and what it does, in words for the operation's owner. Calls that come too
    /// fast are dropped.
    ///
    /// # Errors
    /// [`StepError::Stopped`] when the epoch is dead, else the database's.
    pub async fn progress(&self, percent: u8, message: &str) -> Result<(), StepError> {
        {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
                return Ok(());
            }
            *shown = Some(Instant::now());
        }
        let within = i32::from(percent.min(100));
        let overall = (self.done * 100 + within) / self.total.max(1);
        let overall = i16::try_from(overall.clamp(0, 100)).unwrap_or(100);
        let lease = &self.job.lease;
        match store::note_progress(&self.job.db, lease.operation_id, lease.epoch, overall, message).await? {
            Some(revision) => {
                self.job.changed(revision);
                Ok(())
            }
            None => {
                lease.lose();
                Err(StepError::Stopped)
            }
        }
    }

    /// Keeps something for later steps, for this step's undo and for the operation's end; persisted when the step is.
    /// Lost if the step fails: what an undo must know has to derive from the input. Never a secret.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub fn remember<T: Serialize>(&self, output: &T) -> Result<(), StepError> {
        let output = serde_json::to_value(output).map_err(|error| {
            StepError::permanent("internal", "A step left something that can't be written.").detailed(error)
        })?;
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        Ok(())
    }

    pub(crate) fn take_remembered(&self) -> Option<Json> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl<K: OperationKind> Deref for StepContext<K> {
    type Target = JobContext<K>;

    fn deref(&self) -> &Self::Target {
        &self.job
    }
}

/// A transaction fenced by a lease epoch. Dropped: rolled back.
pub struct FencedTransaction {
    tx: DatabaseTransaction,
    lease: Arc<Lease>,
}

impl FencedTransaction {
    /// Commits if the epoch lives.
    ///
    /// # Errors
    /// [`StepError::Stopped`], having rolled back, when it does not; else the database's.
    pub async fn commit(self) -> Result<(), StepError> {
        if store::verify(&self.tx, self.lease.operation_id, self.lease.epoch).await? {
            return Ok(store::bounded(self.tx.commit()).await?);
        }
        self.lease.lose();
        store::bounded(self.tx.rollback()).await?;
        Err(StepError::Stopped)
    }
}

impl Deref for FencedTransaction {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}
