//! Why a request can't be done. Each variant is one thing that a caller can act on; `api` gives it a status and a code.

use std::time::Duration;

use entity::id::{OperationId, OrganizationId};
use sea_orm::{DbErr, RuntimeErr};

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where.
    pub place: Place,
    /// Stable and machine-readable.
    pub code: &'static str,
    /// For people; begins with "must …" or "is …", since the place is named before it.
    pub detail: String,
}

/// Where in a request something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A JSON pointer (RFC 6901) into the body.
    Pointer(String),
    /// A query parameter or header.
    Parameter(String),
}

impl Violation {
    /// A violation in the body.
    pub fn at(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            place: Place::Pointer(pointer.into()),
            code,
            detail: detail.into(),
        }
    }

    /// A violation in a query parameter or header.
    pub fn of_parameter(name: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            place: Place::Parameter(name.into()),
            code,
            detail: detail.into(),
        }
    }
}

/// Why a request can't be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no credential, or it is not (or no longer) good.
    #[error("the credential is not valid")]
    Unauthenticated,
    /// E-mail address or password is wrong; which of them is not told.
    #[error("the e-mail address or the password is wrong")]
    WrongPassword,
    /// A refresh token was used twice: its session has been ended.
    #[error("the refresh token was used before; its session has been ended")]
    RefreshTokenReused,
    /// The user belongs to several organizations and named none.
    #[error("the account belongs to several organizations")]
    OrganizationRequired(Vec<(OrganizationId, String)>),
    /// The caller may read the target, but not do this.
    #[error("the role does not permit this")]
    Forbidden {
        /// The permission that is missing.
        permission: &'static str,
    },
    /// It does not exist, or the caller may not know that it does.
    #[error("not found")]
    NotFound,
    /// The request is well-formed, but its values are not.
    #[error("the request is invalid")]
    Invalid(Vec<Violation>),
    /// The page token was not made by us, for this list, or is too old.
    #[error("the page token is not valid")]
    InvalidPageToken,
    /// The thing was changed since the caller read it.
    #[error("the thing was changed meanwhile")]
    PreconditionFailed,
    /// Too many sign-ins failed for this account from this address.
    #[error("too many sign-ins failed")]
    TooManySignIns {
        /// When to try again.
        retry_after: Duration,
    },
    /// The user is a member of several organizations that the caller sees, and none was named.
    #[error("the user is a member of several organizations")]
    MemberOfSeveral(Vec<OrganizationId>),
    /// The organization can't be deleted.
    #[error("the organization is in use: {0}")]
    OrganizationInUse(&'static str),
    /// An organization keeps an owner.
    #[error("the last owner stays")]
    LastOwner,
    /// The user is a member already.
    #[error("the user is a member already")]
    AlreadyMember,
    /// There is an account with this address, which the caller can't dispose of.
    #[error("there is an account with this address")]
    AccountExists,
    /// The invitation was accepted before.
    #[error("the invitation was accepted before")]
    InvitationUsed,
    /// The invitation's time is over.
    #[error("the invitation has expired")]
    InvitationExpired,
    /// The API key's time is over.
    #[error("the API key has expired")]
    ApiKeyExpired,
    /// Another tenant has the slug.
    #[error("the slug is taken")]
    SlugTaken,
    /// Another operation is at work on the tenant.
    #[error("another operation is at work on the tenant")]
    TenantBusy(OperationId),
    /// The tenant is protected against deletion.
    #[error("the tenant is protected")]
    TenantProtected,
    /// The tenant's status does not permit this.
    #[error("the tenant's status does not permit this")]
    TenantStatus(entity::values::TenantStatus),
    /// No pool has room, or none is ready yet.
    #[error("no pool has room")]
    NoCapacity,
    /// A request with the same idempotency key is being carried out.
    #[error("a request with this idempotency key is in flight")]
    IdempotencyInFlight,
    /// The idempotency key belongs to another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The operation has ended.
    #[error("the operation has finished")]
    OperationFinished,
    /// The operation was not given up half-way, so there is nothing to go on with.
    #[error("the operation was not given up half-way")]
    OperationNotDead,
    /// The operation is past the point where it can be undone.
    #[error("the operation can no longer be cancelled")]
    NotCancellable,
    /// A part that we need does not answer.
    #[error("{part} does not answer")]
    Unavailable {
        /// Which part.
        part: &'static str,
        /// When to try again.
        retry_after: Duration,
        /// What it said; for logs only.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A mistake of ours; the text is for logs only.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// A mistake of ours.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// The database does not answer, or not in time.
    pub(crate) fn database_away(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable {
            part: "the database",
            retry_after: Duration::from_secs(2),
            source: source.into(),
        }
    }

    /// One thing wrong in the body.
    pub fn invalid(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::at(pointer, code, detail)])
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if database_is_away(&error) {
            return Self::database_away(error);
        }
        Self::Internal(error.to_string())
    }
}

/// Whether the statement was sound and only the database couldn't serve it: it is gone, starting, full or read-only.
fn database_is_away(error: &DbErr) -> bool {
    let runtime = match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return true,
        DbErr::Exec(runtime) | DbErr::Query(runtime) => runtime,
        _ => return false,
    };
    let RuntimeErr::SqlxError(error) = runtime else {
        return false;
    };
    match &**error {
        sea_orm::SqlxError::Io(_) | sea_orm::SqlxError::PoolTimedOut | sea_orm::SqlxError::PoolClosed => true,
        sea_orm::SqlxError::Database(error) => error.code().is_some_and(|code| {
            // https://www.postgresql.org/docs/current/errcodes-appendix.html: connection exceptions, insufficient
            // resources, operator intervention, read-only transactions.
            // And what comes of waiting for others: a lock that is not given, a deadlock, a conflict.
            ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                || ["25006", "55P03", "40P01", "40001"].contains(&&*code)
        }),
        _ => false,
    }
}
