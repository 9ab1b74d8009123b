//! Errors as the API answers them: RFC 9457's `application/problem+json`, every one. An error carries its problem to
//! the outermost middleware, which alone knows the request's id and writes the body.

mod codes;

use std::time::Duration;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
pub use codes::{ErrorCode, reference};
use platform::{
    error::{Error, Place, Violation},
    id::{OperationId, OrganizationId},
    limits::Standing,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits;

/// Where the codes are explained.
const TYPE_BASE: &str = "/docs/errors#";

/// The body of every error (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// A reference to the explanation of `code`.
    #[schema(example = "/docs/errors#slug_taken")]
    pub r#type: String,
    /// A short sentence, the same for each `code`.
    #[schema(example = "The slug is taken")]
    pub title: &'static str,
    /// The HTTP status.
    #[schema(example = 409)]
    pub status: u16,
    /// What is wrong with this request.
    #[schema(example = "Another tenant has the slug, or is still being deleted. Choose another.")]
    pub detail: String,
    /// Stable and machine-readable. New ones may appear.
    #[schema(example = "slug_taken")]
    pub code: &'static str,
    /// The request, as in `X-Request-Id` and in the logs.
    #[schema(example = "0193-5c2f-example", pattern = "^[A-Za-z0-9._-]{1,128}$")]
    pub request_id: String,
    /// Which values are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<ProblemItem>,
    /// The operation in the way, with `tenant_busy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// The account's organizations, with `organization_required`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub organizations: Vec<ProblemOrganization>,
}

/// One value that is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProblemItem {
    /// Where in the body (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/slug")]
    pub pointer: Option<String>,
    /// Which query parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Stable and machine-readable. New ones may appear.
    #[schema(example = "invalid_slug")]
    pub code: String,
    /// What is wrong with it.
    pub detail: String,
}

/// An organization that can be signed in to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProblemOrganization {
    /// Its id.
    pub id: OrganizationId,
    /// Its name.
    pub name: String,
}

/// An error on its way out. Boxed: most answers are none, and should not be as large as one.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Refusal>);

#[derive(Debug, Clone)]
struct Refusal {
    code: ErrorCode,
    detail: Option<String>,
    errors: Vec<ProblemItem>,
    operation_id: Option<OperationId>,
    organizations: Vec<ProblemOrganization>,
    retry_after: Option<Duration>,
    allow: Option<String>,
    rate_limit: Option<Standing>,
    /// What happened, for the log alone.
    cause: Option<Cause>,
}

