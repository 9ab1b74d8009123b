//! One's own account: sessions and the password.

use anyhow::{Context as _, Result};
use platform::auth;
use sea_orm::{ConnectOptions, Database};
use serde_json::json;
use tests::api::Api;
use tests::people::People;
use tests::place::Place;
use uuid::Uuid;

use crate::{second_net::url_of_the_api, text};

#[tokio::test]
async fn a_session_can_be_seen_and_ended_by_its_owner_alone() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "viewer").await?;
    let (here, lost) = (member.api().await?, member.api().await?);
    let stranger = people.member(&organization, "owner").await?.api().await?;
    let listed = here.get("/v1/me/sessions").await?.expect(200)?;
    let sessions = listed["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(sessions.len(), 2, "{listed}");
    assert_eq!(
        (&sessions[0]["current"], &sessions[1]["current"]),
        (&json!(false), &json!(true))
    );
    let id = text(&sessions[0], "id")?;
    let path = format!("/v1/me/sessions/{id}");
    assert_eq!(stranger.delete(&path).await?.problem(404)?, "not_found");
    lost.get("/v1/me").await?.expect(200)?;
    here.delete(&path).await?.expect(204)?;
    assert_eq!(lost.get("/v1/me").await?.problem(401)?, "unauthenticated");
    assert_eq!(here.delete(&path).await?.problem(404)?, "not_found");
    let listed = here.get("/v1/me/sessions").await?.expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));

    // One in another organization stands in that one's log.
    let elsewhere = people.organization().await?;
    people.join(&member, &elsewhere, "viewer").await?;
    let body = json!({
        "email": member.email,
        "password": Place::get().access.owner_password,
        "organization_id": elsewhere.id,
    });
    let there = Api::anyone()?
        .post("/v1/auth/token", &body, &[])
        .await?
        .expect(200)?;
    let there = Api::anyone()?.with(&text(&there, "access_token")?);
    let listed = there.get("/v1/me/sessions").await?.expect(200)?;
    let sessions = listed["items"].as_array().cloned().unwrap_or_default();
    let own = sessions.iter().find(|session| session["current"] == true);
    let id = text(own.context("the session that asks")?, "id")?;
    here.delete(&format!("/v1/me/sessions/{id}")).await?.expect(204)?;
    there.get("/v1/me").await?.expect(401)?;
    let logged: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_events WHERE organization_id = $1 AND action = 'end_my_session'",
    )
    .bind(elsewhere.row)
    .fetch_one(&mut people.control)
    .await?;
    assert_eq!(logged, 1);
    Ok(())
}

#[tokio::test]
async fn a_new_password_takes_the_old_one_and_ends_all_other_sessions() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "viewer").await?;
    let (here, other) = (member.api().await?, member.api().await?);
    let old = &Place::get().access.owner_password;
    let new = "quite another password";
    for (body, pointer) in [
        (json!({ "password": new }), "/current_password"),
        (json!({ "current_password": old }), "/password"),
        (
            json!({ "password": new, "current_password": "wrong" }),
            "/current_password",
        ),
        (
            json!({ "password": "short", "current_password": old }),
            "/password",
        ),
        (
            json!({ "password": "x".repeat(10_240), "current_password": old }),
            "/password",
        ),
        (json!({ "password": null }), "/password"),
        (json!({ "name": "" }), "/name"),
    ] {
        let refused = here.patch("/v1/me", &body, &[]).await?;
        assert_eq!(refused.problem(422)?, "invalid_request", "{body}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    other.get("/v1/me").await?.expect(200)?;
    let changed = here
        .patch(
            "/v1/me",
            &json!({ "password": new, "current_password": old, "name": "Jo Doe" }),
            &[],
        )
        .await?
        .expect(200)?;
    assert_eq!(changed["name"], "Jo Doe");
    assert_eq!(other.get("/v1/me").await?.problem(401)?, "unauthenticated");
    here.get("/v1/me").await?.expect(200)?;
    let sign_in = |password: &str| json!({ "email": member.email, "password": password });
    let anyone = Api::anyone()?;
    let refused = anyone.post("/v1/auth/token", &sign_in(old), &[]).await?;
    assert_eq!(refused.problem(401)?, "wrong_password");
    anyone
        .post("/v1/auth/token", &sign_in(new), &[])
        .await?
        .expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_change_of_ones_name_is_made_to_the_version_that_was_seen() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "viewer").await?.api().await?;
    let etag = api.get("/v1/me").await?.header("etag").to_owned();
    let seen = [("if-match", etag.as_str())];
    let changed = api.patch("/v1/me", &json!({ "name": "One" }), &seen).await?;
    changed.expect(200)?;
    let refused = api.patch("/v1/me", &json!({ "name": "Two" }), &seen).await?;
    assert_eq!(refused.problem(412)?, "precondition_failed");
    let unchanged = api.patch("/v1/me", &json!({}), &[]).await?;
    assert_eq!(unchanged.header("etag"), changed.header("etag"));
    Ok(())
}

#[tokio::test]
async fn what_can_no_longer_be_used_is_forgotten() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "viewer").await?;
    let mut refresh_tokens = Vec::new();
    for _ in 0..3 {
        refresh_tokens.push(member.tokens().await?.refresh);
    }
    let sessions: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM sessions WHERE user_id = $1 ORDER BY created_at")
            .bind(member.row)
            .fetch_all(&mut people.control)
            .await?;
    let [long_ago, lately, live] = sessions[..] else {
        anyhow::bail!("there are {} sessions", sessions.len());
    };
    for (session, days) in [(long_ago, 31), (lately, 29)] {
        sqlx::query(
            "WITH expired AS (UPDATE refresh_tokens SET expires_at = now() - make_interval(days => $2) WHERE session_id = $1) \
             UPDATE sessions SET expires_at = now() - make_interval(days => $2) WHERE id = $1",
        )
        .bind(session)
        .bind(days)
        .execute(&mut people.control)
        .await?;
    }
    let mut options = ConnectOptions::new(url_of_the_api()?);
    options.map_sqlx_postgres_opts(|postgres| postgres.options([("platform.scope", "system")]));
    let database = Database::connect(options).await?;
    // Each time as much as asked for, until nothing is left.
    while auth::forget_refresh_tokens(&database, 1).await? > 0 {}
    while auth::forget_sessions(&database, 1).await? > 0 {}
    let known: Vec<(Uuid, bool)> = sqlx::query_as(
        "SELECT id, EXISTS (SELECT FROM refresh_tokens WHERE session_id = sessions.id) FROM sessions \
          WHERE user_id = $1 ORDER BY created_at",
    )
    .bind(member.row)
    .fetch_all(&mut people.control)
    .await?;
    assert_eq!(known, [(lately, false), (live, true)]);
    let anyone = Api::anyone()?;
    for (refresh_token, status) in refresh_tokens.iter().zip([401, 401, 200]) {
        anyone.refresh(refresh_token).await?.expect(status)?;
    }
    Ok(())
}
