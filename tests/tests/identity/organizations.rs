//! The tree.

use anyhow::Result;
use serde_json::{Value, json};
use tests::api::Api;
use tests::people::{People, new_email};
use tests::rows::TenantRow;
use tests::tenant::{Tenant, new_slug, request};

use crate::text;

/// Makes an organization and answers its id.
async fn make(api: &Api, name: &str, parent: Option<&str>) -> Result<String> {
    let mut body = json!({ "name": name });
    if let Some(parent) = parent {
        body["parent_id"] = json!(parent);
    }
    text(
        &api.post("/v1/organizations", &body, &[]).await?.expect(201)?,
        "id",
    )
}

#[tokio::test]
async fn a_resellers_key_serves_its_customers_and_nobody_elses() -> Result<()> {
    let mut people = People::new().await?;
    let reseller = people.organization().await?;
    let rival = people.organization().await?;
    let (_, secret) = people.api_key(&reseller, "owner").await?;
    let portal = Api::anyone()?.with(&secret);
    let me = portal.get("/v1/me").await?.expect(200)?;
    assert_eq!(
        (&me["kind"], &me["organization"]["id"]),
        (&json!("api_key"), &json!(reseller.id))
    );

    let made = portal
        .post("/v1/organizations", &json!({ "name": "Bakery" }), &[])
        .await?;
    let customer = made.expect(201)?;
    let id = text(&customer, "id")?;
    assert_eq!(made.header("location"), format!("/v1/organizations/{id}"));
    assert_eq!(customer["parent_id"], json!(reseller.id));
    let member = portal
        .post(
            "/v1/members",
            &json!({ "email": new_email(), "role": "admin", "organization_id": id }),
            &[],
        )
        .await?
        .expect(201)?;
    let tenant = Tenant::create_with(&portal, &json!({ "organization_id": id })).await?;
    assert_eq!(tenant.read().await?.expect(200)?["organization_id"], json!(id));

    // The customer's own member signs in with the password that was answered, and sees the tenant.
    let email = text(&member, "email")?;
    let tokens = Api::anyone()?
        .sign_in(&email, &text(&member, "password")?)
        .await?;
    let customers = Api::anyone()?.with(&tokens.access);
    customers
        .get(&format!("/v1/tenants/{}", tenant.id))
        .await?
        .expect(200)?;
    // But not the reseller, and not who its parent is.
    let seen = customers
        .get(&format!("/v1/organizations/{id}"))
        .await?
        .expect(200)?;
    assert_eq!(seen["parent_id"], Value::Null);
    let hidden = customers
        .get(&format!("/v1/organizations/{}", reseller.id))
        .await?;
    assert_eq!(hidden.problem(404)?, "not_found");

    // At a rival's there is nothing for the key to find, and nothing that it can make.
    let rivals = TenantRow::write(&mut people.control, &rival).await?;
    let refused = portal.get(&format!("/v1/tenants/{}", rivals.id)).await?;
    assert_eq!(refused.problem(404)?, "not_found");
    for (path, body) in [
        (
            "/v1/tenants",
            request(&new_slug(), &json!({ "organization_id": rival.id })),
        ),
        (
            "/v1/organizations",
            json!({ "name": "Spy", "parent_id": rival.id }),
        ),
        (
            "/v1/members",
            json!({ "email": new_email(), "role": "viewer", "organization_id": rival.id }),
        ),
        (
            "/v1/invitations",
            json!({ "email": new_email(), "role": "viewer", "organization_id": rival.id }),
        ),
        (
            "/v1/api-keys",
            json!({ "name": "Spy", "role": "viewer", "organization_id": rival.id }),
        ),
    ] {
        let refused = portal.post(path, &body, &[]).await?;
        assert_eq!(refused.problem(422)?, "invalid_request", "{path}");
        assert_eq!(
            refused.json()["errors"][0]["code"],
            "unknown_organization",
            "{path}"
        );
    }
    tenant.delete().await
}

#[tokio::test]
async fn a_list_shows_the_own_organization_and_all_below_it() -> Result<()> {
    let mut people = People::new().await?;
    let top = people.organization().await?;
    let api = people.member(&top, "admin").await?.api().await?;
    let one = make(&api, "One", None).await?;
    let two = make(&api, "Two", Some(&one)).await?;
    let three = make(&api, "Three", Some(&two)).await?;
    let listed = async |path: &str| -> Result<Vec<String>> {
        let page = api.get(path).await?.expect(200)?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| text(item, "id")).collect()
    };
    assert_eq!(
        listed("/v1/organizations").await?,
        [three.clone(), two.clone(), one.clone(), top.id.clone()]
    );
    assert_eq!(
        listed(&format!("/v1/organizations?parent_id={one}")).await?,
        [two]
    );
    Ok(())
}

