//! A valid request for every operation. A new operation is added here, or the matrix fails.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use tests::ids::id_of;
use tests::people::{Member, Organization, People, new_email};
use tests::place::Place;
use tests::rows::{ApiKeyRow, InvitationRow, OperationRow, TenantRow};
use tests::tenant::{new_slug, request};
use uuid::Uuid;

/// What a request is about: fresh for each.
#[derive(Debug)]
pub struct Things {
    pub tenant: TenantRow,
    pub queued: OperationRow,
    pub finished: OperationRow,
    pub dead: OperationRow,
    /// Somebody who can sign in, and has a session to refresh.
    pub person: Member,
    pub refresh_token: String,
    /// Whose all that is.
    pub owner: Organization,
    /// One below it, in which nothing lives.
    pub below: String,
    /// A member of it.
    pub member: String,
    pub invitation: InvitationRow,
    pub api_key: ApiKeyRow,
    /// A session of whoever asks, beside the one by which they do.
    pub session: String,
}

impl Things {
    /// Writes them for somebody.
    pub async fn write(
        people: &mut People,
        owner: &Organization,
        person: &Member,
        asks: Option<Uuid>,
    ) -> Result<Self> {
        let below = people.child(owner).await?;
        let member = people.member(owner, "viewer").await?;
        let control = &mut people.control;
        let session = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO sessions (id, user_id, organization_id, expires_at, role) \
             VALUES ($1, $2, $3, now() + interval '1 day', \
                     (SELECT role FROM memberships WHERE user_id = $2 AND organization_id = $3))",
        )
        .bind(session)
        .bind(asks.unwrap_or(person.row))
        .bind(person.organization.row)
        .execute(&mut *control)
        .await?;
        let tenant = TenantRow::write(control, owner).await?;
        // Nothing is at work on the tenant that requests are about.
        let other = TenantRow::write(control, owner).await?;
        let refresh_token = format!("rt_{}", Uuid::new_v4().simple());
        sqlx::query(
            "WITH session AS (INSERT INTO sessions (id, user_id, organization_id, expires_at, role) \
                              SELECT $1, user_id, organization_id, now() + interval '1 day', role \
                                FROM memberships WHERE user_id = $2 AND organization_id = $3 RETURNING id) \
             INSERT INTO refresh_tokens (token_hash, session_id, expires_at) \
             SELECT sha256(convert_to($4, 'UTF8')), id, now() + interval '1 day' FROM session",
        )
        .bind(Uuid::now_v7())
        .bind(person.row)
        .bind(person.organization.row)
        .bind(&refresh_token)
        .execute(&mut *control)
        .await?;
        Ok(Self {
            queued: OperationRow::queued(control, owner, &other).await?,
            finished: OperationRow::succeeded(control, owner, &tenant).await?,
            dead: OperationRow::dead(control, owner, &other).await?,
            tenant,
            person: person.clone(),
            refresh_token,
            owner: owner.clone(),
            below: below.id,
            member: id_of("usr", member.row),
            invitation: InvitationRow::write(control, owner).await?,
            api_key: ApiKeyRow::write(control, owner).await?,
            session: id_of("ses", session),
        })
    }
}

/// A request without a credential.
#[derive(Debug)]
pub struct Request {
    /// Path and query.
    pub path: String,
    pub body: Option<Value>,
    pub headers: Vec<(&'static str, String)>,
}

impl Request {
    fn get(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            body: None,
            headers: Vec::new(),
        }
    }

    fn with(path: impl Into<String>, body: Value) -> Self {
        Self {
            body: Some(body),
            ..Self::get(path)
        }
    }

    fn once(mut self) -> Self {
        self.headers.push(("idempotency-key", new_slug()));
        self
    }
}

type Example = fn(&Things) -> Request;

