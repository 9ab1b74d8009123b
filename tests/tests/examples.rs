//! The examples of the API's document are answers that the platform gave. This test gets them again and compares their
//! form; with `RECORD_EXAMPLES=1` in the environment it writes them anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::ids::id_of;
use tests::place::Place;
use tests::sql;
use tests::tenant::Tenant;
use uuid::Uuid;

/// The host label in the examples.
const SLUG: &str = "acme";

/// What an operation was asked and what it said.
type Examples = BTreeMap<String, BTreeMap<&'static str, Value>>;

fn file() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set for every test"))
        .join("../openapi/examples.json")
}

#[tokio::test]
async fn the_examples_in_the_document_are_real_answers() -> Result<()> {
    let now = record().await?;
    if std::env::var_os("RECORD_EXAMPLES").is_some() {
        let text = serde_json::to_string_pretty(&now)?;
        std::fs::write(file(), text + "\n")?;
    }
    let committed: Value = serde_json::from_slice(&std::fs::read(file())?)?;
    let now = serde_json::to_value(now)?;
    let names = |examples: &Value| -> Vec<String> {
        examples
            .as_object()
            .into_iter()
            .flat_map(|all| all.keys().cloned())
            .collect()
    };
    assert_eq!(names(&committed), names(&now));
    for name in names(&now) {
        let (old, new) = (form(&committed[&name]), form(&now[&name]));
        assert_eq!(
            old, new,
            "{name} answers in another form: RECORD_EXAMPLES=1 cargo xtask test examples, then cargo xtask openapi"
        );
    }
    Ok(())
}

/// The names of all values with their kinds; a list is as its first item is, a map of a user's own keys is one kind.
fn form(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let kind = if matches!(name.as_str(), "labels") {
                    json!("labels")
                } else if value.is_null() || is_nullable(name) {
                    json!("nullable")
                } else {
                    form(value)
                };
                (name.clone(), kind)
            })
            .collect(),
        Value::Array(items) => items
            .first()
            .map_or_else(|| json!([]), |first| json!([form(first)])),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("boolean"),
        Value::Null => json!("nullable"),
    }
}

/// Values that are there or not, depending on the moment.
fn is_nullable(name: &str) -> bool {
    matches!(
        name,
        "started_at"
            | "finished_at"
            | "step"
            | "message"
            | "next_page"
            | "error"
            | "status_reason"
            | "last_used_at"
            | "before"
            | "after"
            | "target"
            | "reason"
            | "sequence"
            | "hash"
            | "head"
    )
}

struct Recorder {
    api: Api,
    examples: Examples,
}