#[tokio::test]
async fn a_moved_organization_takes_its_rights_along_and_the_tree_stays_one() -> Result<()> {
    let mut people = People::new().await?;
    let top = people.organization().await?;
    let api = people.member(&top, "owner").await?.api().await?;
    let (left, right) = (make(&api, "Left", None).await?, make(&api, "Right", None).await?);
    let child = make(&api, "Child", Some(&left)).await?;
    let grandchild = make(&api, "Grandchild", Some(&child)).await?;
    let viewer = api
        .post(
            "/v1/members",
            &json!({ "email": new_email(), "role": "viewer", "organization_id": right }),
            &[],
        )
        .await?
        .expect(201)?;
    let tokens = Api::anyone()?
        .sign_in(&text(&viewer, "email")?, &text(&viewer, "password")?)
        .await?;
    let of_right = Api::anyone()?.with(&tokens.access);
    let path = format!("/v1/organizations/{grandchild}");
    of_right.get(&path).await?.expect(404)?;

    // Below itself, below what is below it, above the caller, into the unknown: refused, and nothing moves.
    let before = api.get(&format!("/v1/organizations/{child}")).await?;
    for (moved, parent, code) in [
        (&child, &child, "cycle"),
        (&child, &grandchild, "cycle"),
        (&left, &grandchild, "cycle"),
        (
            &child,
            &"org_01jdjyfyh1fe82gqsfsks1j4x4".to_owned(),
            "unknown_organization",
        ),
        (&top.id, &child, "own_organization"),
    ] {
        let refused = api
            .patch(
                &format!("/v1/organizations/{moved}"),
                &json!({ "parent_id": parent }),
                &[],
            )
            .await?;
        assert_eq!(refused.problem(422)?, "invalid_request", "{moved} below {parent}");
        assert_eq!(refused.json()["errors"][0]["code"], code);
    }
    // An admin could else move a customer below another one's owners, or below an organization that it owns itself.
    let admin = people.member(&top, "admin").await?.api().await?;
    let refused = admin
        .patch(
            &format!("/v1/organizations/{child}"),
            &json!({ "parent_id": right }),
            &[],
        )
        .await?;
    assert_eq!(refused.problem(422)?, "invalid_request");
    assert_eq!(refused.json()["errors"][0]["code"], "owner_required");
    let after = api.get(&format!("/v1/organizations/{child}")).await?;
    assert_eq!(
        (&before.text, before.header("etag")),
        (&after.text, after.header("etag"))
    );

    api.patch(
        &format!("/v1/organizations/{child}"),
        &json!({ "parent_id": right }),
        &[],
    )
    .await?
    .expect(200)?;
    of_right.get(&path).await?.expect(200)?;
    let listed = api
        .get(&format!("/v1/organizations?parent_id={left}"))
        .await?
        .expect(200)?;
    assert_eq!(listed["items"], json!([]));
    Ok(())
}

#[tokio::test]
async fn two_moves_at_once_make_no_circle() -> Result<()> {
    let mut people = People::new().await?;
    let top = people.organization().await?;
    let api = people.member(&top, "owner").await?.api().await?;
    for _ in 0..5 {
        let (one, two) = (make(&api, "One", None).await?, make(&api, "Two", None).await?);
        let into = async |moved: &str, parent: &str| {
            api.patch(
                &format!("/v1/organizations/{moved}"),
                &json!({ "parent_id": parent }),
                &[],
            )
            .await
        };
        let (first, second) = tokio::join!(into(&one, &two), into(&two, &one));
        let mut statuses = [first?.status, second?.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 422]);
    }
    Ok(())
}

#[tokio::test]
async fn a_tree_has_an_end() -> Result<()> {
    let mut people = People::new().await?;
    let top = people.organization().await?;
    let api = people.member(&top, "owner").await?.api().await?;
    let mut parent = top.id.clone();
    // The root, the test's own, and fourteen more.
    for level in 3..=16 {
        parent = make(&api, &format!("Level {level}"), Some(&parent)).await?;
    }
    let refused = api
        .post(
            "/v1/organizations",
            &json!({ "name": "Too deep", "parent_id": parent }),
            &[],
        )
        .await?;
    assert_eq!(refused.problem(422)?, "invalid_request");
    assert_eq!(refused.json()["errors"][0]["code"], "too_deep");
    Ok(())
}

