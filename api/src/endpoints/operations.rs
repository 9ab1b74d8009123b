//! Operations: reading, waiting, watching, listing, cancelling, retrying.

use std::time::Duration;

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use futures::stream;
use platform::{
    error::{Error, Violation},
    id::{OperationId, OrganizationId},
    operations::{OperationFilter, OperationRow, OperationStatus, StepRow, StepStatus, Target},
    paging::{DEFAULT_LIMIT, MAX_LIMIT},
    permissions::{CancelOperations, Permission, ReadOperations, RetryOperations},
};
use sea_orm::DatabaseTransaction;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Accepted, Authz, Endpoint, Event, Events, HasOperation, Id, IdempotencyKey, LastEventId, NoBody,
        Once, Query, Reads, Recorded as _, Replayable, Reply, Resource, Versioned, endpoint,
    },
    state::State,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/operations", "list_operations")
            .tag("operations")
            .about("List operations", "The operations of the caller's organization and of those below it, newest first.")
            .to(list),
        endpoint(Method::GET, "/v1/operations/{id}", "get_operation")
            .tag("operations")
            .about(
                "Read an operation",
                "One long-running piece of work. With `wait` the answer comes when it has ended, or after so many \
                 seconds.",
            )
            .to(get),
        endpoint(Method::GET, "/v1/operations/{id}/events", "watch_operation")
            .tag("operations")
            .about(
                "Watch an operation",
                "A stream of server-sent events, one `operation` for each change, the first at once; the last is the \
                 operation as it ended, then the stream closes. `Last-Event-ID` goes on from there.",
            )
            .to(watch),
        endpoint(Method::POST, "/v1/operations/{id}/cancel", "cancel_operation")
            .tag("operations")
            .about(
                "Cancel an operation",
                "Asks the operation to stop and to undo what it did. Past a certain point it only goes forward.",
            )
            .errors(&[ErrorCode::OperationFinished, ErrorCode::NotCancellable])
            .to(cancel),
        endpoint(Method::POST, "/v1/operations/{id}/retry", "retry_operation")
            .tag("operations")
            .about(
                "Retry an operation",
                "Lets an operation that was given up half-way (`retryable`) go on where it stopped, in the direction it \
                 had: it does what is left to do, or undoes what is left to undo.",
            )
            .errors(&[ErrorCode::NotRetryable])
            .to(retry),
    ]
}

/// One long-running piece of work.
#[derive(Serialize, ToSchema)]
pub(super) struct Operation {
    /// The operation.
    pub(super) id: OperationId,
    /// What it does. New kinds may appear.
    #[schema(example = "tenant.provision")]
    kind: String,
    /// Where it is. New values may appear.
    #[schema(example = "running", extensions(("x-extensible-enum" = json!(["queued", "running", "succeeded", "failed", "cancelled"]))))]
    status: &'static str,
    /// How far it is.
    progress: Progress,
    /// What it works on.
    target: OperationTarget,
    /// Whose it is.
    organization_id: OrganizationId,
    /// Why it failed.
    #[schema(required)]
    error: Option<OperationError>,
    /// Whether it was given up half-way, so that something may be left behind. The platform's operator can let it go on.
    #[schema(example = false)]
    retryable: bool,
    /// How often it has been taken up.
    #[schema(example = 1)]
    attempt: i32,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When it began.
    #[schema(required)]
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[schema(required)]
    finished_at: Option<DateTime<Utc>>,
    /// What it has done, and does. Only where the operation is read alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<OperationStep>>,
    /// Told as the `ETag`.
    #[serde(skip)]
    revision: i64,
    /// Told as the `ETag` too, since not all see the same.
    #[serde(skip)]
    details: bool,
}

