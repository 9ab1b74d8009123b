//! Workers that die, hang, wake late or must leave.

use std::{collections::HashSet, time::Duration};

use jobs::{
    Outcome,
    entity::{job::JobState, operation::OperationStatus},
};
use sea_orm::ConnectionTrait;

use crate::{
    kinds::Act,
    support::{LEASE, PATIENCE, Stage},
};

#[tokio::test]
async fn a_killed_worker_s_job_goes_on_at_the_step_it_had_persisted() {
    let stage = Stage::new().await;
    let (relay, sweeper) = (stage.relay(), stage.sweeper());
    stage.world.order("a", [Act::Remember(1)]);
    stage.world.order("b", [Act::HangDeaf]);
    let doomed = stage.mortal();
    let id = stage.trip().await;
    stage.world.until("b").await;
    doomed.kill();
    let heir = stage.worker();
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert_eq!(operation.attempt, 2);
    assert_eq!(stage.world.diary(), ["a", "b", "b", "c"]);
    assert_eq!(stage.job(id).await.lease_epoch, 2);
    stage.assert_quiet().await;
    for part in [heir, relay, sweeper] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_stopped_worker_that_wakes_late_can_write_nothing() {
    let stage = Stage::new().await;
    let (relay, sweeper) = (stage.relay(), stage.sweeper());
    stage.world.order("b", [Act::Freeze(LEASE * 4)]);
    let frozen = stage.mortal();
    let id = stage.trip().await;
    stage.world.until("b").await;
    let thief = stage.worker();
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    stage.world.until("b writes").await;
    // Give it time to do harm.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.world.diary()[..5], ["a", "b", "b", "c", "b writes"]);
    assert_eq!(
        stage.count("effects").await,
        1,
        "the successor's end, and nothing late"
    );
    assert_eq!(stage.operation(id).await, operation);
    stage.assert_quiet().await;
    frozen.kill();
    for part in [thief, relay, sweeper] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_dead_epoch_commits_nothing_even_before_it_knows() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    let options = jobs::WorkerOptions {
        lease: PATIENCE,
        ..stage.options()
    };
    let worker = stage.worker_with(stage.registry(), options);
    stage.world.order("b", [Act::Write(Duration::from_millis(300))]);
    let id = stage.trip().await;
    stage.world.until("b").await;
    let theft = format!("UPDATE jobs SET lease_epoch = lease_epoch + 1 WHERE operation_id = '{id}'");
    stage.db.execute_unprepared(&theft).await.unwrap();
    let stolen = stage.operation(id).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    worker.end().await;
    assert_eq!(stage.world.diary(), ["a", "b", "b writes"]);
    assert_eq!(stage.count("effects").await, 0);
    assert_eq!(stage.operation(id).await, stolen);
    assert_eq!(stage.steps(id).await, ["a Done 1"]);
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_undone_in_the_end() {
    let stage = Stage::new().await;
    let (relay, sweeper) = (stage.relay(), stage.sweeper());
    // Three attempts are the kind's bound, and the first claim persisted a step.
    stage.world.order("b", vec![Act::HangDeaf; 4]);
    let id = stage.trip().await;
    for died in 1..=4 {
        let doomed = stage.mortal();
        let begun = || stage.world.diary().iter().filter(|line| *line == "b").count();
        while begun() < died {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        doomed.kill();
    }
    let worker = stage.worker();
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    assert_eq!(operation.error_code.as_deref(), Some("gave_up"));
    assert_eq!(stage.world.diary(), ["a", "b", "b", "b", "b", "undo b", "undo a"]);
    assert_eq!(stage.job(id).await.state, JobState::Finished);
    assert!(matches!(
        stage.world.outcomes.lock().unwrap()[..],
        [(_, Outcome::Failed(_))]
    ));
    for part in [worker, relay, sweeper] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_cancelled_job_whose_worker_died_undoes_the_step_that_may_have_begun() {
    let stage = Stage::new().await;
    let (relay, sweeper) = (stage.relay(), stage.sweeper());
    stage.world.order("b", [Act::HangDeaf]);
    let doomed = stage.mortal();
    let id = stage.trip().await;
    stage.world.until("b").await;
    doomed.kill();
    stage.cancel(id).await.unwrap();
    let worker = stage.worker();
    assert_eq!(stage.settled(id).await.status, OperationStatus::Cancelled);
    assert_eq!(stage.world.diary(), ["a", "b", "undo b", "undo a"]);
    for part in [worker, relay, sweeper] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_worker_that_leaves_releases_its_jobs_without_charging_them() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    // One listens to its token, the other must be dropped; no sweeper is needed to go on with either.
    for act in [Act::Hang, Act::HangDeaf] {
        let leaving = stage.worker();
        stage.world.order("a", [act]);
        let id = stage.trip().await;
        stage
            .job_until(id, "leased", |job| job.state == JobState::Leased)
            .await;
        while stage
            .world
            .begun
            .lock()
            .unwrap()
            .iter()
            .all(|(operation, ..)| *operation != id)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        leaving.end().await;
        let job = stage.job(id).await;
        assert_eq!(
            (job.state, job.attempts, job.lease_epoch),
            (JobState::Ready, 0, 1)
        );
        let heir = stage.worker();
        assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
        stage.assert_quiet().await;
        heir.end().await;
    }
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn broken_connections_to_postgres_lose_nothing() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    for _ in 0..200 {
        stage.world.order("b", [Act::Sleep(Duration::from_millis(20))]);
    }
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(stage.trip().await);
    }
    for _ in 0..8 {
        stage.break_connections().await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    for id in &ids {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.count("effects").await, 60, "each ended once");
    let begun = stage.world.begun.lock().unwrap().clone();
    assert_eq!(
        begun.iter().collect::<HashSet<_>>().len(),
        begun.len(),
        "no step twice at one epoch"
    );
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_long_step_keeps_its_lease() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker(), stage.worker()];
    stage.world.order("b", [Act::Sleep(LEASE * 3)]);
    let id = stage.trip().await;
    let operation = stage.settled(id).await;
    assert_eq!(
        (operation.status, operation.attempt),
        (OperationStatus::Succeeded, 1)
    );
    assert_eq!(stage.world.diary(), ["a", "b", "c"]);
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}
