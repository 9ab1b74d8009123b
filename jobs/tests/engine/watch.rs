//! Those who wait for an operation.

use std::time::Duration;

use jobs::{
    Bell, NewOperation, Watcher, WatcherOptions, delete_finished, entity::operation::OperationStatus,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    kinds::{Act, Trip},
    support::{PATIENCE, Stage},
};

#[tokio::test]
async fn a_waiter_hears_of_each_change_and_of_the_end() {
    let stage = Stage::new().await;
    let (watcher, watching) = stage.watcher();
    let parts = [stage.relay(), stage.worker(), watching];
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.world.order("b", [Act::Sleep(Duration::from_millis(300))]);
    let queued = stage
        .enqueue(NewOperation::new(
            Trip::default(),
            Uuid::nil(),
            "tenant",
            Uuid::nil(),
        ))
        .await;
    let deadline = Instant::now() + PATIENCE;
    let mut revision = queued.revision;
    let mut changes = 0;
    let settled = watcher.settled(queued.id, deadline);
    let follow = async {
        while !stage.operation(queued.id).await.status.is_terminal() {
            revision = watcher
                .changed(queued.id, revision, deadline)
                .await
                .unwrap()
                .expect("a change");
            changes += 1;
        }
    };
    let (settled, ()) = tokio::join!(settled, follow);
    assert_eq!(settled.unwrap().unwrap().status, OperationStatus::Succeeded);
    assert!(changes >= 2, "{changes}");
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn without_redis_a_waiter_looks_for_itself() {
    let stage = Stage::new().await;
    let away = Bell::open("redis://127.0.0.1:1/", &stage.prefix).unwrap();
    let watcher = Watcher::new(stage.db.clone(), away, WatcherOptions::default());
    let parts = [stage.relay(), stage.worker()];
    let id = stage.trip().await;
    let settled = watcher
        .settled(id, Instant::now() + PATIENCE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(settled.status, OperationStatus::Succeeded);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline_and_one_for_nothing_at_once() {
    let stage = Stage::new().await;
    let (watcher, watching) = stage.watcher();
    let id = stage.trip().await;
    let soon = || Instant::now() + Duration::from_millis(150);
    let waited = watcher.settled(id, soon()).await.unwrap().unwrap();
    assert_eq!(waited.status, OperationStatus::Queued);
    assert_eq!(watcher.changed(id, waited.revision, soon()).await.unwrap(), None);
    assert_eq!(
        watcher
            .settled(Uuid::now_v7(), Instant::now() + PATIENCE)
            .await
            .unwrap(),
        None
    );
    watching.end().await;
    stage.end().await;
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_and_nothing_else() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.worker()];
    let done = stage.trip().await;
    stage.settled(done).await;
    for part in parts {
        part.end().await;
    }
    let queued = stage.trip().await;
    let minute = Duration::from_secs(60);
    assert_eq!(delete_finished(&stage.db, minute, 10).await.unwrap(), 0);
    assert_eq!(delete_finished(&stage.db, Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(
        (stage.count("operations").await, stage.count("job_steps").await),
        (1, 0)
    );
    assert_eq!(stage.operation(queued).await.status, OperationStatus::Queued);
    stage.end().await;
}
