//! Kinds whose steps do what the test tells them to, and note it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use jobs::{
    JobContext, OperationInput, OperationKind, Outcome, RetryPolicy, Step, StepContext, StepError, StepResult,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::support::PATIENCE;

/// What a step does instead of succeeding.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Retry,
    RetryAfter(Duration),
    Permanent,
    Panic,
    Remember(i32),
    /// Until the token fires.
    Hang,
    /// Whatever the token says.
    HangDeaf,
    /// Holds up the whole runtime, as a stopped process would.
    Freeze(Duration),
    Sleep(Duration),
    /// A fenced write after a while.
    Write(Duration),
    Pass,
}

/// What the test's steps share: their orders, and what they did.
#[derive(Default)]
pub(crate) struct World {
    orders: Mutex<HashMap<String, VecDeque<Act>>>,
    diary: Mutex<Vec<String>>,
    /// (operation, step, epoch) of every begun `apply`.
    pub(crate) begun: Mutex<Vec<(Uuid, &'static str, i64)>>,
    pub(crate) outcomes: Mutex<Vec<(Uuid, Outcome)>>,
    pub(crate) fail_finish: Mutex<u32>,
}

impl World {
    pub(crate) fn order(&self, step: &str, acts: impl IntoIterator<Item = Act>) {
        self.orders
            .lock()
            .unwrap()
            .entry(step.to_owned())
            .or_default()
            .extend(acts);
    }

    pub(crate) fn diary(&self) -> Vec<String> {
        self.diary.lock().unwrap().clone()
    }

    pub(crate) fn note(&self, line: impl Into<String>) {
        self.diary.lock().unwrap().push(line.into());
    }

    fn next(&self, step: &str) -> Act {
        let mut orders = self.orders.lock().unwrap();
        orders
            .get_mut(step)
            .and_then(VecDeque::pop_front)
            .unwrap_or(Act::Pass)
    }

    pub(crate) async fn until(&self, line: &str) {
        let found = async {
            while !self.diary().iter().any(|entry| entry == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, found).await;
        assert!(waited.is_ok(), "never saw `{line}` in {:?}", self.diary());
    }
}

async fn perform<K: OperationKind<World = World>>(
    cx: &StepContext<K>,
    step: &'static str,
    undo: bool,
) -> StepResult {
    let name = if undo {
        format!("undo {step}")
    } else {
        step.to_owned()
    };
    if !undo {
        cx.world()
            .begun
            .lock()
            .unwrap()
            .push((cx.operation_id(), step, cx.epoch()));
    }
    let act = cx.world().next(&name);
    cx.world().note(&name);
    match act {
        Act::Pass => Ok(()),
        Act::Retry => Err(StepError::retry("not_yet", "Not yet.").detailed("secret host")),
        Act::RetryAfter(wait) => Err(StepError::retry("not_yet", "Not yet.").after(wait)),
        Act::Permanent => Err(StepError::permanent("never", "It can't be done.").detailed("secret host")),
        Act::Panic => panic!("ordered to"),
        Act::Remember(number) => cx.remember(&number),
        Act::Sleep(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Act::Hang => {
            cx.token().cancelled().await;
            cx.world().note(format!("{name} stopped"));
            Err(StepError::Stopped)
        }
        Act::HangDeaf => {
            tokio::time::sleep(PATIENCE * 3).await;
            Ok(())
        }
        Act::Freeze(time) => {
            std::thread::sleep(time);
            write(cx, &name).await
        }
        Act::Write(wait) => {
            tokio::time::sleep(wait).await;
            write(cx, &name).await
        }
    }
}

async fn write<K: OperationKind<World = World>>(cx: &StepContext<K>, name: &str) -> StepResult {
    cx.world().note(format!("{name} writes"));
    let tx = cx.begin().await?;
    tx.execute_unprepared("INSERT INTO effects VALUES ('late')")
        .await?;
    tx.commit().await
}

pub(crate) struct Doer(&'static str, Duration);

#[async_trait]
impl<K: OperationKind<World = World>> Step<K> for Doer {
    fn name(&self) -> &'static str {
        self.0
    }

    fn deadline(&self) -> Duration {
        self.1
    }

    async fn apply(&self, cx: &StepContext<K>) -> StepResult {
        perform(cx, self.0, false).await
    }

    async fn undo(&self, cx: &StepContext<K>) -> StepResult {
        perform(cx, self.0, true).await
    }
}

async fn finish<K: OperationKind<World = World>>(
    tx: &DatabaseTransaction,
    cx: &JobContext<K>,
    outcome: &Outcome,
) -> Result<(), StepError> {
    {
        let mut failures = cx.world().fail_finish.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(StepError::retry("not_yet", "Not yet."));
        }
    }
    tx.execute_unprepared("INSERT INTO effects VALUES ('finish')")
        .await?;
    cx.world()
        .outcomes
        .lock()
        .unwrap()
        .push((cx.operation_id(), outcome.clone()));
    Ok(())
}

const FAST: RetryPolicy = RetryPolicy {
    first: Duration::from_millis(10),
    most: Duration::from_millis(40),
    factor: 2.0,
    attempts: 3,
};

/// Three steps that can all be undone.
#[derive(Serialize, Deserialize, Default, Clone)]
pub(crate) struct Trip {
    pub(crate) note: String,
}

impl OperationInput for Trip {
    const KIND: &'static str = "trip";
}

pub(crate) struct TripKind;

#[async_trait]
impl OperationKind for TripKind {
    type Input = Trip;
    type World = World;
    const RETRY: RetryPolicy = FAST;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        let deadline = Duration::from_secs(60);
        vec![
            Box::new(Doer("a", deadline)),
            Box::new(Doer("b", deadline)),
            Box::new(Doer("c", deadline)),
        ]
    }

