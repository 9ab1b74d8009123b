//! Reads the stream, claims jobs and runs them; nothing else. Any number of workers may run, of any age: one leaves what
//! it does not know to others.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::DatabaseConnection;
use serde_json::Value as Json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Bell, Interference, Metrics, Registry,
    bell::{Entry, Reader},
    context::Lease,
    error::chain,
    heartbeat::Leases,
    run::{Engine, Left, Runnable},
    store::{self, Claim},
};

/// A claim that Postgres does not answer is tried for so long; then the entry is left to be taken over.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// How ids are written in logs: as whoever reads them knows them.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// An operation's.
    pub operation: fn(Uuid) -> String,
    /// A scope's.
    pub scope: fn(Uuid) -> String,
    /// A target's, by its type.
    pub target: fn(&str, Uuid) -> String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            operation: |id| id.to_string(),
            scope: |id| id.to_string(),
            target: |_, id| id.to_string(),
        }
    }
}

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Names this process among the workers; unique. Shown as the lease's owner.
    pub name: String,
    /// Jobs at a time.
    pub concurrency: usize,
    /// A lease lasts so long by Postgres's clock; renewed every third of it.
    pub lease: Duration,
    /// A read waits so long for an entry.
    pub block: Duration,
    /// At shutdown, jobs that run may go on for so long.
    pub drain: Duration,
    /// Then their tokens fire, and after this they are dropped.
    pub grace: Duration,
    /// Jobs of a kind or version that this worker lacks are announced again after so long.
    pub defer: Duration,
    /// How ids are written in logs.
    pub names: Names,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            name: format!("worker-{}", Uuid::now_v7().simple()),
            concurrency: 8,
            lease: Duration::from_secs(15),
            block: Duration::from_secs(5),
            drain: Duration::from_secs(20),
            grace: Duration::from_secs(3),
            defer: Duration::from_secs(5),
            names: Names::default(),
        }
    }
}

