//! Operations that the clock causes.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use jobs::{
    NewOperation, WhenBusy,
    entity::{job::JobState, operation::OperationStatus, schedule, schedule_fire},
    schedule::{Firing, FiringOptions, MOST_JITTER, Schedule, ScheduleError, delete_fires, put, remove},
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, TransactionTrait};
use uuid::Uuid;

use crate::{
    kinds::{Act, Trip},
    support::{PATIENCE, Running, Stage},
};

/// Far enough away not to come by itself.
const YEARLY: &str = "0 0 1 1 *";
const NIGHTLY: &str = "30 2 * * *";

fn planned(cron: &str) -> Schedule<Trip> {
    Schedule::new(cron, Trip::default(), Uuid::now_v7(), "tenant", Uuid::now_v7())
}

impl Stage {
    fn firing(&self) -> Running {
        let options = FiringOptions {
            poll: Duration::from_millis(200),
            ..FiringOptions::default()
        };
        let firing = Firing::new(self.db.clone(), options, self.metrics.clone());
        Running::spawn(|stop| async move { firing.run(stop).await })
    }

    async fn put(&self, new: Schedule<Trip>) -> schedule::Model {
        let tx = self.db.begin().await.unwrap();
        let kept = put(&tx, new).await.unwrap();
        tx.commit().await.unwrap();
        kept
    }

    async fn schedule(&self, id: Uuid) -> schedule::Model {
        let found = schedule::Entity::find_by_id(id).one(&self.db).await;
        found.unwrap().expect("it exists")
    }

    /// Makes a schedule due in so long, by Postgres's clock; zero and less: now.
    async fn due_in(&self, id: Uuid, wait: &str) {
        let sql = format!(
            "UPDATE schedules SET next_fire_at = clock_timestamp() + interval '{wait}' WHERE id = '{id}'"
        );
        self.db.execute_unprepared(&sql).await.unwrap();
    }

    async fn fires(&self, id: Uuid) -> Vec<schedule_fire::Model> {
        let fires = schedule_fire::Entity::find()
            .filter(schedule_fire::Column::ScheduleId.eq(id))
            .order_by_asc(schedule_fire::Column::FireAt);
        fires.all(&self.db).await.unwrap()
    }

