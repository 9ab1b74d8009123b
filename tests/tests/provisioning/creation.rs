//! Asking for a tenant, once or often, and getting what was asked for.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::json;
use tests::api::Api;
use tests::browser::Browser;
use tests::tenant::{Tenant, new_slug, request};

#[tokio::test]
async fn a_tenant_is_accepted_at_once_and_its_administrator_signs_in_soon_after() -> Result<()> {
    let api = Api::owner().await?;
    let slug = new_slug();
    let body = request(&slug, &json!({ "labels": { "team": "blue" } }));
    let answer = api.post("/v1/tenants", &body, &[]).await?;
    let tenant = Tenant::of(&api, &answer, &body)?;
    let accepted = answer.json();

    assert_eq!(
        answer.header("location"),
        format!("/v1/operations/{}", tenant.operation)
    );
    assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{answer:?}");
    assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
    for (id, prefix) in [(&tenant.id, "ten_"), (&tenant.operation, "op_")] {
        assert!(id.starts_with(prefix) && id.len() == prefix.len() + 26, "{id}");
    }
    assert_eq!(accepted["tenant"]["status"], "provisioning");
    assert_eq!(accepted["tenant"]["labels"], json!({ "team": "blue" }));
    assert_eq!(accepted["tenant"]["url"], format!("http://{}", tenant.host));
    assert_eq!(accepted["operation"]["kind"], "tenant.provision");
    assert_eq!(
        accepted["operation"]["target"],
        json!({ "type": "tenant", "id": tenant.id })
    );
    assert!(tenant.password.len() >= 16, "a generated password is long");

    let operation = api.succeeded(&tenant.operation).await?;
    assert_eq!(operation["progress"]["percent"], 100, "{operation}");
    assert!(
        operation["error"].is_null() && operation["finished_at"].is_string(),
        "{operation}"
    );
    assert_eq!(tenant.read().await?.expect(200)?["status"], "active");
    tenant.visit("/web/login").await?.expect(200)?;

    let browser = tenant.signed_in().await?;
    let home = browser.get("/odoo").await?;
    home.expect(200)?;
    assert!(
        home.url.ends_with("/odoo") && home.text.contains("odoo.__session_info__"),
        "{}",
        home.url
    );
    let stranger = Browser::new(&tenant.url)?;
    assert!(
        !stranger.sign_in(&tenant.login, "not-the-password").await?,
        "a wrong password signs in"
    );
    tenant.delete().await
}

#[tokio::test]
async fn a_repeated_request_is_carried_out_once_and_its_password_told_once() -> Result<()> {
    let api = Api::owner().await?;
    let body = request(&new_slug(), &json!({}));
    let key = format!("e2e {}", new_slug());
    let headers = [("idempotency-key", key.as_str())];
    let first = api.post("/v1/tenants", &body, &headers).await?;
    let tenant = Tenant::of(&api, &first, &body)?;
    assert_eq!(first.header("idempotency-replayed"), "");

    let again = api.post("/v1/tenants", &body, &headers).await?;
    let mut expected = first.json();
    assert!(
        expected
            .as_object_mut()
            .context("an object")?
            .remove("admin_password")
            .is_some()
    );
    assert_eq!(
        again.expect(202)?,
        expected,
        "a replay differs by more than its secret"
    );
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));

    let mut other = body.clone();
    other["name"] = json!("Another name");
    let reused = api.post("/v1/tenants", &other, &headers).await?;
    assert_eq!(reused.problem(422)?, "idempotency_key_reused");
    api.succeeded(&tenant.operation).await?;
    tenant.delete().await
}

