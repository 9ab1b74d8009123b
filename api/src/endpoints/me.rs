//! Who is calling: one's account, one's sessions.

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    id::{OrganizationId, SessionId},
    permissions::{ActAsSelf, ManageSelf},
    profile::{MyChanges, Profile, Who},
    values::Role,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::checked_limit;
use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Authz, Endpoint, Id, IfMatch, MergePatch, NoContent, Patch, Query, Reads, Reply, Resource, Versioned,
        endpoint,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/me", "get_me")
            .tag("me")
            .about(
                "Who am I?",
                "The user or the API key behind the credential, the organization it acts for, and what its role permits \
                 there, now.",
            )
            .to(me),
        endpoint(Method::PATCH, "/v1/me", "update_me")
            .tag("me")
            .about(
                "Change my name or password",
                "Changes the caller's own account. A new password takes the present one, and ends all other sessions.",
            )
            .errors(&[ErrorCode::TooManySignIns])
            .to(update),
        endpoint(Method::GET, "/v1/me/sessions", "list_my_sessions")
            .tag("me")
            .about(
                "List my sessions",
                "The caller's sessions that have not ended, in whichever organization, newest first.",
            )
            .to(sessions),
        endpoint(Method::DELETE, "/v1/me/sessions/{id}", "end_my_session")
            .tag("me")
            .about(
                "End one of my sessions",
                "Ends a session at once, with all tokens that came of it, on every process.",
            )
            .to(end_session),
    ]
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct Me {
    /// What kind of credential this is. New kinds may appear.
    #[schema(example = "user", extensions(("x-extensible-enum" = json!(["user", "api_key"]))))]
    kind: &'static str,
    /// The user, or the key.
    #[schema(
        example = "usr_01jdjyfyh1fe82gqsfsks1j4x4",
        pattern = "^(usr|key)_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    id: String,
    /// The user's e-mail address; null for a key.
    #[schema(required, example = "owner@example.com")]
    email: Option<String>,
    /// The user's or the key's name.
    #[schema(example = "Owner")]
    name: String,
    /// The organization that the credential acts for.
    organization: MyOrganization,
    /// The present role there. New values may appear.
    #[schema(value_type = String, example = "owner", extensions(("x-extensible-enum" = json!(["owner", "admin", "viewer"]))))]
    role: Role,
    /// What that role permits.
    #[schema(example = json!(["self", "tenants.read"]))]
    permissions: Vec<&'static str>,
    /// Told as the `ETag`.
    #[serde(skip)]
    version: String,
}

/// The organization that a credential acts for.
#[derive(Serialize, ToSchema)]
struct MyOrganization {
    /// Its id.
    id: OrganizationId,
    /// Its name.
    #[schema(example = "Platform")]
    name: String,
}

impl Versioned for Me {
    fn version(&self) -> String {
        self.version.clone()
    }
}

impl From<Profile> for Me {
    fn from(profile: Profile) -> Self {
        let version = profile.version();
        let (kind, id, email, name) = match profile.who {
            Who::User(user) => ("user", user.id.to_string(), Some(user.email), user.name),
            Who::ApiKey(key) => ("api_key", key.id.to_string(), None, key.name),
        };
        Self {
            kind,
            id,
            email,
            name,
            organization: MyOrganization {
                id: profile.organization.id,
                name: profile.organization.name,
            },
            role: profile.identity.role,
            permissions: profile.identity.permissions(),
            version,
        }
    }
}

/// What shall change about the caller's account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateMe {
    /// The name.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, example = "Jo Doe", min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$")]
    name: Patch<String>,
    /// A new password, 8 to 128 characters; takes `current_password`.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, format = Password, min_length = 8, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    password: Patch<SecretString>,
    /// The present password.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, format = Password)]
    current_password: Patch<SecretString>,
}

/// One sign-in of a user.
#[derive(Serialize, ToSchema)]
struct Session {
    /// The session.
    id: SessionId,
    /// Where it acts.
    organization_id: OrganizationId,
    /// Whether it is the one that asks.
    current: bool,
    /// When it was opened.
    created_at: DateTime<Utc>,
    /// When its tokens were last renewed.
    refreshed_at: DateTime<Utc>,
    /// When it ends, if they are not renewed.
    expires_at: DateTime<Utc>,
    /// Where they were last renewed from.
    #[schema(required, example = "192.0.2.7")]
    address: Option<String>,
    /// The program that opened it, as it calls itself.
    #[schema(required, example = "Mozilla/5.0")]
    user_agent: Option<String>,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
struct SessionPage {
    /// The sessions, newest first.
    items: Vec<Session>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListSessions {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
}

async fn me(caller: Reads<ActAsSelf>) -> Result<Resource<Me>, ApiError> {
    Ok(Resource(caller.profile().get().await?.into()))
}

async fn update(
    caller: Authz<ManageSelf>,
    precondition: IfMatch,
    patch: MergePatch<UpdateMe>,
) -> Result<Resource<Me>, ApiError> {
    let UpdateMe {
        name,
        password,
        current_password,
    } = patch.0;
    let mut violations = Vec::new();
    let changes = MyChanges {
        name: name.required("/name", &mut violations),
        password: password.required("/password", &mut violations),
        current_password: current_password.required("/current_password", &mut violations),
    };
    if !violations.is_empty() {
        return Err(ApiError::invalid(violations));
    }
    let profile = caller.myself().update(&precondition.0, &changes).await?;
    Ok(Resource(profile.into()))
}

async fn sessions(
    caller: Reads<ManageSelf>,
    query: Query<ListSessions>,
) -> Result<Reply<SessionPage>, ApiError> {
    let limit = checked_limit(query.0.limit)?;
    let (own, page) = caller
        .profile()
        .sessions(limit, query.0.page_token.as_deref())
        .await?;
    Ok(Reply(SessionPage {
        items: page
            .items
            .into_iter()
            .map(|row| Session {
                current: Some(row.id) == own,
                id: row.id,
                organization_id: row.organization_id,
                created_at: row.created_at,
                refreshed_at: row.refreshed_at,
                expires_at: row.expires_at,
                address: row.address,
                user_agent: row.user_agent,
            })
            .collect(),
        next_page: page.next_page,
    }))
}

async fn end_session(
    caller: Authz<ManageSelf>,
    id: Id<SessionId>,
    precondition: IfMatch,
) -> Result<NoContent, ApiError> {
    caller.myself().end_session(id.0, &precondition.0).await?;
    Ok(NoContent)
}