    /// The moments of a schedule once there are as many as expected.
    async fn fired(&self, id: Uuid, count: usize) -> Vec<schedule_fire::Model> {
        let found = async {
            loop {
                let fires = self.fires(id).await;
                if fires.len() >= count {
                    return fires;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(fires) => fires,
            Err(_) => panic!("never fired: {:?}", self.schedule(id).await),
        }
    }

    fn counted(&self, outcome: &str) -> f64 {
        let registry = prometheus::Registry::new();
        self.metrics.register(&registry).unwrap();
        let families = registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "jobs_schedule_fires_total");
        let metrics = family.map_or(&[][..], prometheus::proto::MetricFamily::get_metric);
        let of_outcome = metrics
            .iter()
            .filter(|metric| metric.get_label()[0].value() == outcome);
        of_outcome.map(|metric| metric.get_counter().get_value()).sum()
    }
}

#[tokio::test]
async fn a_schedule_fires_at_its_moment_and_its_operation_runs() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.worker(), stage.firing()];
    let kept = stage.put(planned(YEARLY)).await;
    stage.due_in(kept.id, "400 ms").await;
    let due = stage.schedule(kept.id).await.next_fire_at.unwrap();
    let fires = stage.fired(kept.id, 1).await;
    assert_eq!(fires[0].fire_at, due);
    assert!(fires[0].fired_at >= due, "{fires:?}");
    let operation = stage.settled(fires[0].operation_id.unwrap()).await;
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert_eq!(
        (operation.kind.as_str(), operation.scope, operation.target_id),
        ("trip", kept.scope, kept.target_id)
    );
    assert!(operation.started_at.unwrap() >= due);
    assert_eq!(
        stage.schedule(kept.id).await.next_fire_at,
        kept.next_fire_at,
        "then it goes on as planned"
    );
    assert_eq!(stage.count("operations").await, 1);
    for part in parts {
        part.end().await;
    }
    assert_eq!(stage.counted("enqueued"), 1.0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_processes_fire_each_moment_is_fired_once() {
    let stage = Stage::new().await;
    let firings = [(); 4].map(|()| stage.firing());
    let mut ids = Vec::new();
    for _ in 0..150 {
        ids.push(stage.put(planned(YEARLY)).await.id);
    }
    for round in 1..=3 {
        stage
            .db
            .execute_unprepared("UPDATE schedules SET next_fire_at = clock_timestamp() + interval '100 ms'")
            .await
            .unwrap();
        for id in &ids {
            stage.fired(*id, round).await;
        }
    }
    for firing in firings {
        firing.end().await;
    }
    assert_eq!(stage.count("schedule_fires").await, 450);
    assert_eq!(stage.count("operations").await, 450);
    assert_eq!(stage.count("outbox").await, 450);
    let mut operations = HashSet::new();
    for id in ids {
        operations.extend(
            stage
                .fires(id)
                .await
                .into_iter()
                .map(|fire| fire.operation_id.unwrap()),
        );
    }
    assert_eq!(operations.len(), 450);
    stage.end().await;
}

#[tokio::test]
async fn what_missed_a_week_of_nights_fires_once_and_goes_on_from_now() {
    let stage = Stage::new().await;
    let kept = stage.put(planned(NIGHTLY)).await;
    let next = kept.next_fire_at.unwrap();
    let sql = "UPDATE schedules SET next_fire_at = next_fire_at - interval '7 days'";
    stage.db.execute_unprepared(sql).await.unwrap();
    let firings = [stage.firing(), stage.firing()];
    stage.fired(kept.id, 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let fires = stage.fires(kept.id).await;
    assert_eq!(fires.len(), 1, "{fires:?}");
    assert_eq!(
        fires[0].fire_at,
        next - TimeDelta::days(1),
        "the last night of them"
    );
    assert_eq!(stage.schedule(kept.id).await.next_fire_at, Some(next));
    assert_eq!(stage.count("operations").await, 1);
    for firing in firings {
        firing.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_disabled_schedule_never_fires_nor_makes_up_for_it_later() {
    let stage = Stage::new().await;
    let firing = stage.firing();
    let off = stage.put(planned(NIGHTLY).enabled(false)).await;
    assert_eq!(off.next_fire_at, None);
    // Even with a moment left over.
    stage.due_in(off.id, "-1 hour").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let on = stage.put(planned(NIGHTLY).id(off.id)).await;
    assert!(on.next_fire_at.unwrap() > on.updated_at, "{on:?}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(stage.count("schedule_fires").await, 0);
    assert_eq!(stage.count("operations").await, 0);
    firing.end().await;
    stage.end().await;
}

#[tokio::test]
async fn changed_moments_count_from_now_on_and_unchanged_ones_stay_due() {
    let stage = Stage::new().await;
    let named = || planned(YEARLY).name("nightly");
    let kept = stage.put(named()).await;
    stage.due_in(kept.id, "-1 hour").await;
    let due = stage.schedule(kept.id).await.next_fire_at;
    // As a process does at each start.
    let again = stage.put(named().jitter(Duration::from_secs(60))).await;
    assert_eq!((again.id, again.next_fire_at), (kept.id, due));
    assert_eq!(again.jitter_seconds, 60);
    let mut other = named();
    NIGHTLY.clone_into(&mut other.cron);
    let changed = stage.put(other.clone()).await;
    assert_eq!(changed.id, kept.id);
    let next = changed.next_fire_at.unwrap();
    assert!(next > changed.updated_at && next < changed.updated_at + TimeDelta::hours(25));
    let moved = stage.put(other.time_zone("Asia/Tokyo")).await;
    assert_ne!(moved.next_fire_at, changed.next_fire_at);
    let firing = stage.firing();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.count("schedule_fires").await, 0, "the old moment is gone");
    assert_eq!(stage.count("schedules").await, 1);
    firing.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_moment_whose_serial_key_is_busy_passes_without_an_operation() {
    let stage = Stage::new().await;
    let running = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil());
    let running = stage
        .enqueue(running.serial("backup:1", WhenBusy::Refuse))
        .await
        .id;
    let firing = stage.firing();
    let kept = stage.put(planned(YEARLY).serial_key("backup:1")).await;
    stage.due_in(kept.id, "0").await;
    let fires = stage.fired(kept.id, 1).await;
    assert_eq!(fires[0].operation_id, None);
    let schedule = stage.schedule(kept.id).await;
    assert_eq!(schedule.next_fire_at, kept.next_fire_at, "it goes on");
    assert_eq!(stage.count("operations").await, 1);
    let parts = [stage.relay(), stage.worker()];
    stage.settled(running).await;
    stage.due_in(kept.id, "0").await;
    let fires = stage.fired(kept.id, 2).await;
    let operation = fires[1].operation_id.expect("the key is free");
    assert_eq!(stage.job(operation).await.serial_key.as_deref(), Some("backup:1"));
    assert_eq!(
        stage.job(operation).await.priority,
        jobs::entity::job::Priority::Scheduled
    );
    assert_eq!(stage.settled(operation).await.status, OperationStatus::Succeeded);
    for part in parts.into_iter().chain([firing]) {
        part.end().await;
    }
    assert_eq!((stage.counted("busy"), stage.counted("enqueued")), (1.0, 1.0));
    stage.end().await;
}

#[tokio::test]
async fn while_someone_enqueues_for_a_key_its_schedule_waits_and_others_do_not() {
    let stage = Stage::new().await;
    let keyed = stage.put(planned(YEARLY).serial_key("backup:1")).await.id;
    let free = stage.put(planned(YEARLY)).await.id;
    let tx = stage.db.begin().await.unwrap();
    let new = NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::nil());
    jobs::enqueue(&tx, new.serial("backup:1", WhenBusy::Refuse))
        .await
        .unwrap();
    stage.due_in(keyed, "-1 minute").await;
    stage.due_in(free, "0").await;
    let firing = stage.firing();
    stage.fired(free, 1).await;
    assert_eq!(stage.fires(keyed).await, []);
    tx.rollback().await.unwrap();
    let fires = stage.fired(keyed, 1).await;
    assert!(fires[0].operation_id.is_some(), "the other one never came to be");
    firing.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_process_that_dies_while_it_fires_leaves_the_moment_to_be_fired_once() {
    let stage = Stage::new().await;
    // After its record and its operation are written, before the commit.
    stage.close_gate("AFTER INSERT ON outbox", "true").await;
    let kept = stage.put(planned(YEARLY)).await;
    stage.due_in(kept.id, "0").await;
    let firing = stage.firing();
    stage.until_held().await;
    assert_eq!(stage.fires(kept.id).await, [], "nothing of it is to be seen");
    stage.break_at_gate().await;
    let other = stage.firing();
    stage.fired(kept.id, 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(stage.fires(kept.id).await.len(), 1);
    assert_eq!(stage.count("operations").await, 1);
    assert_eq!(stage.count("outbox").await, 1);
    for firing in [firing, other] {
        firing.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn without_workers_and_with_a_wiped_redis_a_due_schedule_fills_the_stream() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.firing()];
    let kept = stage.put(planned(YEARLY)).await;
    stage.wipe_redis().await;
    stage.due_in(kept.id, "300 ms").await;
    let operation = stage.fired(kept.id, 1).await[0].operation_id.unwrap();
    stage.announced(operation).await;
    // The entry is lost, too, with nobody there who might have read it.
    stage.wipe_redis().await;
    stage.announced(operation).await;
    let worker = stage.worker();
    assert_eq!(stage.settled(operation).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.world.diary(), ["a", "b", "c"]);
    stage.assert_quiet().await;
    for part in parts.into_iter().chain([worker]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn operations_run_their_schedule_s_jitter_later_than_the_moment() {
    let stage = Stage::new().await;
    let firing = stage.firing();
    let spread = Duration::from_secs(3600);
    let mut delays = HashSet::new();
    for _ in 0..5 {
        let kept = stage.put(planned(YEARLY).jitter(spread)).await;
        stage.due_in(kept.id, "0").await;
        let fires = stage.fired(kept.id, 1).await;
        let job = stage.job(fires[0].operation_id.unwrap()).await;
        assert_eq!(job.state, JobState::Ready);
        let delay = (job.due_at - fires[0].fire_at).num_seconds();
        assert!((0..=3601).contains(&delay), "{delay}");
        delays.insert(delay);
    }
    assert!(delays.len() > 1, "{delays:?}");
    firing.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_removed_schedule_is_forgotten_and_what_it_enqueued_goes_on() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.worker(), stage.firing()];
    stage.world.order("b", [Act::Sleep(Duration::from_millis(300))]);
    let kept = stage.put(planned(YEARLY)).await;
    stage.due_in(kept.id, "0").await;
    let operation = stage.fired(kept.id, 1).await[0].operation_id.unwrap();
    for there in [true, false] {
        let tx = stage.db.begin().await.unwrap();
        assert_eq!(remove(&tx, kept.id).await.unwrap(), there);
        tx.commit().await.unwrap();
    }
    assert_eq!(stage.count("schedule_fires").await, 0);
    assert_eq!(stage.settled(operation).await.status, OperationStatus::Succeeded);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn old_records_of_moments_are_deleted_in_batches() {
    let stage = Stage::new().await;
    let kept = stage.put(planned(YEARLY)).await;
    let sql = format!(
        "INSERT INTO schedule_fires SELECT '{}', now() - day * interval '1 day', NULL, now() - day * interval '1 day'
         FROM generate_series(1, 60) AS day",
        kept.id
    );
    stage.db.execute_unprepared(&sql).await.unwrap();
    let month = Duration::from_secs(30 * 86_400);
    let mut deleted = Vec::new();
    for _ in 0..3 {
        deleted.push(delete_fires(&stage.db, month, 20).await.unwrap());
    }
    assert_eq!(deleted, [20, 11, 0]);
    assert_eq!(stage.count("schedule_fires").await, 29);
    stage.end().await;
}

#[tokio::test]
async fn what_can_never_fire_is_not_kept() {
    let stage = Stage::new().await;
    let tx = stage.db.begin().await.unwrap();
    for senseless in [
        planned("0 2 * *"),
        planned("0 0 30 2 *"),
        planned(NIGHTLY).time_zone("Mars/Olympus"),
    ] {
        let refused = put(&tx, senseless).await;
        assert!(matches!(refused, Err(ScheduleError::Calendar(_))), "{refused:?}");
    }
    let refused = put(&tx, planned(NIGHTLY).jitter(MOST_JITTER * 2)).await;
    assert!(matches!(refused, Err(ScheduleError::Jitter(_))), "{refused:?}");
    tx.commit().await.unwrap();
    assert_eq!(stage.count("schedules").await, 0);
    stage.end().await;
}