/// One step of an operation.
#[derive(Serialize, ToSchema)]
struct OperationStep {
    /// Its name.
    #[schema(example = "clone_database")]
    name: String,
    /// Where it is. New values may appear.
    #[schema(example = "done", extensions(("x-extensible-enum" = json!(["running", "done", "failed", "undone"]))))]
    status: &'static str,
    /// How often it was tried.
    #[schema(example = 1)]
    attempt: i32,
    /// When its last try began; null while it has not been written down.
    #[schema(required)]
    started_at: Option<DateTime<Utc>>,
    /// When its last try ended.
    #[schema(required)]
    finished_at: Option<DateTime<Utc>>,
    /// Why its last try failed.
    #[schema(required)]
    error: Option<OperationError>,
}

impl OperationStep {
    fn new(row: StepRow, details: bool) -> Self {
        Self {
            name: row.name,
            status: match row.status {
                StepStatus::Done => "done",
                StepStatus::Failed => "failed",
                StepStatus::Undone => "undone",
            },
            attempt: row.attempt,
            started_at: Some(row.started_at),
            finished_at: Some(row.finished_at),
            error: OperationError::new(row.error_code, row.error_message, row.error_detail, details),
        }
    }

    /// The one that runs now; its row is written when it ends.
    fn running(name: String) -> Self {
        Self {
            name,
            status: "running",
            attempt: 1,
            started_at: None,
            finished_at: None,
            error: None,
        }
    }
}

/// How far an operation is.
#[derive(Serialize, ToSchema)]
struct Progress {
    /// 0 to 100.
    #[schema(minimum = 0, maximum = 100, example = 40)]
    percent: i16,
    /// The step that runs, or ran last.
    #[schema(required, example = "clone_database")]
    step: Option<String>,
    /// What it is doing, for people.
    #[schema(required)]
    message: Option<String>,
}

/// What an operation works on.
#[derive(Serialize, ToSchema)]
#[schema(as = OperationTarget)]
struct OperationTarget {
    /// What kind of thing. New kinds may appear.
    #[schema(example = "tenant")]
    r#type: String,
    /// Its id.
    #[schema(
        example = "ten_01jdjyfyh1fe82gqsfsks1j4x4",
        pattern = "^[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    id: String,
}

/// Why an operation failed.
#[derive(Serialize, ToSchema)]
struct OperationError {
    /// Stable and machine-readable. New ones may appear.
    #[schema(example = "gave_up")]
    code: String,
    /// For people.
    message: String,
}

impl OperationError {
    fn new(
        code: Option<String>,
        message: Option<String>,
        detail: Option<String>,
        details: bool,
    ) -> Option<Self> {
        let message = message.unwrap_or_default();
        Some(Self {
            code: code?,
            message: match detail.filter(|_| details) {
                Some(detail) => format!("{message} ({detail})"),
                None => message,
            },
        })
    }
}

impl Versioned for Operation {
    fn version(&self) -> String {
        format!("v{}{}", self.revision, if self.details { "d" } else { "" })
    }
}

impl Operation {
    /// With its steps, for who reads it alone.
    fn with_steps(row: OperationRow, steps: Vec<StepRow>, details: bool) -> Self {
        let running = row
            .step
            .clone()
            .filter(|_| row.status == OperationStatus::Running)
            .filter(|running| steps.iter().all(|step| step.name != *running));
        let mut operation = Self::new(row, details);
        operation.steps = Some(
            steps
                .into_iter()
                .map(|step| OperationStep::new(step, details))
                .chain(running.map(OperationStep::running))
                .collect(),
        );
        operation
    }

    /// As its owner sees it; `details` are for the platform's operator.
    pub(super) fn new(row: OperationRow, details: bool) -> Self {
        let target = Target::of_columns(&row.target_type, row.target_id);
        Self {
            steps: None,
            revision: row.revision,
            details,
            id: row.id.into(),
            kind: row.kind,
            status: row.status.as_str(),
            progress: Progress {
                percent: row.percent,
                step: row.step,
                message: row.message,
            },
            target: OperationTarget {
                id: target.map_or_else(|| row.target_id.to_string(), Target::id_text),
                r#type: row.target_type,
            },
            organization_id: row.scope.into(),
            error: OperationError::new(row.error_code, row.error_message, row.error_detail, details),
            retryable: row.dead_at.is_some(),
            attempt: row.attempt,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
        }
    }
}

