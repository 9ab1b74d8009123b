//! Rate limits: a burst is let pass, then it is told when to come again; nobody pays for somebody else.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::json;
use tests::api::Api;
use tests::http::Answer;
use tests::people::People;
use tests::place::Place;

const BURST: u64 = 200;
const A_SECOND: f64 = 50.0;

fn number(answer: &Answer, header: &str) -> Result<u64> {
    let text = answer.header(header);
    text.parse()
        .with_context(|| format!("{header}: {text:?} of {}", answer.status))
}

/// What every answer says of the limit.
fn told(answer: &Answer) -> Result<(u64, u64)> {
    ensure!(number(answer, "ratelimit-limit")? == BURST, "another limit");
    let (remaining, reset) = (
        number(answer, "ratelimit-remaining")?,
        number(answer, "ratelimit-reset")?,
    );
    ensure!(
        remaining <= BURST && reset <= 4,
        "{remaining} are left, all in {reset} s"
    );
    Ok((remaining, reset))
}

#[tokio::test]
async fn a_session_may_burst_and_is_then_told_when_to_come_again() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "viewer").await?;
    let (busy, other) = (member.api().await?, member.api().await?);
    // Past the edge, which would be the slower of both.
    let directly = Api::at(&Place::get().api_directly())?.with(busy.token());
    let begun = Instant::now();
    let mut granted = 0.0;
    let mut limited = Vec::new();
    let requests = (0..600).map(|_| Answer::at_once(directly.request(Method::GET, "/v1/me")));
    let mut answers = futures::stream::iter(requests);
    let mut running = futures::stream::FuturesUnordered::new();
    use futures::StreamExt as _;
    for request in answers.by_ref().take(32).collect::<Vec<_>>().await {
        running.push(request);
    }
    while let Some(answer) = running.next().await {
        let answer = answer?;
        told(&answer)?;
        if answer.status == 429 {
            limited.push(answer);
        } else {
            answer.expect(200)?;
            granted += 1.0;
        }
        if let Some(next) = answers.next().await {
            running.push(next);
        }
    }
    let most = 200.0 + A_SECOND * begun.elapsed().as_secs_f64() + 1.0;
    ensure!(
        (180.0..=most).contains(&granted),
        "{granted} were let pass, {most:.0} at most should be"
    );
    let refused = limited.last().context("nothing was limited")?;
    assert_eq!(refused.problem(429)?, "rate_limited");
    assert_eq!(number(refused, "ratelimit-remaining")?, 0);
    let wait = number(refused, "retry-after")?;
    assert!((1..=2).contains(&wait), "{wait}");

    // Neither another session of the same user, nor who has none, is held up.
    let answer = Answer::at_once(other.request(Method::GET, "/v1/me")).await?;
    answer.expect(200)?;
    Answer::at_once(Api::at(&Place::get().api_directly())?.request(Method::GET, "/healthz"))
        .await?
        .expect(200)?;
    tokio::time::sleep(Duration::from_secs(wait)).await;
    Answer::at_once(directly.request(Method::GET, "/v1/me"))
        .await?
        .expect(200)?;
    Ok(())
}

#[tokio::test]
async fn every_answer_tells_how_many_requests_are_left() -> Result<()> {
    let owner = Api::owner().await?;
    let anyone = Api::anyone()?;
    let missing = "/v1/tenants/ten_01jdjyfyh1fe82gqsfsks1j4x4";
    for (api, method, path, status) in [
        (&owner, Method::GET, "/v1/me", 200),
        (&owner, Method::GET, missing, 404),
        (&owner, Method::PUT, missing, 405),
        (&owner, Method::GET, "/v1/tenants?limit=0", 422),
        (&owner, Method::GET, "/v1/tenants/x", 400),
        (&owner, Method::GET, "/nowhere", 404),
        (&anyone, Method::GET, "/v1/me", 401),
        (&anyone, Method::GET, "/healthz", 200),
        (&anyone, Method::GET, "/nowhere", 404),
    ] {
        let answer = api.send(method, path, None, &[]).await?;
        assert_eq!(answer.status, status, "{path}");
        told(&answer).with_context(|| path.to_owned())?;
    }
    let tag = owner.get("/v1/me").await?.header("etag").to_owned();
    let known = owner
        .send(Method::GET, "/v1/me", None, &[("if-none-match", &tag)])
        .await?;
    assert_eq!(known.status, 304);
    told(&known)?;
    Ok(())
}

#[tokio::test]
async fn bad_credentials_count_for_their_address_and_not_each_for_itself() -> Result<()> {
    let api = Api::at(&Place::get().api_directly())?;
    let random = uuid::Uuid::new_v4().as_u128();
    let address = format!("2001:db8:{:x}:{:x}::1", random & 0xffff, (random >> 16) & 0xffff);
    let mut least = BURST;
    for number in 0..30 {
        let headers = [
            ("x-forwarded-for", address.as_str()),
            ("authorization", &format!("Bearer made-up-{number}")),
        ];
        let answer = api.send(Method::GET, "/v1/me", None, &headers).await?;
        assert_eq!(answer.problem(401)?, "unauthenticated");
        least = least.min(told(&answer)?.0);
    }
    assert!(
        least < BURST - 10,
        "made-up credentials are counted each for itself: {least} are left"
    );
    // Signing in counts there as well, as long as there is no session.
    let body = json!({ "email": "nobody@example.com", "password": "x" });
    let answer = api
        .post("/v1/auth/token", &body, &[("x-forwarded-for", &address)])
        .await?;
    answer.problem(401)?;
    told(&answer)?;
    Ok(())
}
