//! Keeps the leases of one process alive, all in one statement, and tells each job when its own is lost or cancelled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Bell, Metrics, WorkerOptions, context::Lease, error::chain, run::Engine, store};

/// The leases that this process holds.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<(Uuid, i64), Arc<Lease>>>,
}

/// Forgets a lease when its job has left.
pub(crate) struct Held<'a> {
    leases: &'a Leases,
    key: (Uuid, i64),
    metrics: &'a Metrics,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.leases
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
        self.metrics.running.dec();
    }
}

impl Leases {
    pub(crate) fn hold<'a>(&'a self, lease: Arc<Lease>, metrics: &'a Metrics) -> Held<'a> {
        let key = (lease.operation_id, lease.epoch);
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, lease);
        metrics.running.inc();
        Held {
            leases: self,
            key,
            metrics,
        }
    }

    pub(crate) fn each(&self, act: impl Fn(&Lease)) {
        for lease in self.all() {
            act(&lease);
        }
    }

    fn all(&self) -> Vec<Arc<Lease>> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Beats until told to stop. Without leases nothing is asked of anyone.
    pub(crate) async fn beat(
        &self,
        engine: &Engine,
        bell: &Bell,
        options: &WorkerOptions,
        until: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(options.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while until.run_until_cancelled(ticks.tick()).await.is_some() {
            let leases = self.all();
            if leases.is_empty() {
                continue;
            }
            let beat = self.renew(engine, bell, options, &leases);
            // A beat that hangs must not outlive its leases unseen.
            if tokio::time::timeout(options.lease / 3, beat).await.is_err() {
                tracing::warn!("a heartbeat took too long");
            }
            for lease in leases
                .iter()
                .filter(|lease| lease.unrenewed_for() >= options.lease)
            {
                lose(lease);
            }
        }
    }

    async fn renew(&self, engine: &Engine, bell: &Bell, options: &WorkerOptions, leases: &[Arc<Lease>]) {
        let keys: Vec<_> = leases
            .iter()
            .map(|lease| (lease.operation_id, lease.epoch))
            .collect();
        let at = Instant::now();
        match store::renew(&engine.db, &keys, options.lease).await {
            Ok(renewed) => {
                let mut found: HashMap<Uuid, _> = renewed
                    .into_iter()
                    .map(|lease| (lease.operation_id, lease))
                    .collect();
                for lease in leases {
                    match found.remove(&lease.operation_id) {
                        Some(state) => {
                            if state.renewed {
                                lease.renewed_at(at);
                            }
                            if state.cancel {
                                lease.cancel();
                            }
                        }
                        None => self.missing(lease),
                    }
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "leases could not be renewed; trying again"),
        }
        let entries: Vec<_> = leases.iter().map(|lease| lease.entry.clone()).collect();
        if let Err(error) = bell.touch(&options.name, &entries).await {
            tracing::debug!(error = chain(&error), "entries could not be touched");
        }
    }

    /// Not in Postgres's answer: over by our own hand a moment ago, or another's.
    fn missing(&self, lease: &Lease) {
        let ours = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&(lease.operation_id, lease.epoch));
        if ours && !lease.is_parting() {
            lose(lease);
        }
    }
}

fn lose(lease: &Lease) {
    if !lease.is_lost() {
        tracing::warn!(operation_id = %lease.operation_id, epoch = lease.epoch, "a lease is lost");
        lease.lose();
    }
}