type Kinds = BTreeMap<(&'static str, i32), Arc<dyn Runnable>>;

/// Tells of changes without waiting for Redis.
#[derive(Clone)]
pub(crate) struct Changes(mpsc::Sender<(Uuid, i64)>);

impl Changes {
    /// A full queue drops the news: whoever waits finds it in the table.
    pub(crate) fn send(&self, id: Uuid, revision: i64) {
        if self.0.try_send((id, revision)).is_err() {
            tracing::debug!(operation_id = %id, "a change was not told");
        }
    }
}

/// Runs jobs.
pub struct Worker {
    db: DatabaseConnection,
    bell: Bell,
    kinds: Arc<Kinds>,
    /// `kind:version` to its first step.
    known: Json,
    options: WorkerOptions,
    metrics: Metrics,
    interference: Option<Arc<dyn Interference>>,
}

impl Worker {
    /// A worker that does nothing yet. It uses up to one connection of the pool for each job that writes, and one for
    /// the heartbeat.
    pub fn new<W: Send + Sync + 'static>(
        db: DatabaseConnection,
        bell: Bell,
        registry: Registry<W>,
        options: WorkerOptions,
        metrics: Metrics,
    ) -> Self {
        let kinds = registry.into_kinds();
        let known = kinds
            .iter()
            .map(|((kind, version), runner)| {
                (
                    format!("{kind}:{version}"),
                    runner.step_names().first().copied().into(),
                )
            })
            .collect();
        Self {
            db,
            bell,
            kinds: Arc::new(kinds),
            known: Json::Object(known),
            options,
            metrics,
            interference: None,
        }
    }

    /// The same, at the mercy of a test.
    #[must_use]
    pub fn interfered_by(mut self, interference: Arc<dyn Interference>) -> Self {
        self.interference = Some(interference);
        self
    }

    /// Works until told to stop: then reads no more, lets running jobs end within the drain time, asks the rest to stop,
    /// and releases what remains without charging an attempt.
    pub async fn run(&self, shutdown: CancellationToken) {
        let (changes, news) = mpsc::channel(4096);
        let leases = Arc::new(Leases::default());
        let hand = Arc::new(Hand {
            engine: Engine {
                db: self.db.clone(),
                metrics: self.metrics.clone(),
                changes: Changes(changes),
                interference: self.interference.clone(),
            },
            bell: self.bell.clone(),
            kinds: Arc::clone(&self.kinds),
            known: self.known.clone(),
            leases: Arc::clone(&leases),
            options: self.options.clone(),
        });
        let publisher = tokio::spawn(publish(self.bell.clone(), news));
        let beat_until = CancellationToken::new();
        let heart = tokio::spawn({
            let (hand, until) = (Arc::clone(&hand), beat_until.clone());
            async move {
                hand.leases
                    .beat(&hand.engine, &hand.bell, &hand.options, until)
                    .await;
            }
        });
        let mut jobs = JoinSet::new();
        self.read(&hand, &mut jobs, &shutdown).await;
        self.drain(&leases, &mut jobs).await;
        beat_until.cancel();
        join("heartbeat", heart).await;
        if let Err(error) = self.bell.forget(&self.options.name).await {
            tracing::debug!(error = chain(&error), "the consumer stays known");
        }
        drop(hand);
        join("publisher", publisher).await;
    }

    async fn read(&self, hand: &Arc<Hand>, jobs: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.options.concurrency.max(1)));
        let block = self.options.block.min(self.options.lease / 2);
        let mut reader: Option<Reader> = None;
        let mut looked = Instant::now();
        let mut wait = Duration::from_millis(100);
        while !shutdown.is_cancelled() {
            while jobs.try_join_next().is_some() {}
            let Some(Ok(first)) = shutdown
                .run_until_cancelled(Arc::clone(&slots).acquire_owned())
                .await
            else {
                return;
            };
            let mut free = vec![first];
            while let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
                free.push(permit);
            }
            let round = async {
                let reader = match &mut reader {
                    Some(reader) => reader,
                    none => none.insert(self.bell.reader(&self.options.name, block).await?),
                };
                if looked.elapsed() > self.options.lease / 2 {
                    looked = Instant::now();
                    let stale = self
                        .bell
                        .take_over(&self.options.name, self.options.lease, free.len())
                        .await?;
                    if !stale.is_empty() {
                        return Ok(stale);
                    }
                }
                let client = reader.client_id;
                let mut read = std::pin::pin!(reader.read(free.len()));
                tokio::select! {
                    entries = &mut read => entries,
                    () = shutdown.cancelled() => {
                        // What is read in this moment is given back; a dropped read would lose sight of it.
                        self.bell.unblock(client).await?;
                        read.await
                    }
                }
            };
            let entries: redis::RedisResult<Vec<Entry>> = round.await;
            match entries {
                Ok(entries) if shutdown.is_cancelled() => hand.give_back(entries).await,
                Ok(entries) => {
                    wait = Duration::from_millis(100);
                    // No more entries than permits: that many were asked for.
                    for (entry, permit) in entries.into_iter().zip(free) {
                        jobs.spawn(Arc::clone(hand).handle(entry, permit));
                    }
                }
                Err(error) if error.code() == Some("NOGROUP") => {
                    if let Err(error) = self.bell.group().await {
                        tracing::warn!(error = chain(&error), "the consumer group can't be made");
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "Redis does not answer; no new jobs until it does"
                    );
                    reader = None;
                    shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    async fn drain(&self, leases: &Leases, jobs: &mut JoinSet<()>) {
        if ended(jobs, self.options.drain).await {
            return;
        }
        tracing::info!(jobs = jobs.len(), "asking jobs to stop");
        let patience = Instant::now();
        while patience.elapsed() < self.options.grace {
            // Again each time: a claim may still have been on its way.
            leases.each(|lease| lease.halt.cancel());
            if ended(jobs, Duration::from_millis(100)).await {
                return;
            }
        }
        tracing::warn!(jobs = jobs.len(), "dropping jobs that did not stop");
        loop {
            leases.each(|lease| lease.kill.cancel());
            if ended(jobs, Duration::from_millis(100)).await {
                return;
            }
        }
    }
}

/// Whether all jobs' tasks ended within a time.
async fn ended(jobs: &mut JoinSet<()>, within: Duration) -> bool {
    let all = async { while jobs.join_next().await.is_some() {} };
    tokio::time::timeout(within, all).await.is_ok()
}

/// What each job's task needs.
pub(crate) struct Hand {
    engine: Engine,
    bell: Bell,
    kinds: Arc<Kinds>,
    known: Json,
    leases: Arc<Leases>,
    options: WorkerOptions,
}

impl Hand {
    async fn handle(self: Arc<Self>, entry: Entry, _slot: OwnedSemaphorePermit) {
        let done = match entry.operation_id {
            Some(id) => self.work(id, &entry.id).await,
            None => true,
        };
        if done {
            self.acknowledge(&[entry.id]).await;
        }
    }

    /// True: this entry has served.
    async fn work(&self, id: Uuid, entry: &str) -> bool {
        let begun = Instant::now();
        let claim = loop {
            // Before the statement is sent: the lease that we count ends no later than the one Postgres counts.
            let at = Instant::now();
            let claim = store::claim(
                &self.engine.db,
                id,
                &self.options.name,
                self.options.lease,
                &self.known,
            );
            match claim.await {
                Ok(Claim::Taken(claimed)) => break (claimed, at),
                Ok(Claim::Nothing | Claim::Blocked) => return true,
                Ok(Claim::Unknown) => return self.defer(id).await,
                Err(error) => {
                    tracing::warn!(operation_id = %id, error = chain(&error), "a job could not be claimed");
                    if begun.elapsed() > CLAIM_PATIENCE {
                        return false;
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        };
        let (claimed, at) = claim;
        let metrics = &self.engine.metrics;
        metrics.claimed.with_label_values(&[&claimed.kind]).inc();
        metrics.claim_wait.observe(claimed.waited.as_secs_f64());
        metrics.claim_seconds.observe(at.elapsed().as_secs_f64());
        self.engine.changes.send(id, claimed.revision);
        let runner = self.kinds.get(&(claimed.kind.as_str(), claimed.version)).cloned();
        let Some(runner) = runner else {
            // The claim asks for known kinds only.
            return self.defer(id).await;
        };
        let lease = Arc::new(Lease::new(id, claimed.epoch, entry.to_owned(), at));
        let names = &self.options.names;
        let span = tracing::info_span!(
            "job",
            operation_id = (names.operation)(id),
            kind = claimed.kind,
            epoch = claimed.epoch,
            scope_id = (names.scope)(claimed.scope),
            target_id = (names.target)(&claimed.target_type, claimed.target_id),
            request_id = claimed.request_id
        );
        let _held = self.leases.hold(Arc::clone(&lease), metrics);
        let left = runner.run(&self.engine, *claimed, lease).instrument(span).await;
        if left == Left::Lost {
            metrics.leases_lost.inc();
        }
        left != Left::Lost
    }

    async fn defer(&self, id: Uuid) -> bool {
        match store::defer(&self.engine.db, id, self.options.defer).await {
            Ok(()) => {
                tracing::info!(operation_id = %id, "left to a worker that knows its kind and version");
                true
            }
            Err(error) => {
                tracing::warn!(operation_id = %id, error = chain(&error), "an unknown job could not be left");
                false
            }
        }
    }

    /// Entries that were read when it was too late to begin them.
    async fn give_back(&self, entries: Vec<Entry>) {
        for entry in entries {
            let given = match entry.operation_id {
                Some(id) => store::unread(&self.engine.db, id).await,
                None => Ok(()),
            };
            match given {
                Ok(()) => self.acknowledge(&[entry.id]).await,
                Err(error) => tracing::warn!(error = chain(&error), "an entry waits to be taken over"),
            }
        }
    }

    async fn acknowledge(&self, entries: &[String]) {
        if let Err(error) = self.bell.acknowledge(entries).await {
            tracing::debug!(
                error = chain(&error),
                "an entry stays; it will be found to be done"
            );
        }
    }
}

async fn publish(bell: Bell, mut news: mpsc::Receiver<(Uuid, i64)>) {
    let mut batch = Vec::new();
    while news.recv_many(&mut batch, 256).await > 0 {
        if let Err(error) = bell.publish(&batch).await {
            tracing::debug!(error = chain(&error), "changes were not told");
        }
        batch.clear();
    }
}

async fn join(name: &str, task: tokio::task::JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(error = chain(&error), name, "a task of the worker ended badly");
    }
}
