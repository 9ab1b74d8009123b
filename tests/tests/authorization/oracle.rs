//! Whoever may not see a thing can't tell whether it exists.

use anyhow::Result;
use serde_json::{Value, json};
use tests::api::Api;
use tests::http::Answer;
use tests::rows::{ApiKeyRow, InvitationRow, OperationRow, TenantRow};
use tests::tenant::{new_slug, request};

use crate::ALONE;
use crate::credentials::Family;

/// An answer without what differs from request to request.
fn told(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("request_id");
    }
    (answer.status, body)
}

#[tokio::test]
async fn a_foreign_thing_is_answered_like_none() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut family = Family::new().await?;
    let (parent, sibling) = (family.parent.clone(), family.sibling.clone());
    let people = &mut family.people;
    let tenant = TenantRow::write(&mut people.control, &parent).await?;
    let operation = OperationRow::queued(&mut people.control, &parent, &tenant).await?;
    let key = ApiKeyRow::write(&mut people.control, &parent).await?;
    let invitation = InvitationRow::write(&mut people.control, &parent).await?;
    let member = tests::ids::id_of("usr", people.member(&parent, "viewer").await?.row);
    for role in ["owner", "admin", "viewer"] {
        let api = people.member(&sibling, role).await?.api().await?;
        for (method, path, body) in [
            ("GET", "/v1/tenants/T", None),
            ("PATCH", "/v1/tenants/T", Some(json!({ "name": "Mine" }))),
            ("PATCH", "/v1/tenants/T", Some(json!({ "name": null }))),
            ("DELETE", "/v1/tenants/T", None),
            ("POST", "/v1/tenants/T/admin-password", Some(json!({}))),
            ("GET", "/v1/operations/O", None),
            ("GET", "/v1/operations/O?wait=1", None),
            ("GET", "/v1/operations/O/events", None),
            ("POST", "/v1/operations/O/cancel", Some(json!({}))),
            ("GET", "/v1/organizations/P", None),
            ("PATCH", "/v1/organizations/P", Some(json!({ "name": "Mine" }))),
            ("DELETE", "/v1/organizations/P", None),
            ("GET", "/v1/members/M", None),
            ("PATCH", "/v1/members/M", Some(json!({ "role": "viewer" }))),
            ("DELETE", "/v1/members/M", None),
            ("GET", "/v1/invitations/I", None),
            ("PATCH", "/v1/invitations/I", Some(json!({ "role": "viewer" }))),
            ("DELETE", "/v1/invitations/I", None),
            ("GET", "/v1/api-keys/K", None),
            ("POST", "/v1/api-keys/K/rotate", Some(json!({}))),
            ("DELETE", "/v1/api-keys/K", None),
        ] {
            let none = "01jdjyfyh1fe82gqsfsks1j4x4";
            let ask = async |exists: bool| -> Result<_> {
                let path = [
                    ("/T", &tenant.id),
                    ("/O", &operation.id),
                    ("/P", &parent.id),
                    ("/M", &member),
                    ("/I", &invitation.id),
                    ("/K", &key.id),
                ]
                .into_iter()
                .fold(path.to_owned(), |path, (place, id)| {
                    let (prefix, _) = id.split_once('_').unwrap_or_default();
                    let id = if exists {
                        id.clone()
                    } else {
                        format!("{prefix}_{none}")
                    };
                    path.replace(place, &format!("/{id}"))
                });
                let answer = api
                    .send(method.parse()?, &path, body.as_ref(), &[("if-match", "\"v1\"")])
                    .await?;
                Ok(told(&answer))
            };
            let foreign = ask(true).await?;
            let none = ask(false).await?;
            assert_eq!(foreign, none, "{role}: {method} {path}");
            assert!(
                (400..500).contains(&foreign.0),
                "{role}: {method} {path}: {foreign:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_organization_is_answered_like_none() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut family = Family::new().await?;
    let (parent, sibling) = (family.parent.clone(), family.sibling.clone());
    let api = family.people.member(&sibling, "owner").await?.api().await?;
    let none = "org_01jdjyfyh1fe82gqsfsks1j4x4";
    TenantRow::write(&mut family.people.control, &parent).await?;
    for organization in [parent.id.as_str(), none] {
        let body = request(&new_slug(), &json!({ "organization_id": organization }));
        let made = api.post("/v1/tenants", &body, &[]).await?;
        assert_eq!(made.problem(422)?, "invalid_request");
        assert_eq!(made.json()["errors"][0]["code"], "unknown_organization");
        let listed = api
            .get(&format!("/v1/tenants?organization_id={organization}"))
            .await?
            .expect(200)?;
        assert_eq!(listed["items"], json!([]));
        let access = &tests::place::Place::get().access;
        let signed_in = Api::anyone()?
            .post(
                "/v1/auth/token",
                &json!({ "email": access.owner_email, "password": access.owner_password, "organization_id": organization }),
                &[],
            )
            .await?;
        assert_eq!(signed_in.problem(401)?, "wrong_password");
    }
    Ok(())
}

#[tokio::test]
async fn a_taken_slug_tells_nothing_of_whose_it_is() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut family = Family::new().await?;
    let (parent, sibling) = (family.parent.clone(), family.sibling.clone());
    let tenant = TenantRow::write(&mut family.people.control, &parent).await?;
    let api = family.people.member(&sibling, "admin").await?.api().await?;
    let taken = api
        .post("/v1/tenants", &request(&tenant.slug, &json!({})), &[])
        .await?;
    assert_eq!(taken.problem(409)?, "slug_taken");
    for secret in [&tenant.id, &parent.id] {
        assert!(!taken.text.contains(secret.as_str()), "{}", taken.text);
    }
    Ok(())
}

#[tokio::test]
async fn an_error_of_an_operation_hides_details_below_the_root() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut family = Family::new().await?;
    let parent = family.parent.clone();
    let people = &mut family.people;
    let tenant = TenantRow::write(&mut people.control, &parent).await?;
    let operation = OperationRow::succeeded(&mut people.control, &parent, &tenant).await?;
    sqlx::query(
        "UPDATE operations SET status = 'failed', error_code = 'gave_up', error_message = 'It was given up.', \
                error_detail = 'host db-7.internal: SELECT secret' WHERE id = $1",
    )
    .bind(operation.row)
    .execute(&mut people.control)
    .await?;
    let path = format!("/v1/operations/{}", operation.id);
    let owner = people.member(&parent, "owner").await?.api().await?;
    for path in [
        path.clone(),
        format!("{path}/events"),
        format!("/v1/operations?id={}", operation.id),
    ] {
        let seen = owner.get(&path).await?;
        assert!(
            seen.text.contains("It was given up.") && !seen.text.contains("db-7"),
            "{path}: {}",
            seen.text
        );
        let seen = Api::owner().await?.get(&path).await?;
        assert!(seen.text.contains("db-7"), "{path}: {}", seen.text);
    }
    Ok(())
}