#[derive(Debug, Clone)]
enum Cause {
    /// A part that is needed does not answer.
    Away { part: &'static str, error: String },
    /// A mistake of ours.
    Mistake(String),
}

impl ApiError {
    /// An error with the code's own explanation.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self(Box::new(Refusal {
            code,
            detail: None,
            errors: Vec::new(),
            operation_id: None,
            organizations: Vec::new(),
            retry_after: None,
            allow: None,
            rate_limit: None,
            cause: None,
        }))
    }

    /// The same, saying more about this request.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// The same, with the time after which another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same, with the numbers of a rate limit.
    #[must_use]
    pub fn rate_limit(mut self, standing: Standing) -> Self {
        self.0.rate_limit = Some(standing);
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// A 405 that lists what the path has.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let mut error = Self::new(ErrorCode::MethodNotAllowed);
        error.0.allow = Some(allow.to_owned());
        error
    }

    /// Values that are wrong.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let errors: Vec<ProblemItem> = violations
            .into_iter()
            .map(|violation| {
                let (pointer, parameter) = match violation.place {
                    Place::Pointer(pointer) => (Some(pointer), None),
                    Place::Parameter(parameter) => (None, Some(parameter)),
                };
                ProblemItem {
                    pointer,
                    parameter,
                    code: violation.code.to_owned(),
                    detail: violation.detail,
                }
            })
            .collect();
        let detail = errors
            .iter()
            .map(|item| {
                let place = item
                    .pointer
                    .as_deref()
                    .or(item.parameter.as_deref())
                    .unwrap_or_default();
                format!(
                    "{} {}",
                    if place.is_empty() { "the body" } else { place },
                    item.detail
                )
            })
            .collect::<Vec<_>>()
            .join("; ");
        let mut error = Self::new(ErrorCode::Invalid).detail(detail);
        error.0.errors = errors;
        error
    }

    /// Tells the log what no client is told.
    pub fn log(&self, request_id: &str) {
        match &self.0.cause {
            None => {}
            Some(Cause::Away { part, error }) => {
                tracing::warn!(request_id, part, error, "a part that is needed does not answer");
            }
            Some(Cause::Mistake(error)) => tracing::error!(request_id, error, "internal error"),
        }
    }

    /// The body, for a request.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            r#type: format!("{TYPE_BASE}{}", self.0.code.code()),
            title: self.0.code.title(),
            status: self.0.code.status().as_u16(),
            detail: self
                .0
                .detail
                .clone()
                .unwrap_or_else(|| self.0.code.help().to_owned()),
            code: self.0.code.code(),
            request_id: request_id.to_owned(),
            errors: self.0.errors.clone(),
            operation_id: self.0.operation_id,
            organizations: self.0.organizations.clone(),
        }
    }

    /// The problem that a status of the HTTP library's own stands for.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        Self::new(match status {
            StatusCode::NOT_FOUND => ErrorCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
            StatusCode::NOT_ACCEPTABLE => ErrorCode::NotAcceptable,
            StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
            StatusCode::SERVICE_UNAVAILABLE => ErrorCode::Unavailable,
            status if status.is_client_error() => ErrorCode::MalformedRequest,
            _ => ErrorCode::Internal,
        })
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.code.code())
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.0.code.status()
    }

    /// An answer that carries the problem; the outermost middleware writes its body anew, with the request's id.
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.0.code.status());
        if self.0.code.status() == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(wait) = self.0.retry_after {
            response.insert_header((header::RETRY_AFTER, limits::seconds(wait).max(1)));
        }
        if let Some(allow) = &self.0.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        let body = serde_json::to_vec(&self.problem("unknown")).unwrap_or_default();
        let mut response = response.content_type("application/problem+json").body(body);
        if let Some(standing) = self.0.rate_limit {
            limits::tell(response.headers_mut(), standing);
        }
        response.extensions_mut().insert(self.clone());
        response
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unauthenticated => Self::new(ErrorCode::Unauthenticated),
            Error::WrongPassword => Self::new(ErrorCode::WrongPassword),
            Error::RefreshTokenReused => Self::new(ErrorCode::RefreshTokenReused),
            Error::OrganizationRequired(organizations) => {
                let mut error = Self::new(ErrorCode::OrganizationRequired);
                error.0.organizations = organizations
                    .into_iter()
                    .map(|(id, name)| ProblemOrganization { id, name })
                    .collect();
                error
            }
            Error::Forbidden { permission } => {
                Self::new(ErrorCode::Forbidden).detail(format!("The permission {permission} is missing."))
            }
            Error::NotFound => Self::new(ErrorCode::NotFound),
            Error::Invalid(violations) => Self::invalid(violations),
            Error::InvalidPageToken => Self::new(ErrorCode::InvalidPageToken),
            Error::PreconditionFailed => Self::new(ErrorCode::PreconditionFailed),
            Error::TooManySignIns { retry_after } => {
                Self::new(ErrorCode::TooManySignIns).retry_after(retry_after)
            }
            Error::MemberOfSeveral(organizations) => {
                let named: Vec<String> = organizations.iter().map(ToString::to_string).collect();
                Self::invalid(vec![Violation::of_parameter(
                    "organization_id",
                    "missing_parameter",
                    format!(
                        "must name one of {}: the user is a member of each",
                        named.join(", ")
                    ),
                )])
            }
            Error::OrganizationInUse(why) => {
                Self::new(ErrorCode::OrganizationInUse).detail(format!("It can't be deleted: {why}."))
            }
            Error::LastOwner => Self::new(ErrorCode::LastOwner),
            Error::AlreadyMember => Self::new(ErrorCode::AlreadyMember),
            Error::AccountExists => Self::new(ErrorCode::AccountExists),
            Error::InvitationUsed => Self::new(ErrorCode::InvitationUsed),
            Error::InvitationExpired => Self::new(ErrorCode::InvitationExpired),
            Error::ApiKeyExpired => Self::new(ErrorCode::ApiKeyExpired),
            Error::SlugTaken => Self::new(ErrorCode::SlugTaken),
            Error::TenantBusy(operation) => {
                let mut error = Self::new(ErrorCode::TenantBusy).retry_after(Duration::from_secs(1));
                error.0.operation_id = Some(operation);
                error
            }
            Error::TenantProtected => Self::new(ErrorCode::TenantProtected),
            Error::TenantStatus(status) => {
                let status = serde_json::to_value(status).unwrap_or_default();
                Self::new(ErrorCode::TenantStatus).detail(format!(
                    "The tenant is {}.",
                    status.as_str().unwrap_or("in another state")
                ))
            }
            Error::NoCapacity => Self::new(ErrorCode::NoCapacity).retry_after(Duration::from_secs(2)),
            Error::IdempotencyInFlight => {
                Self::new(ErrorCode::IdempotencyInFlight).retry_after(Duration::from_secs(1))
            }
            Error::IdempotencyKeyReused => Self::new(ErrorCode::IdempotencyKeyReused),
            Error::OperationFinished => Self::new(ErrorCode::OperationFinished),
            Error::OperationNotDead => Self::new(ErrorCode::NotRetryable),
            Error::NotCancellable => Self::new(ErrorCode::NotCancellable),
            Error::Unavailable {
                part,
                retry_after,
                source,
            } => {
                let mut error = Self::new(ErrorCode::Unavailable).retry_after(retry_after);
                error.0.cause = Some(Cause::Away {
                    part,
                    error: source.to_string(),
                });
                error
            }
            Error::Internal(mistake) => {
                let mut error = Self::new(ErrorCode::Internal);
                error.0.cause = Some(Cause::Mistake(mistake));
                error
            }
        }
    }
}
