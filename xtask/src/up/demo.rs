//! The demo tenant: made through the public API like any customer's, waited for until Odoo itself answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::client::{Client, expect};
use crate::http::{self, Address, Body, Request};
use crate::instance::Instance;
use crate::screen::{self, Failure};
use crate::{interrupt, secrets, supervisor};

/// The tenant's slug.
pub(crate) const SLUG: &str = "demo";
/// Login of its administrator.
const ADMIN_EMAIL: &str = "admin@example.com";
/// How long the first pool and template may take: minutes, on a slow machine.
const PREPARING: Duration = Duration::from_secs(900);
/// How long one operation on the tenant may take.
const OPERATION: Duration = Duration::from_secs(180);

/// Login and password of the demo tenant's administrator.
pub(super) struct Login {
    /// Login.
    pub(super) login: String,
    /// Password.
    pub(super) password: String,
}

/// Makes the tenant if it isn't there and returns its login, which works.
pub(super) fn ensure(instance: &Instance) -> Result<Login> {
    let mut client = Client::sign_in(instance)?;
    let mut tenant = find(&mut client)?;
    if let Some(broken) = tenant.take_if(|tenant| status(tenant) == "failed" || status(tenant) == "deleting")
    {
        delete(&mut client, &broken)?;
    }
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => create(instance, &mut client)?,
    };
    let tenant = settle(&mut client, &tenant)?;
    let login = Login {
        login: ADMIN_EMAIL.to_owned(),
        password: match known_password(instance, id(&tenant)?) {
            Some(password) => password,
            None => reset_password(instance, &mut client, id(&tenant)?)?,
        },
    };
    wait_for_odoo(instance)?;
    Ok(login)
}

/// Address of the demo tenant for people.
pub(crate) fn url(instance: &Instance) -> String {
    format!("http://{SLUG}.localhost:{}", instance.ports.edge)
}

/// Asks Odoo's sign-in page of the demo tenant through the edge; an error says what came instead.
pub(crate) fn probe(instance: &Instance) -> Result<()> {
    let host = format!("{SLUG}.localhost:{}", instance.ports.edge);
    let answer = http::send(
        &Address::Loopback(instance.ports.edge),
        Request {
            method: "GET",
            target: "/web/login",
            host: &host,
            headers: Vec::new(),
            body: Body::Empty,
            patience: Duration::from_secs(30),
        },
    )?;
    let page = String::from_utf8_lossy(&answer.body);
    if answer.status == 200 && page.contains("name=\"login\"") {
        return Ok(());
    }
    bail!(
        "http://{host}/web/login answers {}: {}",
        answer.status,
        answer.text().trim()
    )
}

