//! Parts of the control plane are killed: they come back, and no work is lost.
//!
//! These tests kill what they share, so that one runs at a time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::api::Api;
use tests::services;
use tests::tenant::{Tenant, new_slug, request};
use tests::wait;
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

const PASSWORD: &str = "known before it is asked for";

fn body() -> Value {
    let slug = new_slug();
    request(
        &slug,
        &json!({ "admin": { "email": format!("admin@{slug}.example"), "password": PASSWORD } }),
    )
}

/// Makes a tenant as a careful program does: again with the same key, as long as the platform can't answer.
async fn create(api: &Api) -> Result<Tenant> {
    let (body, key) = (body(), new_slug());
    let tenant = wait::until(Duration::from_secs(30), "a tenant is accepted", async || {
        Tenant::accept(api, &body, &[("idempotency-key", &key)]).await
    })
    .await?;
    api.succeeded(&tenant.operation).await?;
    Ok(tenant)
}

/// Kills a service, sees it started again, and a tenant made, used and deleted.
async fn survives(name: &str) -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let present = create(&api).await?;
    services::kill_hard(name).await?;
    let tenant = create(&api).await?;
    tenant.signed_in().await?;
    present.serves(Duration::from_secs(60)).await?;
    present.delete().await?;
    tenant.delete().await
}

#[tokio::test]
async fn a_killed_api_comes_back_and_a_tenant_can_be_made() -> Result<()> {
    survives("api").await
}

#[tokio::test]
async fn a_killed_worker_comes_back_and_a_tenant_can_be_made() -> Result<()> {
    survives("worker").await
}

#[tokio::test]
async fn a_killed_edge_comes_back_and_a_tenant_can_be_made() -> Result<()> {
    survives("nginx").await
}

#[tokio::test]
async fn a_killed_redis_comes_back_and_a_tenant_can_be_made() -> Result<()> {
    survives("redis").await
}

#[tokio::test]
async fn a_killed_control_plane_database_comes_back_and_a_tenant_can_be_made() -> Result<()> {
    survives("postgres").await
}

#[tokio::test]
async fn a_killed_tenants_database_server_comes_back_and_a_tenant_can_be_made() -> Result<()> {
    survives("postgres-tenants").await
}

#[tokio::test]
async fn all_at_once_come_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let all = ["api", "worker", "nginx", "redis", "postgres", "postgres-tenants"];
    for killed in futures::future::join_all(all.map(services::kill_hard)).await {
        killed?;
    }
    api.ready().await?;
    let tenant = create(&api).await?;
    tenant.signed_in().await?;
    tenant.delete().await
}

#[tokio::test]
async fn a_provisioning_whose_worker_is_killed_is_carried_to_its_end() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    for pause in [0, 30, 80, 150, 400] {
        let tenant = Tenant::accept(&api, &body(), &[]).await?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        services::kill_hard("worker").await?;
        let operation = api.succeeded(&tenant.operation).await?;
        ensure!(operation["progress"]["percent"] == 100, "{operation}");
        tenant
            .signed_in()
            .await
            .with_context(|| format!("killed after {pause} ms"))?;
        tenant.delete().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_deletion_whose_worker_is_killed_is_carried_to_its_end() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    for pause in [0, 40, 120] {
        let tenant = create(&api).await?;
        let accepted = api
            .delete(&format!("/v1/tenants/{}", tenant.id))
            .await?
            .expect(202)?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        services::kill_hard("worker").await?;
        api.succeeded(accepted["operation"]["id"].as_str().context("an id")?)
            .await?;
        assert_eq!(tenant.read().await?.problem(404)?, "not_found");
        assert_eq!(tenant.visit("/web/login").await?.status, 404);
        tenant.forget();
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_the_killed_api_left_unanswered_can_be_repeated() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let (body, key) = (body(), new_slug());
    let headers = [("idempotency-key", key.as_str())];
    let (sent, killed) = tokio::join!(api.post("/v1/tenants", &body, &headers), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        services::kill_hard("api").await
    });
    killed?;
    drop(sent);
    let tenant = wait::until(
        Duration::from_secs(30),
        "the repeated request is answered",
        async || Tenant::accept(&api, &body, &headers).await,
    )
    .await?;
    api.succeeded(&tenant.operation).await?;
    let listed = api
        .get(&format!("/v1/tenants?slug={}", tenant.slug))
        .await?
        .expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    tenant.signed_in().await?;
    tenant.delete().await
}
