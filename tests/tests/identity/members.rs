//! Members: who is in, as what, and out at once.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::api::Api;
use tests::events::Events;
use tests::people::{People, new_email};
use tests::place::Place;
use tests::rows::{OperationRow, TenantRow};
use tests::second_api::SecondApi;
use tests::wire::Wire;
use uuid::Uuid;

use crate::text;

#[tokio::test]
async fn a_removed_member_is_out_on_every_process_with_the_next_request() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let owner = people.member(&organization, "owner").await?.api().await?;
    let leaver = people.member(&organization, "admin").await?;
    let token = leaver.tokens().await?;
    let second = SecondApi::start(&[]).await?;
    let processes = [
        Api::anyone()?.with(&token.access),
        second.anyone()?.with(&token.access),
    ];
    for process in &processes {
        process.get("/v1/me").await?.expect(200)?;
    }
    let tenant = TenantRow::write(&mut people.control, &organization).await?;
    let operation = OperationRow::queued(&mut people.control, &organization, &tenant).await?;
    let mut stream = Events::open(&processes[1], &operation.id, None).await?;
    stream.next(Duration::from_secs(5)).await?;

    let id = tests::ids::id_of("usr", leaver.row);
    owner.delete(&format!("/v1/members/{id}")).await?.expect(204)?;
    for process in &processes {
        assert_eq!(process.get("/v1/me").await?.problem(401)?, "unauthenticated");
        assert_eq!(process.get("/v1/tenants").await?.problem(401)?, "unauthenticated");
    }
    assert_eq!(
        Api::anyone()?.refresh(&token.refresh).await?.problem(401)?,
        "unauthenticated"
    );
    // Its stream ends; nothing more comes of it.
    assert!(stream.next(Duration::from_secs(15)).await?.is_none());

    // Back again, an old session stays what it is.
    people.join(&leaver, &organization, "admin").await?;
    assert_eq!(processes[0].get("/v1/me").await?.problem(401)?, "unauthenticated");
    leaver.api().await?.get("/v1/me").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_demoted_member_has_the_lower_role_at_once() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let owner = people.member(&organization, "owner").await?.api().await?;
    let member = people.member(&organization, "admin").await?;
    let api = member.api().await?;
    let path = format!("/v1/members/{}", tests::ids::id_of("usr", member.row));
    api.post("/v1/organizations", &json!({ "name": "As admin" }), &[])
        .await?
        .expect(201)?;
    let changed = owner
        .patch(&path, &json!({ "role": "viewer" }), &[])
        .await?
        .expect(200)?;
    assert_eq!(changed["role"], "viewer");
    let refused = api
        .post("/v1/organizations", &json!({ "name": "As viewer" }), &[])
        .await?;
    assert_eq!(refused.problem(403)?, "forbidden");
    // A patch that changes nothing leaves the version.
    let before = owner.get(&path).await?;
    let same = owner.patch(&path, &json!({ "role": "viewer" }), &[]).await?;
    assert_eq!(before.header("etag"), same.header("etag"));
    Ok(())
}

#[tokio::test]
async fn of_the_last_two_owners_only_one_can_go() -> Result<()> {
    let mut people = People::new().await?;
    for demote in [true, false] {
        let organization = people.organization().await?;
        let (one, two) = (
            people.member(&organization, "owner").await?,
            people.member(&organization, "owner").await?,
        );
        let (api_one, api_two) = (one.api().await?, two.api().await?);
        let path =
            |member: &tests::people::Member| format!("/v1/members/{}", tests::ids::id_of("usr", member.row));
        let take = async |api: &Api, path: String| {
            if demote {
                api.patch(&path, &json!({ "role": "viewer" }), &[]).await
            } else {
                api.delete(&path).await
            }
        };
        let (first, second) = tokio::join!(take(&api_one, path(&two)), take(&api_two, path(&one)));
        let (first, second) = (first?, second?);
        let owners: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM memberships WHERE organization_id = $1 AND role = 'owner'",
        )
        .bind(organization.row)
        .fetch_one(&mut people.control)
        .await?;
        assert_eq!(owners, 1, "{} and {}", first.status, second.status);
        let refused = if first.status < 300 { &second } else { &first };
        // Whoever came second is no owner any more, or is the last one.
        assert!(
            matches!(refused.status, 401 | 403 | 409),
            "{}: {}",
            refused.status,
            refused.text
        );
        // And the last one can't even go by itself.
        let (last, own) = if first.status < 300 {
            (&api_one, &one)
        } else {
            (&api_two, &two)
        };
        assert_eq!(take(last, path(own)).await?.problem(409)?, "last_owner");
    }
    Ok(())
}