impl Replayable for Operation {}

impl HasOperation for Operation {
    fn operation_id(&self) -> OperationId {
        self.id
    }
}

/// A page of operations.
#[derive(Serialize, ToSchema)]
struct OperationPage {
    /// The operations, newest first.
    items: Vec<Operation>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GetOperation {
    /// Answer when the operation has ended, or after so many seconds: 1 to 60.
    #[param(minimum = 1, maximum = 60)]
    wait: Option<u64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListOperations {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only these: ids with commas between them, at most 200.
    #[param(pattern = "^op_[0-7][0-9a-hjkmnp-tv-z]{25}(,op_[0-7][0-9a-hjkmnp-tv-z]{25}){0,199}$")]
    id: Option<String>,
    /// Only those with this status.
    #[param(inline)]
    status: Option<StatusFilter>,
    /// Only those of this kind.
    #[param(example = "tenant.provision", pattern = "^[^\\x00]*$")]
    kind: Option<String>,
    /// Only those that work on this.
    #[param(pattern = "^(ten|pool|tpl|dbs|org)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    target_id: Option<String>,
    /// Only those that were given up half-way, or only the others.
    retryable: Option<bool>,
}

#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum StatusFilter {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<StatusFilter> for OperationStatus {
    fn from(filter: StatusFilter) -> Self {
        match filter {
            StatusFilter::Queued => Self::Queued,
            StatusFilter::Running => Self::Running,
            StatusFilter::Succeeded => Self::Succeeded,
            StatusFilter::Failed => Self::Failed,
            StatusFilter::Cancelled => Self::Cancelled,
        }
    }
}

/// Rows of a page, checked.
pub(super) fn checked_limit(limit: Option<u32>) -> Result<u32, ApiError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(parameter("limit", format!("must be 1 to {MAX_LIMIT}")))
}

fn parameter(name: &str, detail: impl Into<String>) -> ApiError {
    ApiError::invalid(vec![Violation::of_parameter(name, "invalid_value", detail)])
}

async fn get(
    caller: Reads<ReadOperations>,
    id: Id<OperationId>,
    query: Query<GetOperation>,
) -> Result<Resource<Operation>, ApiError> {
    let operations = caller.operations();
    let (identity, row) = match query.0.wait {
        None => operations.get(id.0).await?,
        Some(seconds @ 1..=60) => {
            let state = caller.state();
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let settled = operations.settled(&state.watcher, id.0, deadline);
            match state.ending.run_until_cancelled(settled).await {
                Some(settled) => settled?,
                // The process ends: the answer is how things are, and whoever wants to know more asks another one.
                None => operations.get(id.0).await?,
            }
        }
        Some(_) => return Err(parameter("wait", "must be 1 to 60")),
    };
    let steps = operations.steps(&row).await?;
    Ok(Resource(Operation::with_steps(
        row,
        steps,
        identity.sees_details(),
    )))
}

/// How long a stream waits for a change before it looks whether all is well.
const LOOK_EVERY: Duration = Duration::from_secs(60);

async fn watch(
    caller: Reads<ReadOperations>,
    id: Id<OperationId>,
    last: LastEventId,
) -> Result<Events, ApiError> {
    // Read before the answer begins: what is not there, or not to be seen, is an error like any other.
    let (_, first) = caller.operations().get(id.0).await?;
    let over = first.status.is_terminal() && last.0 == Some(first.revision);
    // A revision that has not been reached yet was never sent by us.
    let since = last.0.filter(|seen| *seen <= first.revision).unwrap_or(0);
    let position = (!over).then_some(since);
    Ok(Events::new(stream::unfold(
        (caller, position),
        move |(caller, position)| async move {
            let since = position?;
            let (event, terminal, revision) = next_event(&caller, caller.state(), id.0, since).await?;
            Some((event, (caller, (!terminal).then_some(revision))))
        },
    )))
}

