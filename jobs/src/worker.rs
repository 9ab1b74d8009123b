//! Reads the streams, claims jobs and runs them; nothing else. Any number of workers may run, of any age: one leaves what
//! it does not know to others.

use std::{
    collections::BTreeMap,
    iter,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::DatabaseConnection;
use serde_json::Value as Json;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Bell, Interference, Metrics, Registry,
    error::chain,
    hand::Hand,
    heartbeat::Leases,
    intake::Intake,
    run::{Engine, Runnable},
    store,
};

/// A worker whose hands are full looks this often for entries of jobs that must wait anyway.
const LOOK_AHEAD_EVERY: Duration = Duration::from_millis(500);

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
    /// Jobs of one scope at a time, on all workers together: what the worker that started last was told goes for all. None:
    /// any number.
    pub scope_cap: Option<NonZeroU16>,
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
            scope_cap: None,
            lease: Duration::from_secs(15),
            block: Duration::from_secs(5),
            drain: Duration::from_secs(20),
            grace: Duration::from_secs(3),
            defer: Duration::from_secs(5),
            names: Names::default(),
        }
    }
}

pub(crate) type Kinds = BTreeMap<(&'static str, i32), Arc<dyn Runnable>>;

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
        self.tell_cap(&shutdown).await;
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
        let permits = Arc::new(Semaphore::new(self.options.concurrency.max(1)));
        let mut intake = Intake::new(&self.bell, &self.options);
        let mut wait = Duration::from_millis(100);
        while !shutdown.is_cancelled() {
            while jobs.try_join_next().is_some() {}
            let mut free: Vec<_> = iter::from_fn(|| Arc::clone(&permits).try_acquire_owned().ok()).collect();
            let mut round = Ok(());
            if !free.is_empty() {
                match intake.next(free.len(), shutdown).await {
                    Ok(entries) if shutdown.is_cancelled() => hand.give_back(entries).await,
                    // No more entries than permits: that many were asked for.
                    Ok(entries) => {
                        for (entry, permit) in entries.into_iter().zip(free.drain(..)) {
                            jobs.spawn(Arc::clone(hand).handle(entry, permit));
                        }
                    }
                    Err(error) => round = Err(error),
                }
            }
            drop(free);
            if permits.available_permits() == 0 {
                if round.is_ok() && self.options.scope_cap.is_some() {
                    round = intake.look_ahead(hand, &permits).await;
                }
                let one = tokio::time::timeout(LOOK_AHEAD_EVERY, permits.acquire());
                drop(shutdown.run_until_cancelled(one).await);
            }
            match round {
                Ok(()) => wait = Duration::from_millis(100),
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "Redis does not answer; no new jobs until it does"
                    );
                    intake.hang_up();
                    shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
        }
        hand.give_back(intake.leftovers()).await;
    }

    /// Before the first claim: claims go by what is written there.
    async fn tell_cap(&self, shutdown: &CancellationToken) {
        let cap = self.options.scope_cap;
        let cap = cap.map(|cap| i16::try_from(cap.get()).unwrap_or(i16::MAX));
        let mut wait = Duration::from_millis(100);
        while let Err(error) = store::set_scope_cap(&self.db, cap).await {
            tracing::warn!(
                error = chain(&error),
                "Postgres does not answer; no jobs until it does"
            );
            if shutdown
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
            wait = (wait * 2).min(Duration::from_secs(2));
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
