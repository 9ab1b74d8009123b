//! Fires schedules that are due. It lives where something always runs: with no worker at all a due schedule must still
//! fill the stream, or an autoscaler never starts one.
//!
//! Any number of processes may fire: each takes schedules that no other has, and what a moment means (its record, its
//! operation, the next moment) is one transaction. One that dies in between leaves the moment to the others.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Calendar;
use crate::{
    Metrics,
    enqueue::{self, Work},
    entity::job::Priority,
    error::chain,
    store::{self, DueSchedule},
};

/// A schedule that is due and can't be fired now is looked at again after this: another process has it, or someone is
/// just enqueueing for its serial key.
const TAKEN: Duration = Duration::from_secs(1);
/// Never looks again sooner: the process's timers and Postgres's clock may disagree by a little.
const SHORTEST: Duration = Duration::from_millis(5);

/// How schedules are fired.
#[derive(Clone, Copy, Debug)]
pub struct FiringOptions {
    /// Looks at least this often; earlier when a schedule that it knows is due earlier. So much later may one fire that was
    /// put or changed meanwhile.
    pub poll: Duration,
    /// Schedules a transaction.
    pub batch: u32,
}

impl Default for FiringOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(15),
            batch: 100,
        }
    }
}

/// Fires schedules that are due.
pub struct Firing {
    db: DatabaseConnection,
    options: FiringOptions,
    metrics: Metrics,
}

/// What came of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fired {
    /// Its operation is enqueued.
    Enqueued,
    /// Another operation has the serial key: recorded without one.
    Busy,
    /// It was fired before.
    Again,
    /// The schedule's own row makes no sense (any more): it does not fire until it is put again.
    Broken,
    /// Someone is just enqueueing for its serial key: nothing was done.
    Later,
}

impl Fired {
    /// As the metric says it; none: not counted.
    const fn outcome(self) -> Option<&'static str> {
        match self {
            Self::Enqueued => Some("enqueued"),
            Self::Busy => Some("busy"),
            Self::Again => Some("again"),
            Self::Broken => Some("broken"),
            Self::Later => None,
        }
    }
}

impl Firing {
    /// One that does nothing yet.
    #[must_use]
    pub const fn new(db: DatabaseConnection, options: FiringOptions, metrics: Metrics) -> Self {
        Self { db, options, metrics }
    }

