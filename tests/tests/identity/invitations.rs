//! Invitations.

use anyhow::{Context as _, Result};
use chrono::{Duration, Utc};
use serde_json::{Value, json};
use tests::api::Api;
use tests::mailbox::Mailbox;
use tests::people::{People, new_email};
use tests::place::Place;
use tests::second_api::SecondApi;

use crate::text;

async fn accept(body: &Value) -> Result<tests::http::Answer> {
    Api::anyone()?.post("/v1/invitations/accept", body, &[]).await
}

#[tokio::test]
async fn an_invitation_makes_a_member_once() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let email = new_email();
    let made = api
        .post(
            "/v1/invitations",
            &json!({ "email": email, "role": "admin" }),
            &[],
        )
        .await?;
    let invitation = made.expect(201)?;
    assert_eq!(
        (&invitation["status"], &invitation["mailed"]),
        (&json!("open"), &json!(false))
    );
    let token = text(&invitation, "token")?;
    let link = text(&invitation, "link")?;
    assert!(link.ends_with(&format!("/invitation#{token}")), "{link}");
    // The token is told once.
    let read = api.get(made.header("location")).await?;
    assert!(!read.text.contains(&token));
    read.expect(200)?;

    let body = json!({ "token": token, "password": "a password of one's own", "name": "Jo Doe" });
    let member = accept(&body).await?.expect(201)?;
    assert_eq!(
        (&member["email"], &member["role"], &member["name"]),
        (&json!(email), &json!("admin"), &json!("Jo Doe"))
    );
    let tokens = Api::anyone()?.sign_in(&email, "a password of one's own").await?;
    let me = Api::anyone()?
        .with(&tokens.access)
        .get("/v1/me")
        .await?
        .expect(200)?;
    assert_eq!(me["organization"]["id"], json!(organization.id));

    assert_eq!(accept(&body).await?.problem(409)?, "invitation_used");
    let read = api.get(made.header("location")).await?.expect(200)?;
    assert_eq!(read["status"], "accepted");
    let refused = api
        .patch(made.header("location"), &json!({ "role": "viewer" }), &[])
        .await?;
    assert_eq!(refused.problem(409)?, "invitation_used");
    let refused = api
        .post(
            "/v1/invitations",
            &json!({ "email": email, "role": "viewer" }),
            &[],
        )
        .await?;
    assert_eq!(refused.problem(409)?, "already_member");
    Ok(())
}

#[tokio::test]
async fn somebody_with_an_account_proves_that_it_is_theirs() -> Result<()> {
    let mut people = People::new().await?;
    let (here, there) = (people.organization().await?, people.organization().await?);
    let api = people.member(&here, "owner").await?.api().await?;
    let person = people.member(&there, "viewer").await?;
    let invitation = api
        .post(
            "/v1/invitations",
            &json!({ "email": person.email, "role": "admin" }),
            &[],
        )
        .await?
        .expect(201)?;
    let token = text(&invitation, "token")?;
    let wrong = accept(&json!({ "token": token, "password": "somebody else's" })).await?;
    assert_eq!(wrong.problem(401)?, "wrong_password");
    let reasons: Vec<String> = sqlx::query_scalar(
        "SELECT reason FROM audit_events \
          WHERE organization_id = $1 AND action = 'accept_invitation' AND outcome = 'refused'",
    )
    .bind(here.row)
    .fetch_all(&mut people.control)
    .await?;
    assert_eq!(reasons, ["wrong_password"]);
    let right = &Place::get().access.owner_password;
    accept(&json!({ "token": token, "password": right }))
        .await?
        .expect(201)?;
    let signed_in = Api::anyone()?
        .post(
            "/v1/auth/token",
            &json!({ "email": person.email, "password": right, "organization_id": here.id }),
            &[],
        )
        .await?
        .expect(200)?;
    let me = Api::anyone()?
        .with(&text(&signed_in, "access_token")?)
        .get("/v1/me")
        .await?
        .expect(200)?;
    assert_eq!(me["role"], "admin");
    Ok(())
}

