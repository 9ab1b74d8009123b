//! Operations that are enqueued by the clock: nightly work, and what customers planned.
//!
//! A schedule names an operation to be and the moments at which it is enqueued. [`Firing`] does so in every process that
//! always runs; `(schedule, moment)` is a key of its table, so that each moment is fired by one of them, once.

mod calendar;
mod firing;

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use uuid::Uuid;

pub use self::{
    calendar::{Calendar, CalendarError},
    firing::{Firing, FiringOptions},
};
use crate::{
    entity::schedule,
    kind::OperationInput,
    store::{self, PutSchedule},
};

/// No schedule spreads its work over more than this.
pub const MOST_JITTER: Duration = Duration::from_hours(24);

/// A schedule to be.
#[derive(Clone, Debug)]
pub struct Schedule<I> {
    /// A UUIDv7 of the caller's; one is made otherwise.
    pub id: Option<Uuid>,
    /// Of the platform's own schedules: one of a name exists, and [`put`] finds it by that.
    pub name: Option<String>,
    /// Names the operation's kind and its version too.
    pub input: I,
    /// Whose the operations are.
    pub scope: Uuid,
    /// What they work on, e.g. `tenant`.
    pub target_type: String,
    /// Which one.
    pub target_id: Uuid,
    /// One at a time for this key: a moment at which another operation of the key is not over passes without one.
    pub serial_key: Option<String>,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// In which the expression is read, e.g. `Europe/Brussels`.
    pub time_zone: String,
    /// Each operation runs up to so much later, always as much for one schedule: many of the same moment don't all begin
    /// at once. Whole seconds, at most [`MOST_JITTER`].
    pub jitter: Duration,
    /// Fires nothing otherwise, nor makes up for it later.
    pub enabled: bool,
}

impl<I: OperationInput> Schedule<I> {
    /// Operations on a target at moments in UTC, beside any other.
    pub fn new(
        cron: impl Into<String>,
        input: I,
        scope: Uuid,
        target_type: impl Into<String>,
        target_id: Uuid,
    ) -> Self {
        Self {
            id: None,
            name: None,
            input,
            scope,
            target_type: target_type.into(),
            target_id,
            serial_key: None,
            cron: cron.into(),
            time_zone: "UTC".to_owned(),
            jitter: Duration::ZERO,
            enabled: true,
        }
    }

    /// With an id of the caller's.
    #[must_use]
    pub const fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// The only one of this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// One at a time for this key.
    #[must_use]
    pub fn serial_key(mut self, key: impl Into<String>) -> Self {
        self.serial_key = Some(key.into());
        self
    }

    /// Read in this time zone.
    #[must_use]
    pub fn time_zone(mut self, name: impl Into<String>) -> Self {
        self.time_zone = name.into();
        self
    }

    /// Spread over so much time.
    #[must_use]
    pub const fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Whether it fires.
    #[must_use]
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

/// Why a schedule was not kept.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// Its expression or its time zone makes no sense.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// Its work would be spread over more than [`MOST_JITTER`].
    #[error("a schedule's work is spread over a day at most, not over {} s", .0.as_secs())]
    Jitter(Duration),
    /// The input can't be written as JSON.
    #[error("the schedule's input can't be written as JSON")]
    Input(#[source] serde_json::Error),
    /// The database's own.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Keeps a schedule within the caller's transaction: the one of the same name, or else of the same id, becomes this, or a
/// new one is made.
///
/// When its moments change, or it is enabled again, it next fires at the first of them from now on. Otherwise a moment
/// that has come and was not fired yet still is: a process may put its own schedules at each start.
///
/// # Errors
/// See [`ScheduleError`].
pub async fn put<I: OperationInput>(
    tx: &DatabaseTransaction,
    new: Schedule<I>,
) -> Result<schedule::Model, ScheduleError> {
    let calendar = Calendar::new(&new.cron, &new.time_zone)?;
    if new.jitter > MOST_JITTER {
        return Err(ScheduleError::Jitter(new.jitter));
    }
    let jitter_seconds =
        i32::try_from(new.jitter.as_secs()).map_err(|_| ScheduleError::Jitter(new.jitter))?;
    let input = serde_json::to_value(&new.input).map_err(ScheduleError::Input)?;
    let next_fire_at = if new.enabled {
        calendar.next_after(store::now(tx).await?)
    } else {
        None
    };
    let put = PutSchedule {
        id: new.id.unwrap_or_else(Uuid::now_v7),
        name: new.name,
        kind: I::KIND,
        version: I::VERSION,
        input,
        scope: new.scope,
        target_type: new.target_type,
        target_id: new.target_id,
        serial_key: new.serial_key,
        cron: new.cron,
        time_zone: new.time_zone,
        jitter_seconds,
        enabled: new.enabled,
        next_fire_at,
    };
    Ok(store::put_schedule(tx, put).await?)
}

/// Forgets a schedule and what it fired, within the caller's transaction; operations that it enqueued go on. False: there
/// was none.
///
/// # Errors
/// The database's own.
pub async fn remove(tx: &DatabaseTransaction, id: Uuid) -> Result<bool, DbErr> {
    store::remove_schedule(tx, id).await
}

/// Deletes at most `limit` records of moments that were fired longer ago than `age`, by Postgres's clock, and says how
/// many. Call it until it answers less than `limit`.
///
/// # Errors
/// The database's own.
pub async fn delete_fires(db: &impl ConnectionTrait, age: Duration, limit: u32) -> Result<u64, DbErr> {
    store::delete_fires(db, age, limit).await
}
