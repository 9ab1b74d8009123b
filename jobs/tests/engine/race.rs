//! Many workers and many jobs.

use std::{collections::HashMap, time::Duration};

use jobs::{
    NewOperation, Registry,
    entity::{
        job::{self, JobState},
        operation::{self, OperationStatus},
    },
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, TransactionTrait,
};
use uuid::Uuid;

use crate::{
    kinds::{Act, Errand, ErrandKind, World},
    support::Stage,
};

/// A step that was carried out.
#[derive(FromQueryResult)]
struct Effect {
    operation_id: Uuid,
    step: String,
    epoch: i64,
}

impl Stage {
    /// For [`Errand`]s: each writes what it does, and under which epoch, in a table without any constraint.
    async fn errands(&self, count: usize) -> Vec<Uuid> {
        self.db
            .execute_unprepared("CREATE TABLE ledger (operation_id uuid, step text, epoch bigint)")
            .await
            .unwrap();
        let tx = self.db.begin().await.unwrap();
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let new = NewOperation::new(Errand {}, Uuid::nil(), "tenant", Uuid::now_v7());
            ids.push(jobs::enqueue(&tx, new).await.unwrap().id);
        }
        tx.commit().await.unwrap();
        ids
    }

    /// How often each step was carried out under each epoch.
    async fn ledger(&self) -> HashMap<(Uuid, String, i64), usize> {
        let sql = "SELECT operation_id, step, epoch FROM ledger";
        let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
        let effects = Effect::find_by_statement(statement).all(&self.db).await.unwrap();
        let mut ledger = HashMap::new();
        for effect in effects {
            *ledger
                .entry((effect.operation_id, effect.step, effect.epoch))
                .or_default() += 1;
        }
        ledger
    }

    async fn all_over(&self, ids: &[Uuid]) {
        let over = async || {
            let over = operation::Entity::find()
                .filter(operation::Column::Status.eq(OperationStatus::Succeeded))
                .all(&self.db);
            over.await.is_ok_and(|over| over.len() == ids.len())
        };
        // As long as it goes on at all.
        let mut last = 0;
        while !over().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let done = self.world.begun.lock().unwrap().len();
            if done == last {
                self.until("over", &over).await;
            }
            last = done;
        }
    }
}

fn errands(stage: &Stage) -> Registry<World> {
    Registry::new(stage.world.clone()).with::<ErrandKind>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_workers_racing_for_1000_jobs_run_each_step_once_and_starve_none() {
    let stage = Stage::new().await;
    let ids = stage.errands(1000).await;
    let parts = [stage.relay(), stage.sweeper()];
    let options = || jobs::WorkerOptions {
        // A busy machine is no reason to steal.
        lease: Duration::from_secs(15),
        ..stage.options()
    };
    let workers: Vec<_> = (0..10)
        .map(|_| stage.worker_with(errands(&stage), options()))
        .collect();
    stage.all_over(&ids).await;
    let ledger = stage.ledger().await;
    assert_eq!(ledger.len(), 2000, "every step of every job");
    assert!(
        ledger
            .iter()
            .all(|((.., epoch), times)| (*epoch, *times) == (1, 1)),
        "at its first claim, once"
    );
    // None was overtaken by many more than are at work at a time.
    let begun = operation::Entity::find()
        .order_by_asc(operation::Column::StartedAt)
        .all(&stage.db)
        .await
        .unwrap();
    let place: HashMap<_, _> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let at_work = 10 * stage.options().concurrency;
    let overtaken = begun
        .iter()
        .enumerate()
        .map(|(turn, operation)| turn.saturating_sub(place[&operation.id]))
        .max();
    assert!(overtaken.is_some_and(|by| by <= 2 * at_work), "{overtaken:?}");
    stage.assert_quiet().await;
    for part in workers.into_iter().chain(parts) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_workers_die_no_step_is_carried_out_twice_under_one_epoch() {
    let stage = Stage::new().await;
    let ids = stage.errands(150).await;
    stage
        .world
        .order("carry", vec![Act::Sleep(Duration::from_millis(40)); 1000]);
    let parts = [stage.relay(), stage.sweeper()];
    let doomed = [(); 3].map(|()| stage.mortal_with(errands(&stage)));
    let worker = stage.worker_with(errands(&stage), stage.options());
    for mortal in doomed {
        tokio::time::sleep(Duration::from_millis(250)).await;
        mortal.kill();
    }
    stage.all_over(&ids).await;
    let ledger = stage.ledger().await;
    assert!(ledger.values().all(|times| *times == 1));
    for step in ["fetch", "carry"] {
        let jobs = |id: &Uuid| ledger.keys().any(|(of, name, _)| of == id && name == step);
        assert!(ids.iter().all(jobs), "every job has its {step}");
    }
    stage.assert_quiet().await;
    for part in parts.into_iter().chain([worker]) {
        part.end().await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_leave_under_load_charge_no_attempt() {
    let stage = Stage::new().await;
    let ids = stage.errands(120).await;
    // As many as can run at a time; half of them listen to their token.
    let acts = [Act::Hang, Act::Sleep(Duration::from_secs(2))];
    stage
        .world
        .order("carry", acts.into_iter().cycle().take(24).collect::<Vec<_>>());
    let parts = [stage.relay(), stage.sweeper()];
    let leaving = [(); 3].map(|()| stage.worker_with(errands(&stage), stage.options()));
    stage
        .until("many run", async || {
            let running = job::Entity::find().filter(job::Column::State.eq(JobState::Leased));
            running.all(&stage.db).await.unwrap().len() >= 20
        })
        .await;
    let ended = leaving.map(|worker| tokio::spawn(worker.end()));
    for end in ended {
        end.await.unwrap();
    }
    let left = job::Entity::find().all(&stage.db).await.unwrap();
    assert!(
        left.iter()
            .any(|job| job.state == JobState::Ready && job.lease_epoch > 0)
    );
    for job in left {
        assert_ne!(job.state, JobState::Leased, "{job:?}");
        assert_eq!(job.attempts, 0, "{job:?}");
    }
    let worker = stage.worker_with(errands(&stage), stage.options());
    stage.all_over(&ids).await;
    assert!(stage.ledger().await.values().all(|times| *times == 1));
    for part in parts.into_iter().chain([worker]) {
        part.end().await;
    }
    stage.end().await;
}