#[tokio::test]
async fn who_has_an_account_elsewhere_is_invited_and_not_added() -> Result<()> {
    let mut people = People::new().await?;
    let (reseller, stranger) = (people.organization().await?, people.organization().await?);
    let customer = people.child(&reseller).await?;
    let api = people.member(&reseller, "owner").await?.api().await?;
    let foreign = people.member(&stranger, "viewer").await?;
    let own = people.member(&reseller, "viewer").await?;
    let refused = api
        .post(
            "/v1/members",
            &json!({ "email": foreign.email, "role": "viewer" }),
            &[],
        )
        .await?;
    assert_eq!(refused.problem(409)?, "account_exists");

    // One's own people can be given a role in a customer's organization; and then they name which they mean.
    let body = json!({ "email": own.email.to_uppercase(), "role": "owner", "organization_id": customer.id });
    let added = api.post("/v1/members", &body, &[]).await?.expect(201)?;
    assert!(added["password"].is_null());
    assert_eq!(
        api.post("/v1/members", &body, &[]).await?.problem(409)?,
        "already_member"
    );
    let ambiguous = Api::anyone()?
        .post(
            "/v1/auth/token",
            &json!({ "email": own.email, "password": tests::place::Place::get().access.owner_password }),
            &[],
        )
        .await?;
    assert_eq!(ambiguous.problem(422)?, "organization_required");

    // Without an organization it is the caller's own that is meant; of the two below another caller's, neither.
    let id = text(&added, "user_id")?;
    let meant = api.get(&format!("/v1/members/{id}")).await?.expect(200)?;
    assert_eq!(meant["organization_id"], json!(reseller.id));
    let ambiguous = Api::owner().await?.get(&format!("/v1/members/{id}")).await?;
    assert_eq!(ambiguous.problem(422)?, "invalid_request");
    assert_eq!(ambiguous.json()["errors"][0]["parameter"], "organization_id");
    let named = Api::owner()
        .await?
        .get(&format!("/v1/members/{id}?organization_id={}", customer.id))
        .await?
        .expect(200)?;
    assert_eq!(named["role"], "owner");

    // A change must name it even then: sent again, it would else reach the other one.
    let path = format!("/v1/members/{id}");
    for refused in [
        api.delete(&path).await?,
        api.patch(&path, &json!({ "role": "viewer" }), &[]).await?,
    ] {
        assert_eq!(refused.problem(422)?, "invalid_request");
        assert_eq!(refused.json()["errors"][0]["parameter"], "organization_id");
    }
    people.member(&customer, "owner").await?;
    let path = format!("{path}?organization_id={}", customer.id);
    api.delete(&path).await?.expect(204)?;
    assert_eq!(api.delete(&path).await?.problem(404)?, "not_found");
    Ok(())
}

