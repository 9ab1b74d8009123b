//! Redis loses, repeats, forgets and goes away; and entries that nobody here can use.

use std::{sync::Arc, time::Duration};

use jobs::{
    Bell, NewOperation, Registry, Relay, RelayOptions,
    entity::{job::JobState, operation::OperationStatus},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    kinds::{Act, Demolition, DemolitionKind, TripKind},
    support::{LEASE, Stage},
};

async fn command(stage: &Stage, words: &[&str]) -> redis::Value {
    let mut redis = stage.redis.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async(&mut redis).await.unwrap()
}

#[tokio::test]
async fn entries_that_come_twice_or_make_no_sense_do_no_harm() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    let id = stage.trip().await;
    let (stream, text) = (stage.stream(), id.to_string());
    for _ in 0..3 {
        command(&stage, &["XADD", &stream, "*", "op", &text]).await;
    }
    command(&stage, &["XADD", &stream, "*", "op", "nonsense"]).await;
    command(&stage, &["XADD", &stream, "*", "other", "field"]).await;
    command(&stage, &["XADD", &stream, "*", "op", &Uuid::now_v7().to_string()]).await;
    stage.world.order("b", [Act::Sleep(Duration::from_millis(200))]);
    let workers = [stage.worker(), stage.worker()];
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    stage.assert_quiet().await;
    assert_eq!(stage.world.diary(), ["a", "b", "c"]);
    for part in workers.into_iter().chain([relay]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_wiped_redis_loses_nothing() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    let queued = [stage.trip().await, stage.trip().await];
    while stage.count("outbox").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // No worker yet: the entries are in the stream, and must be there again after the wipe, or nothing wakes one.
    stage.wipe_redis().await;
    let stream = stage.stream();
    let length = async || match command(&stage, &["XLEN", &stream]).await {
        redis::Value::Int(length) => length,
        other => panic!("{other:?}"),
    };
    let appeared = async {
        while length().await < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), appeared)
        .await
        .expect("the entries appear again");
    // Wiped under a worker that waits and one job that runs.
    stage.world.order("a", [Act::Sleep(Duration::from_millis(600))]);
    let worker = stage.worker();
    stage.world.until("a").await;
    stage.wipe_redis().await;
    let later = stage.trip().await;
    for id in queued.into_iter().chain([later]) {
        assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.world.diary().len(), 9);
    stage.assert_quiet().await;
    for part in parts.into_iter().chain([worker]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn while_redis_is_away_work_is_accepted_and_waits() {
    let stage = Stage::new().await;
    let away = Bell::open("redis://127.0.0.1:1/", &stage.prefix).unwrap();
    let blind = Relay::new(
        stage.db.clone(),
        away,
        RelayOptions::default(),
        stage.metrics.clone(),
    );
    let id = stage.trip().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { blind.run(stop).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.count("outbox").await, 1);
    stop.cancel();
    running.await.unwrap();
    let parts = [stage.relay(), stage.worker()];
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn an_entry_that_a_dead_worker_had_read_is_taken_over() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    let id = stage.trip().await;
    while stage.count("outbox").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stream = stage.stream();
    command(&stage, &["XGROUP", "CREATE", &stream, "workers", "0", "MKSTREAM"]).await;
    command(
        &stage,
        &["XREADGROUP", "GROUP", "workers", "gone", "STREAMS", &stream, ">"],
    )
    .await;
    // No sweeper: the stream itself tells.
    let worker = stage.worker();
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    stage.assert_quiet().await;
    worker.end().await;
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_worker_leaves_what_it_does_not_know_to_one_that_does() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    let old = Registry::new(Arc::clone(&stage.world))
        .with::<TripKind>()
        .unwrap();
    let old = stage.worker_with(old, stage.options());
    let new = NewOperation::new(Demolition {}, Uuid::nil(), "tenant", Uuid::nil());
    let id = stage.enqueue(new).await.id;
    stage
        .job_until(id, "left", |job| job.announced_at.is_none())
        .await;
    let job = stage.job(id).await;
    assert_eq!(
        (job.state, job.attempts, job.lease_epoch),
        (JobState::Ready, 0, 0)
    );
    stage.assert_quiet().await;
    let young = Registry::new(Arc::clone(&stage.world))
        .with::<DemolitionKind>()
        .unwrap();
    let young = stage.worker_with(young, stage.options());
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    for part in parts.into_iter().chain([old, young]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_relay_that_dies_before_its_mark_sends_twice_and_the_job_runs_once() {
    let stage = Stage::new().await;
    let id = stage.trip().await;
    // As if: the entry was added, the row's deletion rolled back.
    command(&stage, &["XADD", &stage.stream(), "*", "op", &id.to_string()]).await;
    let parts = [stage.relay(), stage.worker()];
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    stage.assert_quiet().await;
    assert_eq!(stage.world.diary(), ["a", "b", "c"]);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_worker_that_ends_is_no_consumer_any_more() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    tokio::time::sleep(LEASE / 2).await;
    worker.end().await;
    let consumers = command(&stage, &["XINFO", "CONSUMERS", &stage.stream(), "workers"]).await;
    assert_eq!(consumers, redis::Value::Array(Vec::new()));
    stage.end().await;
}
