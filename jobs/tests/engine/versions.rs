//! An old and a new binary side by side.

use jobs::{NewOperation, Registry, entity::operation::OperationStatus};
use uuid::Uuid;

use crate::{
    kinds::{Act, LongerTrip, LongerTripKind, Trip, TripKind, World},
    support::Stage,
};

fn old(stage: &Stage) -> Registry<World> {
    Registry::new(stage.world.clone()).with::<TripKind>().unwrap()
}

/// What the new binary has: the old list of steps beside the new one.
fn new(stage: &Stage) -> Registry<World> {
    old(stage).with::<LongerTripKind>().unwrap()
}

#[tokio::test]
async fn a_job_of_a_new_version_waits_for_a_new_worker_while_the_old_one_goes_on() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    let old = stage.worker_with(old(&stage), stage.options());
    let longer = NewOperation::new(LongerTrip {}, Uuid::nil(), "tenant", Uuid::nil());
    let longer = stage.enqueue(longer).await.id;
    stage
        .job_until(longer, "left", |job| job.announced_at.is_none())
        .await;
    let short = stage.trip().await;
    assert_eq!(stage.settled(short).await.status, OperationStatus::Succeeded);
    let waiting = stage.operation(longer).await;
    assert_eq!((waiting.status, waiting.attempt), (OperationStatus::Queued, 0));
    let new = stage.worker_with(new(&stage), stage.options());
    assert_eq!(stage.settled(longer).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.world.diary(), ["a", "b", "c", "a", "b", "b2", "c"]);
    for part in parts.into_iter().chain([old, new]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_job_that_an_old_worker_began_is_finished_by_a_new_one_with_the_old_steps() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    stage.world.order("b", [Act::Hang]);
    let old = stage.worker_with(old(&stage), stage.options());
    let begun = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil());
    let begun = stage.enqueue(begun).await.id;
    stage.world.until("b").await;
    let new = stage.worker_with(new(&stage), stage.options());
    old.end().await;
    assert_eq!(stage.settled(begun).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.steps(begun).await, ["a Done 1", "b Done 1", "c Done 1"]);
    assert_eq!(stage.world.diary(), ["a", "b", "b stopped", "b", "c"]);
    stage.assert_quiet().await;
    for part in parts.into_iter().chain([new]) {
        part.end().await;
    }
    stage.end().await;
}
