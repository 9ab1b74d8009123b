//! `Idempotency-Key`: a request that is sent again is carried out once. How it makes one tenant of many requests is
//! tested where tenants are made; here it is what a key is, whose it is, and what becomes of a request that failed.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::json;
use sqlx::Connection as _;
use tests::api::Api;
use tests::http::Answer;
use tests::people::{Member, Organization, People};
use tests::rows::{OperationRow, TenantRow};
use tests::sql;
use tests::tenant::{Tenant, new_slug, request};
use uuid::Uuid;

/// An organization with an owner, and operations to cancel: what a cancellation does is in the database alone.
struct Stage {
    people: People,
    organization: Organization,
    member: Member,
    api: Api,
}

impl Stage {
    async fn new() -> Result<Self> {
        let mut people = People::new().await?;
        let organization = people.organization().await?;
        let member = people.member(&organization, "owner").await?;
        Ok(Self {
            api: member.api().await?,
            people,
            organization,
            member,
        })
    }

    async fn queued(&mut self) -> Result<String> {
        let control = &mut self.people.control;
        let tenant = TenantRow::write(control, &self.organization).await?;
        let operation = OperationRow::queued(control, &self.organization, &tenant).await?;
        Ok(format!("/v1/operations/{}/cancel", operation.id))
    }

    /// Whom answers are kept for: the user in its organization.
    fn credential(&self) -> Uuid {
        let organization = self.organization.row.as_u128().rotate_left(64);
        Uuid::from_u128(self.member.row.as_u128() ^ organization)
    }

    async fn kept(&mut self) -> Result<i64> {
        let credential = self.credential();
        let count = sqlx::query_scalar("SELECT count(*) FROM idempotency_records WHERE credential_id = $1")
            .bind(credential);
        Ok(count.fetch_one(&mut self.people.control).await?)
    }
}

async fn cancel(api: &Api, path: &str, key: &str) -> Result<Answer> {
    api.post(path, &json!({}), &[("idempotency-key", key)]).await
}

