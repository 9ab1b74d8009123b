//! A stage for one test: a database of its own, keys of its own on the Redis server.

use std::{sync::Arc, time::Duration};

use jobs::{
    Bell, CancelError, Metrics, NewOperation, OperationInput, Registry, Relay, RelayOptions, Sweeper,
    SweeperOptions, Watcher, WatcherOptions, Worker, WorkerOptions,
    entity::{job, job_step, operation},
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, EntityTrait, QueryOrder, TransactionTrait,
};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::kinds::{DemolitionKind, Trip, TripKind, World};

/// Long enough for anything that happens at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LEASE: Duration = Duration::from_millis(900);

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through `cargo xtask test`"))
}

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        jobs::migrations()
    }
}

/// A worker, relay, sweeper, watcher or firing that runs until the test stops it.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn spawn<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { stop, task }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("it stops in time")
            .expect("without panic");
    }
}

/// A worker in a runtime of its own, so that it can be killed.
pub(crate) struct Mortal {
    runtime: Option<Runtime>,
}

impl Mortal {
    pub(crate) fn kill(mut self) {
        self.runtime.take().expect("killed once").shutdown_background();
    }
}

pub(crate) struct Stage {
    pub(crate) db: DatabaseConnection,
    pub(crate) bell: Bell,
    pub(crate) world: Arc<World>,
    pub(crate) metrics: Metrics,
    pub(crate) prefix: String,
    pub(crate) redis: redis::Client,
    admin: DatabaseConnection,
    name: String,
    url: String,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::prepared("").await
    }

    /// One whose Postgres has a clock that is so far ahead of everyone else's.
    pub(crate) async fn with_clock(hours: i32) -> Self {
        // Found before Postgres's own functions by whoever doesn't say which ones are meant.
        let clock = format!(
            "CREATE SCHEMA ahead;
             CREATE FUNCTION ahead.now() RETURNS timestamptz STABLE LANGUAGE sql
                AS $$ SELECT pg_catalog.now() + interval '{hours} hours' $$;
             CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
                AS $$ SELECT pg_catalog.clock_timestamp() + interval '{hours} hours' $$;
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = ahead, pg_catalog, public',
                current_database()); END $$;"
        );
        Self::prepared(&clock).await
    }

    /// One in whose database this was done before anything else.
    async fn prepared(preparation: &str) -> Self {
        let base = setting("TEST_DATABASE_URL");
        let admin = connect(&base, 2).await;
        let name = format!("jobs_{}", Uuid::now_v7().simple());
        admin
            .execute_unprepared(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        let (server, query) = base
            .split_once('?')
            .map_or((base.as_str(), ""), |(server, query)| (server, query));
        let (server, _) = server.rsplit_once('/').expect("a database in the URL");
        let url = format!(
            "{server}/{name}{}{query}",
            if query.is_empty() { "" } else { "?" }
        );
        let first = connect(&url, 1).await;
        first.execute_unprepared(preparation).await.unwrap();
        first.close().await.unwrap();
        let db = connect(&url, 20).await;
        Migrator::up(&db, None).await.unwrap();
        db.execute_unprepared("CREATE TABLE effects (what text)")
            .await
            .unwrap();
        let prefix = format!("test:{name}");
        let bell = Bell::open(&setting("TEST_REDIS_URL"), &prefix).unwrap();
        let redis = redis::Client::open(setting("TEST_REDIS_URL")).unwrap();
        let (world, metrics) = (Arc::new(World::default()), Metrics::new());
        Self {
            db,
            bell,
            world,
            metrics,
            prefix,
            redis,
            admin,
            name,
            url,
        }
    }

    pub(crate) async fn end(self) {
        self.wipe_redis().await;
        self.db.close().await.unwrap();
        let drop = format!("DROP DATABASE {}", self.name);
        self.admin.execute_unprepared(&drop).await.unwrap();
    }

    /// Everything of this stage's, as a `FLUSHALL` or a restart without persistence would.
    pub(crate) async fn wipe_redis(&self) {
        let mut redis = self.redis.get_multiplexed_async_connection().await.unwrap();
        let [interactive, scheduled] = self.streams();
        let keys = [interactive, scheduled, format!("{}:mark", self.prefix)];
        let _: i64 = redis::cmd("DEL")
            .arg(&keys)
            .query_async(&mut redis)
            .await
            .unwrap();
    }

    /// Ends every session on the stage's database.
    pub(crate) async fn break_connections(&self) {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND usename = current_user",
            self.name
        );
        self.admin.execute_unprepared(&sql).await.unwrap();
    }

    pub(crate) fn stream(&self) -> String {
        format!("{}:stream", self.prefix)
    }

    /// Of what people asked for, and of what schedules caused.
    pub(crate) fn streams(&self) -> [String; 2] {
        [self.stream(), format!("{}:scheduled", self.stream())]
    }

    pub(crate) fn options(&self) -> WorkerOptions {
        WorkerOptions {
            lease: LEASE,
            block: Duration::from_millis(400),
            drain: Duration::from_millis(100),
            grace: Duration::from_millis(200),
            // Two that wait for one entry get it by chance: several times in a test's patience.
            defer: Duration::from_millis(300),
            ..WorkerOptions::default()
        }
    }

    pub(crate) fn registry(&self) -> Registry<World> {
        Registry::new(Arc::clone(&self.world))
            .with::<TripKind>()
            .unwrap()
            .with::<DemolitionKind>()
            .unwrap()
    }

    pub(crate) fn worker(&self) -> Running {
        self.worker_with(self.registry(), self.options())
    }

    pub(crate) fn worker_with(&self, registry: Registry<World>, options: WorkerOptions) -> Running {
        let worker = Worker::new(
            self.db.clone(),
            self.bell.clone(),
            registry,
            options,
            self.metrics.clone(),
        );
        Running::spawn(|stop| async move { worker.run(stop).await })
    }

    /// One that can die: nothing of it, its connections neither, survives [`Mortal::kill`]. One thread only, so that
    /// [`Act::Freeze`] stops all of it.
    pub(crate) fn mortal(&self) -> Mortal {
        self.mortal_with(self.registry())
    }

    pub(crate) fn mortal_with(&self, registry: Registry<World>) -> Mortal {
        self.mortal_as(registry, self.options())
    }

    pub(crate) fn mortal_as(&self, registry: Registry<World>, options: WorkerOptions) -> Mortal {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (url, prefix) = (self.url.clone(), self.prefix.clone());
        let metrics = self.metrics.clone();
        runtime.spawn(async move {
            let db = connect(&url, 5).await;
            let bell = Bell::open(&setting("TEST_REDIS_URL"), &prefix).unwrap();
            Worker::new(db, bell, registry, options, metrics)
                .run(CancellationToken::new())
                .await;
        });
        Mortal {
            runtime: Some(runtime),
        }
    }

    pub(crate) fn relay(&self) -> Running {
        let options = RelayOptions {
            poll: Duration::from_secs(1),
            ..RelayOptions::default()
        };
        let relay = Relay::new(self.db.clone(), self.bell.clone(), options, self.metrics.clone());
        Running::spawn(|stop| async move { relay.run(stop).await })
    }

    pub(crate) fn sweeper(&self) -> Running {
        let options = SweeperOptions {
            interval: Duration::from_millis(200),
            lost_after: Duration::from_millis(700),
            ..SweeperOptions::default()
        };
        let sweeper = Sweeper::new(self.db.clone(), self.bell.clone(), options, self.metrics.clone());
        Running::spawn(|stop| async move { sweeper.run(stop).await })
    }

    pub(crate) fn watcher(&self) -> (Watcher, Running) {
        let watcher = Watcher::new(self.db.clone(), self.bell.clone(), WatcherOptions::default());
        let running = Running::spawn({
            let watcher = watcher.clone();
            |stop| async move { watcher.run(stop).await }
        });
        (watcher, running)
    }

    pub(crate) async fn enqueue<I: OperationInput>(&self, new: NewOperation<I>) -> operation::Model {
        let tx = self.db.begin().await.unwrap();
        let operation = jobs::enqueue(&tx, new).await.unwrap();
        tx.commit().await.unwrap();
        operation
    }

    pub(crate) async fn cancel(&self, id: Uuid) -> Result<operation::Model, CancelError> {
        let tx = self.db.begin().await.unwrap();
        let cancelled = jobs::cancel(&tx, id).await;
        tx.commit().await.unwrap();
        cancelled
    }

    pub(crate) async fn trip(&self) -> Uuid {
        self.enqueue(NewOperation::new(
            Trip::default(),
            Uuid::nil(),
            "tenant",
            Uuid::now_v7(),
        ))
        .await
        .id
    }

    pub(crate) async fn operation(&self, id: Uuid) -> operation::Model {
        operation::Entity::find_by_id(id)
            .one(&self.db)
            .await
            .unwrap()
            .expect("it exists")
    }

    pub(crate) async fn job(&self, id: Uuid) -> job::Model {
        job::Entity::find_by_id(id)
            .one(&self.db)
            .await
            .unwrap()
            .expect("it exists")
    }

    /// `name status attempt` of each step.
    pub(crate) async fn steps(&self, id: Uuid) -> Vec<String> {
        let rows = job_step::Entity::find()
            .order_by_asc(job_step::Column::Position)
            .all(&self.db)
            .await
            .unwrap();
        rows.into_iter()
            .filter(|row| row.operation_id == id)
            .map(|row| format!("{} {:?} {}", row.name, row.status, row.attempt))
            .collect()
    }

    pub(crate) async fn settled(&self, id: Uuid) -> operation::Model {
        let settled = async {
            loop {
                // A broken connection is part of some tests.
                if let Ok(Some(operation)) = operation::Entity::find_by_id(id).one(&self.db).await
                    && operation.status.is_terminal()
                {
                    return operation;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, settled).await {
            Ok(operation) => operation,
            Err(_) => panic!(
                "never settled: {:?} {:?} {:?}",
                self.operation(id).await,
                self.job(id).await,
                self.world.diary()
            ),
        }
    }

    pub(crate) async fn job_until(&self, id: Uuid, what: &str, holds: impl Fn(&job::Model) -> bool) {
        let found = async {
            while !holds(&self.job(id).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, found).await;
        assert!(waited.is_ok(), "never {what}: {:?}", self.job(id).await);
    }

    /// Postgres's.
    pub(crate) async fn clock(&self) -> chrono::DateTime<chrono::Utc> {
        let statement =
            sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT clock_timestamp() AS now");
        let row = self.db.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get("", "now").unwrap()
    }

    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let found = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, found).await;
        assert!(waited.is_ok(), "never {what}");
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
        self.db
            .query_one_raw(statement)
            .await
            .unwrap()
            .unwrap()
            .try_get("", "n")
            .unwrap()
    }

    /// Waits until the stream has an entry for the operation.
    pub(crate) async fn announced(&self, id: Uuid) {
        self.until("announced", async || self.entries(id).await > 0).await;
    }

    /// Entries of the streams for an operation.
    pub(crate) async fn entries(&self, id: Uuid) -> usize {
        let mut found = 0;
        for stream in self.streams() {
            found += self.entries_in(&stream, id).await;
        }
        found
    }

    pub(crate) async fn entries_in(&self, stream: &str, id: Uuid) -> usize {
        let mut redis = self.redis.get_multiplexed_async_connection().await.unwrap();
        let entries: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
            .arg(stream)
            .arg(&["-", "+"])
            .query_async(&mut redis)
            .await
            .unwrap();
        let text = id.to_string();
        let of_it = |entry: &&redis::streams::StreamId| entry.get::<String>("op").as_ref() == Some(&text);
        entries.ids.iter().filter(of_it).count()
    }

    /// Nothing is left in the streams, read or unread, nor in the outbox.
    pub(crate) async fn assert_quiet(&self) {
        let mut redis = self.redis.get_multiplexed_async_connection().await.unwrap();
        let mut last = (1, 1, 1);
        let quiet = async {
            loop {
                let (mut length, mut pending) = (0, 0);
                for stream in self.streams() {
                    length += redis::cmd("XLEN")
                        .arg(&stream)
                        .query_async::<i64>(&mut redis)
                        .await
                        .unwrap();
                    // None before anyone read it, or just after a wipe.
                    let read: redis::RedisResult<redis::streams::StreamPendingReply> = redis::cmd("XPENDING")
                        .arg(&stream)
                        .arg("workers")
                        .query_async(&mut redis)
                        .await;
                    match read {
                        Ok(read) => pending += read.count(),
                        Err(error) => assert_eq!(error.code(), Some("NOGROUP"), "{error}"),
                    }
                }
                let outbox = usize::try_from(self.count("outbox").await).unwrap();
                last = (length, pending, outbox);
                if last == (0, 0, 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, quiet).await;
        assert!(waited.is_ok(), "left in streams, pending, outbox: {last:?}");
    }
}

async fn connect(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .sqlx_logging(false)
        .acquire_timeout(Duration::from_secs(10));
    Database::connect(options).await.unwrap()
}
