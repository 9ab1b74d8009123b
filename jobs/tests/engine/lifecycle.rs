//! One operation from its enqueueing to its end.

use std::time::Duration;

use jobs::{
    CancelError, NewOperation, Outcome, ReviveError,
    entity::{job::JobState, operation::OperationStatus},
    revive,
};
use sea_orm::TransactionTrait;

use uuid::Uuid;

use crate::{
    kinds::{Act, Demolition, Trip},
    support::Stage,
};

#[tokio::test]
async fn an_operation_runs_its_steps_in_order_and_succeeds() {
    let stage = Stage::new().await;
    let (relay, worker) = (stage.relay(), stage.worker());
    let new =
        NewOperation::new(Trip::default(), Uuid::now_v7(), "tenant", Uuid::now_v7()).request_id("req-1");
    let queued = stage.enqueue(new).await;
    assert_eq!(queued.status, OperationStatus::Queued);
    assert_eq!(queued.kind, "trip");
    let operation = stage.settled(queued.id).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert_eq!(
        (operation.percent, operation.attempt, operation.step.as_deref()),
        (100, 1, Some("c"))
    );
    assert!(
        operation.started_at.is_some() && operation.finished_at.is_some() && operation.error_code.is_none()
    );
    assert_eq!(operation.request_id.as_deref(), Some("req-1"));
    assert!(operation.revision > queued.revision);
    assert_eq!(stage.world.diary(), ["a", "b", "c"]);
    assert_eq!(stage.steps(queued.id).await, ["a Done 1", "b Done 1", "c Done 1"]);
    assert_eq!(stage.count("effects").await, 1);
    assert_eq!(
        *stage.world.outcomes.lock().unwrap(),
        [(queued.id, Outcome::Succeeded)]
    );
    stage.assert_quiet().await;
    worker.end().await;
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_rolled_back_enqueue_leaves_nothing() {
    let stage = Stage::new().await;
    let tx = stage.db.begin().await.unwrap();
    let new = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil())
        .serial("k", jobs::WhenBusy::Refuse);
    jobs::enqueue(&tx, new).await.unwrap();
    tx.rollback().await.unwrap();
    for table in ["operations", "jobs", "outbox"] {
        assert_eq!(stage.count(table).await, 0, "{table}");
    }
    stage.end().await;
}