#[tokio::test]
async fn a_replay_is_the_same_answer_and_says_so() -> Result<()> {
    let mut stage = Stage::new().await?;
    let path = stage.queued().await?;
    let key = new_slug();
    let first = cancel(&stage.api, &path, &key).await?;
    assert_eq!(first.expect(202)?["status"], "cancelled");
    assert_eq!(first.header("idempotency-replayed"), "");
    // Whatever happens to the operation: the answer is what it was. Once it has come, the key is free again.
    for _ in 0..20 {
        let again = cancel(&stage.api, &path, &key).await?;
        assert_eq!(again.expect(202)?, first.json());
        assert_eq!(again.header("idempotency-replayed"), "true");
        for header in ["location", "retry-after", "content-type", "cache-control", "etag"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    }
    // Without the key it is another request.
    let other = stage.api.post(&path, &json!({}), &[]).await?;
    assert_eq!(other.problem(409)?, "operation_finished");
    assert_eq!(stage.kept().await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_key_is_one_value_of_printable_ascii() -> Result<()> {
    let mut stage = Stage::new().await?;
    let path = stage.queued().await?;
    let too_long = "k".repeat(256);
    let refused = |answer: &Answer| {
        assert_eq!(answer.problem(422)?, "invalid_request");
        assert_eq!(answer.json()["errors"][0]["parameter"], "Idempotency-Key");
        anyhow::Ok(())
    };
    for bad in ["", &too_long, "ключ", "caf\u{e9}", "a\tb"] {
        refused(&cancel(&stage.api, &path, bad).await?).with_context(|| format!("{bad:?}"))?;
    }
    let two = [("idempotency-key", "one"), ("idempotency-key", "two")];
    refused(&stage.api.post(&path, &json!({}), &two).await?)?;
    assert_eq!(stage.kept().await?, 0);
    for good in [
        "k".repeat(255),
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~".to_owned(),
        "a b".to_owned(),
    ] {
        let path = stage.queued().await?;
        cancel(&stage.api, &path, &good).await?.expect(202)?;
        let again = cancel(&stage.api, &path, &good).await?;
        assert_eq!(again.header("idempotency-replayed"), "true", "{good}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_belongs_to_one_request() -> Result<()> {
    let mut stage = Stage::new().await?;
    let (path, another) = (stage.queued().await?, stage.queued().await?);
    let key = new_slug();
    cancel(&stage.api, &path, &key).await?.expect(202)?;
    let reused = cancel(&stage.api, &another, &key).await?;
    assert_eq!(reused.problem(422)?, "idempotency_key_reused");
    let body = request(&new_slug(), &json!({}));
    let reused = stage
        .api
        .post("/v1/tenants", &body, &[("idempotency-key", &key)])
        .await?;
    assert_eq!(reused.problem(422)?, "idempotency_key_reused");
    // Nothing was done.
    cancel(&stage.api, &another, &new_slug()).await?.expect(202)?;
    Ok(())
}

#[tokio::test]
async fn a_key_belongs_to_one_user_in_one_organization() -> Result<()> {
    let mut stage = Stage::new().await?;
    let colleague = stage
        .people
        .member(&stage.organization, "owner")
        .await?
        .api()
        .await?;
    let (mine, hers) = (stage.queued().await?, stage.queued().await?);
    let key = new_slug();
    cancel(&stage.api, &mine, &key).await?.expect(202)?;
    let other = cancel(&colleague, &hers, &key).await?;
    other.expect(202)?;
    assert_eq!(other.header("idempotency-replayed"), "");
    // A new session of the same user goes on where the old one stopped.
    let tokens = stage.member.tokens().await?;
    let again = cancel(&Api::anyone()?.with(&tokens.access), &mine, &key).await?;
    again.expect(202)?;
    assert_eq!(again.header("idempotency-replayed"), "true");
    // One that may do it no more is not answered from memory.
    stage.people.change_role(&stage.member, "viewer").await?;
    assert_eq!(cancel(&stage.api, &mine, &key).await?.problem(403)?, "forbidden");
    Ok(())
}

#[tokio::test]
async fn a_key_in_flight_is_told_to_wait() -> Result<()> {
    let mut stage = Stage::new().await?;
    let path = stage.queued().await?;
    let key = new_slug();
    // As the request that is being carried out holds it.
    let mut other = sql::control().await?;
    let mut holding = other.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("idempotency:{}:{key}", stage.credential()))
        .execute(&mut *holding)
        .await?;
    let busy = cancel(&stage.api, &path, &key).await?;
    assert_eq!(busy.problem(409)?, "idempotency_in_flight");
    assert_eq!(busy.header("retry-after"), "1");
    // Another key is not in its way.
    let another = stage.queued().await?;
    cancel(&stage.api, &another, &new_slug()).await?.expect(202)?;
    holding.rollback().await?;
    let done = cancel(&stage.api, &path, &key).await?;
    assert_eq!(done.expect(202)?["status"], "cancelled");
    assert_eq!(done.header("idempotency-replayed"), "");
    Ok(())
}

#[tokio::test]
async fn racing_requests_with_one_key_are_carried_out_once() -> Result<()> {
    let mut stage = Stage::new().await?;
    for _ in 0..5 {
        let path = stage.queued().await?;
        let key = new_slug();
        let race = (0..8).map(|_| cancel(&stage.api, &path, &key));
        let mut fresh = 0;
        for answer in futures::future::join_all(race).await {
            let answer = answer?;
            if answer.status == 409 {
                assert_eq!(answer.problem(409)?, "idempotency_in_flight");
            } else {
                answer.expect(202)?;
                fresh += u32::from(answer.header("idempotency-replayed").is_empty());
            }
        }
        assert_eq!(fresh, 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_failed_may_be_sent_again() -> Result<()> {
    let mut stage = Stage::new().await?;
    let in_the_way = TenantRow::write(&mut stage.people.control, &stage.organization).await?;
    let key = new_slug();
    let headers = [("idempotency-key", key.as_str())];
    let taken = request(&in_the_way.slug, &json!({}));
    for _ in 0..20 {
        let refused = stage.api.post("/v1/tenants", &taken, &headers).await?;
        assert_eq!(refused.problem(409)?, "slug_taken");
        assert_eq!(refused.header("idempotency-replayed"), "");
    }
    let wrong = request(&in_the_way.slug, &json!({ "country": "Belgium" }));
    let refused = stage.api.post("/v1/tenants", &wrong, &headers).await?;
    assert_eq!(refused.problem(422)?, "invalid_request");
    assert_eq!(stage.kept().await?, 0, "a refusal is kept");

    sqlx::query("DELETE FROM tenants WHERE id = $1")
        .bind(in_the_way.row)
        .execute(&mut stage.people.control)
        .await?;
    let made = stage.api.post("/v1/tenants", &taken, &headers).await?;
    assert_eq!(made.header("idempotency-replayed"), "");
    let tenant = Tenant::of(&stage.api, &made, &taken)?;
    assert_eq!(stage.kept().await?, 1);
    stage.api.succeeded(&tenant.operation).await?;
    tenant.delete().await
}

#[tokio::test]
async fn an_answer_is_forgotten_after_a_day() -> Result<()> {
    let mut stage = Stage::new().await?;
    let path = stage.queued().await?;
    let key = new_slug();
    cancel(&stage.api, &path, &key).await?.expect(202)?;
    let credential = stage.credential();
    sqlx::query(
        "UPDATE idempotency_records SET created_at = now() - interval '25 hours' WHERE credential_id = $1",
    )
    .bind(credential)
    .execute(&mut stage.people.control)
    .await?;
    // It is a new request again, and the key may be another request's.
    assert_eq!(
        cancel(&stage.api, &path, &key).await?.problem(409)?,
        "operation_finished"
    );
    let another = stage.queued().await?;
    let fresh = cancel(&stage.api, &another, &key).await?;
    fresh.expect(202)?;
    assert_eq!(fresh.header("idempotency-replayed"), "");
    Ok(())
}

#[tokio::test]
async fn a_key_means_nothing_to_reads_and_sign_ins() -> Result<()> {
    let stage = Stage::new().await?;
    let key = [("idempotency-key", "same")];
    for _ in 0..2 {
        let read = stage.api.send(Method::GET, "/v1/me", None, &key).await?;
        read.expect(200)?;
        assert_eq!(read.header("idempotency-replayed"), "");
    }
    let mut refresh = stage.member.tokens().await?.refresh;
    for _ in 0..2 {
        let body = json!({ "refresh_token": refresh });
        let pair = Api::anyone()?
            .post("/v1/auth/refresh", &body, &key)
            .await?
            .expect(200)?;
        refresh = pair["refresh_token"].as_str().context("a token")?.to_owned();
    }
    Ok(())
}