/// Waits for the next change. `None` ends the stream: the operation is gone, the caller may not see it any more, the
/// process ends.
async fn next_event(
    caller: &Reads<ReadOperations>,
    state: &State,
    id: OperationId,
    since: i64,
) -> Option<(Event, bool, i64)> {
    let operations = caller.operations();
    loop {
        let deadline = Instant::now() + LOOK_EVERY;
        let changed = operations.changed(&state.watcher, id, since, deadline);
        let (identity, row) = match state.ending.run_until_cancelled(changed).await? {
            Ok(None) => continue,
            Ok(Some(changed)) => changed,
            Err(error) => {
                tracing::debug!(%error, "a stream of events ends");
                return None;
            }
        };
        let steps = operations.steps(&row).await.ok()?;
        let (terminal, revision) = (row.status.is_terminal(), row.revision);
        let operation = Operation::with_steps(row, steps, identity.sees_details());
        return Some((Event::new("operation", revision, &operation), terminal, revision));
    }
}

async fn list(
    caller: Reads<ReadOperations>,
    query: Query<ListOperations>,
) -> Result<Reply<OperationPage>, ApiError> {
    let ListOperations {
        limit,
        page_token,
        id,
        status,
        kind,
        target_id,
        retryable,
    } = query.0;
    let ids = id
        .map(|list| {
            list.split(',')
                .map(str::parse)
                .collect::<Result<Vec<OperationId>, _>>()
        })
        .transpose()
        .map_err(|error| parameter("id", format!("{error}, with commas between several")))?;
    if ids.as_ref().is_some_and(|ids| ids.len() > MAX_LIMIT as usize) {
        return Err(parameter("id", format!("must have at most {MAX_LIMIT} ids")));
    }
    let target = target_id
        .map(|text| {
            Target::parse(&text)
                .ok_or_else(|| parameter("target_id", "must be an id of what operations work on"))
        })
        .transpose()?
        .map(Target::uuid);
    let status = status.map(|status| OperationStatus::from(status).as_str());
    let filter = OperationFilter {
        ids,
        status,
        kind,
        target,
        retryable,
    };
    let (identity, page) = caller
        .operations()
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    Ok(Reply(OperationPage {
        items: page
            .items
            .into_iter()
            .map(|row| Operation::new(row, identity.sees_details()))
            .collect(),
        next_page: page.next_page,
    }))
}

async fn cancel(
    caller: Authz<CancelOperations>,
    id: Id<OperationId>,
    key: IdempotencyKey,
    body: NoBody,
) -> Result<Once<Accepted<Operation>>, ApiError> {
    let change =
        async |transaction: &DatabaseTransaction| caller.operations().cancel(transaction, id.0).await;
    accepted(&caller, key, &body, change).await
}

async fn retry(
    caller: Authz<RetryOperations>,
    id: Id<OperationId>,
    key: IdempotencyKey,
    body: NoBody,
) -> Result<Once<Accepted<Operation>>, ApiError> {
    let change = async |transaction: &DatabaseTransaction| caller.operations().retry(transaction, id.0).await;
    accepted(&caller, key, &body, change).await
}

/// Changes an operation, once for each key, and answers it as it goes on.
async fn accepted<P: Permission>(
    caller: &Authz<P>,
    key: IdempotencyKey,
    body: &NoBody,
    change: impl AsyncFn(&DatabaseTransaction) -> Result<OperationRow, Error>,
) -> Result<Once<Accepted<Operation>>, ApiError> {
    let once = key.with(body.as_body());
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let row = change(transaction).await?;
                Ok(Accepted(Operation::new(row, caller.identity().sees_details())))
            },
            Accepted::record,
        )
        .await?;
    Ok(effect.into())
}
