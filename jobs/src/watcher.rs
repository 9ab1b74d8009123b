//! Waiting for an operation to change, without holding a database connection while waiting.
//!
//! One subscription a process carries all changes; messages may be lost, so each waiter also looks at the table now and
//! then: seldom while subscribed, often without Redis.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use sea_orm::{DatabaseConnection, DbErr, EntityTrait};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Bell, entity::operation, error::chain, store};

/// How a watcher works.
#[derive(Clone, Copy, Debug)]
pub struct WatcherOptions {
    /// A waiter looks this often at the table while subscribed.
    pub slow_poll: Duration,
    /// And this often without Redis.
    pub fast_poll: Duration,
}

impl Default for WatcherOptions {
    fn default() -> Self {
        Self {
            slow_poll: Duration::from_secs(2),
            fast_poll: Duration::from_millis(300),
        }
    }
}

/// Waits for operations to change; clones share one subscription.
#[derive(Clone)]
pub struct Watcher {
    db: DatabaseConnection,
    hub: Arc<Hub>,
    options: WatcherOptions,
}

struct Hub {
    bell: Bell,
    subscribed: AtomicBool,
    /// Highest revision heard, for each operation someone waits for.
    heard: Mutex<HashMap<Uuid, watch::Sender<i64>>>,
}

/// A waiter's place in the hub; the last one of an operation clears it.
struct Seat<'a> {
    hub: &'a Hub,
    id: Uuid,
    heard: watch::Receiver<i64>,
}

impl Hub {
    fn sit(&self, id: Uuid) -> Seat<'_> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = heard.entry(id).or_insert_with(|| watch::channel(0).0).subscribe();
        Seat { hub: self, id, heard }
    }

    fn hear(&self, id: Uuid, revision: i64) {
        if let Some(heard) = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            heard.send_if_modified(|highest| {
                let news = revision > *highest;
                *highest = revision.max(*highest);
                news
            });
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut heard = self.hub.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // This receiver is still counted.
        if heard
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            heard.remove(&self.id);
        }
    }
}

impl Watcher {
    /// A watcher that only polls until [`run`](Self::run) is running.
    #[must_use]
    pub fn new(db: DatabaseConnection, bell: Bell, options: WatcherOptions) -> Self {
        let hub = Hub {
            bell,
            subscribed: AtomicBool::new(false),
            heard: Mutex::default(),
        };
        Self {
            db,
            hub: Arc::new(hub),
            options,
        }
    }

    /// Keeps the subscription until told to stop.
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async {
            let mut wait = Duration::from_millis(100);
            loop {
                match self.hub.bell.changes().await {
                    Ok(changes) => {
                        self.hub.subscribed.store(true, Ordering::Release);
                        wait = Duration::from_millis(100);
                        let mut changes = std::pin::pin!(changes);
                        while let Some((id, revision)) = changes.next().await {
                            self.hub.hear(id, revision);
                        }
                        tracing::warn!("not subscribed to changes any more; polling");
                    }
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "can't subscribe to changes; polling");
                    }
                }
                self.hub.subscribed.store(false, Ordering::Release);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        };
        shutdown.run_until_cancelled(work).await;
        self.hub.subscribed.store(false, Ordering::Release);
    }

    /// Waits until the operation's revision is above `since` and answers it; none at the deadline, or when there is no
    /// such operation.
    ///
    /// # Errors
    /// The database's.
    pub async fn changed(&self, id: Uuid, since: i64, deadline: Instant) -> Result<Option<i64>, DbErr> {
        let mut seat = self.hub.sit(id);
        loop {
            // Seated first: a change between this look and the wait is heard.
            let Some(revision) = store::revision(&self.db, id).await? else {
                return Ok(None);
            };
            if revision > since {
                return Ok(Some(revision));
            }
            let poll = if self.hub.subscribed.load(Ordering::Acquire) {
                self.options.slow_poll
            } else {
                self.options.fast_poll
            };
            let until = deadline.min(Instant::now() + poll);
            let news = tokio::time::timeout_at(until, seat.heard.wait_for(|heard| *heard > since)).await;
            if let Ok(Ok(heard)) = news {
                return Ok(Some(*heard));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Waits until the operation is over or the deadline has come, and answers it as it is then; none when there is no
    /// such operation.
    ///
    /// # Errors
    /// The database's.
    pub async fn settled(&self, id: Uuid, deadline: Instant) -> Result<Option<operation::Model>, DbErr> {
        loop {
            let found = store::bounded(operation::Entity::find_by_id(id).one(&self.db)).await?;
            let Some(operation) = found else { return Ok(None) };
            if operation.status.is_terminal() || Instant::now() >= deadline {
                return Ok(Some(operation));
            }
            self.changed(id, operation.revision, deadline).await?;
        }
    }
}
