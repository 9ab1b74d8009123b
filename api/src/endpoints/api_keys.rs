//! API keys.

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    api_keys::{ApiKeyFilter, ApiKeyRow, NewApiKey, Revealed},
    id::{ApiKeyId, OrganizationId},
    permissions::{ManageApiKeys, ReadApiKeys},
    values::Role,
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};

use super::operations::checked_limit;
use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Authz, Body, Created, Endpoint, HasLocation, Id, IdempotencyKey, IfMatch, MaybeBody, NoContent, Once,
        Query, Reads, Recorded as _, Replayable, Reply, Resource, Versioned, endpoint,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/api-keys", "list_api_keys")
            .tag("api-keys")
            .about(
                "List API keys",
                "The keys of the caller's organization and of those below it, newest first, without their secrets.",
            )
            .to(list),
        endpoint(Method::POST, "/v1/api-keys", "create_api_key")
            .tag("api-keys")
            .about(
                "Make an API key",
                "Makes a credential for a program, with a role no higher than the caller's. The secret is answered once, \
                 and kept nowhere in clear: it begins with `osk_` and ends with a checksum.",
            )
            .to(create),
        endpoint(Method::GET, "/v1/api-keys/{id}", "get_api_key")
            .tag("api-keys")
            .about("Read an API key", "One key, without its secret.")
            .to(get),
        endpoint(Method::POST, "/v1/api-keys/{id}/rotate", "rotate_api_key")
            .tag("api-keys")
            .about(
                "Rotate an API key",
                "Gives the key a new secret, answered once. The old one stays good for `overlap_seconds`, so that \
                 programs can be given the new one meanwhile.",
            )
            .errors(&[ErrorCode::ApiKeyExpired])
            .to(rotate),
        endpoint(Method::DELETE, "/v1/api-keys/{id}", "delete_api_key")
            .tag("api-keys")
            .about("Revoke an API key", "Its secrets are worth nothing with the next request, on every process.")
            .to(delete),
    ]
}

/// A credential of an organization, for programs.
#[derive(Serialize, ToSchema)]
pub(super) struct ApiKey {
    /// The key.
    pub(super) id: ApiKeyId,
    /// Where it acts, and below.
    organization_id: OrganizationId,
    /// What people call it.
    #[schema(example = "portal")]
    pub(super) name: String,
    /// Its role. New values may appear.
    #[schema(value_type = String, example = "admin", extensions(("x-extensible-enum" = json!(["owner", "admin", "viewer"]))))]
    role: Role,
    /// The beginning of its secret, by which people tell keys apart.
    #[schema(example = "osk_3dUq1Z")]
    prefix: String,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// Until when it is good; null: for ever.
    #[schema(required)]
    expires_at: Option<DateTime<Utc>>,
    /// When its secret was last replaced.
    #[schema(required)]
    rotated_at: Option<DateTime<Utc>>,
    /// Until when the secret before that is good.
    #[schema(required)]
    previous_secret_expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute or so.
    #[schema(required)]
    last_used_at: Option<DateTime<Utc>>,
    /// Told as the `ETag`.
    #[serde(skip)]
    version: String,
}

impl From<ApiKeyRow> for ApiKey {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            version: row.version(),
            id: row.id,
            organization_id: row.organization_id,
            name: row.name,
            role: row.role,
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            rotated_at: row.rotated_at,
            previous_secret_expires_at: row.previous_until,
            last_used_at: row.last_used_at,
        }
    }
}

impl Versioned for ApiKey {
    fn version(&self) -> String {
        self.version.clone()
    }
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
struct RevealedApiKey {
    #[serde(flatten)]
    key: ApiKey,
    /// Send it as `Authorization: Bearer …`. Answered only here, and left out where the request is sent again.
    #[schema(
        required = false,
        example = "osk_3dUq1ZJ6mYw0T8bKcR5xVhN2sLfPqAeG7iXo4DtEyWgM0aB9z"
    )]
    secret: String,
}

impl From<Revealed> for RevealedApiKey {
    fn from(revealed: Revealed) -> Self {
        Self {
            secret: revealed.secret.expose_secret().to_owned(),
            key: revealed.key.into(),
        }
    }
}