/// What was asked before the body came may not hold any more when it is there.
#[tokio::test]
async fn a_request_that_takes_its_time_is_refused_to_whoever_was_removed_meanwhile() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let leaving = people.member(&organization, "owner").await?;
    let demoted = people.member(&organization, "owner").await?;
    let (_, revoked) = people.api_key(&organization, "owner").await?;
    let key: Uuid = sqlx::query_scalar("SELECT id FROM api_keys WHERE organization_id = $1")
        .bind(organization.row)
        .fetch_one(&mut people.control)
        .await?;
    let body = r#"{"name": "For later", "role": "owner"}"#;
    let mut slow = Vec::new();
    for token in [
        leaving.tokens().await?.access,
        demoted.tokens().await?.access,
        revoked,
    ] {
        let mut wire = Wire::open(Place::get().api_listen()).await?;
        let head = format!(
            "POST /v1/api-keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(head.as_bytes()).await?;
        wire.send(&body.as_bytes()[..5]).await?;
        slow.push(wire);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    people.remove(&leaving).await?;
    people.change_role(&demoted, "admin").await?;
    sqlx::query("DELETE FROM api_keys WHERE id = $1")
        .bind(key)
        .execute(&mut people.control)
        .await?;
    let mut codes = Vec::new();
    for wire in &mut slow {
        wire.send(&body.as_bytes()[5..]).await?;
        let answer = wire.answer(Duration::from_secs(20)).await?;
        codes.push(answer.json()["code"].as_str().map(str::to_owned));
    }
    assert_eq!(
        codes,
        ["unauthenticated", "forbidden", "unauthenticated"].map(|code| Some(code.to_owned()))
    );
    let made: i64 = sqlx::query_scalar("SELECT count(*) FROM api_keys WHERE organization_id = $1")
        .bind(organization.row)
        .fetch_one(&mut people.control)
        .await?;
    assert_eq!(made, 0);
    Ok(())
}

#[tokio::test]
async fn odd_addresses_and_passwords_are_refused_by_name_and_make_nobody() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let long = format!("{}@e2e.example", "x".repeat(65));
    let wide = format!("a@{}.example", "b".repeat(64));
    let odd = [
        "",
        "@",
        "a@",
        "@b",
        "a b@c.example",
        "a@b@c.example",
        "\"a b\"@c.example",
        "a@-b.example",
        "a@b..example",
        ".a@b.example",
        "a.@b.example",
        "a..b@c.example",
        "a@b.example\n",
        "a\u{0}@b.example",
        "jürgen@b.example",
        "a@bücher.example",
        "a@[127.0.0.1]",
        "<a@b.example>",
        "a@b.example, c@d.example",
        "Jo <jo@b.example>",
        long.as_str(),
        wide.as_str(),
    ];
    for email in odd {
        for path in ["/v1/members", "/v1/invitations"] {
            let refused = api
                .post(path, &json!({ "email": email, "role": "viewer" }), &[])
                .await?;
            assert_eq!(refused.problem(422)?, "invalid_request", "{path}: {email:?}");
            assert_eq!(
                refused.json()["errors"][0]["pointer"],
                "/email",
                "{path}: {email:?}"
            );
        }
    }
    for password in ["", "short", "x".repeat(10_240).as_str(), "control\u{7}character"] {
        let body = json!({ "email": new_email(), "role": "viewer", "password": password });
        let refused = api.post("/v1/members", &body, &[]).await?;
        assert_eq!(refused.problem(422)?, "invalid_request");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/password");
    }
    let members: i64 = sqlx::query_scalar("SELECT count(*) FROM memberships WHERE organization_id = $1")
        .bind(organization.row)
        .fetch_one(&mut people.control)
        .await?;
    assert_eq!(members, 1);
    // What is unusual, and an address.
    let fine = format!("o'brien+odoo_{}@e2e.example", tests::tenant::new_slug());
    api.post("/v1/members", &json!({ "email": fine, "role": "viewer" }), &[])
        .await?
        .expect(201)?;
    Ok(())
}

#[tokio::test]
async fn one_address_added_twice_at_once_has_one_account() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let email = new_email();
    let add = async |email: String| {
        api.post("/v1/members", &json!({ "email": email, "role": "viewer" }), &[])
            .await
    };
    let (first, second) = tokio::join!(add(email.clone()), add(email.to_uppercase()));
    let mut statuses = [first?.status, second?.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    Ok(())
}
