//! One at a time for a key, and many at a time without.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use jobs::{
    EnqueueError, NewOperation, WhenBusy,
    entity::{
        job::JobState,
        operation::{self, OperationStatus},
    },
};
use sea_orm::TransactionTrait;
use uuid::Uuid;

use crate::{
    kinds::{Act, Demolition, Trip},
    support::Stage,
};

fn keyed(when_busy: WhenBusy) -> NewOperation<Trip> {
    NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil()).serial("tenant:1", when_busy)
}

async fn attempt(stage: &Stage, new: NewOperation<Trip>) -> Result<operation::Model, EnqueueError> {
    let tx = stage.db.begin().await.unwrap();
    let enqueued = jobs::enqueue(&tx, new).await;
    tx.commit().await.unwrap();
    enqueued
}

#[tokio::test]
async fn while_one_is_not_over_another_is_refused_and_told_which() {
    let stage = Stage::new().await;
    let first = stage.enqueue(keyed(WhenBusy::Refuse)).await.id;
    let refused = attempt(&stage, keyed(WhenBusy::Refuse)).await;
    assert!(matches!(refused, Err(EnqueueError::Busy { operation_id }) if operation_id == first));
    assert_eq!(stage.count("operations").await, 1);
    let parts = [stage.relay(), stage.worker()];
    stage.settled(first).await;
    let second = stage.enqueue(keyed(WhenBusy::Refuse)).await.id;
    assert_eq!(stage.settled(second).await.status, OperationStatus::Succeeded);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn of_two_enqueued_at_the_same_time_one_is_refused() {
    let stage = Stage::new().await;
    for _ in 0..10 {
        let key = Uuid::now_v7().to_string();
        let new = || {
            NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil())
                .serial(&*key, WhenBusy::Refuse)
        };
        let (one, other) = tokio::join!(attempt(&stage, new()), attempt(&stage, new()));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
    stage.end().await;
}

#[tokio::test]
async fn a_deletion_cancels_what_runs_waits_for_its_end_and_then_runs() {
    let stage = Stage::new().await;
    // No sweeper: the end of the first wakes the second.
    let parts = [stage.relay(), stage.worker(), stage.worker()];
    stage.world.order("b", [Act::Hang]);
    let running = stage.enqueue(keyed(WhenBusy::Refuse)).await.id;
    stage.world.until("b").await;
    let deletion = NewOperation::new(Demolition {}, Uuid::nil(), "tenant", Uuid::nil());
    let deletion = stage
        .enqueue(deletion.serial("tenant:1", WhenBusy::Wait))
        .await
        .id;
    stage
        .job_until(deletion, "blocked", |job| job.state == JobState::Blocked)
        .await;
    stage.cancel(running).await.unwrap();
    assert_eq!(stage.settled(running).await.status, OperationStatus::Cancelled);
    assert_eq!(stage.settled(deletion).await.status, OperationStatus::Succeeded);
    let diary = stage.world.diary();
    assert_eq!(
        diary,
        [
            "a",
            "b",
            "b stopped",
            "undo b",
            "undo a",
            "drill",
            "blast",
            "sweep"
        ]
    );
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn the_key_is_held_while_its_holder_waits_for_a_retry() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage
        .world
        .order("b", [Act::RetryAfter(Duration::from_millis(500)), Act::Permanent]);
    stage
        .world
        .order("undo a", [Act::RetryAfter(Duration::from_millis(500))]);
    let first = stage.enqueue(keyed(WhenBusy::Wait)).await.id;
    stage.world.until("b").await;
    let second = stage.enqueue(keyed(WhenBusy::Wait)).await.id;
    let third = stage.enqueue(keyed(WhenBusy::Wait)).await.id;
    assert_eq!(stage.settled(second).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.operation(first).await.status, OperationStatus::Failed);
    assert_eq!(stage.settled(third).await.status, OperationStatus::Succeeded);
    let diary = stage.world.diary().join(" ");
    assert_eq!(diary, "a b b undo b undo a undo a a b c a b c");
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn those_that_wait_for_a_key_run_in_the_order_they_came() {
    let stage = Stage::new().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(stage.enqueue(keyed(WhenBusy::Wait)).await.id);
    }
    let parts = [stage.relay(), stage.worker(), stage.worker()];
    stage.settled(ids[11]).await;
    let ended: Vec<_> = stage
        .world
        .outcomes
        .lock()
        .unwrap()
        .iter()
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(ended, ids);
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_waiter_can_be_cancelled_and_those_behind_it_still_run() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.worker()];
    stage.world.order("a", [Act::Sleep(Duration::from_millis(400))]);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(stage.enqueue(keyed(WhenBusy::Wait)).await.id);
    }
    stage
        .job_until(ids[1], "blocked", |job| job.state == JobState::Blocked)
        .await;
    assert_eq!(
        stage.cancel(ids[1]).await.unwrap().status,
        OperationStatus::Cancelled
    );
    assert_eq!(stage.settled(ids[2]).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.world.diary(), ["a", "b", "c", "a", "b", "c"]);
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_racing_for_200_jobs_run_no_step_twice_and_no_key_at_once() {
    let stage = Stage::new().await;
    let mut ids = Vec::new();
    let begun = Instant::now();
    for number in 0..200 {
        let new = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::now_v7());
        // Every fourth shares a key with nine others.
        let new = if number % 4 == 0 {
            new.serial(format!("key:{}", number % 20), WhenBusy::Wait)
        } else {
            new
        };
        ids.push(stage.enqueue(new).await.id);
    }
    let enqueued = begun.elapsed();
    let parts = [stage.relay(), stage.sweeper(), stage.worker(), stage.worker()];
    for id in &ids {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    println!(
        "200 enqueued in {enqueued:?}, run in {:?}",
        begun.elapsed() - enqueued
    );
    let begun = stage.world.begun.lock().unwrap().clone();
    assert_eq!(begun.len(), 600);
    assert_eq!(begun.iter().collect::<HashSet<_>>().len(), 600);
    assert_eq!(stage.count("effects").await, 200);
    assert_eq!(stage.count("jobs WHERE lease_epoch <> 1").await, 0);
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}
