//! The engine's tables. Migrations only add; who may use them is granted by whoever owns the database.

#![allow(elided_lifetimes_in_paths, reason = "the trait declares its methods so")]

use sea_orm_migration::prelude::*;

/// The engine's migrations, oldest first.
#[must_use]
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(CreateEngine),
        Box::new(CreateSchedules),
        Box::new(ShowTheDead),
        Box::new(ShareOut),
    ]
}

struct CreateEngine;

impl MigrationName for CreateEngine {
    fn name(&self) -> &'static str {
        "m20261125_000001_jobs_create_engine"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateEngine {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(UP).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("DROP TABLE job_stream, outbox, job_steps, jobs, operations")
            .await
            .map(drop)
    }
}

/// Marks operations that were given up half-way, where their owners look.
struct ShowTheDead;

impl MigrationName for ShowTheDead {
    fn name(&self) -> &'static str {
        "m20261126_000002_jobs_show_the_dead"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ShowTheDead {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const UP: &str = "
            ALTER TABLE operations ADD COLUMN dead_at timestamptz;
            UPDATE operations o SET dead_at = COALESCE(o.finished_at, o.updated_at)
            FROM jobs j WHERE j.operation_id = o.id AND j.state = 'dead';
            CREATE INDEX operations_dead ON operations (id DESC) WHERE dead_at IS NOT NULL;
            CREATE INDEX jobs_dead ON jobs (operation_id) WHERE state = 'dead'";
        manager.get_connection().execute_unprepared(UP).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const DOWN: &str = "
            DROP INDEX jobs_dead;
            ALTER TABLE operations DROP COLUMN dead_at";
        manager.get_connection().execute_unprepared(DOWN).await.map(drop)
    }
}

/// Bounds how many jobs of a scope run at a time, and tells what a schedule caused from what a person asked for.
struct ShareOut;

impl MigrationName for ShareOut {
    fn name(&self) -> &'static str {
        "m20261126_000003_jobs_share_out"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ShareOut {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared(SHARE_OUT)
            .await
            .map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const DOWN: &str = "
            UPDATE jobs SET state = 'ready', announced_at = NULL WHERE in_line AND state = 'blocked';
            DROP TABLE job_limits;
            ALTER TABLE jobs DROP COLUMN scope, DROP COLUMN slot, DROP COLUMN in_line, DROP COLUMN priority;
            ALTER TABLE jobs ADD CONSTRAINT jobs_check1 CHECK (NOT holds_key OR state IN ('ready', 'leased'))";
        manager.get_connection().execute_unprepared(DOWN).await.map(drop)
    }
}

struct CreateSchedules;

impl MigrationName for CreateSchedules {
    fn name(&self) -> &'static str {
        "m20261126_000001_jobs_schedules"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateSchedules {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared(SCHEDULES)
            .await
            .map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("DROP TABLE schedule_fires, schedules")
            .await
            .map(drop)
    }
}

const UP: &str = "
CREATE TABLE operations (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    scope uuid NOT NULL,
    target_type text NOT NULL,
    target_id uuid NOT NULL,
    status text NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    percent smallint NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 100),
    step text,
    message text,
    error_code text,
    error_message text,
    error_detail text,
    attempt integer NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 1,
    request_id text,
    cancel_requested_at timestamptz,
    pivoted_at timestamptz,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    updated_at timestamptz NOT NULL,
    CHECK ((finished_at IS NULL) = (status IN ('queued', 'running')))
);
CREATE INDEX operations_by_scope ON operations (scope, created_at DESC, id DESC);
CREATE INDEX operations_by_age ON operations (created_at DESC, id DESC);
CREATE INDEX operations_by_target ON operations (target_id, created_at DESC);
CREATE INDEX operations_unfinished ON operations (kind, created_at) WHERE finished_at IS NULL;
CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE jobs (
    operation_id uuid PRIMARY KEY REFERENCES operations (id) ON DELETE CASCADE,
    kind text NOT NULL,
    version integer NOT NULL,
    input jsonb NOT NULL,
    serial_key text,
    holds_key boolean NOT NULL DEFAULT false,
    state text NOT NULL CHECK (state IN ('ready', 'leased', 'blocked', 'finished', 'dead')),
    due_at timestamptz NOT NULL,
    announced_at timestamptz,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_owner text,
    attempts integer NOT NULL DEFAULT 0,
    position integer NOT NULL DEFAULT 0,
    ending text CHECK (ending IN ('failed', 'cancelled')),
    created_at timestamptz NOT NULL,
    CHECK (NOT holds_key OR serial_key IS NOT NULL),
    CHECK (NOT holds_key OR state IN ('ready', 'leased'))
);
-- One job at a time holds a key.
CREATE UNIQUE INDEX jobs_key_holder ON jobs (serial_key) WHERE holds_key;
-- Who is busy with a key, and who waits for it.
CREATE INDEX jobs_by_key ON jobs (serial_key, operation_id)
    WHERE serial_key IS NOT NULL AND state IN ('ready', 'leased', 'blocked');