impl Versioned for RevealedApiKey {
    fn version(&self) -> String {
        self.key.version()
    }
}

impl Replayable for RevealedApiKey {
    const SECRETS: &'static [&'static str] = &["secret"];
}

impl HasLocation for RevealedApiKey {
    fn location(&self) -> String {
        format!("/v1/api-keys/{}", self.key.id)
    }
}

/// A page of API keys.
#[derive(Serialize, ToSchema)]
struct ApiKeyPage {
    /// The keys, newest first.
    items: Vec<ApiKey>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

/// A key to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateApiKey {
    /// What people shall call it.
    #[schema(
        example = "portal",
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: String,
    /// What it may do: no more than the caller.
    role: Role,
    /// Where it acts; the caller's own organization if left out.
    organization_id: Option<OrganizationId>,
    /// Until when it is good; for ever if left out.
    expires_at: Option<DateTime<Utc>>,
}

/// How a key is rotated.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct RotateApiKey {
    /// How long the old secret stays good: 0 to 604,800 seconds; a day if left out.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 604_800, example = 3600)]
    overlap_seconds: Option<i64>,
}

/// Reads a whole number in whatever way JSON writes it: 60.0 is one too (JSON Schema, "integer").
#[allow(
    clippy::cast_possible_truncation,
    reason = "a float becomes the nearest number that there is"
)]
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let whole = || {
        number
            .as_f64()
            .filter(|float| float.fract() == 0.0)
            .map(|float| float as i64)
    };
    number
        .as_i64()
        .or_else(whole)
        .map(Some)
        .ok_or_else(|| de::Error::custom("must be a whole number"))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListApiKeys {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those of this organization.
    organization_id: Option<OrganizationId>,
}

async fn list(caller: Reads<ReadApiKeys>, query: Query<ListApiKeys>) -> Result<Reply<ApiKeyPage>, ApiError> {
    let ListApiKeys {
        limit,
        page_token,
        organization_id,
    } = query.0;
    let filter = ApiKeyFilter {
        organization: organization_id,
    };
    let page = caller
        .api_keys()
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    Ok(Reply(ApiKeyPage {
        items: page.items.into_iter().map(ApiKey::from).collect(),
        next_page: page.next_page,
    }))
}

async fn create(
    caller: Authz<ManageApiKeys>,
    key: IdempotencyKey,
    body: Body<CreateApiKey>,
) -> Result<Once<Created<RevealedApiKey>>, ApiError> {
    let once = key.with(&body);
    let CreateApiKey {
        name,
        role,
        organization_id,
        expires_at,
    } = body.into_inner();
    let new = NewApiKey {
        name,
        role,
        organization: organization_id,
        expires_at,
    };
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let revealed = caller.api_keys().create(transaction, &new).await?;
                Ok(Created(revealed.into()))
            },
            Created::record,
        )
        .await?;
    Ok(effect.into())
}

async fn get(caller: Reads<ReadApiKeys>, id: Id<ApiKeyId>) -> Result<Resource<ApiKey>, ApiError> {
    Ok(Resource(caller.api_keys().get(id.0).await?.into()))
}

async fn rotate(
    caller: Authz<ManageApiKeys>,
    id: Id<ApiKeyId>,
    key: IdempotencyKey,
    body: MaybeBody<RotateApiKey>,
) -> Result<Once<Reply<RevealedApiKey>>, ApiError> {
    let once = key.with(&body.0);
    let overlap = body.0.into_inner().overlap_seconds;
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let revealed = caller.api_keys().rotate(transaction, id.0, overlap).await?;
                Ok(Reply(revealed.into()))
            },
            Reply::record,
        )
        .await?;
    Ok(effect.into())
}

async fn delete(
    caller: Authz<ManageApiKeys>,
    id: Id<ApiKeyId>,
    precondition: IfMatch,
) -> Result<NoContent, ApiError> {
    caller.api_keys().revoke(id.0, &precondition.0).await?;
    Ok(NoContent)
}
