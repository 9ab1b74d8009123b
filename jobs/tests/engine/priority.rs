//! What a person asked for comes before what a schedule caused, and that comes some day.

use std::time::Duration;

use jobs::{
    NewOperation, WorkerOptions,
    entity::{
        job::{JobState, Priority},
        operation::OperationStatus,
    },
};
use uuid::Uuid;

use crate::{
    kinds::{Act, Trip},
    support::{Running, Stage},
};

fn trip() -> NewOperation<Trip> {
    NewOperation::new(Trip::default(), Uuid::nil(), "tenant", Uuid::now_v7())
}

impl Stage {
    async fn interactive_and_scheduled(
        &self,
        interactive: usize,
        scheduled: usize,
    ) -> (Vec<Uuid>, Vec<Uuid>) {
        let (mut asked, mut caused) = (Vec::new(), Vec::new());
        for _ in 0..scheduled {
            caused.push(self.enqueue(trip().scheduled()).await.id);
        }
        for _ in 0..interactive {
            asked.push(self.enqueue(trip()).await.id);
        }
        for id in asked.iter().chain(&caused) {
            self.announced(*id).await;
        }
        (asked, caused)
    }

    fn one_at_a_time(&self) -> Running {
        let options = WorkerOptions {
            concurrency: 1,
            ..self.options()
        };
        self.worker_with(self.registry(), options)
    }

    fn first_steps(&self) -> Vec<Uuid> {
        let begun = self.world.begun.lock().unwrap();
        let first = begun.iter().filter(|(_, step, _)| *step == "a");
        first.map(|(id, ..)| *id).collect()
    }
}

#[tokio::test]
async fn what_people_asked_for_runs_before_what_schedules_caused_earlier() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    let (asked, caused) = stage.interactive_and_scheduled(5, 12).await;
    let [interactive, scheduled] = stage.streams();
    assert_eq!(stage.entries_in(&interactive, asked[0]).await, 1);
    assert_eq!(stage.entries_in(&scheduled, caused[0]).await, 1);
    let worker = stage.one_at_a_time();
    for id in caused.iter().chain(&asked) {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    let expected: Vec<_> = asked.into_iter().chain(caused).collect();
    assert_eq!(stage.first_steps(), expected);
    stage.assert_quiet().await;
    for part in [relay, worker] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn however_much_people_ask_for_what_schedules_caused_has_its_turn() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    let (asked, caused) = stage.interactive_and_scheduled(30, 2).await;
    let worker = stage.one_at_a_time();
    for id in asked.iter().chain(&caused) {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    let begun = stage.first_steps();
    let places: Vec<_> = caused
        .iter()
        .filter_map(|id| begun.iter().position(|other| other == id))
        .collect();
    assert_eq!(places, [8, 17]);
    for part in [relay, worker] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn in_line_for_a_slot_people_come_first_too() {
    let stage = Stage::new().await;
    let relay = stage.relay();
    let worker = stage.worker_with(stage.registry(), stage.capped(1, 4));
    stage.world.order("a", [Act::Sleep(Duration::from_secs(2))]);
    let first = stage.enqueue(trip()).await.id;
    stage.world.until("a").await;
    let caused = stage.enqueue(trip().scheduled()).await.id;
    let asked = stage.enqueue(trip()).await.id;
    for id in [caused, asked] {
        stage
            .job_until(id, "in line", |job| job.state == JobState::Blocked)
            .await;
    }
    for id in [caused, asked] {
        assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.first_steps(), [first, asked, caused]);
    for part in [relay, worker] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_wiped_redis_loses_neither_stream() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    let (asked, caused) = stage.interactive_and_scheduled(3, 3).await;
    stage.wipe_redis().await;
    // No worker yet: both streams must fill again, or nothing wakes one.
    for id in asked.iter().chain(&caused) {
        stage.announced(*id).await;
    }
    let [interactive, scheduled] = stage.streams();
    assert!(stage.entries_in(&interactive, asked[2]).await > 0);
    assert!(stage.entries_in(&scheduled, caused[2]).await > 0);
    let workers = [stage.worker(), stage.worker()];
    for id in asked.iter().chain(&caused) {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.job(caused[0]).await.priority, Priority::Scheduled);
    stage.assert_quiet().await;
    for part in workers.into_iter().chain(parts) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn the_loss_of_one_stream_alone_is_found_too() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    let (asked, caused) = stage.interactive_and_scheduled(1, 1).await;
    let [_, scheduled] = stage.streams();
    let mut redis = stage.redis.get_multiplexed_async_connection().await.unwrap();
    let _: i64 = redis::cmd("DEL")
        .arg(&scheduled)
        .query_async(&mut redis)
        .await
        .unwrap();
    // That the other one has an unread entry says nothing about it.
    stage.announced(caused[0]).await;
    let worker = stage.worker();
    for id in [asked[0], caused[0]] {
        assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    }
    stage.assert_quiet().await;
    for part in parts.into_iter().chain([worker]) {
        part.end().await;
    }
    stage.end().await;
}
