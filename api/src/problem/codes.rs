//! Every error code there is, with its status, its title and what to do about it. The table yields the enum, the
//! OpenAPI document's list and `docs/errors.md`.

use actix_web::http::StatusCode;

macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident, $title:literal, $help:literal;)+) => {
        /// A stable, machine-readable reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode { $(#[doc = $help] $name,)+ }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The text in the answer.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The status it is answered with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// A short sentence, the same each time.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// What it means and what to do.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)+ }
            }
        }
    };
}

codes! {
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON",
        "The request body could not be parsed. `detail` says where.";
    MalformedId = "malformed_id", BAD_REQUEST, "The path names no id",
        "An id in the path is not of the form `prefix_` and 26 base-32 digits, or is of another kind of thing.";
    MalformedRequest = "malformed_request", BAD_REQUEST, "The request is malformed",
        "The request could not be read as HTTP, or a header has a form that it must not have.";
    InvalidPageToken = "invalid_page_token", BAD_REQUEST, "The page token is not valid",
        "Page tokens are good for 24 hours, and only for the same list with the same filters. Begin again without one.";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "A valid credential is needed",
        "Send `Authorization: Bearer <token>` with a token that has not ended. `POST /v1/auth/token` makes one.";
    WrongPassword = "wrong_password", UNAUTHORIZED, "The e-mail address or the password is wrong",
        "Which of the two is not told.";
    RefreshTokenReused = "refresh_token_reused", UNAUTHORIZED, "The refresh token was used before",
        "A refresh token is good once. Its session has been ended, since someone else may hold it. Sign in again.";
    Forbidden = "forbidden", FORBIDDEN, "The role does not permit this",
        "`detail` names the permission that is missing. An owner of the organization can grant a higher role.";
    NotFound = "not_found", NOT_FOUND, "There is no such thing",
        "It does not exist, or the credential may not see it.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path has no such method",
        "The `Allow` header lists the methods that the path has.";
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "The answer has no such form",
        "Answers are JSON; the `Accept` header excludes it.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request did not arrive in time",
        "The body has to arrive within 30 seconds.";
    OrganizationInUse = "organization_in_use", CONFLICT, "The organization is in use",
        "An organization can be deleted once it has no tenants and nothing is below it. `detail` says what there is. The root stays.";
    LastOwner = "last_owner", CONFLICT, "The last owner stays",
        "An organization keeps at least one owner. Make another member an owner first.";
    AlreadyMember = "already_member", CONFLICT, "The user is a member already",
        "Change the member's role instead.";
    AccountExists = "account_exists", CONFLICT, "There is an account with this address",
        "It belongs to a person who is no member of your organizations. Invite the address instead: only its owner can accept.";
    InvitationUsed = "invitation_used", CONFLICT, "The invitation was accepted before",
        "An invitation is good once.";
    InvitationExpired = "invitation_expired", CONFLICT, "The invitation has expired",
        "Ask for a new one.";
    ApiKeyExpired = "api_key_expired", CONFLICT, "The API key has expired",
        "A key whose time is over can't be rotated. Make a new one.";
    SlugTaken = "slug_taken", CONFLICT, "The slug is taken",
        "Another tenant has the slug, or is still being deleted. Choose another.";
    TenantBusy = "tenant_busy", CONFLICT, "Another operation is at work on the tenant",
        "`operation_id` names it. Wait for it, or cancel it, and try again.";
    TenantProtected = "tenant_protected", CONFLICT, "The tenant is protected",
        "A protected tenant can't be deleted. Take the protection away first.";
    TenantStatus = "tenant_status", CONFLICT, "The tenant's status does not permit this",
        "`detail` names the status.";
    OperationFinished = "operation_finished", CONFLICT, "The operation has finished",
        "What has ended can't be cancelled.";
    NotRetryable = "not_retryable", CONFLICT, "The operation can't be retried",
        "Only one that was given up half-way can be: its `retryable` is true.";
    NotCancellable = "not_cancellable", CONFLICT, "The operation can no longer be cancelled",
        "It is past the point from which it only goes forward. Wait for its end.";
    IdempotencyInFlight = "idempotency_in_flight", CONFLICT, "A request with this key is being carried out",
        "Try again after `Retry-After`: the answer will be that of the first request.";
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "It has changed since you read it",
        "`If-Match` names another version than the present one. Read it again, look at what changed, and send the new `ETag`.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "Bodies have at most 1 MiB.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body has the wrong media type",
        "Send `Content-Type: application/json`; for a PATCH, `application/merge-patch+json` is good too.";
    Invalid = "invalid_request", UNPROCESSABLE_ENTITY, "The request is invalid",
        "The request was understood, but some of its values are not usable. `errors` lists each with its place.";
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request",
        "The key was sent before with another method, path or body. Use a new key for a new request.";
    OrganizationRequired = "organization_required", UNPROCESSABLE_ENTITY, "Name an organization",
        "The account belongs to several organizations, which `organizations` lists. Send one as `organization_id`.";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests",
        "Wait for `Retry-After`. `RateLimit-Remaining` and `RateLimit-Reset` of every answer tell how many are left, and when all are back.";
    TooManySignIns = "too_many_sign_ins", TOO_MANY_REQUESTS, "Too many sign-ins failed",
        "Ten sign-ins for this account failed from this address within a minute. Wait for `Retry-After`.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side",
        "It has been logged under `request_id`.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The platform can't answer now",
        "A part that is needed does not answer. Nothing was changed; try again after `Retry-After`.";
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE, "This process is ending",
        "Nothing was changed; try again after `Retry-After`: another process will answer.";
    NoCapacity = "no_capacity", SERVICE_UNAVAILABLE, "There is no room for another tenant now",
        "Every pool is full or still being prepared. Nothing was changed; try again after `Retry-After`.";
}

/// The page of all codes, as `docs/errors.md` holds it.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Every error is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `code`, `request_id`\n\
         and, where single values are wrong, `errors`: a list of `{pointer or parameter, code, detail}`. Programs decide\n\
         by `code`; it never changes its meaning.\n\n\
         This page is printed from the code's own table: `odoo-saas-api errors`.\n\n\
         | status | code | meaning |\n| --- | --- | --- |\n",
    );
    for code in ErrorCode::ALL {
        page += &format!(
            "| {} | <a id=\"{code_text}\"></a>`{code_text}` | {}. {} |\n",
            code.status().as_u16(),
            code.title(),
            code.help(),
            code_text = code.code()
        );
    }
    page += "\nThe edge, which stands before the API and before every tenant, answers some requests itself. Where it means the\n\
             same as the API it says so with the same code; these are its own:\n\n\
             | status | code | meaning |\n| --- | --- | --- |\n";
    for (status, code, title, detail) in odoo::edge::own_answers() {
        if ErrorCode::ALL.iter().all(|known| known.code() != code) {
            page += &format!("| {status} | <a id=\"{code}\"></a>`{code}` | {title}. {detail} |\n");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_edge_has_the_status_that_it_has_here() {
        for (status, code, ..) in odoo::edge::own_answers() {
            if let Some(same) = ErrorCode::ALL.iter().find(|known| known.code() == code) {
                assert_eq!(same.status().as_u16(), status, "{code}");
            }
        }
    }
}