fn find(client: &mut Client) -> Result<Option<Value>> {
    let mut target = "/v1/tenants?limit=200".to_owned();
    loop {
        let page = client.get(&target)?;
        let found = page["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|tenant| tenant["slug"] == SLUG);
        if let Some(tenant) = found {
            return Ok(Some(tenant.clone()));
        }
        match page["next_page"].as_str() {
            Some(token) => target = format!("/v1/tenants?limit=200&page_token={token}"),
            None => return Ok(None),
        }
    }
}

/// Creates the tenant; while the first pool and template are being prepared the API answers `no_capacity`.
fn create(instance: &Instance, client: &mut Client) -> Result<Value> {
    let end = Instant::now() + PREPARING;
    let body = json!({ "slug": SLUG, "name": "Demo", "admin": { "email": ADMIN_EMAIL } });
    let key = secrets::password()?;
    let mut shown = String::new();
    let mut retried = false;
    loop {
        let answer = client.call(
            "POST",
            "/v1/tenants",
            Some(&body),
            &[("Idempotency-Key", key.clone())],
        )?;
        if answer.status != 503 {
            let created = expect(&answer, "POST /v1/tenants")?;
            let tenant = created["tenant"].clone();
            if let Some(password) = created["admin_password"].as_str() {
                // Saved before anything else can fail: it is answered only once.
                remember_password(instance, id(&tenant)?, password)?;
            }
            if let Some(operation) = created["operation"]["id"].as_str() {
                client.finish(operation, OPERATION)?;
            }
            return Ok(tenant);
        }
        show_progress(client, &mut shown);
        demand_steady(instance)?;
        if let Some(failed) = failed_preparation(client)? {
            if retried {
                bail!(
                    Failure::new(
                        format!("preparing the first pool failed: {failed}"),
                        "see the worker's log; then run `cargo xtask up` again",
                    )
                    .log(&instance.log("worker"))
                );
            }
            // The api asks for what is missing when it starts.
            retried = true;
            screen::say("· tenant: an earlier preparation of the pool failed; asking for it again");
            super::restart(instance, "api")?;
        }
        if Instant::now() >= end {
            bail!(
                Failure::new(
                    format!(
                        "the first pool was not ready within {} minutes: {}",
                        PREPARING.as_secs() / 60,
                        answer.text()
                    ),
                    "see the worker's log (`cargo xtask logs worker`); then run `cargo xtask up` again",
                )
                .log(&instance.log("worker"))
            );
        }
        let after = answer
            .header("retry-after")
            .and_then(|value| value.parse().ok())
            .unwrap_or(1);
        std::thread::sleep(
            Duration::from_secs(after).clamp(Duration::from_millis(200), Duration::from_secs(2)),
        );
    }
}

/// Why the last preparation of a pool or template failed, where none is on its way.
fn failed_preparation(client: &mut Client) -> Result<Option<String>> {
    let page = client.get("/v1/operations?limit=50")?;
    let mut newest = std::collections::BTreeMap::new();
    // Newest first: the first of a kind tells how it is.
    for operation in page["items"].as_array().into_iter().flatten() {
        let kind = operation["kind"].as_str().unwrap_or_default();
        if matches!(kind, "pool.start" | "template.build") {
            newest.entry(kind.to_owned()).or_insert(operation);
        }
    }
    let failed = newest
        .into_iter()
        .find(|(_, operation)| operation["status"] == "failed");
    Ok(failed.map(|(kind, operation)| format!("{kind}: {}", operation["error"]["message"])))
}

/// Says what the running operations do, when that changes.
fn show_progress(client: &mut Client, shown: &mut String) {
    let Ok(page) = client.get("/v1/operations?status=running&limit=20") else {
        return;
    };
    for operation in page["items"].as_array().into_iter().flatten() {
        let progress = &operation["progress"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = format!(
            "{} {} {}",
            text(&operation["kind"]),
            text(&progress["step"]),
            text(&progress["message"])
        );
        if *shown != line {
            screen::say(&format!("· tenant: {} {} %", line.trim(), progress["percent"]));
            *shown = line;
        }
    }
}

/// A worker that dies again and again prepares nothing.
fn demand_steady(instance: &Instance) -> Result<()> {
    if interrupt::requested() {
        bail!("interrupted");
    }
    for (name, status) in supervisor::status(&instance.state) {
        if status.restarts >= 8 && status.pid.is_none() {
            bail!(
                Failure::new(
                    format!(
                        "{name} ends again and again ({})",
                        status.last_end.unwrap_or_default()
                    ),
                    "see its log; then run `cargo xtask up` again",
                )
                .log(&instance.log(&name))
            );
        }
    }
    Ok(())
}

/// Waits until the tenant is active.
fn settle(client: &mut Client, tenant: &Value) -> Result<Value> {
    let target = format!("/v1/tenants/{}", id(tenant)?);
    let end = Instant::now() + OPERATION;
    loop {
        let present = client.get(&target)?;
        match status(&present) {
            "active" => return Ok(present),
            "provisioning" | "maintenance" if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(200));
            }
            other => bail!(Failure::new(
                format!("the tenant {SLUG} is {other}: {}", present["status_reason"]),
                format!("see its operations: GET /v1/operations?target_id={}", id(tenant)?),
            )),
        }
    }
}

fn delete(client: &mut Client, tenant: &Value) -> Result<()> {
    let target = format!("/v1/tenants/{}", id(tenant)?);
    let answer = client.call("DELETE", &target, None, &[])?;
    if answer.status == 404 {
        return Ok(());
    }
    let accepted = expect(&answer, "DELETE of the broken demo tenant")?;
    match accepted["operation"]["id"].as_str() {
        Some(operation) => client.finish(operation, OPERATION),
        None => Ok(()),
    }
}

fn reset_password(instance: &Instance, client: &mut Client, tenant: &str) -> Result<String> {
    let password = secrets::password()?;
    let body = json!({ "password": password });
    let headers = [("Idempotency-Key", secrets::password()?)];
    let answer = client.call(
        "POST",
        &format!("/v1/tenants/{tenant}/admin-password"),
        Some(&body),
        &headers,
    )?;
    let accepted = expect(&answer, "POST …/admin-password")?;
    if let Some(operation) = accepted["operation"]["id"].as_str() {
        client.finish(operation, OPERATION)?;
    }
    remember_password(instance, tenant, &password)?;
    Ok(password)
}

/// The file names the tenant beside its password: a tenant of the same slug made later has another one.
fn remember_password(instance: &Instance, tenant: &str, password: &str) -> Result<()> {
    secrets::write(instance, "demo-password", &format!("{tenant} {password}"), None)?;
    Ok(())
}

fn known_password(instance: &Instance, tenant: &str) -> Option<String> {
    let text = secrets::read(instance, "demo-password")?;
    let (of, password) = text.split_once(' ')?;
    (of == tenant).then(|| password.to_owned())
}

fn wait_for_odoo(instance: &Instance) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        match probe(instance) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn id(tenant: &Value) -> Result<&str> {
    tenant["id"].as_str().context("a tenant has an id")
}

fn status(tenant: &Value) -> &str {
    tenant["status"].as_str().unwrap_or_default()
}