    async fn on_finish(
        tx: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        finish(tx, cx, outcome).await
    }
}

/// What the next binary makes of a trip: the same kind, of another version.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct LongerTrip {}

impl OperationInput for LongerTrip {
    const KIND: &'static str = Trip::KIND;
    const VERSION: i32 = 2;
}

pub(crate) struct LongerTripKind;

#[async_trait]
impl OperationKind for LongerTripKind {
    type Input = LongerTrip;
    type World = World;
    const RETRY: RetryPolicy = FAST;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        let deadline = Duration::from_secs(60);
        ["a", "b", "b2", "c"]
            .map(|name| Box::new(Doer(name, deadline)) as Box<dyn Step<Self>>)
            .into()
    }
}

/// Two steps that write in a table what they do, and under which epoch.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Errand {}

impl OperationInput for Errand {
    const KIND: &'static str = "errand";
}

pub(crate) struct ErrandKind;

struct Recorder(Doer);

#[async_trait]
impl Step<ErrandKind> for Recorder {
    fn name(&self) -> &'static str {
        self.0.0
    }

    async fn apply(&self, cx: &StepContext<ErrandKind>) -> StepResult {
        self.0.apply(cx).await?;
        let tx = cx.begin().await?;
        let entry = format!(
            "INSERT INTO ledger VALUES ('{}', '{}', {})",
            cx.operation_id(),
            self.0.0,
            cx.epoch()
        );
        tx.execute_unprepared(&entry).await?;
        tx.commit().await
    }

    async fn undo(&self, cx: &StepContext<ErrandKind>) -> StepResult {
        self.0.undo(cx).await
    }
}

#[async_trait]
impl OperationKind for ErrandKind {
    type Input = Errand;
    type World = World;
    const RETRY: RetryPolicy = FAST;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        let deadline = Duration::from_secs(60);
        ["fetch", "carry"]
            .map(|name| Box::new(Recorder(Doer(name, deadline))) as Box<dyn Step<Self>>)
            .into()
    }
}

/// Its second step can't be undone.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Demolition {}

impl OperationInput for Demolition {
    const KIND: &'static str = "demolition";
    const VERSION: i32 = 2;
}

pub(crate) struct DemolitionKind;

#[async_trait]
impl OperationKind for DemolitionKind {
    type Input = Demolition;
    type World = World;
    const PIVOT: Option<&'static str> = Some("blast");
    const RETRY: RetryPolicy = FAST;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        let deadline = Duration::from_millis(700);
        vec![
            Box::new(Doer("drill", deadline)),
            Box::new(Doer("blast", deadline)),
            Box::new(Doer("sweep", deadline)),
        ]
    }

    async fn on_finish(
        tx: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        finish(tx, cx, outcome).await
    }
}