#[tokio::test]
async fn what_is_too_old_replaced_taken_back_or_anothers_is_refused_and_changes_nothing() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let invite = async |email: &str| -> Result<Value> {
        api.post(
            "/v1/invitations",
            &json!({ "email": email, "role": "viewer" }),
            &[],
        )
        .await?
        .expect(201)
    };
    let with = |token: &str| json!({ "token": token, "password": "a password of one's own" });

    let expired = invite(&new_email()).await?;
    sqlx::query("UPDATE invitations SET expires_at = now() - interval '1 second' WHERE id = $1")
        .bind(tests::ids::row_of(&text(&expired, "id")?)?)
        .execute(&mut people.control)
        .await?;
    let refused = accept(&with(&text(&expired, "token")?)).await?;
    assert_eq!(refused.problem(409)?, "invitation_expired");
    let read = api
        .get(&format!("/v1/invitations/{}", text(&expired, "id")?))
        .await?
        .expect(200)?;
    assert_eq!(read["status"], "expired");

    let email = new_email();
    let (first, second) = (invite(&email).await?, invite(&email).await?);
    let refused = accept(&with(&text(&first, "token")?)).await?;
    assert_eq!(refused.problem(422)?, "invalid_request");
    assert_eq!(refused.json()["errors"][0]["code"], "invalid_token");

    let mut anothers = with(&text(&second, "token")?);
    anothers["email"] = json!(new_email());
    let refused = accept(&anothers).await?;
    assert_eq!(refused.problem(422)?, "invalid_request");
    assert_eq!(refused.json()["errors"][0]["code"], "wrong_address");

    let mut weak = with(&text(&second, "token")?);
    weak["password"] = json!("x".repeat(10_240));
    assert_eq!(accept(&weak).await?.problem(422)?, "invalid_request");

    api.delete(&format!("/v1/invitations/{}", text(&second, "id")?))
        .await?
        .expect(204)?;
    for token in [text(&second, "token")?, "it_made_up".to_owned(), String::new()] {
        assert_eq!(accept(&with(&token)).await?.problem(422)?, "invalid_request");
    }
    let members: i64 = sqlx::query_scalar("SELECT count(*) FROM memberships WHERE organization_id = $1")
        .bind(organization.row)
        .fetch_one(&mut people.control)
        .await?;
    assert_eq!(members, 1);

    for expires_at in [Utc::now() - Duration::minutes(1), Utc::now() + Duration::days(40)] {
        let body = json!({ "email": new_email(), "role": "viewer", "expires_at": expires_at });
        let refused = api.post("/v1/invitations", &body, &[]).await?;
        assert_eq!(refused.json()["errors"][0]["code"], "invalid_expiry");
    }
    Ok(())
}

#[tokio::test]
async fn accepted_twice_at_once_it_makes_one_member() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let invitation = api
        .post(
            "/v1/invitations",
            &json!({ "email": new_email(), "role": "viewer" }),
            &[],
        )
        .await?
        .expect(201)?;
    let body = json!({ "token": text(&invitation, "token")?, "password": "a password of one's own" });
    let (first, second) = tokio::join!(accept(&body), accept(&body));
    let mut statuses = [first?.status, second?.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    Ok(())
}

#[tokio::test]
async fn where_mail_can_be_sent_the_link_is_mailed_and_nobody_else_sees_it() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let owner = people.member(&organization, "owner").await?;
    let mailbox = Mailbox::open().await?;
    let second = SecondApi::start(&[
        ("SMTP_URL", mailbox.url.clone()),
        ("MAIL_FROM", "platform@e2e.example".to_owned()),
    ])
    .await?;
    let api = second.anyone()?.with(&owner.tokens().await?.access);
    let email = new_email();
    let invitation = api
        .post(
            "/v1/invitations",
            &json!({ "email": email, "role": "viewer" }),
            &[],
        )
        .await?
        .expect(201)?;
    assert_eq!(invitation["mailed"], true);
    assert!(
        invitation["token"].is_null() && invitation["link"].is_null(),
        "{invitation}"
    );
    let messages = mailbox.messages()?;
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = messages[0].replace("=\r\n", "").replace("=\n", "");
    assert!(
        message.contains(&email) && message.contains("platform@e2e.example"),
        "{message}"
    );
    let (_, token) = message.split_once("/invitation#").context("a link")?;
    let token: String = token.chars().take_while(|c| !c.is_whitespace()).collect();
    accept(&json!({ "token": token, "password": "a password of one's own" }))
        .await?
        .expect(201)?;

    // A server that does not answer: nobody is invited, and the inviter is told so.
    drop(mailbox);
    let refused = api
        .post(
            "/v1/invitations",
            &json!({ "email": new_email(), "role": "viewer" }),
            &[],
        )
        .await?;
    assert_eq!(refused.problem(503)?, "unavailable");
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM invitations WHERE organization_id = $1 AND accepted_at IS NULL",
    )
    .bind(organization.row)
    .fetch_one(&mut people.control)
    .await?;
    assert_eq!(open, 0);
    Ok(())
}
