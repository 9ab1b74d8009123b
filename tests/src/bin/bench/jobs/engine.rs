//! The engine with a database of its own, empty operations, and ways to time them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::jobs::{
    Bell, Metrics, NewOperation, OperationInput, OperationKind, Registry, Relay, RelayOptions, Step,
    StepContext, StepResult, Sweeper, SweeperOptions, Worker, WorkerOptions,
};
use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement, TransactionTrait as _,
};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::variable;

/// Operations at a time.
pub const CONCURRENCY: usize = 16;
/// Tasks that enqueue.
const CALLERS: usize = 8;
/// Longest time of a round.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl OperationInput for Nothing {
    const KIND: &'static str = "bench.nothing";
}

struct Kind;

impl OperationKind for Kind {
    type Input = Nothing;
    type World = ();

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![Box::new(Empty("first")), Box::new(Empty("second"))]
    }
}

struct Empty(&'static str);

#[async_trait]
impl Step<Kind> for Empty {
    fn name(&self) -> &'static str {
        self.0
    }

    async fn apply(&self, _: &StepContext<Kind>) -> StepResult {
        Ok(())
    }

    async fn undo(&self, _: &StepContext<Kind>) -> StepResult {
        Ok(())
    }
}

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        ::jobs::migrations()
    }
}

pub struct Engine {
    admin: DatabaseConnection,
    /// Of those who enqueue, and of the bench itself.
    db: DatabaseConnection,
    /// Of the engine's parts, as a process has its own.
    own: DatabaseConnection,
    name: String,
    bell: Bell,
    metrics: Metrics,
}

/// Relay, sweeper and worker at work.
pub struct Running {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub async fn end(self) -> Result<()> {
        self.stop.cancel();
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

impl Engine {
    pub async fn new() -> Result<Self> {
        let base = variable("TEST_DATABASE_URL")?;
        let admin = connect(&base, 2).await?;
        let name = format!("bench_{}", Uuid::now_v7().simple());
        admin
            .execute_unprepared(&format!("CREATE DATABASE {name}"))
            .await?;
        let (server, _) = base.rsplit_once('/').context("a database in the URL")?;
        let url = format!("{server}/{name}");
        let db = connect(&url, u32::try_from(CALLERS)? + 2).await?;
        Migrator::up(&db, None).await?;
        Ok(Self {
            admin,
            db,
            own: connect(&url, u32::try_from(CONCURRENCY)? + 4).await?,
            bell: Bell::open(&variable("TEST_REDIS_URL")?, &name)?,
            name,
            metrics: Metrics::new(),
        })
    }

    pub async fn remove(self) -> Result<()> {
        self.db.close().await?;
        self.own.close().await?;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        self.admin.execute_unprepared(&drop).await?;
        Ok(())
    }

    pub async fn setting(&self, name: &str) -> Result<String> {
        let row = self
            .ask(&format!("SELECT current_setting('{name}') AS value"))
            .await?;
        Ok(row.try_get("", "value")?)
    }

    /// Transactions of the engine's own sessions so far.
    pub async fn transactions(&self) -> Result<i64> {
        // A session that is idle tells within ten seconds what it did before.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let count = format!(
            "SELECT xact_commit + xact_rollback AS count FROM pg_stat_database WHERE datname = '{}'",
            self.name
        );
        let statement = Statement::from_string(sea_orm::DbBackend::Postgres, count);
        let row = self
            .admin
            .query_one_raw(statement)
            .await?
            .context("no such database")?;
        Ok(row.try_get("", "count")?)
    }

    /// Starts what a platform's processes run.
    pub fn start(&self, concurrency: usize) -> Running {
        let stop = CancellationToken::new();
        let relay = Relay::new(
            self.own.clone(),
            self.bell.clone(),
            RelayOptions::default(),
            self.metrics.clone(),
        );
        let sweeper = Sweeper::new(
            self.own.clone(),
            self.bell.clone(),
            SweeperOptions::default(),
            self.metrics.clone(),
        );
        let registry = Registry::new(Arc::new(()))
            .with::<Kind>()
            .expect("the kind makes sense");
        let options = WorkerOptions {
            concurrency,
            ..WorkerOptions::default()
        };
        let worker = Worker::new(
            self.own.clone(),
            self.bell.clone(),
            registry,
            options,
            self.metrics.clone(),
        );
        let (relay_stop, sweeper_stop, worker_stop) = (stop.clone(), stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move { relay.run(relay_stop).await }),
            tokio::spawn(async move { sweeper.run(sweeper_stop).await }),
            tokio::spawn(async move { worker.run(worker_stop).await }),
        ];
        Running { stop, tasks }
    }