impl Recorder {
    /// Sends a request and keeps both sides.
    async fn ask(
        &mut self,
        name: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Result<Value> {
        let answer = self.api.send(method, path, body.as_ref(), &[]).await?;
        let said = answer.expect(status).with_context(|| name.to_owned())?;
        let mut example = BTreeMap::new();
        if let Some(body) = body {
            example.insert("request", presentable(body));
        }
        if !said.is_null() {
            example.insert("response", presentable(said.clone()));
        }
        self.examples.insert(name.to_owned(), example);
        Ok(said)
    }
}

async fn record() -> Result<Examples> {
    let owner = Api::owner().await?;
    // A run that was cut off may have left it.
    let left = owner
        .get(&format!("/v1/tenants?slug={SLUG}"))
        .await?
        .expect(200)?;
    if let Some(id) = left["items"][0]["id"].as_str() {
        let deletion = owner.delete(&format!("/v1/tenants/{id}")).await?.expect(202)?;
        owner
            .succeeded(deletion["operation"]["id"].as_str().context("an id")?)
            .await?;
    }
    let access = &Place::get().access;
    let mut recorder = Recorder {
        api: Api::anyone()?,
        examples: Examples::new(),
    };
    let sign_in = json!({ "email": access.owner_email, "password": access.owner_password });
    let session = recorder
        .ask("create_token", Method::POST, "/v1/auth/token", Some(sign_in), 200)
        .await?;
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    let session = recorder
        .ask(
            "refresh_token",
            Method::POST,
            "/v1/auth/refresh",
            Some(refresh),
            200,
        )
        .await?;
    recorder.api = recorder
        .api
        .with(session["access_token"].as_str().context("a token")?);
    for (name, path) in [
        ("get_jwks", "/.well-known/jwks.json"),
        ("get_health", "/healthz"),
        ("get_readiness", "/readyz"),
        ("get_me", "/v1/me"),
    ] {
        recorder.ask(name, Method::GET, path, None, 200).await?;
    }

    let request = json!({
        "slug": SLUG,
        "name": "Acme Corporation",
        "language": "en_US",
        "country": "BE",
        "admin": { "email": "admin@acme.example" },
        "labels": { "cost-centre": "4711" },
    });
    let created = recorder
        .ask(
            "create_tenant",
            Method::POST,
            "/v1/tenants",
            Some(request.clone()),
            202,
        )
        .await?;
    let id = created["tenant"]["id"].as_str().context("an id")?.to_owned();
    let operation = created["operation"]["id"].as_str().context("an id")?.to_owned();
    owner.succeeded(&operation).await?;
    let tenant = format!("/v1/tenants/{id}");
    recorder
        .ask(
            "get_operation",
            Method::GET,
            &format!("/v1/operations/{operation}"),
            None,
            200,
        )
        .await?;
    recorder
        .ask("get_tenant", Method::GET, &tenant, None, 200)
        .await?;
    recorder
        .ask(
            "list_tenants",
            Method::GET,
            &format!("/v1/tenants?limit=1&slug={SLUG}"),
            None,
            200,
        )
        .await?;
    let patch = json!({ "name": "Acme Holding", "labels": { "cost-centre": null, "city": "Ghent" } });
    recorder
        .ask("update_tenant", Method::PATCH, &tenant, Some(patch), 200)
        .await?;
    let password = recorder
        .ask(
            "set_admin_password",
            Method::POST,
            &format!("{tenant}/admin-password"),
            Some(json!({})),
            202,
        )
        .await?;
    owner
        .succeeded(password["operation"]["id"].as_str().context("an id")?)
        .await?;
    recorder
        .ask(
            "list_operations",
            Method::GET,
            &format!("/v1/operations?limit=1&target_id={id}"),
            None,
            200,
        )
        .await?;
    let deletion = recorder
        .ask("delete_tenant", Method::DELETE, &tenant, None, 202)
        .await?;
    owner
        .succeeded(deletion["operation"]["id"].as_str().context("an id")?)
        .await?;

    forget_people().await?;
    record_identity(&mut recorder).await?;
    forget_people().await?;
    record_drift(&mut recorder).await?;

    // Another one, to be stopped while it is being made.
    let other = Tenant::accept(&owner, &tests::tenant::request("acme-two", &json!({})), &[]).await?;
    let cancel = format!("/v1/operations/{}/cancel", other.operation);
    recorder
        .ask("cancel_operation", Method::POST, &cancel, None, 202)
        .await?;
    owner.ended(&other.operation).await?;
    // As if undoing it had failed too often.
    let mut control = tests::sql::control().await?;
    for row in [
        "UPDATE operations SET status = 'failed', dead_at = now(), error_code = 'gave_up', \
                error_message = 'The operation was tried too often without progress.' WHERE id = $1",
        "UPDATE jobs SET state = 'dead' WHERE operation_id = $1",
    ] {
        let id = tests::ids::row_of(&other.operation)?;
        sqlx::query(row).bind(id).execute(&mut control).await?;
    }
    let retry = format!("/v1/operations/{}/retry", other.operation);
    recorder
        .ask("retry_operation", Method::POST, &retry, None, 202)
        .await?;
    owner.ended(&other.operation).await?;
    other.delete().await?;
    ensure!(!recorder.examples.is_empty(), "nothing was recorded");
    Ok(recorder.examples)
}

/// A reseller with its people, keys and log, from its beginning to its end.
async fn record_identity(recorder: &mut Recorder) -> Result<()> {
    use Method as M;

    let id = |said: &Value, field: &str| -> Result<String> {
        said[field].as_str().map(str::to_owned).context("an id")
    };
    let me = json!({ "name": "Owner" });
    recorder
        .ask("update_me", M::PATCH, "/v1/me", Some(me), 200)
        .await?;
    let sessions = recorder
        .ask("list_my_sessions", M::GET, "/v1/me/sessions?limit=1", None, 200)
        .await?;
    ensure!(sessions["items"][0]["id"].is_string(), "{sessions}");
    let access = &Place::get().access;
    let other = Api::anyone()?
        .sign_in(&access.owner_email, &access.owner_password)
        .await?;
    let other = Api::anyone()?
        .with(&other.access)
        .get("/v1/me/sessions?limit=200")
        .await?
        .expect(200)?;
    let other = other["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|session| session["current"] == true)
        .context("a session of one's own")?;
    let path = format!("/v1/me/sessions/{}", id(other, "id")?);
    recorder
        .ask("end_my_session", M::DELETE, &path, None, 204)
        .await?;

    let body = json!({ "name": "Acme Resellers" });
    let made = recorder
        .ask(
            "create_organization",
            M::POST,
            "/v1/organizations",
            Some(body),
            201,
        )
        .await?;
    let organization = id(&made, "id")?;
    let path = format!("/v1/organizations/{organization}");
    recorder.ask("get_organization", M::GET, &path, None, 200).await?;
    recorder
        .ask(
            "list_organizations",
            M::GET,
            "/v1/organizations?limit=1",
            None,
            200,
        )
        .await?;
    let body = json!({ "name": "Acme Partners" });
    recorder
        .ask("update_organization", M::PATCH, &path, Some(body), 200)
        .await?;

    let of = format!("organization_id={organization}");
    let body = json!({
        "email": "jo@acme.example", "role": "viewer", "name": "Jo Doe", "organization_id": organization,
    });
    let added = recorder
        .ask("add_member", M::POST, "/v1/members", Some(body), 201)
        .await?;
    let member = format!("/v1/members/{}?{of}", id(&added, "user_id")?);
    recorder.ask("get_member", M::GET, &member, None, 200).await?;
    recorder
        .ask(
            "list_members",
            M::GET,
            &format!("/v1/members?limit=1&{of}"),
            None,
            200,
        )
        .await?;
    let admin = json!({ "role": "admin" });
    recorder
        .ask("update_member", M::PATCH, &member, Some(admin.clone()), 200)
        .await?;

    let body = json!({ "email": "sam@acme.example", "role": "viewer", "organization_id": organization });
    let invited = recorder
        .ask("create_invitation", M::POST, "/v1/invitations", Some(body), 201)
        .await?;
    let invitation = format!("/v1/invitations/{}", id(&invited, "id")?);
    recorder
        .ask("get_invitation", M::GET, &invitation, None, 200)
        .await?;
    recorder
        .ask(
            "list_invitations",
            M::GET,
            &format!("/v1/invitations?limit=1&{of}"),
            None,
            200,
        )
        .await?;
    recorder
        .ask("update_invitation", M::PATCH, &invitation, Some(admin), 200)
        .await?;
    let body = json!({ "token": invited["token"], "password": "a password of one's own", "name": "Sam Roe" });
    recorder
        .ask(
            "accept_invitation",
            M::POST,
            "/v1/invitations/accept",
            Some(body),
            201,
        )
        .await?;
    recorder
        .ask("delete_invitation", M::DELETE, &invitation, None, 204)
        .await?;

    let body = json!({ "name": "portal", "role": "admin", "organization_id": organization });
    let made = recorder
        .ask("create_api_key", M::POST, "/v1/api-keys", Some(body), 201)
        .await?;
    let key = format!("/v1/api-keys/{}", id(&made, "id")?);
    recorder.ask("get_api_key", M::GET, &key, None, 200).await?;
    recorder
        .ask(
            "list_api_keys",
            M::GET,
            &format!("/v1/api-keys?limit=1&{of}"),
            None,
            200,
        )
        .await?;
    let body = json!({ "overlap_seconds": 3600 });
    recorder
        .ask(
            "rotate_api_key",
            M::POST,
            &format!("{key}/rotate"),
            Some(body),
            200,
        )
        .await?;
    recorder.ask("delete_api_key", M::DELETE, &key, None, 204).await?;

    let path = format!("/v1/audit-events?limit=1&action=update_organization&{of}");
    recorder
        .ask("list_audit_events", M::GET, &path, None, 200)
        .await?;
    let path = format!("/v1/audit-events/verify?{of}");
    recorder
        .ask("verify_audit_events", M::GET, &path, None, 200)
        .await?;
    recorder
        .ask("remove_member", M::DELETE, &member, None, 204)
        .await?;
    let path = format!("/v1/organizations/{organization}");
    recorder
        .ask("delete_organization", M::DELETE, &path, None, 204)
        .await?;
    Ok(())
}

/// What is left of them, should a run have been cut off, would stand in the way of the next.
async fn forget_people() -> Result<()> {
    let mut control = sql::control().await?;
    sqlx::query("DELETE FROM users WHERE email IN ('jo@acme.example', 'sam@acme.example')")
        .execute(&mut control)
        .await?;
    Ok(())
}

/// A row such as a comparison writes: the platform under test has no drift of its own.
async fn record_drift(recorder: &mut Recorder) -> Result<()> {
    let mut control = sql::control().await?;
    let tenant = Uuid::now_v7();
    let subject = id_of("t", tenant);
    sqlx::query(
        "INSERT INTO drift (id, kind, subject, target_type, target_id, detail) VALUES \
             ($1, 'missing_filestore', $2, 'tenant', $3, \
              'The tenant''s files are gone. Restore them from a backup.')",
    )
    .bind(Uuid::now_v7())
    .bind(&subject)
    .bind(tenant)
    .execute(&mut control)
    .await?;
    let listed = recorder
        .ask(
            "list_drift",
            Method::GET,
            "/v1/drift?limit=1&kind=missing_filestore",
            None,
            200,
        )
        .await?;
    sqlx::query("DELETE FROM drift WHERE subject = $1")
        .bind(&subject)
        .execute(&mut control)
        .await?;
    ensure!(
        listed["items"][0]["subject"].as_str() == Some(subject.as_str()),
        "{listed}"
    );
    Ok(())
}

/// Without what would be taken for a secret of somebody's.
fn presentable(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let value = match (name.as_str(), &value) {
                    ("access_token", Value::String(token)) => {
                        json!(format!("{}…", token.chars().take(40).collect::<String>()))
                    }
                    ("refresh_token", Value::String(token)) => {
                        json!(format!("{}…", token.chars().take(12).collect::<String>()))
                    }
                    ("secret" | "token", Value::String(secret)) => {
                        json!(format!("{}…", secret.chars().take(10).collect::<String>()))
                    }
                    ("link", Value::String(link)) => {
                        let (page, _) = link.split_once('#').unwrap_or((link, ""));
                        json!(format!("{page}#it_…"))
                    }
                    ("password", Value::String(_)) => json!("correct horse battery staple"),
                    ("admin_password", Value::String(_)) => json!("x6jtz0h4ntweyr6s8fzn35db51"),
                    _ => presentable(value),
                };
                (name, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(presentable).collect(),
        other => other,
    }
}