#[tokio::test]
async fn an_operation_for_later_waits_for_its_time() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    let at = stage.clock().await + Duration::from_millis(600);
    let new = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil()).run_at(at);
    let id = stage.enqueue(new).await.id;
    let operation = stage.settled(id).await;
    assert!(operation.started_at.unwrap() >= at, "{operation:?}");
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_step_that_fails_is_tried_again_and_keeps_what_went_before() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage.world.order("a", [Act::Remember(7)]);
    stage.world.order("b", [Act::Retry, Act::Panic]);
    let id = stage.trip().await;
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert_eq!(operation.attempt, 3);
    assert_eq!(stage.world.diary(), ["a", "b", "b", "b", "c"]);
    assert_eq!(stage.steps(id).await, ["a Done 1", "b Done 3", "c Done 1"]);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_permanent_error_undoes_in_reverse_the_failed_step_first() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage.world.order("c", [Act::Permanent]);
    stage.world.order("undo b", [Act::Permanent]);
    let id = stage.trip().await;
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    assert_eq!(operation.error_code.as_deref(), Some("never"));
    assert_eq!(operation.error_message.as_deref(), Some("It can't be done."));
    assert_eq!(operation.error_detail.as_deref(), Some("secret host"));
    assert_eq!(
        stage.world.diary(),
        ["a", "b", "c", "undo c", "undo b", "undo b", "undo a"]
    );
    assert_eq!(stage.steps(id).await, ["a Undone 2", "b Undone 3", "c Undone 2"]);
    assert_eq!(stage.job(id).await.state, JobState::Finished);
    assert!(matches!(
        stage.world.outcomes.lock().unwrap()[..],
        [(_, Outcome::Failed(_))]
    ));
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn when_attempts_run_out_it_undoes_and_fails_with_the_last_error() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage.world.order("a", [Act::Retry, Act::Retry, Act::Retry]);
    let id = stage.trip().await;
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Failed);
    assert_eq!(operation.error_code.as_deref(), Some("not_yet"));
    assert_eq!(stage.world.diary(), ["a", "a", "a", "undo a"]);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn an_undo_that_never_succeeds_leaves_a_dead_job_that_holds_no_key() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage.world.order("b", [Act::Permanent]);
    stage
        .world
        .order("undo a", [Act::Retry, Act::Retry, Act::Retry, Act::Retry]);
    let new = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil())
        .serial("tenant:1", jobs::WhenBusy::Refuse);
    let id = stage.enqueue(new.clone()).await.id;
    assert_eq!(stage.settled(id).await.status, OperationStatus::Failed);
    let job = stage.job(id).await;
    assert_eq!(
        (job.state, job.holds_key, job.position),
        (JobState::Dead, false, 1)
    );
    assert!(matches!(
        stage.world.outcomes.lock().unwrap()[..],
        [(_, Outcome::Dead(_))]
    ));
    let next = stage.enqueue(new).await.id;
    assert_eq!(stage.settled(next).await.status, OperationStatus::Succeeded);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_dead_operation_revived_goes_on_where_it_stopped() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage.world.order("sweep", [Act::Permanent]);
    let new = NewOperation::new(Demolition {}, Uuid::nil(), "tenant", Uuid::nil());
    let id = stage.enqueue(new).await.id;
    assert_eq!(stage.settled(id).await.status, OperationStatus::Failed);
    let tx = stage.db.begin().await.unwrap();
    assert_eq!(revive(&tx, id).await.unwrap().status, OperationStatus::Running);
    assert!(matches!(revive(&tx, id).await, Err(ReviveError::NotDead)));
    tx.commit().await.unwrap();
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert_eq!(operation.error_code, None);
    assert_eq!(stage.world.diary(), ["drill", "blast", "sweep", "sweep"]);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_queued_operation_is_cancelled_at_once_and_its_entry_is_read_and_dropped() {
    let stage = Stage::new().await;
    let id = stage.trip().await;
    let operation = stage.cancel(id).await.unwrap();
    assert_eq!(operation.status, OperationStatus::Cancelled);
    assert!(operation.finished_at.is_some());
    assert!(matches!(stage.cancel(id).await, Err(CancelError::Finished)));
    assert!(matches!(
        stage.cancel(Uuid::now_v7()).await,
        Err(CancelError::NotFound)
    ));
    let (relay, worker) = (stage.relay(), stage.worker());
    let after = stage.trip().await;
    stage.settled(after).await;
    stage.assert_quiet().await;
    assert_eq!(stage.world.diary(), ["a", "b", "c"], "only the other one ran");
    worker.end().await;
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_running_operation_is_told_to_stop_and_undoes() {
    let stage = Stage::new().await;
    let (relay, worker) = (stage.relay(), stage.worker());
    stage.world.order("b", [Act::Hang]);
    let id = stage.trip().await;
    stage.world.until("b").await;
    let asked = stage.cancel(id).await.unwrap();
    assert_eq!(asked.status, OperationStatus::Running);
    let again = stage.cancel(id).await.unwrap();
    assert_eq!(again.revision, asked.revision, "asking twice changes nothing");
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Cancelled);
    assert_eq!(operation.error_code, None);
    assert_eq!(stage.world.diary(), ["a", "b", "b stopped", "undo b", "undo a"]);
    worker.end().await;
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_cancel_wins_over_a_retry_and_does_not_wait_for_it() {
    let stage = Stage::new().await;
    let (relay, worker) = (stage.relay(), stage.worker());
    stage
        .world
        .order("b", [Act::RetryAfter(Duration::from_secs(3600))]);
    let id = stage.trip().await;
    stage.world.until("b").await;
    stage
        .job_until(id, "released", |job| job.state == JobState::Ready)
        .await;
    stage.cancel(id).await.unwrap();
    assert_eq!(stage.settled(id).await.status, OperationStatus::Cancelled);
    assert_eq!(stage.world.diary(), ["a", "b", "undo b", "undo a"]);
    // And the same when it comes while the step fails.
    stage
        .world
        .order("a", [Act::Sleep(Duration::from_millis(300)), Act::Pass]);
    stage
        .world
        .order("b", [Act::RetryAfter(Duration::from_secs(3600))]);
    let id = stage.trip().await;
    stage
        .job_until(id, "leased", |job| job.state == JobState::Leased)
        .await;
    stage.cancel(id).await.unwrap();
    assert_eq!(stage.settled(id).await.status, OperationStatus::Cancelled);
    worker.end().await;
    relay.end().await;
    stage.end().await;
}

#[tokio::test]
async fn past_its_pivot_an_operation_only_goes_forward() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage
        .world
        .order("blast", [Act::Sleep(Duration::from_millis(200)), Act::Pass]);
    stage.world.order("sweep", [Act::Retry, Act::Pass]);
    let new = || NewOperation::new(Demolition {}, Uuid::nil(), "tenant", Uuid::nil());
    let id = stage.enqueue(new()).await.id;
    stage.world.until("blast").await;
    assert!(matches!(stage.cancel(id).await, Err(CancelError::NotCancellable)));
    let operation = stage.settled(id).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert!(operation.pivoted_at.is_some());
    // A permanent error after it is a death, not an undo.
    stage.world.order("sweep", [Act::Permanent]);
    let id = stage.enqueue(new()).await.id;
    assert_eq!(stage.settled(id).await.status, OperationStatus::Failed);
    assert_eq!(stage.job(id).await.state, JobState::Dead);
    // Before it a cancel works.
    stage.world.order("drill", [Act::Hang]);
    let id = stage.enqueue(new()).await.id;
    stage
        .job_until(id, "leased", |job| job.state == JobState::Leased)
        .await;
    stage.cancel(id).await.unwrap();
    assert_eq!(stage.settled(id).await.status, OperationStatus::Cancelled);
    assert!(!stage.world.diary().contains(&"undo blast".to_owned()));
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_step_that_hangs_is_dropped_at_its_deadline_and_tried_again() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    stage.world.order("drill", [Act::HangDeaf]);
    let new = NewOperation::new(Demolition {}, Uuid::nil(), "tenant", Uuid::nil());
    let id = stage.enqueue(new).await.id;
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.steps(id).await[0], "drill Done 2");
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn an_end_that_fails_is_tried_again_and_takes_effect_once() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.worker()];
    *stage.world.fail_finish.lock().unwrap() = 2;
    let id = stage.trip().await;
    assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.count("effects").await, 1);
    assert_eq!(stage.world.diary(), ["a", "b", "c"]);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}
