//! Deleting and cancelling: nothing is left behind.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::api::Api;
use tests::http::{self, Answer};
use tests::place::Place;
use tests::sql;
use tests::tenant::{Tenant, database_of, new_slug, request};

/// Nothing of the tenant is left anywhere.
async fn assert_gone(id: &str, host: &str) -> Result<()> {
    let (database, place) = (database_of(id), Place::get());
    let mut server = sql::tenants().await?;
    for catalog in [
        format!("SELECT datname FROM pg_database WHERE datname = '{database}'"),
        format!("SELECT rolname FROM pg_roles WHERE rolname = '{database}'"),
    ] {
        assert_eq!(sql::text(&mut server, &catalog).await?, None, "{catalog}");
    }
    assert!(!place.filestore(&database).exists(), "files are left");
    assert!(place.route(host).symlink_metadata().is_err(), "the route is left");
    let answer = Answer::of(http::client()?.get(format!("http://{host}/web/login"))).await?;
    assert_eq!(answer.status, 404, "the edge still knows {host}");
    Ok(())
}

#[tokio::test]
async fn a_deleted_tenant_leaves_nothing_behind() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let place = Place::get();
    assert!(
        place.filestore(&tenant.database).is_dir() && place.route(&tenant.host).symlink_metadata().is_ok()
    );
    // Open sessions of Odoo on its database must not keep it.
    tenant.signed_in().await?;

    let path = format!("/v1/tenants/{}", tenant.id);
    let first = api.delete(&path).await?;
    let accepted = first.expect(202)?;
    let operation = accepted["operation"]["id"].as_str().context("an id")?;
    assert_eq!(first.header("location"), format!("/v1/operations/{operation}"));
    assert_eq!(
        (&accepted["tenant"]["status"], &accepted["operation"]["kind"]),
        (&json!("deleting"), &json!("tenant.delete"))
    );
    let again = api.delete(&path).await?;
    if again.status == 202 {
        assert_eq!(
            again.json()["operation"]["id"],
            operation,
            "a second deletion was begun"
        );
    } else {
        assert_eq!(again.problem(404)?, "not_found");
    }
    api.succeeded(operation).await?;

    assert_eq!(tenant.read().await?.problem(404)?, "not_found");
    assert_eq!(api.delete(&path).await?.problem(404)?, "not_found");
    assert_gone(&tenant.id, &tenant.host).await?;
    let operations = api
        .get(&format!("/v1/operations?target_id={}", tenant.id))
        .await?
        .expect(200)?;
    let kinds: Vec<&str> = operations["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["kind"].as_str())
        .collect();
    assert_eq!(
        kinds,
        ["tenant.delete", "tenant.provision"],
        "operations outlive their tenant"
    );
    tenant.forget();
    Ok(())
}

#[tokio::test]
async fn deleting_a_tenant_in_the_making_ends_both() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?;
    let accepted = api
        .delete(&format!("/v1/tenants/{}", tenant.id))
        .await?
        .expect(202)?;
    api.succeeded(accepted["operation"]["id"].as_str().context("an id")?)
        .await?;
    let made = api.ended(&tenant.operation).await?;
    ensure!(made["status"] != "failed", "{made}");
    assert_eq!(tenant.read().await?.problem(404)?, "not_found");
    assert_gone(&tenant.id, &tenant.host).await?;
    tenant.forget();
    Ok(())
}

#[tokio::test]
async fn a_cancelled_provisioning_leaves_only_its_row() -> Result<()> {
    let api = Api::owner().await?;
    // At which moment the wish arrives is chance: some of several come in time.
    let mut cancelled = 0;
    for pause in [0, 20, 60, 150, 300] {
        let tenant = Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let wish = api
            .post(
                &format!("/v1/operations/{}/cancel", tenant.operation),
                &json!({}),
                &[],
            )
            .await?;
        if wish.status == 409 {
            assert_eq!(wish.problem(409)?, "operation_finished");
        } else {
            assert_eq!(wish.expect(202)?["id"], tenant.operation.as_str());
        }
        let ended = api.ended(&tenant.operation).await?;
        let row = tenant.read().await?.expect(200)?;
        if ended["status"] == "cancelled" {
            cancelled += 1;
            assert_eq!(row["status"], "failed", "{row}");
            assert_gone(&tenant.id, &tenant.host).await?;
        } else {
            assert_eq!(
                (&ended["status"], &row["status"]),
                (&json!("succeeded"), &json!("active"))
            );
        }
        tenant.delete().await?;
    }
    assert!(cancelled > 0, "no wish to cancel came in time");
    Ok(())
}

#[tokio::test]
async fn a_protected_tenant_is_not_deleted() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::create_with(&api, &json!({ "protected": true })).await?;
    let path = format!("/v1/tenants/{}", tenant.id);
    assert_eq!(api.delete(&path).await?.problem(409)?, "tenant_protected");
    tenant.visit("/web/login").await?.expect(200)?;
    let unprotect = json!({ "protected": false });
    assert_eq!(
        api.patch(&path, &unprotect, &[]).await?.expect(200)?["protected"],
        false
    );
    tenant.delete().await
}
