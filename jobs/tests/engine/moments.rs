//! Connections that break in the worst moments.

use std::{collections::HashSet, time::Duration};

use jobs::entity::operation::OperationStatus;

use crate::{
    kinds::Act,
    support::{LEASE, Stage},
};

/// What a worker writes, and how that moment is known to Postgres.
const MOMENTS: [(&str, &str, &str); 6] = [
    (
        "a claim",
        "AFTER UPDATE ON jobs",
        "OLD.state = 'ready' AND NEW.state = 'leased'",
    ),
    ("a step's end", "AFTER INSERT ON job_steps", "NEW.status = 'done'"),
    (
        "a renewal",
        "AFTER UPDATE ON jobs",
        "OLD.state = 'leased' AND NEW.state = 'leased' AND NEW.due_at > OLD.due_at",
    ),
    (
        "a release for a retry",
        "AFTER UPDATE ON jobs",
        "OLD.state = 'leased' AND NEW.state = 'ready'",
    ),
    ("the end", "AFTER UPDATE ON jobs", "NEW.state = 'finished'"),
    (
        "the end's commit",
        "COMMIT AFTER UPDATE ON jobs",
        "NEW.state = 'finished'",
    ),
];

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_any_write_loses_and_repeats_nothing() {
    for (name, moment, condition) in MOMENTS {
        let stage = Stage::new().await;
        stage.close_gate(moment, condition).await;
        stage.world.order("a", [Act::Sleep(LEASE)]);
        stage.world.order("b", [Act::Retry]);
        let parts = [stage.relay(), stage.sweeper(), stage.worker(), stage.worker()];
        let id = stage.trip().await;
        stage.until_held().await;
        stage.break_at_gate().await;
        let operation = stage.settled(id).await;
        assert_eq!(operation.status, OperationStatus::Succeeded, "{name}");
        assert_eq!(stage.count("effects").await, 1, "{name}: it ended once");
        let begun = stage.world.begun.lock().unwrap().clone();
        assert_eq!(
            begun.iter().collect::<HashSet<_>>().len(),
            begun.len(),
            "{name}: a step ran twice under one epoch: {begun:?}"
        );
        stage.assert_quiet().await;
        for part in parts {
            part.end().await;
        }
        stage.end().await;
    }
}

#[tokio::test]
async fn a_relay_whose_transaction_dies_after_the_entry_sends_it_again_and_the_job_runs_once() {
    let stage = Stage::new().await;
    stage.close_gate("COMMIT AFTER DELETE ON outbox", "true").await;
    let id = stage.trip().await;
    let relay = stage.relay();
    stage.until_held().await;
    // In the stream, and not yet marked as sent.
    stage.announced(id).await;
    assert_eq!((stage.entries(id).await, stage.count("outbox").await), (1, 1));
    stage.break_at_gate().await;
    stage
        .until("sent again", async || stage.entries(id).await == 2)
        .await;
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
async fn a_redis_that_loses_its_keys_again_and_again_delays_work_and_loses_none() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker(), stage.worker()];
    stage
        .world
        .order("b", vec![Act::Sleep(Duration::from_millis(30)); 120]);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(stage.trip().await);
    }
    for _ in 0..6 {
        stage.wipe_redis().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for id in &ids {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.count("effects").await, 60, "each ended once");
    assert_eq!(stage.world.diary().len(), 180, "no step twice");
    assert_eq!(stage.count("jobs WHERE lease_epoch <> 1").await, 0);
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}
