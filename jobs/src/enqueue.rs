//! Writes an operation, its job and its outbox row in the caller's transaction: all of it commits or none.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, FromQueryResult, Statement};
use uuid::Uuid;

use crate::{entity::operation, kind::OperationInput, store};

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
    let values = [
        new.id.unwrap_or_else(Uuid::now_v7).into(),
        I::KIND.into(),
        I::VERSION.into(),
        input.into(),
        new.scope.into(),
        new.target_type.into(),
        new.target_id.into(),
        new.serial.map(|serial| serial.key).into(),
        new.request_id.into(),
        new.run_at.into(),
    ];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, INSERT, values);
    let row = tx.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotInserted)?;
    Ok(operation::Model::from_query_result(&row, "")?)
}

const INSERT: &str = "
WITH operation AS (
    INSERT INTO operations (id, kind, scope, target_type, target_id, status, request_id, created_at, updated_at)
    VALUES ($1, $2, $5, $6, $7, 'queued', $9, now(), now())
    RETURNING *
), job AS (
    INSERT INTO jobs (operation_id, kind, version, input, serial_key, state, due_at, announced_at, created_at)
    SELECT id, kind, $3, $4, $8, 'ready', COALESCE($10, now()), CASE WHEN $10 > now() THEN NULL ELSE now() END, now()
    FROM operation
    RETURNING operation_id, announced_at
), entry AS (
    INSERT INTO outbox (operation_id) SELECT operation_id FROM job WHERE announced_at IS NOT NULL
    RETURNING operation_id
)
SELECT operation.*, (SELECT pg_notify('jobs_outbox', '') FROM entry)::text FROM operation";
