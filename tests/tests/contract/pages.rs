//! Lists: a page at a time, each row once, also while rows are added.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use tests::api::Api;
use tests::people::{Organization, People};
use tests::rows::{OperationRow, TenantRow};

async fn stage() -> Result<(People, Organization, Api)> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "viewer").await?.api().await?;
    Ok((people, organization, api))
}

/// One page: its ids, and where the next one is.
async fn page(api: &Api, path: &str, token: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
    let token = token
        .map(|token| format!("&page_token={token}"))
        .unwrap_or_default();
    let page = api.get(&format!("{path}{token}")).await?.expect(200)?;
    let items = page["items"].as_array().context("items")?;
    let ids = items
        .iter()
        .filter_map(|item| item["id"].as_str().map(str::to_owned));
    ensure!(page.get("next_page").is_some(), "next_page is missing: {page}");
    Ok((ids.collect(), page["next_page"].as_str().map(str::to_owned)))
}

#[tokio::test]
async fn every_row_comes_once_while_others_are_added() -> Result<()> {
    let (mut people, organization, api) = stage().await?;
    let below = people.child(&organization).await?;
    let mut expected: Vec<String> = Vec::new();
    for owner in [&organization, &below] {
        let rows = TenantRow::write_many(&mut people.control, owner, 225).await?;
        expected.extend(rows.into_iter().map(|tenant| tenant.id));
    }
    expected.reverse();
    for limit in [200, 50, 1] {
        let path = format!("/v1/tenants?limit={limit}");
        let mut seen = Vec::new();
        let mut token: Option<String> = None;
        let mut pages = 0;
        loop {
            let (ids, next) = page(&api, &path, token.as_deref()).await?;
            ensure!(ids.len() <= limit, "{} rows on a page of {limit}", ids.len());
            ensure!(
                next.is_none() || ids.len() == limit,
                "a page in the middle is short"
            );
            seen.extend(ids);
            pages += 1;
            token = next;
            if token.is_none() {
                break;
            }
            if pages % 20 == 1 {
                TenantRow::write_many(&mut people.control, &organization, 2).await?;
            }
        }
        // What was added since came before the first page.
        assert_eq!(seen, expected, "limit {limit}");
        let (fresh, _) = page(&api, "/v1/tenants?limit=200", None).await?;
        let old: BTreeSet<&String> = expected.iter().collect();
        let added: Vec<String> = fresh.into_iter().filter(|id| !old.contains(id)).collect();
        ensure!(!added.is_empty(), "nothing was added");
        expected = [added, expected].concat();
    }
    Ok(())
}

