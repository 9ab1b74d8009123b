//! API keys.

use std::time::Duration;

use anyhow::Result;
use chrono::Utc;
use serde_json::json;
use tests::api::Api;
use tests::people::People;
use tests::second_api::SecondApi;
use tests::wait;

use crate::text;

#[tokio::test]
async fn a_secret_is_told_once_and_kept_nowhere() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    let body = json!({ "name": "portal", "role": "admin" });
    let key = tests::tenant::new_slug();
    let headers = [("idempotency-key", key.as_str())];
    let made = api.post("/v1/api-keys", &body, &headers).await?;
    let revealed = made.expect(201)?;
    let secret = text(&revealed, "secret")?;
    assert!(secret.starts_with("osk_") && secret.len() == 53, "{secret}");
    assert!(secret.starts_with(&text(&revealed, "prefix")?));
    let again = api.post("/v1/api-keys", &body, &headers).await?;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(201)?["id"], revealed["id"]);
    for answer in [
        again.text,
        api.get(made.header("location")).await?.text,
        api.get("/v1/api-keys").await?.text,
    ] {
        assert!(!answer.contains(&secret), "{answer}");
    }
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT to_jsonb(k)::text FROM api_keys k UNION ALL SELECT to_jsonb(r)::text FROM idempotency_records r \
         UNION ALL SELECT to_jsonb(e)::text FROM audit_events e",
    )
    .fetch_all(&mut people.control)
    .await?;
    assert!(rows.iter().all(|row| !row.contains(&secret)));
    Ok(())
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let (id, first) = people.api_key(&organization, "viewer").await?;
    let owner = Api::owner().await?;
    let rotate = async |seconds: i64| -> Result<String> {
        let rotated = owner
            .post(
                &format!("/v1/api-keys/{id}/rotate"),
                &json!({ "overlap_seconds": seconds }),
                &[],
            )
            .await?
            .expect(200)?;
        text(&rotated, "secret")
    };
    let good = async |secret: &str| -> Result<bool> {
        Ok(Api::anyone()?.with(secret).get("/v1/me").await?.status == 200)
    };
    assert!(good(&first).await?);
    let second = rotate(3600).await?;
    assert!(good(&first).await? && good(&second).await?);
    // Only one is kept: the one before the last rotation.
    let third = rotate(2).await?;
    assert!(!good(&first).await? && good(&third).await?);
    wait::until(
        Duration::from_secs(10),
        "the second secret's time is over",
        async || {
            anyhow::ensure!(!good(&second).await?, "it is good");
            Ok(())
        },
    )
    .await?;
    let fourth = rotate(0).await?;
    assert!(!good(&third).await? && good(&fourth).await?);
    for overlap in [-1, 604_801] {
        let refused = owner
            .post(
                &format!("/v1/api-keys/{id}/rotate"),
                &json!({ "overlap_seconds": overlap }),
                &[],
            )
            .await?;
        assert_eq!(refused.problem(422)?, "invalid_request");
    }
    Ok(())
}

#[tokio::test]
async fn a_revoked_or_expired_key_is_out_on_every_process() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let owner = people.member(&organization, "owner").await?.api().await?;
    let second = SecondApi::start(&[]).await?;
    let expires_at = Utc::now() + chrono::Duration::seconds(3);
    let brief = owner
        .post(
            "/v1/api-keys",
            &json!({ "name": "brief", "role": "viewer", "expires_at": expires_at }),
            &[],
        )
        .await?
        .expect(201)?;
    let brief = text(&brief, "secret")?;
    let (id, secret) = people.api_key(&organization, "admin").await?;
    for process in [Api::anyone()?, second.anyone()?] {
        process.with(&secret).get("/v1/me").await?.expect(200)?;
        process.with(&brief).get("/v1/me").await?.expect(200)?;
    }
    owner.delete(&format!("/v1/api-keys/{id}")).await?.expect(204)?;
    owner.get(&format!("/v1/api-keys/{id}")).await?.expect(404)?;
    for process in [Api::anyone()?, second.anyone()?] {
        assert_eq!(
            process.with(&secret).get("/v1/me").await?.problem(401)?,
            "unauthenticated"
        );
        wait::until(Duration::from_secs(10), "the key has expired", async || {
            let answer = process.with(&brief).get("/v1/me").await?;
            answer.problem(401).map(drop)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_key_is_never_above_its_maker_and_never_a_person() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let admin = people.member(&organization, "admin").await?.api().await?;
    let refused = admin
        .post("/v1/api-keys", &json!({ "name": "mine", "role": "owner" }), &[])
        .await?;
    assert_eq!(refused.problem(403)?, "forbidden");
    let (_, secret) = people.api_key(&organization, "owner").await?;
    let program = Api::anyone()?.with(&secret);
    for (method, path, body) in [
        ("PATCH", "/v1/me", Some(json!({ "name": "Robot" }))),
        ("GET", "/v1/me/sessions", None),
        ("POST", "/v1/auth/logout", None),
    ] {
        let refused = program.send(method.parse()?, path, body.as_ref(), &[]).await?;
        assert_eq!(refused.problem(403)?, "forbidden", "{method} {path}");
    }
    // A key makes another key, in its own organization or below.
    let made = program
        .post("/v1/api-keys", &json!({ "name": "sub", "role": "viewer" }), &[])
        .await?
        .expect(201)?;
    let viewer = Api::anyone()?.with(&text(&made, "secret")?);
    assert_eq!(viewer.get("/v1/api-keys").await?.problem(403)?, "forbidden");
    Ok(())
}

#[tokio::test]
async fn it_is_known_when_a_key_was_last_used() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let (id, secret) = people.api_key(&organization, "viewer").await?;
    let owner = Api::owner().await?;
    let path = format!("/v1/api-keys/{id}");
    assert!(owner.get(&path).await?.expect(200)?["last_used_at"].is_null());
    // A process writes it when it ends, and else once a minute.
    let mut process = SecondApi::start(&[]).await?;
    process.anyone()?.with(&secret).get("/v1/me").await?.expect(200)?;
    process.tell_to_end()?;
    process.ended(Duration::from_secs(30)).await?;
    assert!(owner.get(&path).await?.expect(200)?["last_used_at"].is_string());
    Ok(())
}