#[tokio::test]
async fn an_organization_goes_only_when_nothing_lives_in_it() -> Result<()> {
    let mut people = People::new().await?;
    let top = people.organization().await?;
    let child = people.child(&top).await?;
    let api = people.member(&top, "owner").await?.api().await?;
    let customer = people.member(&child, "owner").await?.api().await?;
    let (_, secret) = people.api_key(&child, "owner").await?;
    let program = Api::anyone()?.with(&secret);
    program.get("/v1/me").await?.expect(200)?;
    let path = format!("/v1/organizations/{}", child.id);

    let grandchild = make(&api, "Grandchild", Some(&child.id)).await?;
    assert_eq!(api.delete(&path).await?.problem(409)?, "organization_in_use");
    api.delete(&format!("/v1/organizations/{grandchild}"))
        .await?
        .expect(204)?;
    let tenant = TenantRow::write(&mut people.control, &child).await?;
    let refused = api.delete(&path).await?;
    assert_eq!(refused.problem(409)?, "organization_in_use");
    assert!(refused.text.contains("tenants"), "{}", refused.text);
    assert_eq!(
        Api::owner()
            .await?
            .delete(&format!("/v1/organizations/{}", root(&mut people).await?))
            .await?
            .problem(409)?,
        "organization_in_use"
    );
    sqlx::query("DELETE FROM tenants WHERE id = $1")
        .bind(tenant.row)
        .execute(&mut people.control)
        .await?;

    let etag = api.get(&path).await?.header("etag").to_owned();
    let stale = api
        .send("DELETE".parse()?, &path, None, &[("if-match", "\"v0\"")])
        .await?;
    assert_eq!(stale.problem(412)?, "precondition_failed");
    api.send("DELETE".parse()?, &path, None, &[("if-match", etag.as_str())])
        .await?
        .expect(204)?;
    // Everybody in it is out at once; it is gone for those above; its log is not.
    for gone in [customer.get("/v1/me").await?, program.get("/v1/me").await?] {
        assert_eq!(gone.problem(401)?, "unauthenticated");
    }
    api.get(&path).await?.expect(404)?;
    assert_eq!(api.delete(&path).await?.problem(404)?, "not_found");
    let log = api
        .get(&format!(
            "/v1/audit-events?organization_id={}&action=delete_organization&outcome=succeeded",
            child.id
        ))
        .await?
        .expect(200)?;
    assert_eq!(log["items"][0]["outcome"], "succeeded");
    let refused = api
        .post(
            "/v1/tenants",
            &request(&new_slug(), &json!({ "organization_id": child.id })),
            &[],
        )
        .await?;
    assert_eq!(refused.json()["errors"][0]["code"], "unknown_organization");
    Ok(())
}

async fn root(people: &mut People) -> Result<String> {
    let row = sqlx::query_scalar("SELECT id FROM organizations WHERE parent_id IS NULL")
        .fetch_one(&mut people.control)
        .await?;
    Ok(tests::ids::id_of("org", row))
}

#[tokio::test]
async fn a_name_is_checked_and_a_request_sent_again_makes_no_second_organization() -> Result<()> {
    let mut people = People::new().await?;
    let top = people.organization().await?;
    let api = people.member(&top, "owner").await?.api().await?;
    for name in ["", "   ", "a\nb", "x".repeat(129).as_str()] {
        let refused = api
            .post("/v1/organizations", &json!({ "name": name }), &[])
            .await?;
        assert_eq!(refused.problem(422)?, "invalid_request", "{name:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/name");
    }
    let key = new_slug();
    let headers = [("idempotency-key", key.as_str())];
    let body = json!({ "name": "Once" });
    let first = api.post("/v1/organizations", &body, &headers).await?;
    let again = api.post("/v1/organizations", &body, &headers).await?;
    assert_eq!(first.expect(201)?, again.expect(201)?);
    for header in ["location", "etag"] {
        assert_eq!(first.header(header), again.header(header));
    }
    assert_eq!(again.header("idempotency-replayed"), "true");
    Ok(())
}
