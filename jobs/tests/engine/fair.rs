//! No scope has more than its share, and none holds up another.

use std::{num::NonZeroU16, time::Duration};

use jobs::{
    NewOperation, WhenBusy, WorkerOptions,
    entity::{
        job::{self, JobState},
        operation::{self, OperationStatus},
    },
};
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, QueryOrder, Statement, TransactionTrait};
use uuid::Uuid;

use crate::{
    kinds::{Act, Trip},
    support::{Running, Stage},
};

fn trip(scope: Uuid) -> NewOperation<Trip> {
    NewOperation::new(Trip::default(), scope, "tenant", Uuid::now_v7())
}

fn in_line(job: &job::Model) -> bool {
    job.state == JobState::Blocked && job.in_line
}

impl Stage {
    pub(crate) fn capped(&self, cap: u16, concurrency: usize) -> WorkerOptions {
        WorkerOptions {
            concurrency,
            scope_cap: NonZeroU16::new(cap),
            ..self.options()
        }
    }

    fn capped_worker(&self, cap: u16, concurrency: usize) -> Running {
        self.worker_with(self.registry(), self.capped(cap, concurrency))
    }

    async fn trips(&self, count: usize, scope: Uuid) -> Vec<Uuid> {
        let tx = self.db.begin().await.unwrap();
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(jobs::enqueue(&tx, trip(scope)).await.unwrap().id);
        }
        tx.commit().await.unwrap();
        ids
    }

    /// One job that does this in a step, and two that wait for its slot.
    async fn one_and_two_in_line(&self, step: &str, act: Act) -> [Uuid; 3] {
        self.world.order(step, [act]);
        let first = self.enqueue(trip(Uuid::nil())).await.id;
        self.world.until(step).await;
        let mut ids = [first; 3];
        for id in &mut ids[1..] {
            *id = self.enqueue(trip(Uuid::nil())).await.id;
            self.job_until(*id, "in line", in_line).await;
        }
        ids
    }

    /// The most jobs of one scope that run at this moment.
    async fn most_running(&self) -> i64 {
        const MOST: &str = "
            SELECT COALESCE(max(running), 0) AS most FROM (
                SELECT count(*) AS running FROM jobs JOIN operations ON id = operation_id
                WHERE state = 'leased' GROUP BY operations.scope
            ) AS scopes";
        let row = self
            .db
            .query_one_raw(Statement::from_string(DbBackend::Postgres, MOST));
        row.await.unwrap().unwrap().try_get("", "most").unwrap()
    }

    /// Operations in the order in which they were begun.
    async fn begun(&self) -> Vec<Uuid> {
        let begun = operation::Entity::find()
            .order_by_asc(operation::Column::StartedAt)
            .all(&self.db);
        begun
            .await
            .unwrap()
            .into_iter()
            .filter(|operation| operation.started_at.is_some())
            .map(|operation| operation.id)
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_workers_never_run_more_jobs_of_a_scope_than_may_run() {
    let stage = Stage::new().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.extend(stage.trips(40, Uuid::now_v7()).await);
    }
    stage
        .world
        .order("b", vec![Act::Sleep(Duration::from_millis(40)); ids.len()]);
    let parts = [stage.relay(), stage.sweeper()];
    let workers = [(); 10].map(|()| {
        let options = WorkerOptions {
            // A busy machine is no reason to steal.
            lease: Duration::from_secs(15),
            ..stage.capped(3, 4)
        };
        stage.worker_with(stage.registry(), options)
    });
    let mut most = 0;
    while stage
        .count("jobs WHERE state IN ('ready', 'leased', 'blocked')")
        .await
        > 0
    {
        most = most.max(stage.most_running().await);
        assert!(most <= 3, "{most} at a time");
    }
    assert_eq!(most, 3, "a scope has all of its share");
    assert_eq!(stage.count("effects").await, 160, "each ended once");
    assert_eq!(
        stage
            .count("jobs WHERE lease_epoch <> 1 OR slot IS NOT NULL")
            .await,
        0
    );
    // Not by their good behaviour alone.
    let both = "UPDATE jobs SET state = 'leased', slot = 1 WHERE scope = (SELECT scope FROM jobs LIMIT 1)";
    let refused = stage.db.execute_unprepared(both).await.unwrap_err();
    assert!(refused.to_string().contains("jobs_slots"), "{refused}");
    stage.assert_quiet().await;
    for part in workers.into_iter().chain(parts) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_jobs_of_one_scope_do_not_hold_up_another_s() {
    let stage = Stage::new().await;
    let many = stage.trips(500, Uuid::now_v7()).await;
    let one = stage.enqueue(trip(Uuid::now_v7())).await.id;
    stage
        .world
        .order("b", vec![Act::Sleep(Duration::from_millis(30)); 501]);
    // One worker that the many alone could keep wholly busy.
    let parts = [stage.relay(), stage.sweeper(), stage.capped_worker(4, 4)];
    assert_eq!(stage.settled(one).await.status, OperationStatus::Succeeded);
    let begun = stage.begun().await;
    let place = begun.iter().position(|id| *id == one);
    assert!(
        place.is_some_and(|place| place < 60),
        "{place:?} of {}",
        begun.len()
    );
    let first: Vec<_> = begun.into_iter().filter(|id| *id != one).take(4).collect();
    for id in &first {
        let place = many.iter().position(|other| other == id);
        assert!(
            place.is_some_and(|place| place < 12),
            "about as they came: {place:?}"
        );
    }
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn who_is_in_line_is_woken_when_a_slot_comes_free() {
    let stage = Stage::new().await;
    // No sweeper: the end of the first wakes the second.
    let parts = [stage.relay(), stage.capped_worker(1, 4)];
    let ids = stage
        .one_and_two_in_line("a", Act::Sleep(Duration::from_secs(2)))
        .await;
    let queued = stage.operation(ids[1]).await;
    assert_eq!((queued.status, queued.attempt), (OperationStatus::Queued, 0));
    for id in &ids {
        assert_eq!(stage.settled(*id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.begun().await, ids, "oldest first");
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_retry_lends_its_slot_and_keeps_its_key() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.capped_worker(1, 4)];
    stage.world.order("a", [Act::Sleep(Duration::from_secs(2))]);
    stage
        .world
        .order("b", [Act::RetryAfter(Duration::from_millis(300))]);
    // Of whoever has the slot while the first one's time comes.
    stage.world.order("c", [Act::Sleep(Duration::from_secs(1))]);
    let keyed = |key: &str| trip(Uuid::nil()).serial(key, WhenBusy::Wait);
    let first = stage.enqueue(keyed("one")).await.id;
    stage.world.until("a").await;
    let behind = stage.enqueue(keyed("one")).await.id;
    let other = stage.enqueue(keyed("other")).await.id;
    stage.job_until(other, "in line", in_line).await;
    assert!(!stage.job(other).await.holds_key, "it never began");
    stage
        .job_until(first, "in line with its key", |job| in_line(job) && job.holds_key)
        .await;
    for id in [first, behind, other] {
        assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.begun().await, [first, other, behind]);
    stage.assert_quiet().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_killed_worker_s_slot_goes_with_its_job_to_the_heir_and_is_free_after_it() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    stage.world.order("b", [Act::HangDeaf]);
    let doomed = stage.mortal_as(stage.registry(), stage.capped(1, 4));
    let first = stage.enqueue(trip(Uuid::nil())).await.id;
    stage.world.until("b").await;
    let second = stage.enqueue(trip(Uuid::nil())).await.id;
    stage.job_until(second, "in line", in_line).await;
    doomed.kill();
    let heir = stage.capped_worker(1, 4);
    for id in [first, second] {
        assert_eq!(stage.settled(id).await.status, OperationStatus::Succeeded);
    }
    assert_eq!(stage.world.diary(), ["a", "b", "b", "c", "a", "b", "c"]);
    assert_eq!(stage.job(second).await.lease_epoch, 1);
    stage.assert_quiet().await;
    for part in parts.into_iter().chain([heir]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_cap_that_is_raised_goes_for_those_who_are_in_line_already() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper()];
    let before = stage.capped_worker(1, 8);
    stage.one_and_two_in_line("b", Act::Hang).await;
    stage.world.order("b", vec![Act::Hang; 3]);
    before.end().await;
    let after = stage.capped_worker(3, 8);
    stage
        .until("all at once", async || stage.most_running().await == 3)
        .await;
    after.end().await;
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_cancelled_job_that_was_woken_leaves_its_turn_to_the_next() {
    let stage = Stage::new().await;
    // Neither a relay that takes the woken one's entry on, nor a sweeper.
    let (relay, worker) = (stage.relay(), stage.capped_worker(1, 4));
    let ids = stage
        .one_and_two_in_line("a", Act::Sleep(Duration::from_secs(3)))
        .await;
    relay.end().await;
    stage
        .job_until(ids[1], "woken", |job| job.state == JobState::Ready)
        .await;
    stage.cancel(ids[1]).await.unwrap();
    let relay = stage.relay();
    assert_eq!(stage.settled(ids[2]).await.status, OperationStatus::Succeeded);
    assert_eq!(stage.operation(ids[1]).await.status, OperationStatus::Cancelled);
    stage.assert_quiet().await;
    for part in [relay, worker] {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn what_an_old_binary_writes_fits_in() {
    let stage = Stage::new().await;
    let parts = [stage.relay(), stage.sweeper(), stage.capped_worker(1, 4)];
    stage.world.order("b", [Act::HangDeaf]);
    let (old, scope) = (Uuid::now_v7(), Uuid::now_v7());
    // As its enqueueing was.
    let insert = format!(
        "INSERT INTO operations (id, kind, scope, target_type, target_id, status, created_at, updated_at)
         VALUES ('{old}', 'trip', '{scope}', 'tenant', '{old}', 'queued', now(), now());
         INSERT INTO jobs (operation_id, kind, version, input, state, due_at, announced_at, created_at)
         VALUES ('{old}', 'trip', 1, '{{\"note\": \"\"}}', 'ready', now(), now(), now());
         INSERT INTO outbox (operation_id) VALUES ('{old}')"
    );
    stage.db.execute_unprepared(&insert).await.unwrap();
    stage.world.until("b").await;
    let job = stage.job(old).await;
    assert_eq!((job.scope, job.slot), (Some(scope), Some(1)));
    let new = stage.enqueue(trip(scope)).await.id;
    stage.job_until(new, "in line", in_line).await;
    // As its release for a retry was, of a job that it had stolen: it knows nothing of the slot.
    let release = format!(
        "UPDATE jobs SET state = 'ready', lease_epoch = lease_epoch + 1, lease_owner = NULL, announced_at = NULL,
                         due_at = now() + interval '1 hour' WHERE operation_id = '{old}'"
    );
    stage.db.execute_unprepared(&release).await.unwrap();
    assert_eq!(stage.settled(new).await.status, OperationStatus::Succeeded);
    for part in parts {
        part.end().await;
    }
    stage.end().await;
}