    /// Enqueues so many, each in a transaction of its own, waits until all are done, and answers how many a second.
    #[allow(clippy::cast_precision_loss)]
    pub async fn carry_out(&self, operations: usize) -> Result<f64> {
        let begun = Instant::now();
        self.enqueue(operations).await?;
        self.all_done(begun).await?;
        Ok(operations as f64 / begun.elapsed().as_secs_f64())
    }

    /// Enqueues so many a second for a while, and answers how long each waited for its start, by Postgres's clock.
    pub async fn at_rate(&self, rate: f64, length: Duration) -> Result<Vec<Duration>> {
        let since = self.ask("SELECT clock_timestamp()::text AS at").await?;
        let since: String = since.try_get("", "at")?;
        let begun = Instant::now();
        let pause = Duration::from_secs_f64(1.0 / rate);
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut calls = tokio::task::JoinSet::new();
        while begun.elapsed() < length {
            ticks.tick().await;
            let db = self.db.clone();
            calls.spawn(async move { enqueue(&db).await });
            while let Some(done) = calls.try_join_next() {
                done??;
            }
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
        self.all_done(begun).await?;
        let waits = format!(
            "SELECT extract(epoch FROM started_at - created_at)::float8 AS wait FROM operations
             WHERE created_at > '{since}' ORDER BY id"
        );
        let statement = Statement::from_string(sea_orm::DbBackend::Postgres, waits);
        let rows = self.db.query_all_raw(statement).await?;
        ensure!(rows.len() > 100, "only {} operations", rows.len());
        rows.iter()
            .map(|row| Ok(Duration::try_from_secs_f64(row.try_get::<f64>("", "wait")?).unwrap_or_default()))
            .collect()
    }

    /// The mean time of a claim while so many wait.
    pub async fn claim_among(&self, waiting: usize, claims: u64) -> Result<Duration> {
        self.enqueue(waiting).await?;
        self.db.execute_unprepared("ANALYZE jobs, operations").await?;
        let before = self.metrics.claims();
        let running = self.start(1);
        let begun = Instant::now();
        let timed = loop {
            let now = self.metrics.claims();
            if now.0 >= before.0 + claims.min(waiting as u64) {
                break now;
            }
            ensure!(begun.elapsed() < PATIENCE, "nothing is claimed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        running.end().await?;
        #[allow(clippy::cast_precision_loss)]
        let mean = (timed.1 - before.1) / (timed.0 - before.0) as f64;
        let rest = self.start(CONCURRENCY);
        self.all_done(begun).await?;
        rest.end().await?;
        Ok(Duration::from_secs_f64(mean))
    }

    async fn enqueue(&self, operations: usize) -> Result<()> {
        stream::iter(0..operations)
            .map(|_| enqueue(&self.db))
            .buffer_unordered(CALLERS)
            .try_collect::<()>()
            .await
    }

    async fn all_done(&self, begun: Instant) -> Result<()> {
        loop {
            let row = self
                .ask("SELECT count(*) AS left FROM operations WHERE finished_at IS NULL")
                .await?;
            let left: i64 = row.try_get("", "left")?;
            if left == 0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{left} operations are not over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, sql: &str) -> Result<sea_orm::QueryResult> {
        let statement = Statement::from_string(sea_orm::DbBackend::Postgres, sql.to_owned());
        self.db.query_one_raw(statement).await?.context("no row")
    }
}

async fn enqueue(db: &DatabaseConnection) -> Result<()> {
    let tx = db.begin().await?;
    let target = Uuid::now_v7();
    ::jobs::enqueue(&tx, NewOperation::new(Nothing {}, target, "nothing", target)).await?;
    tx.commit().await?;
    Ok(())
}

async fn connect(url: &str, connections: u32) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    Ok(Database::connect(options).await?)
}
