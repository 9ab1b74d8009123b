//! Operations: reading, waiting, listing, cancelling.

use std::time::Duration;

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    error::Violation,
    id::{OperationId, OrganizationId},
    operations::{OperationFilter, OperationRow, OperationStatus, Target},
    paging::{DEFAULT_LIMIT, MAX_LIMIT},
    permissions::{CancelOperations, ReadOperations},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    problem::{ApiError, ErrorCode},
    route::{Accepted, Authz, Describe, Endpoint, HasOperation, Id, Query, Reply, Sketch, endpoint},
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
        endpoint(Method::POST, "/v1/operations/{id}/cancel", "cancel_operation")
            .tag("operations")
            .about(
                "Cancel an operation",
                "Asks the operation to stop and to undo what it did. Past a certain point it only goes forward.",
            )
            .to(cancel),
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
    #[schema(example = "ten_01jdjyfyh1fe82gqsfsks1j4x4")]
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

impl Operation {
    /// As its owner sees it; `details` are for the platform's operator.
    pub(super) fn new(row: OperationRow, details: bool) -> Self {
        let target = Target::of_row(&row);
        let error = row.error_code.map(|code| {
            let message = row.error_message.unwrap_or_default();
            let message = match row.error_detail.filter(|_| details) {
                Some(detail) => format!("{message} ({detail})"),
                None => message,
            };
            OperationError { code, message }
        });
        Self {
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
            error,
            attempt: row.attempt,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
        }
    }
}

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
    id: Option<String>,
    /// Only those with this status.
    #[param(inline)]
    status: Option<StatusFilter>,
    /// Only those of this kind.
    #[param(example = "tenant.provision")]
    kind: Option<String>,
    /// Only those that work on this.
    target_id: Option<String>,
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

/// The operation whose cancellation has been accepted.
struct Cancelling(Accepted<Operation>);

impl Describe for Cancelling {
    fn describe(sketch: &mut Sketch) {
        Accepted::<Operation>::describe(sketch);
        sketch.errors(&[ErrorCode::OperationFinished, ErrorCode::NotCancellable]);
    }
}

impl actix_web::Responder for Cancelling {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, request: &actix_web::HttpRequest) -> actix_web::HttpResponse {
        self.0.respond_to(request)
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
    caller: Authz<ReadOperations>,
    id: Id<OperationId>,
    query: Query<GetOperation>,
) -> Result<Reply<Operation>, ApiError> {
    let operations = caller.operations();
    let row = match query.0.wait {
        None => operations.get(id.0).await?,
        Some(seconds @ 1..=60) => {
            operations
                .wait(&caller.state().watcher, id.0, Duration::from_secs(seconds))
                .await?
        }
        Some(_) => return Err(parameter("wait", "must be 1 to 60")),
    };
    Ok(Reply(Operation::new(row, operations.shows_details())))
}

async fn list(
    caller: Authz<ReadOperations>,
    query: Query<ListOperations>,
) -> Result<Reply<OperationPage>, ApiError> {
    let ListOperations {
        limit,
        page_token,
        id,
        status,
        kind,
        target_id,
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
    };
    let operations = caller.operations();
    let page = operations
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    let details = operations.shows_details();
    Ok(Reply(OperationPage {
        items: page
            .items
            .into_iter()
            .map(|row| Operation::new(row, details))
            .collect(),
        next_page: page.next_page,
    }))
}

async fn cancel(caller: Authz<CancelOperations>, id: Id<OperationId>) -> Result<Cancelling, ApiError> {
    let operations = caller.operations();
    let row = operations.cancel(id.0).await?;
    Ok(Cancelling(Accepted(Operation::new(
        row,
        operations.shows_details(),
    ))))
}