/// The examples, by `operationId`.
pub fn examples() -> BTreeMap<&'static str, Example> {
    let all: [(&'static str, Example); 19] = [
        ("create_token", |things| {
            let password = &Place::get().access.owner_password;
            Request::with(
                "/v1/auth/token",
                json!({ "email": things.person.email, "password": password }),
            )
        }),
        ("refresh_token", |things| {
            Request::with(
                "/v1/auth/refresh",
                json!({ "refresh_token": things.refresh_token }),
            )
        }),
        ("log_out", |_| Request::get("/v1/auth/logout")),
        ("get_jwks", |_| Request::get("/.well-known/jwks.json")),
        ("get_me", |_| Request::get("/v1/me")),
        ("create_tenant", |_| {
            Request::with("/v1/tenants", request(&new_slug(), &json!({}))).once()
        }),
        ("list_tenants", |_| Request::get("/v1/tenants?limit=200")),
        ("get_tenant", |things| {
            Request::get(format!("/v1/tenants/{}", things.tenant.id))
        }),
        ("update_tenant", |things| {
            Request::with(
                format!("/v1/tenants/{}", things.tenant.id),
                json!({ "name": "Another name", "labels": { "a": "b" }, "protected": true }),
            )
        }),
        ("delete_tenant", |things| {
            Request::get(format!("/v1/tenants/{}", things.tenant.id))
        }),
        ("set_admin_password", |things| {
            Request::with(
                format!("/v1/tenants/{}/admin-password", things.tenant.id),
                json!({ "password": "a password of one's own" }),
            )
            .once()
        }),
        ("list_operations", |_| Request::get("/v1/operations?limit=200")),
        ("get_operation", |things| {
            Request::get(format!("/v1/operations/{}?wait=1", things.finished.id))
        }),
        ("watch_operation", |things| {
            Request::get(format!("/v1/operations/{}/events", things.finished.id))
        }),
        ("cancel_operation", |things| {
            Request::with(format!("/v1/operations/{}/cancel", things.queued.id), json!({})).once()
        }),
        ("retry_operation", |things| {
            Request::with(format!("/v1/operations/{}/retry", things.dead.id), json!({})).once()
        }),
        ("list_drift", |_| Request::get("/v1/drift?limit=200")),
        ("get_health", |_| Request::get("/healthz")),
        ("get_readiness", |_| Request::get("/readyz")),
    ];
    let identity: [(&'static str, Example); 25] = [
        ("update_me", |_| {
            Request::with("/v1/me", json!({ "name": new_slug() }))
        }),
        ("list_my_sessions", |_| Request::get("/v1/me/sessions")),
        ("end_my_session", |things| {
            Request::get(format!("/v1/me/sessions/{}", things.session))
        }),
        ("list_organizations", |_| {
            Request::get("/v1/organizations?limit=200")
        }),
        ("create_organization", |_| {
            Request::with("/v1/organizations", json!({ "name": "A new one" })).once()
        }),
        ("get_organization", |things| {
            Request::get(format!("/v1/organizations/{}", things.below))
        }),
        ("update_organization", |things| {
            Request::with(
                format!("/v1/organizations/{}", things.below),
                json!({ "name": "Another name" }),
            )
        }),
        ("delete_organization", |things| {
            Request::get(format!("/v1/organizations/{}", things.below))
        }),
        ("list_members", |_| Request::get("/v1/members?limit=200")),
        ("add_member", |_| {
            Request::with(
                "/v1/members",
                json!({ "email": new_email(), "role": "viewer", "password": "a password of one's own" }),
            )
            .once()
        }),
        ("get_member", |things| {
            Request::get(format!(
                "/v1/members/{}?organization_id={}",
                things.member, things.owner.id
            ))
        }),
        ("update_member", |things| {
            Request::with(
                format!(
                    "/v1/members/{}?organization_id={}",
                    things.member, things.owner.id
                ),
                json!({ "role": "admin" }),
            )
        }),
        ("remove_member", |things| {
            Request::get(format!(
                "/v1/members/{}?organization_id={}",
                things.member, things.owner.id
            ))
        }),
        ("list_invitations", |_| Request::get("/v1/invitations?limit=200")),
        ("create_invitation", |_| {
            Request::with(
                "/v1/invitations",
                json!({ "email": new_email(), "role": "viewer" }),
            )
            .once()
        }),
        ("get_invitation", |things| {
            Request::get(format!("/v1/invitations/{}", things.invitation.id))
        }),
        ("update_invitation", |things| {
            Request::with(
                format!("/v1/invitations/{}", things.invitation.id),
                json!({ "role": "admin" }),
            )
        }),
        ("delete_invitation", |things| {
            Request::get(format!("/v1/invitations/{}", things.invitation.id))
        }),
        ("accept_invitation", |things| {
            Request::with(
                "/v1/invitations/accept",
                json!({ "token": things.invitation.token, "password": "a password of one's own" }),
            )
        }),
        ("list_api_keys", |_| Request::get("/v1/api-keys?limit=200")),
        ("create_api_key", |_| {
            Request::with("/v1/api-keys", json!({ "name": "A new one", "role": "viewer" })).once()
        }),
        ("get_api_key", |things| {
            Request::get(format!("/v1/api-keys/{}", things.api_key.id))
        }),
        ("rotate_api_key", |things| {
            Request::with(
                format!("/v1/api-keys/{}/rotate", things.api_key.id),
                json!({ "overlap_seconds": 60 }),
            )
            .once()
        }),
        ("delete_api_key", |things| {
            Request::get(format!("/v1/api-keys/{}", things.api_key.id))
        }),
        ("list_audit_events", |_| {
            Request::get("/v1/audit-events?limit=200")
        }),
    ];
    let more: [(&'static str, Example); 2] = [
        ("export_audit_events", |_| {
            Request::get("/v1/audit-events/export?action=nothing_of_this_name")
        }),
        ("verify_audit_events", |things| {
            Request::get(format!(
                "/v1/audit-events/verify?organization_id={}",
                things.owner.id
            ))
        }),
    ];
    let pages: [(&'static str, Example); 5] = [
        ("invitation_page", |_| Request::get("/invitation")),
        ("get_openapi", |_| Request::get("/openapi.json")),
        ("get_docs", |_| Request::get("/docs")),
        ("get_error_docs", |_| Request::get("/docs/errors")),
        ("get_docs_asset", |_| Request::get("/docs/swagger-ui.css")),
    ];
    all.into_iter().chain(identity).chain(more).chain(pages).collect()
}