#[tokio::test]
async fn a_page_token_is_good_for_its_list_filters_and_organization_alone() -> Result<()> {
    let (mut people, organization, api) = stage().await?;
    let tenants = TenantRow::write_many(&mut people.control, &organization, 3).await?;
    for tenant in &tenants {
        OperationRow::queued(&mut people.control, &organization, tenant).await?;
    }
    let other = people.organization().await?;
    let stranger = people.member(&other, "owner").await?.api().await?;
    let colleague = people.member(&organization, "owner").await?.api().await?;
    let (_, token) = page(&api, "/v1/tenants?limit=1", None).await?;
    let token = token.context("a next page")?;

    // The next page may be of another size, and somebody else's of the same organization.
    for (api, path) in [(&api, "/v1/tenants?limit=2"), (&colleague, "/v1/tenants?limit=1")] {
        let (ids, _) = page(api, path, Some(&token)).await?;
        assert_eq!(ids[0], tenants[1].id);
    }
    let mut altered: Vec<String> = (0..token.len())
        .step_by(7)
        .map(|at| {
            let new = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{new}{}", &token[..at], &token[at + 1..])
        })
        .collect();
    altered.extend([
        String::new(),
        "x".to_owned(),
        "A".repeat(54),
        "A".repeat(10_000),
        format!("{token}A"),
        format!("{token}="),
        token[1..].to_owned(),
        "%00".to_owned(),
    ]);
    for bad in &altered {
        let answer = api.get(&format!("/v1/tenants?limit=1&page_token={bad}")).await?;
        if bad == "%00" {
            answer.problem(422)?;
            continue;
        }
        assert_eq!(answer.problem(400)?, "invalid_page_token", "{bad}");
    }
    for (api, path) in [
        (&stranger, "/v1/tenants?limit=1".to_owned()),
        (&Api::owner().await?, "/v1/tenants?limit=1".to_owned()),
        (&api, "/v1/operations?limit=1".to_owned()),
        (&api, "/v1/tenants?limit=1&status=active".to_owned()),
        (&api, format!("/v1/tenants?limit=1&slug={}", tenants[0].slug)),
        (
            &api,
            format!("/v1/tenants?limit=1&organization_id={}", organization.id),
        ),
    ] {
        let answer = api.get(&format!("{path}&page_token={token}")).await?;
        assert_eq!(answer.problem(400)?, "invalid_page_token", "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_is_between_1_and_200() -> Result<()> {
    let (mut people, organization, api) = stage().await?;
    TenantRow::write_many(&mut people.control, &organization, 201).await?;
    for list in ["/v1/tenants", "/v1/operations"] {
        for limit in ["0", "201", "4294967296", "-1", "1.5", "x", ""] {
            let answer = api.get(&format!("{list}?limit={limit}")).await?;
            assert_eq!(answer.problem(422)?, "invalid_request", "{limit}");
            assert_eq!(answer.json()["errors"][0]["parameter"], "limit", "{limit}");
        }
    }
    for (path, rows, more) in [
        ("/v1/tenants", 50, true),
        ("/v1/tenants?limit=200", 200, true),
        ("/v1/tenants?limit=1", 1, true),
        ("/v1/operations", 0, false),
    ] {
        let token = if path.contains('?') {
            path.to_owned()
        } else {
            format!("{path}?")
        };
        let (ids, next) = page(&api, &token, None).await?;
        assert_eq!((ids.len(), next.is_some()), (rows, more), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn filters_choose_and_go_together() -> Result<()> {
    let (mut people, organization, api) = stage().await?;
    let below = people.child(&organization).await?;
    let control = &mut people.control;
    let (ours, theirs) = (
        TenantRow::write(control, &organization).await?,
        TenantRow::write(control, &below).await?,
    );
    sqlx::query("UPDATE tenants SET status = 'suspended' WHERE id = $1")
        .bind(theirs.row)
        .execute(&mut *control)
        .await?;
    let queued = OperationRow::queued(control, &organization, &ours).await?;
    let finished = OperationRow::succeeded(control, &below, &theirs).await?;
    let both = [theirs.id.as_str(), ours.id.as_str()];
    let operations = [finished.id.as_str(), queued.id.as_str()];
    for (path, expected) in [
        ("/v1/tenants?".to_owned(), &both[..]),
        ("/v1/tenants?status=active".to_owned(), &both[1..]),
        ("/v1/tenants?status=suspended".to_owned(), &both[..1]),
        ("/v1/tenants?status=failed".to_owned(), &[]),
        (format!("/v1/tenants?slug={}", ours.slug), &both[1..]),
        (format!("/v1/tenants?slug={}&status=suspended", ours.slug), &[]),
        (
            format!("/v1/tenants?organization_id={}", organization.id),
            &both[1..],
        ),
        (format!("/v1/tenants?organization_id={}", below.id), &both[..1]),
        ("/v1/operations?".to_owned(), &operations[..]),
        ("/v1/operations?status=succeeded".to_owned(), &operations[..1]),
        (
            "/v1/operations?kind=tenant.set_admin_password".to_owned(),
            &operations[..],
        ),
        ("/v1/operations?kind=tenant".to_owned(), &[]),
        (format!("/v1/operations?target_id={}", ours.id), &operations[1..]),
        (format!("/v1/operations?id={}", finished.id), &operations[..1]),
        (
            format!("/v1/operations?id={},{}", queued.id, finished.id),
            &operations[..],
        ),
        (
            format!("/v1/operations?id={},{}&status=queued", queued.id, finished.id),
            &operations[1..],
        ),
        ("/v1/operations?id=op_01jdjyfyh1fe82gqsfsks1j4x4".to_owned(), &[]),
    ] {
        let (ids, next) = page(&api, &path, None).await?;
        assert_eq!(ids, expected, "{path}");
        assert!(next.is_none());
    }
    Ok(())
}
