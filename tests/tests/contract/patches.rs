//! JSON merge patches (RFC 7396) of a tenant: absent stays, null clears, and what changes nothing is no change.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::http::Answer;
use tests::people::People;
use tests::rows::{OperationRow, TenantRow};

struct Stage {
    people: People,
    api: Api,
    tenant: TenantRow,
    organization: tests::people::Organization,
    path: String,
}

impl Stage {
    async fn new() -> Result<Self> {
        let mut people = People::new().await?;
        let organization = people.organization().await?;
        let api = people.member(&organization, "owner").await?.api().await?;
        let tenant = TenantRow::write(&mut people.control, &organization).await?;
        Ok(Self {
            path: format!("/v1/tenants/{}", tenant.id),
            people,
            api,
            tenant,
            organization,
        })
    }

    async fn patch(&self, body: Value) -> Result<Answer> {
        self.api.patch(&self.path, &body, &[]).await
    }

    async fn read(&self) -> Result<Answer> {
        self.api.get(&self.path).await
    }
}

#[tokio::test]
async fn absent_stays_and_null_clears() -> Result<()> {
    let stage = Stage::new().await?;
    let mut expected = stage.read().await?.expect(200)?;
    for (patch, changed) in [
        (json!({ "name": "  Ærø & Søn  " }), json!({ "name": "Ærø & Søn" })),
        (
            json!({ "labels": { "a": "1", "b": "2", "c/d": "3" } }),
            json!({ "labels": { "a": "1", "b": "2", "c/d": "3" } }),
        ),
        (
            json!({ "labels": { "a": null, "b": "4" } }),
            json!({ "labels": { "b": "4", "c/d": "3" } }),
        ),
        (json!({ "protected": true }), json!({ "protected": true })),
        (
            json!({ "labels": null, "protected": false, "name": "All at once" }),
            json!({ "labels": {}, "protected": false, "name": "All at once" }),
        ),
    ] {
        let answer = stage.patch(patch.clone()).await?;
        for (field, value) in changed.as_object().into_iter().flatten() {
            expected[field] = value.clone();
        }
        let mut told = answer.expect(200)?;
        assert_ne!(told["updated_at"], expected["updated_at"], "{patch}");
        assert_eq!(stage.read().await?.json(), told, "{patch}");
        told["updated_at"] = expected["updated_at"].clone();
        assert_eq!(told, expected, "{patch}");
    }
    Ok(())
}

