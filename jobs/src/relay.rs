//! Moves outbox rows to the streams, each to that of its job's priority. Any number of relays may run: each takes rows that no other has.
//!
//! A row goes in the transaction that saw its entry accepted. One that dies in between leaves the row, and its entry
//! comes twice, which is harmless: the second finds the job taken.

use std::time::Duration;

use sea_orm::{DatabaseConnection, DbErr, TransactionTrait};
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Bell, Metrics,
    error::chain,
    store::{self, OUTBOX_CHANNEL},
};

/// How a relay works.
#[derive(Clone, Copy, Debug)]
pub struct RelayOptions {
    /// Looks this often, whether notified or not.
    pub poll: Duration,
    /// Rows a transaction.
    pub batch: u32,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(5),
            batch: 500,
        }
    }
}

/// Moves outbox rows to the stream.
pub struct Relay {
    db: DatabaseConnection,
    bell: Bell,
    options: RelayOptions,
    metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("Postgres: {0}")]
    Database(#[from] DbErr),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

impl Relay {
    /// A relay that does nothing yet. It keeps one connection of the pool to listen on.
    #[must_use]
    pub const fn new(db: DatabaseConnection, bell: Bell, options: RelayOptions, metrics: Metrics) -> Self {
        Self {
            db,
            bell,
            options,
            metrics,
        }
    }

    /// Relays until told to stop.
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async {
            let mut listener = None;
            let mut wait = Duration::ZERO;
            loop {
                tokio::time::sleep(wait).await;
                if listener.is_none() {
                    listener = self.listen().await;
                }
                // Rings that came while we worked are answered by the next drain.
                if let Some(listener) = &mut listener {
                    while listener.next_buffered().is_some() {}
                }
                match self.drain().await {
                    Ok(()) => wait = Duration::ZERO,
                    Err(error) => {
                        wait = (wait * 2).clamp(Duration::from_millis(100), Duration::from_secs(2));
                        tracing::warn!(
                            error = chain(&error),
                            "outbox rows can't be relayed; trying again"
                        );
                        continue;
                    }
                }
                match &mut listener {
                    Some(bell) => match tokio::time::timeout(self.options.poll, bell.recv()).await {
                        Ok(Ok(_)) | Err(_) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(
                                error = chain(&error),
                                "not listening for outbox rows any more; polling"
                            );
                            listener = None;
                        }
                    },
                    None => tokio::time::sleep(self.options.poll.min(Duration::from_secs(1))).await,
                }
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    async fn listen(&self) -> Option<PgListener> {
        let pool = self.db.get_postgres_connection_pool();
        let connect = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(OUTBOX_CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match tokio::time::timeout(Duration::from_secs(5), connect).await {
            Ok(Ok(listener)) => Some(listener),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "can't listen for outbox rows; polling");
                None
            }
            Err(_) => None,
        }
    }

    /// Relays until the outbox is empty.
    async fn drain(&self) -> Result<(), RelayError> {
        loop {
            let tx = store::bounded(self.db.begin()).await?;
            let (entries, oldest) = store::drain_outbox(&tx, self.options.batch).await?;
            if entries.is_empty() {
                store::bounded(tx.rollback()).await?;
                return Ok(());
            }
            self.bell.announce(&entries).await?;
            store::bounded(tx.commit()).await?;
            self.metrics.announced.inc_by(entries.len() as u64);
            self.metrics.outbox_lag.observe(oldest.as_secs_f64());
            if entries.len() < self.options.batch as usize {
                return Ok(());
            }
        }
    }
}