    /// Fires until told to stop.
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async {
            let mut failed = Duration::ZERO;
            loop {
                let wait = match self.fire_due().await {
                    Ok(wait) => {
                        failed = Duration::ZERO;
                        wait
                    }
                    Err(error) => {
                        failed = (failed * 2).clamp(Duration::from_millis(200), Duration::from_secs(10));
                        tracing::warn!(error = chain(&error), "due schedules wait: they can't be fired");
                        failed
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        // Dropped in the middle of a transaction: that one is rolled back.
        shutdown.run_until_cancelled(work).await;
    }

    /// Fires all that is due; answers how long to wait before looking again.
    async fn fire_due(&self) -> Result<Duration, DbErr> {
        loop {
            let Some(next) = store::next_fire(&self.db).await? else {
                return Ok(self.options.poll);
            };
            if next > Duration::ZERO {
                return Ok(next.clamp(SHORTEST, self.options.poll.max(SHORTEST)));
            }
            if self.fire_batch().await? == 0 {
                return Ok(TAKEN.min(self.options.poll));
            }
        }
    }

    /// One transaction; answers how many schedules it moved on.
    async fn fire_batch(&self) -> Result<usize, DbErr> {
        let tx = store::bounded(self.db.begin()).await?;
        let due = store::due_schedules(&tx, self.options.batch).await?;
        let mut outcomes = Vec::with_capacity(due.len());
        for schedule in due {
            outcomes.extend(fire(&tx, schedule).await?.outcome());
        }
        store::bounded(tx.commit()).await?;
        for outcome in &outcomes {
            self.metrics.schedule_fires.with_label_values(&[outcome]).inc();
        }
        Ok(outcomes.len())
    }
}

/// Fires a schedule whose row is locked, once for all the moments that have passed.
async fn fire(tx: &DatabaseTransaction, due: DueSchedule) -> Result<Fired, DbErr> {
    let calendar = match Calendar::new(&due.cron, &due.time_zone) {
        Ok(calendar) => calendar,
        Err(error) => {
            // It was checked when it was put: another version of the time zones or of the expressions' rules.
            tracing::error!(schedule_id = %due.id, error = chain(&error), "a schedule fires no more");
            store::move_schedule(tx, due.id, None).await?;
            return Ok(Fired::Broken);
        }
    };
    if let Some(key) = &due.serial_key
        && !store::try_lock_key(tx, key).await?
    {
        // To wait here would hold up the other schedules, or deadlock with a process that took keys in another order.
        return Ok(Fired::Later);
    }
    let moment = calendar.latest(due.fire_at, due.now);
    let fired = if !store::record_fire(tx, due.id, moment).await? {
        Fired::Again
    } else if let Some(key) = &due.serial_key
        && let Some(operation_id) = store::busy_with(tx, key).await?
    {
        tracing::info!(schedule_id = %due.id, name = due.name, %moment, %operation_id,
            "a schedule's moment passes: an operation with its serial key is not over");
        Fired::Busy
    } else {
        enqueue(tx, &due, moment).await?;
        Fired::Enqueued
    };
    store::move_schedule(tx, due.id, calendar.next_after(due.now)).await?;
    Ok(fired)
}

async fn enqueue(tx: &DatabaseTransaction, due: &DueSchedule, moment: DateTime<Utc>) -> Result<(), DbErr> {
    let operation = enqueue::insert(
        tx,
        Work {
            id: Uuid::now_v7(),
            kind: &due.kind,
            version: due.version,
            input: due.input.clone(),
            scope: due.scope,
            target_type: &due.target_type,
            target_id: due.target_id,
            serial_key: due.serial_key.as_deref(),
            request_id: None,
            run_at: run_at(moment, jitter(due.id, due.jitter_seconds), due.now),
            priority: Priority::Scheduled,
        },
    )
    .await?;
    store::note_fired(tx, due.id, moment, operation.id).await?;
    tracing::info!(schedule_id = %due.id, name = due.name, %moment, operation_id = %operation.id, "a schedule fired");
    Ok(())
}

/// How much later than its moments a schedule's operations run: always the same, and evenly spread over schedules, since
/// the last bits of their ids are random.
fn jitter(id: Uuid, most: i32) -> TimeDelta {
    let most = u64::try_from(most).unwrap_or(0);
    let (_, random) = id.as_u64_pair();
    TimeDelta::seconds(i64::try_from(random % (most + 1)).unwrap_or(0))
}

/// When an operation may run; none: at once. One whose time has passed was missed, and is spread again from now on:
/// after an outage all of a night's work is due together.
fn run_at(moment: DateTime<Utc>, jitter: TimeDelta, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let planned = moment + jitter;
    let at = if planned > now { planned } else { now + jitter };
    (at > now).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_s_jitter_is_its_own_and_many_spread_evenly() {
        let most = 599;
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let id = Uuid::now_v7();
            let delay = jitter(id, most);
            assert_eq!(delay, jitter(id, most));
            tenths[usize::try_from(delay.num_seconds() / 60).unwrap()] += 1;
        }
        assert!(
            tenths.iter().all(|count| (700..1300).contains(count)),
            "{tenths:?}"
        );
        assert_eq!(jitter(Uuid::max(), 0), TimeDelta::zero());
    }

    #[test]
    fn what_was_missed_is_spread_from_now_on() {
        let moment: DateTime<Utc> = "2027-01-10T01:30:00Z".parse().unwrap();
        let delay = TimeDelta::minutes(20);
        let just_after = moment + TimeDelta::milliseconds(3);
        assert_eq!(run_at(moment, delay, just_after), Some(moment + delay));
        assert_eq!(run_at(moment, TimeDelta::zero(), just_after), None);
        let much_later = moment + TimeDelta::hours(5);
        assert_eq!(run_at(moment, delay, much_later), Some(much_later + delay));
    }
}
