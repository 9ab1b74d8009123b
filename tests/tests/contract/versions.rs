//! Versions: what was read need not be sent again, and what was changed meanwhile is not overwritten.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::http::Answer;
use tests::people::People;
use tests::rows::{OperationRow, TenantRow};
use tests::stage::Stage;

/// An organization's owner and a tenant of it.
async fn stage() -> Result<(People, Api, TenantRow)> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let tenant = TenantRow::write(&mut people.control, &organization).await?;
    Ok((people, api, tenant))
}

async fn get_if(api: &Api, path: &str, none_match: &str) -> Result<Answer> {
    api.send(Method::GET, path, None, &[("if-none-match", none_match)])
        .await
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() -> Result<()> {
    let (mut people, api, tenant) = stage().await?;
    let organization = people.organization().await?;
    let theirs = TenantRow::write(&mut people.control, &organization).await?;
    let operation = OperationRow::queued(&mut people.control, &organization, &theirs).await?;
    let root = Api::owner().await?;
    for (api, path) in [
        (&api, format!("/v1/tenants/{}", tenant.id)),
        (&root, format!("/v1/operations/{}", operation.id)),
        (&root, format!("/v1/operations/{}?wait=1", operation.id)),
        (&api, "/v1/me".to_owned()),
    ] {
        let read = api.get(&path).await?;
        read.expect(200)?;
        let tag = read.header("etag").to_owned();
        assert!(
            tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
            "{path}: {tag}"
        );
        for same in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"other\", {tag}"),
            format!("W/\"other\",W/{tag}"),
            "*".to_owned(),
        ] {
            let again = get_if(api, &path, &same).await?;
            assert_eq!((again.status, again.text.as_str()), (304, ""), "{path}: {same}");
            assert_eq!(again.header("etag"), tag);
            assert!(!again.header("x-request-id").is_empty());
        }
        for other in [
            "\"other\"",
            "W/\"other\"",
            "\"v0\"",
            "\"\"",
            tag.trim_matches('"'),
        ] {
            let again = get_if(api, &path, other).await?;
            assert_eq!(again.expect(200)?, read.json(), "{path}: {other}");
        }
    }
    // A refusal is no version of anything.
    let missing = get_if(&api, &format!("/v1/operations/{}", operation.id), "*").await?;
    assert_eq!(missing.problem(404)?, "not_found");
    Ok(())
}

#[tokio::test]
async fn a_version_changes_with_what_it_stands_for() -> Result<()> {
    let Stage {
        mut people,
        member,
        api,
        operation,
        ..
    } = Stage::new("owner").await?;
    let path = format!("/v1/operations/{}", operation.id);
    let mut tags = std::collections::BTreeSet::new();
    for percent in [0, 10, 40, 100] {
        if percent > 0 {
            operation.advance(&mut people.control, percent).await?;
        }
        assert!(
            tags.insert(api.get(&path).await?.header("etag").to_owned()),
            "{tags:?}"
        );
    }
    // Who sees more sees another version.
    assert!(tags.insert(Api::owner().await?.get(&path).await?.header("etag").to_owned()));

    let me = api.get("/v1/me").await?.header("etag").to_owned();
    people.change_role(&member, "viewer").await?;
    let changed = get_if(&api, "/v1/me", &me).await?;
    assert_eq!(changed.expect(200)?["role"], "viewer");
    assert_ne!(changed.header("etag"), me);
    Ok(())
}

#[tokio::test]
async fn a_change_is_made_only_to_the_version_that_was_read() -> Result<()> {
    let (_people, api, tenant) = stage().await?;
    let path = format!("/v1/tenants/{}", tenant.id);
    let old = api.get(&path).await?.header("etag").to_owned();
    let change = async |name: &str, tag: &str| -> Result<Answer> {
        api.patch(&path, &json!({ "name": name }), &[("if-match", tag)])
            .await
    };
    let changed = change("First", &old).await?;
    assert_eq!(changed.expect(200)?["name"], "First");
    let new = changed.header("etag").to_owned();
    assert_ne!(new, old);
    assert_eq!(api.get(&path).await?.header("etag"), new);

    for stale in [
        old.clone(),
        format!("W/{new}"),
        format!("{old}, W/{new}"),
        "\"other\"".to_owned(),
        "\"v-1\"".to_owned(),
        "v2".to_owned(),
        "\"v99999999999999999999\"".to_owned(),
        String::new(),
    ] {
        assert_eq!(
            change("Lost", &stale).await?.problem(412)?,
            "precondition_failed",
            "{stale}"
        );
        let deleted = api
            .send(Method::DELETE, &path, None, &[("if-match", &stale)])
            .await?;
        assert_eq!(deleted.problem(412)?, "precondition_failed", "{stale}");
        // Also where nothing would be changed.
        let nothing = api.patch(&path, &json!({}), &[("if-match", &stale)]).await?;
        assert_eq!(nothing.problem(412)?, "precondition_failed", "{stale}");
    }
    let present = api.get(&path).await?;
    assert_eq!(
        (present.json()["name"].clone(), present.header("etag")),
        (json!("First"), new.as_str())
    );

    assert_eq!(
        change("Second", &format!("{old}, {new}")).await?.expect(200)?["name"],
        "Second"
    );
    assert_eq!(change("Third", "*").await?.expect(200)?["name"], "Third");
    assert_eq!(api.get(&path).await?.expect(200)?["status"], "active");
    Ok(())
}

#[tokio::test]
async fn of_two_changes_to_one_version_one_is_made() -> Result<()> {
    let (_people, api, tenant) = stage().await?;
    let path = format!("/v1/tenants/{}", tenant.id);
    let tag = api.get(&path).await?.header("etag").to_owned();
    let race = (0..8).map(|number| {
        let (api, path, tag) = (&api, &path, &tag);
        async move {
            let body = json!({ "labels": { format!("racer-{number}"): "first" } });
            api.patch(path, &body, &[("if-match", tag)]).await
        }
    });
    let mut made = Vec::new();
    for answer in futures::future::join_all(race).await {
        let answer = answer?;
        if answer.status == 412 {
            assert_eq!(answer.problem(412)?, "precondition_failed");
        } else {
            made.push(answer.expect(200)?["labels"].clone());
        }
    }
    assert_eq!(made.len(), 1, "{made:?}");
    let labels: Value = api.get(&path).await?.expect(200)?["labels"].clone();
    assert_eq!(labels, made[0]);
    Ok(())
}
