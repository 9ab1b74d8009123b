//! Writes an operation, its job and its outbox row in the caller's transaction: all of it commits or none.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, FromQueryResult};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::{
    entity::{job::Priority, operation},
    kind::OperationInput,
    store,
};

/// What to do when another operation has the same serial key and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBusy {
    /// [`EnqueueError::Busy`].
    Refuse,
    /// Run after it, oldest first.
    Wait,
}

/// Operations with the same key run one after another: the key is held from the first claim to the terminal state,
/// waits for retry and undoing included. A dead operation holds no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    /// E.g. `tenant:<uuid>`.
    pub key: String,
    /// What if it is taken.
    pub when_busy: WhenBusy,
}

/// An operation to be.
#[derive(Clone, Debug)]
pub struct NewOperation<I> {
    /// A UUIDv7 of the caller's; one is made otherwise.
    pub id: Option<Uuid>,
    /// Names the kind and its version too.
    pub input: I,
    /// Whose it is.
    pub scope: Uuid,
    /// What it works on, e.g. `tenant`.
    pub target_type: String,
    /// Which one.
    pub target_id: Uuid,
    /// One at a time?
    pub serial: Option<Serial>,
    /// Of the request that causes it.
    pub request_id: Option<String>,
    /// Not before.
    pub run_at: Option<DateTime<Utc>>,
    /// What it gives way to.
    pub priority: Priority,
}

impl<I: OperationInput> NewOperation<I> {
    /// An operation on a target, at once and beside any other.
    pub fn new(input: I, scope: Uuid, target_type: impl Into<String>, target_id: Uuid) -> Self {
        Self {
            id: None,
            input,
            scope,
            target_type: target_type.into(),
            target_id,
            serial: None,
            request_id: None,
            run_at: None,
            priority: Priority::Interactive,
        }
    }

    /// With an id of the caller's.
    #[must_use]
    pub const fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// One at a time for this key.
    #[must_use]
    pub fn serial(mut self, key: impl Into<String>, when_busy: WhenBusy) -> Self {
        self.serial = Some(Serial {
            key: key.into(),
            when_busy,
        });
        self
    }

    /// Caused by this request.
    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Not before this moment, by Postgres's clock.
    #[must_use]
    pub const fn run_at(mut self, at: DateTime<Utc>) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Nobody waits for it: what people ask for comes first.
    #[must_use]
    pub const fn scheduled(mut self) -> Self {
        self.priority = Priority::Scheduled;
        self
    }
}

/// Why nothing was enqueued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Another operation has the serial key.
    #[error("operation {operation_id} is not over yet")]
    Busy {
        /// The one in the way.
        operation_id: Uuid,
    },
    /// The input can't be written as JSON.
    #[error("the operation's input can't be written as JSON")]
    Input(#[source] serde_json::Error),
    /// The database's own.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Enqueues within the caller's transaction. With a serial key, an advisory lock on the key is held to the
/// transaction's end, so do it last. Locks of rows of the caller's own come before this call, never after.
///
/// # Errors
/// [`EnqueueError::Busy`] under [`WhenBusy::Refuse`]; the transaction stays usable then. Otherwise the database's.
pub async fn enqueue<I: OperationInput>(
    tx: &DatabaseTransaction,
    new: NewOperation<I>,
) -> Result<operation::Model, EnqueueError> {
    let input = serde_json::to_value(&new.input).map_err(EnqueueError::Input)?;
    if let Some(serial) = &new.serial {
        store::lock_key(tx, &serial.key).await?;
        if serial.when_busy == WhenBusy::Refuse
            && let Some(operation_id) = store::busy_with(tx, &serial.key).await?
        {
            return Err(EnqueueError::Busy { operation_id });
        }
    }
    let work = Work {
        id: new.id.unwrap_or_else(Uuid::now_v7),
        kind: I::KIND,
        version: I::VERSION,
        input,
        scope: new.scope,
        target_type: &new.target_type,
        target_id: new.target_id,
        serial_key: new.serial.as_ref().map(|serial| serial.key.as_str()),
        request_id: new.request_id.as_deref(),
        run_at: new.run_at,
        priority: new.priority,
    };
    Ok(insert(tx, work).await?)
}

/// An operation whose kind is known by name only.
pub(crate) struct Work<'a> {
    pub(crate) id: Uuid,
    pub(crate) kind: &'a str,
    pub(crate) version: i32,
    pub(crate) input: Json,
    pub(crate) scope: Uuid,
    pub(crate) target_type: &'a str,
    pub(crate) target_id: Uuid,
    pub(crate) serial_key: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) run_at: Option<DateTime<Utc>>,
    pub(crate) priority: Priority,
}

/// Writes the operation, its job and, unless it is for later, its outbox row. Whether its serial key is busy is the
/// caller's to know, under that key's lock.
pub(crate) async fn insert(tx: &DatabaseTransaction, work: Work<'_>) -> Result<operation::Model, DbErr> {
    let values = [
        work.id.into(),
        work.kind.into(),
        work.version.into(),
        work.input.into(),
        work.scope.into(),
        work.target_type.into(),
        work.target_id.into(),
        work.serial_key.into(),
        work.request_id.into(),
        work.run_at.into(),
        work.priority.as_str().into(),
    ];
    let row = store::bounded(tx.query_one_raw(store::statement(INSERT, values))).await?;
    let row = row.ok_or(DbErr::RecordNotInserted)?;
    operation::Model::from_query_result(&row, "")
}

const INSERT: &str = "
WITH operation AS (
    INSERT INTO operations (id, kind, scope, target_type, target_id, status, request_id, created_at, updated_at)
    VALUES ($1, $2, $5, $6, $7, 'queued', $9, now(), now())
    RETURNING *
), job AS (
    INSERT INTO jobs (operation_id, kind, version, input, serial_key, state, due_at, announced_at, created_at,
                      scope, priority)
    SELECT id, kind, $3, $4, $8, 'ready', COALESCE($10, now()), CASE WHEN $10 > now() THEN NULL ELSE now() END, now(),
           scope, $11
    FROM operation
    RETURNING operation_id, announced_at
), entry AS (
    INSERT INTO outbox (operation_id) SELECT operation_id FROM job WHERE announced_at IS NOT NULL
    RETURNING operation_id
)
SELECT operation.*, (SELECT pg_notify('jobs_outbox', '') FROM entry)::text FROM operation";