#[tokio::test]
async fn eight_racing_requests_with_one_key_make_one_tenant() -> Result<()> {
    let api = Api::owner().await?;
    let body = request(&new_slug(), &json!({}));
    let key = new_slug();
    let headers = [("idempotency-key", key.as_str())];
    let race = (0..8).map(|_| api.post("/v1/tenants", &body, &headers));
    let mut fresh = Vec::new();
    let mut ids = BTreeSet::new();
    for answer in futures::future::join_all(race).await {
        let answer = answer?;
        if answer.status == 409 {
            assert_eq!(answer.problem(409)?, "idempotency_in_flight");
            assert_eq!(answer.header("retry-after"), "1");
            continue;
        }
        ids.insert(
            answer.expect(202)?["tenant"]["id"]
                .as_str()
                .context("an id")?
                .to_owned(),
        );
        if answer.header("idempotency-replayed").is_empty() {
            fresh.push(answer);
        }
    }
    assert_eq!((ids.len(), fresh.len()), (1, 1), "{ids:?}");
    let tenant = Tenant::of(&api, &fresh[0], &body)?;
    let listed = api
        .get(&format!("/v1/tenants?slug={}", tenant.slug))
        .await?
        .expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    api.succeeded(&tenant.operation).await?;
    tenant.delete().await
}

#[tokio::test]
async fn a_taken_slug_is_refused_and_free_again_after_the_deletion() -> Result<()> {
    let api = Api::owner().await?;
    let first = Tenant::create(&api).await?;
    let body = request(&first.slug, &json!({}));
    assert_eq!(
        api.post("/v1/tenants", &body, &[]).await?.problem(409)?,
        "slug_taken"
    );
    first.delete().await?;
    let second = Tenant::accept(&api, &body, &[]).await?;
    api.succeeded(&second.operation).await?;
    second.signed_in().await?;
    second.delete().await
}

#[tokio::test]
async fn an_invalid_request_names_every_wrong_value_and_makes_nothing() -> Result<()> {
    let api = Api::owner().await?;
    let slug = new_slug();
    let with_slug = |slug: &str, name: &str| {
        request(
            slug,
            &json!({ "name": name, "admin": { "email": "a@b.example" } }),
        )
    };
    let cases = [
        (with_slug("Not A Slug", "Name"), vec!["/slug"]),
        (with_slug("-ab", ""), vec!["/slug", "/name"]),
        (with_slug("www", "Name"), vec!["/slug"]),
        (with_slug("xn--ab", "Name"), vec!["/slug"]),
        (
            request(&slug, &json!({ "admin": { "email": "nobody" } })),
            vec!["/admin/email"],
        ),
        (
            request(
                &slug,
                &json!({ "admin": { "email": "a@b.example", "password": "short" } }),
            ),
            vec!["/admin/password"],
        ),
        (request(&slug, &json!({ "country": "be" })), vec!["/country"]),
        (request(&slug, &json!({ "language": "xx_XX" })), vec!["/language"]),
        (
            request(&slug, &json!({ "odoo_version": "7.0" })),
            vec!["/odoo_version"],
        ),
        (
            request(&slug, &json!({ "isolation": "dedicated" })),
            vec!["/isolation"],
        ),
        (
            request(
                &slug,
                &json!({ "organization_id": "org_00000000000000000000000000" }),
            ),
            vec!["/organization_id"],
        ),
        (
            request(&slug, &json!({ "labels": { " ": "x" } })),
            vec!["/labels/ "],
        ),
        (request(&slug, &json!({ "colour": "red" })), vec!["/colour"]),
        (
            json!({ "slug": slug, "name": "No administrator" }),
            vec!["/admin"],
        ),
    ];
    for (body, pointers) in cases {
        let answer = api.post("/v1/tenants", &body, &[]).await?;
        let problem = answer.problem(422).with_context(|| body.to_string())?;
        let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        let named: Vec<&str> = errors
            .iter()
            .filter_map(|error| error["pointer"].as_str())
            .collect();
        assert_eq!(named, pointers, "{problem} for {body}: {}", answer.text);
        assert!(
            errors
                .iter()
                .all(|error| error["code"].is_string() && error["detail"].is_string()),
            "{}",
            answer.text
        );
    }
    let listed = api.get(&format!("/v1/tenants?slug={slug}")).await?.expect(200)?;
    assert_eq!(listed["items"], json!([]));
    Ok(())
}