CREATE INDEX jobs_blocked ON jobs (operation_id) WHERE state = 'blocked';
-- What must be announced (again): the sweeper's three questions.
CREATE INDEX jobs_unannounced ON jobs (due_at) WHERE state = 'ready' AND announced_at IS NULL;
CREATE INDEX jobs_announced ON jobs (announced_at) WHERE state = 'ready' AND announced_at IS NOT NULL;
CREATE INDEX jobs_leases ON jobs (due_at) WHERE state = 'leased';

CREATE TABLE job_steps (
    operation_id uuid NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    position integer NOT NULL,
    name text NOT NULL,
    status text NOT NULL CHECK (status IN ('done', 'failed', 'undone')),
    attempt integer NOT NULL DEFAULT 1,
    output jsonb,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    error_code text,
    error_message text,
    error_detail text,
    PRIMARY KEY (operation_id, position)
);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Which Redis the announcements went to: one row.
CREATE TABLE job_stream (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    mark text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);
";

const SCHEDULES: &str = "
CREATE TABLE schedules (
    id uuid PRIMARY KEY,
    name text UNIQUE,
    kind text NOT NULL,
    version integer NOT NULL,
    input jsonb NOT NULL,
    scope uuid NOT NULL,
    target_type text NOT NULL,
    target_id uuid NOT NULL,
    serial_key text,
    cron text NOT NULL,
    time_zone text NOT NULL,
    jitter_seconds integer NOT NULL DEFAULT 0 CHECK (jitter_seconds BETWEEN 0 AND 86400),
    enabled boolean NOT NULL DEFAULT true,
    next_fire_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE enabled;
CREATE INDEX schedules_by_scope ON schedules (scope, created_at DESC, id DESC);
CREATE INDEX schedules_by_target ON schedules (target_id);

CREATE TABLE schedule_fires (
    schedule_id uuid NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    fire_at timestamptz NOT NULL,
    -- No reference: operations are forgotten by a rule of their own.
    operation_id uuid,
    fired_at timestamptz NOT NULL DEFAULT now(),
    -- Each moment is fired once.
    PRIMARY KEY (schedule_id, fire_at)
);
CREATE INDEX schedule_fires_by_age ON schedule_fires (fired_at);
";

const SHARE_OUT: &str = "
ALTER TABLE jobs
    -- Its operation's. An old binary writes none; whoever claims it or puts it in line fills it in.
    ADD COLUMN scope uuid,
    ADD COLUMN slot smallint CHECK (slot > 0),
    ADD COLUMN in_line boolean NOT NULL DEFAULT false,
    ADD COLUMN priority text NOT NULL DEFAULT 'interactive' CHECK (priority IN ('interactive', 'scheduled')),
    -- A job that began keeps its key while it waits for a slot.
    DROP CONSTRAINT jobs_check1,
    ADD CONSTRAINT jobs_key_held CHECK (NOT holds_key OR state IN ('ready', 'leased') OR state = 'blocked' AND in_line);
UPDATE jobs j SET scope = o.scope FROM operations o WHERE o.id = j.operation_id AND j.state <> 'finished';
-- A slot is one job's, and only while it is leased: an old binary, which knows no slots, gives them up like a new one.
CREATE UNIQUE INDEX jobs_slots ON jobs (scope, slot) WHERE state = 'leased' AND slot IS NOT NULL;
-- Who is in line, the first one first: see `place` in the statements.
CREATE INDEX jobs_line ON jobs (
    scope,
    (created_at AT TIME ZONE 'UTC' + CASE WHEN priority = 'scheduled' THEN interval '12 hours' ELSE interval '0' END),
    operation_id
) WHERE in_line AND state IN ('ready', 'blocked');

-- What the worker that started last was told: one row.
CREATE TABLE job_limits (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- Jobs of a scope that run at a time.
    scope_cap smallint CHECK (scope_cap > 0),
    set_at timestamptz NOT NULL DEFAULT now()
);
";
