//! A tenant's life, from the request to its last trace.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::api::Api;
use tests::browser::Browser;
use tests::http::{self, Answer};
use tests::place::Place;
use tests::tenant::{Tenant, database_of, new_slug, request};
use tests::{sql, wait};

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

#[tokio::test]
async fn pages_of_a_list_are_stable_while_tenants_are_added() -> Result<()> {
    let api = Api::owner().await?;
    let mut tenants = Vec::new();
    for _ in 0..4 {
        tenants.push(Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?);
    }
    let mut seen: Vec<String> = Vec::new();
    let mut path = "/v1/tenants?limit=2".to_owned();
    loop {
        let page = api.get(&path).await?.expect(200)?;
        let items = page["items"].as_array().context("items")?;
        ensure!(items.len() <= 2, "{page}");
        seen.extend(
            items
                .iter()
                .filter_map(|item| item["id"].as_str().map(str::to_owned)),
        );
        if seen.len() == 2 {
            tenants.push(Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?);
        }
        let Some(token) = page["next_page"].as_str() else {
            break;
        };
        let listed = api
            .get(&format!("/v1/operations?limit=2&page_token={token}"))
            .await?;
        assert_eq!(
            listed.problem(400)?,
            "invalid_page_token",
            "a token opens another list"
        );
        path = format!("/v1/tenants?limit=2&page_token={token}");
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "a tenant is on two pages");
    for tenant in &tenants[..4] {
        assert!(seen.contains(&tenant.id), "{} is on no page", tenant.slug);
    }
    assert!(
        !seen.contains(&tenants[4].id),
        "one added later moved into the pages"
    );
    let newest_first = seen.windows(2).all(|pair| pair[0] > pair[1]);
    assert!(newest_first, "not newest first: {seen:?}");
    for tenant in tenants {
        tenant.delete().await?;
    }
    Ok(())
}

#[tokio::test]
async fn operations_can_be_listed_filtered_and_waited_for() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?;
    let waited = api
        .get(&format!("/v1/operations/{}?wait=60", tenant.operation))
        .await?
        .expect(200)?;
    assert_eq!(waited["status"], "succeeded", "{waited}");
    let ids = |page: Value| -> Vec<String> {
        page["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["id"].as_str().map(str::to_owned))
            .collect()
    };
    for query in [
        format!("id={}", tenant.operation),
        format!("target_id={}", tenant.id),
        format!("target_id={}&status=succeeded&kind=tenant.provision", tenant.id),
    ] {
        let page = api.get(&format!("/v1/operations?{query}")).await?.expect(200)?;
        assert_eq!(ids(page), std::slice::from_ref(&tenant.operation), "{query}");
    }
    let none = api
        .get(&format!("/v1/operations?target_id={}&status=failed", tenant.id))
        .await?
        .expect(200)?;
    assert!(ids(none).is_empty());
    assert_eq!(
        api.get("/v1/operations?colour=red").await?.problem(422)?,
        "invalid_request"
    );
    assert_eq!(
        api.get(&format!("/v1/operations/{}?wait=61", tenant.operation))
            .await?
            .problem(422)?,
        "invalid_request"
    );
    tenant.delete().await
}

#[tokio::test]
async fn a_protected_tenant_is_not_deleted() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::create_with(&api, &json!({ "protected": true })).await?;
    let path = format!("/v1/tenants/{}", tenant.id);
    assert_eq!(api.delete(&path).await?.problem(409)?, "tenant_protected");
    tenant.visit("/web/login").await?.expect(200)?;
    // There is no request yet that ends the protection.
    let mut control = sql::control().await?;
    let uuid = sql::text(
        &mut control,
        &format!("SELECT id FROM tenants WHERE slug = '{}'", tenant.slug),
    )
    .await?;
    sql::execute(
        &mut control,
        &format!(
            "UPDATE tenants SET protected = false WHERE id = '{}'",
            uuid.context("a row")?
        ),
    )
    .await?;
    tenant.delete().await
}

#[tokio::test]
async fn nobody_gets_in_without_a_credential() -> Result<()> {
    let base = Place::get().access.api_url.trim_end_matches('/');
    let client = http::client()?;
    for path in ["/v1/tenants", "/v1/operations", "/v1/me"] {
        for token in [None, Some("not.a.token")] {
            let mut request = client.get(format!("{base}{path}"));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = Answer::of(request).await?;
            assert_eq!(answer.problem(401)?, "unauthenticated", "{path}");
            assert!(
                answer.header("www-authenticate").starts_with("Bearer"),
                "{answer:?}"
            );
        }
    }
    wait::until(Duration::from_secs(5), "health is answered", async || {
        Answer::of(client.get(format!("{base}/healthz")))
            .await?
            .expect(200)
            .map(drop)
    })
    .await
}