#[tokio::test]
async fn what_changes_nothing_leaves_the_version() -> Result<()> {
    let stage = Stage::new().await?;
    stage
        .patch(json!({ "name": "Same", "labels": { "a": "1" }, "protected": true }))
        .await?
        .expect(200)?;
    let before = stage.read().await?;
    for patch in [
        json!({}),
        json!({ "name": "Same" }),
        json!({ "name": " Same " }),
        json!({ "labels": {} }),
        json!({ "labels": { "a": "1" } }),
        json!({ "labels": { "none": null } }),
        json!({ "protected": true }),
        json!({ "name": "Same", "labels": { "a": "1" }, "protected": true }),
    ] {
        let answer = stage.patch(patch.clone()).await?;
        assert_eq!(answer.expect(200)?, before.json(), "{patch}");
        assert_eq!(answer.header("etag"), before.header("etag"), "{patch}");
    }
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_cleared_or_is_wrong_is_pointed_at_and_nothing_is_changed() -> Result<()> {
    let stage = Stage::new().await?;
    let before = stage.read().await?;
    let long = "x".repeat(256);
    let many: Value = (0..65)
        .map(|number| (format!("k{number}"), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (patch, wrong) in [
        (json!({ "name": null }), vec![("/name", "not_clearable")]),
        (
            json!({ "protected": null }),
            vec![("/protected", "not_clearable")],
        ),
        (
            json!({ "name": null, "protected": null, "labels": { "a": "1" } }),
            vec![("/name", "not_clearable"), ("/protected", "not_clearable")],
        ),
        (json!({ "name": "" }), vec![("/name", "invalid_name")]),
        (
            json!({ "name": "x".repeat(129) }),
            vec![("/name", "invalid_name")],
        ),
        (
            json!({ "name": "a\nb", "protected": true }),
            vec![("/name", "invalid_name")],
        ),
        (
            json!({ "labels": { "a": long } }),
            vec![("/labels/a", "invalid_label")],
        ),
        (
            json!({ "labels": { "-a": "1" } }),
            vec![("/labels/-a", "invalid_label")],
        ),
        (json!({ "labels": many }), vec![("/labels", "too_many")]),
        (json!({ "labels": "x" }), vec![("/labels", "invalid_type")]),
        (
            json!({ "labels": { "a": true } }),
            vec![("/labels/a", "invalid_type")],
        ),
        (json!({ "slug": "another" }), vec![("/slug", "unknown_field")]),
        (json!({ "status": "active" }), vec![("/status", "unknown_field")]),
        (json!([]), vec![("", "invalid_type")]),
        (json!(null), vec![("", "invalid_type")]),
    ] {
        let answer = stage.patch(patch.clone()).await?;
        assert_eq!(answer.problem(422)?, "invalid_request", "{patch}");
        let errors = answer.json()["errors"].clone();
        let named: Vec<(&str, &str)> = errors
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| {
                (
                    error["pointer"].as_str().unwrap_or("none"),
                    error["code"].as_str().unwrap_or_default(),
                )
            })
            .collect();
        assert_eq!(named, wrong, "{patch}");
    }
    let after = stage.read().await?;
    assert_eq!(
        (after.json(), after.header("etag")),
        (before.json(), before.header("etag"))
    );
    Ok(())
}

#[tokio::test]
async fn both_media_types_of_a_patch_are_taken_and_no_other() -> Result<()> {
    let stage = Stage::new().await?;
    let send = async |media_type: &str, name: &str| -> Result<Answer> {
        let request = stage
            .api
            .request(Method::PATCH, &stage.path)
            .header("content-type", media_type)
            .body(json!({ "name": name }).to_string());
        Answer::of(request).await
    };
    for (number, media_type) in [
        "application/json",
        "application/merge-patch+json",
        "application/merge-patch+json; charset=utf-8",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("Name {number}");
        assert_eq!(send(media_type, &name).await?.expect(200)?["name"], name.as_str());
    }
    for media_type in [
        "application/json-patch+json",
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        assert_eq!(
            send(media_type, "No").await?.problem(415)?,
            "unsupported_media_type"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_busy_tenant_names_what_is_at_work_on_it() -> Result<()> {
    let mut stage = Stage::new().await?;
    let control = &mut stage.people.control;
    let operation = OperationRow::queued(control, &stage.organization, &stage.tenant).await?;
    let password = format!("{}/admin-password", stage.path);
    for answer in [
        stage.patch(json!({ "name": "Later" })).await?,
        stage.api.post(&password, &json!({}), &[]).await?,
    ] {
        assert_eq!(answer.problem(409)?, "tenant_busy");
        assert_eq!(answer.json()["operation_id"], operation.id.as_str());
        assert!(answer.header("retry-after").parse::<u32>()? >= 1);
    }
    // What changes nothing is in nobody's way.
    stage.patch(json!({})).await?.expect(200)?;
    // A refusal leaves nothing at work.
    let path = format!("/v1/operations?target_id={}", stage.tenant.id);
    let operations = stage.api.get(&path).await?.expect(200)?;
    assert_eq!(
        operations["items"].as_array().map(Vec::len),
        Some(1),
        "{operations}"
    );

    stage
        .api
        .post(
            &format!("/v1/operations/{}/cancel", operation.id),
            &json!({}),
            &[],
        )
        .await?
        .expect(202)?;
    assert_eq!(
        stage.patch(json!({ "name": "Now" })).await?.expect(200)?["name"],
        "Now"
    );
    Ok(())
}

#[tokio::test]
async fn protection_stops_a_deletion_whatever_else_is_said() -> Result<()> {
    let stage = Stage::new().await?;
    let protected = stage.patch(json!({ "protected": true })).await?;
    protected.expect(200)?;
    let tag = protected.header("etag").to_owned();
    for headers in [vec![], vec![("if-match", "*")], vec![("if-match", tag.as_str())]] {
        let answer = stage
            .api
            .send(Method::DELETE, &stage.path, None, &headers)
            .await?;
        assert_eq!(answer.problem(409)?, "tenant_protected");
    }
    let after = stage.read().await?;
    assert_eq!(
        (after.json(), after.header("etag")),
        (protected.json(), tag.as_str())
    );
    Ok(())
}
