//! What a worker does with one entry that it read: claim the job, run it, acknowledge.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Bell, WorkerOptions,
    bell::{Entry, EntryId},
    context::Lease,
    error::chain,
    heartbeat::Leases,
    run::{Engine, Left},
    store::{self, Claim, Sorted},
    worker::Kinds,
};

/// A claim that Postgres does not answer is tried for so long; then the entry is left to be taken over.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// What each job's task needs.
pub(crate) struct Hand {
    pub(crate) engine: Engine,
    pub(crate) bell: Bell,
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) known: Json,
    pub(crate) leases: Arc<Leases>,
    pub(crate) options: WorkerOptions,
}

impl Hand {
    pub(crate) async fn handle(self: Arc<Self>, entry: Entry, _permit: OwnedSemaphorePermit) {
        let done = match entry.operation_id {
            Some(id) => self.work(id, &entry.id).await,
            None => true,
        };
        if done {
            self.acknowledge(&entry.id).await;
        }
    }

    /// Looks at an entry that no hand is free for. True: its job may run, so it is to be kept. Otherwise it has served: a job
    /// that must wait now does so where it holds up nobody.
    pub(crate) async fn sort(&self, entry: &Entry) -> bool {
        let Some(id) = entry.operation_id else {
            self.acknowledge(&entry.id).await;
            return false;
        };
        let served = match store::sort(&self.engine.db, id, &self.known).await {
            Ok(Sorted::Runnable) => false,
            Ok(Sorted::Served) => true,
            Ok(Sorted::Unknown) => self.defer(id).await,
            Err(error) => {
                tracing::warn!(operation_id = %id, error = chain(&error), "a job could not be looked at");
                false
            }
        };
        if served {
            self.acknowledge(&entry.id).await;
        }
        !served
    }

    /// True: this entry has served.
    async fn work(&self, id: Uuid, entry: &EntryId) -> bool {
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
                Ok(Claim::Nothing | Claim::Waits) => return true,
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
        let lease = Arc::new(Lease::new(id, claimed.epoch, entry.clone(), at));
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
    pub(crate) async fn give_back(&self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            let given = match entry.operation_id {
                Some(id) => store::unread(&self.engine.db, id).await,
                None => Ok(()),
            };
            match given {
                Ok(()) => self.acknowledge(&entry.id).await,
                Err(error) => tracing::warn!(error = chain(&error), "an entry waits to be taken over"),
            }
        }
    }

    async fn acknowledge(&self, entry: &EntryId) {
        if let Err(error) = self.bell.acknowledge(entry).await {
            tracing::debug!(
                error = chain(&error),
                "an entry stays; it will be found to be done"
            );
        }
    }
}
