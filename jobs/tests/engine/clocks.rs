//! A process's clock and Postgres's need not agree: only Postgres's counts. (`jobs/clippy.toml` keeps the other one out of
//! the engine's code.)

use std::time::Duration;

use jobs::{
    NewOperation, WhenBusy,
    entity::operation::OperationStatus,
    schedule::{Firing, FiringOptions, Schedule, put},
};
use sea_orm::{ConnectionTrait, TransactionTrait};
use uuid::Uuid;

use crate::{
    kinds::{Act, Trip},
    support::{Running, Stage},
};

/// Everything that time decides: a retry's wait, a lease that ends, a start that is planned, a schedule.
async fn everything_that_waits_comes_in_time(hours: i32) {
    let stage = Stage::with_clock(hours).await;
    let apart = "(SELECT 1 WHERE abs(extract(epoch FROM now() - pg_catalog.now())) > 3000) AS apart";
    assert_eq!(stage.count(apart).await, 1);
    let options = FiringOptions {
        poll: Duration::from_millis(200),
        ..FiringOptions::default()
    };
    let firing = Firing::new(stage.db.clone(), options, stage.metrics.clone());
    let parts = [
        stage.relay(),
        stage.sweeper(),
        Running::spawn(|stop| async move { firing.run(stop).await }),
    ];

    // A step that fails, and a worker that dies.
    stage.world.order("a", [Act::Retry]);
    stage.world.order("b", [Act::HangDeaf]);
    let doomed = stage.mortal();
    let id = stage.trip().await;
    stage.world.until("b").await;
    doomed.kill();
    let worker = stage.worker();
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.world.diary(), ["a", "a", "b", "b", "c"]);

    // One for later; and not at once.
    let at = stage.clock().await + Duration::from_millis(500);
    let later = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil()).run_at(at);
    let later = stage.enqueue(later).await.id;
    assert!(stage.settled(later).await.started_at.unwrap() >= at);

    // The next minute by Postgres's clock.
    let tx = stage.db.begin().await.unwrap();
    let every = Schedule::new("* * * * *", Trip::default(), Uuid::nil(), "tenant", Uuid::nil());
    let every = put(&tx, every).await.unwrap();
    tx.commit().await.unwrap();
    let next = every.next_fire_at.unwrap() - stage.clock().await;
    assert!(
        (-5..=60).contains(&next.num_seconds()),
        "{hours} h apart, the next minute is {next} away"
    );
    let due = "UPDATE schedules SET next_fire_at = clock_timestamp() + interval '300 ms'";
    stage.db.execute_unprepared(due).await.unwrap();
    stage
        .until("fired", async || stage.count("schedule_fires").await > 0)
        .await;
    for part in parts.into_iter().chain([worker]) {
        part.end().await;
    }
    stage.end().await;
}

/// Ids are made by the processes, and tell their time.
#[tokio::test]
async fn those_that_wait_for_a_key_run_in_the_order_they_came_whatever_their_processes_clocks_say() {
    let stage = Stage::new().await;
    let mut ids: Vec<_> = (0..5).map(|_| Uuid::now_v7()).collect();
    ids.reverse();
    for id in &ids {
        let new = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil()).id(*id);
        stage.enqueue(new.serial("tenant:1", WhenBusy::Wait)).await;
    }
    let parts = [stage.relay(), stage.worker(), stage.worker()];
    for id in &ids {
        stage.settled(*id).await;
    }
    let outcomes = stage.world.outcomes.lock().unwrap().clone();
    let ended: Vec<_> = outcomes.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ended, ids);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_postgres_whose_clock_is_an_hour_ahead_of_the_processes_changes_nothing() {
    everything_that_waits_comes_in_time(1).await;
}

#[tokio::test]
async fn a_postgres_whose_clock_is_an_hour_behind_the_processes_changes_nothing() {
    everything_that_waits_comes_in_time(-1).await;
}
