//! Reading tenants and operations, and who may.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::api::Api;
use tests::http::{self, Answer};
use tests::place::Place;
use tests::tenant::{Tenant, new_slug, request};
use tests::wait;

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
