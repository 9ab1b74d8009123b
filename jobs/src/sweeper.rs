//! Announces again what has no entry on its way: jobs whose time has come, expired leases, waiters whose key or slot came
//! free unseen, and whatever a wiped Redis forgot. It lives where something always runs: with no worker at all a due job must
//! still fill the stream, or an autoscaler never starts one.

use std::time::Duration;

use sea_orm::{DatabaseConnection, DbErr};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Bell, Metrics, bell::GroupState, entity::job::Priority, error::chain, store};

/// How often the queue is counted.
const SURVEY_EVERY: Duration = Duration::from_secs(10);

/// How a sweeper works.
#[derive(Clone, Copy, Debug)]
pub struct SweeperOptions {
    /// Looks at least this often; earlier when a job is due earlier.
    pub interval: Duration,
    /// When every entry of the stream was read, a ready job announced this long ago has lost its entry. Expired leases
    /// are announced again this often.
    pub lost_after: Duration,
    /// Jobs of each sort a sweep.
    pub batch: u32,
    /// A consumer that did nothing for so long, and has nothing pending, is forgotten.
    pub forget_consumers_after: Duration,
}

impl Default for SweeperOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            lost_after: Duration::from_secs(5),
            batch: 500,
            forget_consumers_after: Duration::from_secs(3600),
        }
    }
}

/// Announces again what was left behind.
pub struct Sweeper {
    db: DatabaseConnection,
    bell: Bell,
    options: SweeperOptions,
    metrics: Metrics,
}

impl Sweeper {
    /// A sweeper that does nothing yet.
    #[must_use]
    pub const fn new(db: DatabaseConnection, bell: Bell, options: SweeperOptions, metrics: Metrics) -> Self {
        Self {
            db,
            bell,
            options,
            metrics,
        }
    }

    /// Sweeps until told to stop.
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async {
            let mut forgot = Instant::now();
            let mut mark = None;
            let mut surveyed: Option<Instant> = None;
            loop {
                let wait = self.sweep(&mut mark).await;
                if surveyed.is_none_or(|at| at.elapsed() >= SURVEY_EVERY) {
                    surveyed = Some(Instant::now());
                    if let Err(error) = self.survey().await {
                        tracing::warn!(error = chain(&error), "the queue was not counted");
                    }
                }
                if forgot.elapsed() > self.options.forget_consumers_after / 4 {
                    forgot = Instant::now();
                    if let Err(error) = self.bell.forget_idle(self.options.forget_consumers_after).await {
                        tracing::debug!(error = chain(&error), "idle consumers were not forgotten");
                    }
                }
                tokio::time::sleep(wait).await;
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    /// One sweep; answers how long to wait for the next. `known` is the Redis of the sweep before.
    async fn sweep(&self, known: &mut Option<String>) -> Duration {
        match self.try_sweep(known).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(error = chain(&error), "due jobs wait: a sweep failed");
                self.options.interval
            }
        }
    }

    /// Shows how the queue is.
    async fn survey(&self) -> Result<(), SweepError> {
        let (depths, outbox) = (store::depths(&self.db).await?, store::outbox(&self.db).await?);
        let metrics = &self.metrics;
        // A kind of which no job is left shows none, not its last number.
        metrics.depth.reset();
        metrics.oldest.reset();
        for depth in depths {
            metrics
                .depth
                .with_label_values(&[&depth.kind, &depth.state])
                .set(depth.jobs);
            if depth.state == "ready" {
                metrics.oldest.with_label_values(&[&depth.kind]).set(depth.oldest);
            }
        }
        metrics.outbox_rows.set(outbox.rows);
        metrics.outbox_oldest.set(outbox.oldest);
        for priority in Priority::ALL {
            let length = self.bell.length(priority).await?;
            metrics
                .stream_length
                .with_label_values(&[priority.as_str()])
                .set(whole(length));
        }
        Ok(())
    }

    async fn try_sweep(&self, known: &mut Option<String>) -> Result<Duration, SweepError> {
        let Self {
            db,
            bell,
            options,
            metrics,
        } = self;
        // First Redis: nothing can be announced without it, and every sweep would add to the outbox.
        let (interactive, scheduled) = (
            bell.group(Priority::Interactive).await?,
            bell.group(Priority::Scheduled).await?,
        );
        let mark = bell.mark().await?;
        for (priority, group) in [
            (Priority::Interactive, interactive),
            (Priority::Scheduled, scheduled),
        ] {
            let labels = &[priority.as_str()];
            metrics
                .stream_lag
                .with_label_values(labels)
                .set(group.lag.map_or(-1, whole));
            metrics
                .stream_pending
                .with_label_values(labels)
                .set(whole(group.pending));
        }
        if known.as_ref() != Some(&mark) {
            if store::check_mark(db, &mark).await? {
                tracing::info!("another Redis, or an empty one: every waiting job is announced again");
            }
            *known = Some(mark);
        }
        let lost = |priority| {
            let group = match priority {
                Priority::Interactive => interactive,
                Priority::Scheduled => scheduled,
            };
            lost_after(group, options.lost_after)
        };
        let swept = store::sweep(db, options.lost_after, lost, options.batch).await?;
        if swept.announced > 0 {
            metrics.swept.inc_by(u64::try_from(swept.announced).unwrap_or(0));
            tracing::debug!(jobs = swept.announced, "announced again");
        }
        if swept.announced >= i64::from(options.batch) {
            return Ok(Duration::ZERO);
        }
        let next = swept.next.unwrap_or(options.interval).min(options.interval);
        Ok(next.max(Duration::from_millis(5)))
    }
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("Postgres: {0}")]
    Database(#[from] DbErr),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// From which age on an announced job that nobody claimed counts as forgotten by Redis. While unread entries wait in
/// its stream none does: its own may be among them.
fn lost_after(group: GroupState, bound: Duration) -> Option<Duration> {
    match group.lag {
        Some(0) => Some(bound),
        // Redis can't tell (an entry that nobody read was deleted): be slow to conclude.
        None => Some(bound * 12),
        Some(_) => None,
    }
}