#[tokio::test]
async fn a_new_administrators_password_replaces_the_old_one_and_ends_its_sessions() -> Result<()> {
    let api = Api::owner().await?;
    let mut tenant = Tenant::create(&api).await?;
    let before = tenant.signed_in().await?;
    let path = format!("/v1/tenants/{}/admin-password", tenant.id);

    let generated = api.post(&path, &json!({}), &[]).await?.expect(202)?;
    let operation = generated["operation"]["id"].as_str().context("an id")?;
    assert_eq!(generated["operation"]["kind"], "tenant.set_admin_password");
    api.succeeded(operation).await?;
    let old = std::mem::replace(
        &mut tenant.password,
        generated["admin_password"]
            .as_str()
            .context("a password")?
            .to_owned(),
    );
    assert!(
        !Browser::new(&tenant.url)?.sign_in(&tenant.login, &old).await?,
        "the old password still signs in"
    );
    assert!(
        !before.is_signed_in().await?,
        "a session of the old password goes on"
    );
    tenant.signed_in().await?;

    let chosen = api
        .post(&path, &json!({ "password": "chosen by a person 42" }), &[])
        .await?
        .expect(202)?;
    assert!(
        chosen.get("admin_password").is_none(),
        "a chosen password is told back: {chosen}"
    );
    api.succeeded(chosen["operation"]["id"].as_str().context("an id")?)
        .await?;
    tenant.password = "chosen by a person 42".to_owned();
    tenant.signed_in().await?;
    tenant.delete().await
}

#[tokio::test]
async fn what_was_asked_for_arrives_in_odoo() -> Result<()> {
    let api = Api::owner().await?;
    let login = format!("ada@{}.example", new_slug());
    let more = json!({
        "name": "Ærø Møbler & Søn",
        "country": "DK",
        "language": "en_US",
        "admin": { "email": login, "password": "a password of her own" },
    });
    let body = request(&new_slug(), &more);
    let answer = api.post("/v1/tenants", &body, &[]).await?;
    assert!(
        answer.expect(202)?.get("admin_password").is_none(),
        "a chosen password is told back"
    );
    let tenant = Tenant::of(&api, &answer, &body)?;
    api.succeeded(&tenant.operation).await?;
    let row = tenant.read().await?.expect(200)?;
    assert_eq!(
        (&row["country"], &row["language"]),
        (&json!("DK"), &json!("en_US"))
    );

    let browser = tenant.signed_in().await?;
    let companies = browser
        .call(
            "res.company",
            "search_read",
            json!([[], ["name", "country_code", "currency_id"]]),
        )
        .await?;
    assert_eq!(companies.as_array().map(Vec::len), Some(1), "{companies}");
    assert_eq!(
        (&companies[0]["name"], &companies[0]["country_code"]),
        (&json!("Ærø Møbler & Søn"), &json!("DK"))
    );
    assert_eq!(companies[0]["currency_id"][1], "DKK");
    let user = browser
        .call("res.users", "read", json!([[2], ["login", "email", "lang"]]))
        .await?;
    assert_eq!(
        (&user[0]["login"], &user[0]["email"], &user[0]["lang"]),
        (&json!(login), &json!(login), &json!("en_US"))
    );
    let address = browser
        .call("ir.config_parameter", "get_param", json!(["web.base.url"]))
        .await?;
    assert_eq!(address, tenant.url);
    tenant.delete().await
}

#[tokio::test]
async fn two_tenants_share_no_identity() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let (at_a, at_b) = (a.signed_in().await?, b.signed_in().await?);
    for parameter in ["database.uuid", "database.secret", "database.create_date"] {
        let code =
            format!("action = {{'value': env['ir.config_parameter'].sudo().get_param('{parameter}')}}");
        let (of_a, of_b) = (at_a.run(&code).await?, at_b.run(&code).await?);
        assert!(of_a["value"].is_string(), "{parameter}: {of_a}");
        if parameter != "database.create_date" {
            assert_ne!(of_a, of_b, "{parameter} is the same");
        }
    }
    let crons = |browser: Browser| async move {
        browser
            .call("ir.cron", "search_read", json!([[], ["nextcall"]]))
            .await
    };
    assert_ne!(
        crons(at_a).await?,
        crons(at_b).await?,
        "all jobs are due in the same second"
    );
    a.delete().await?;
    b.delete().await
}
