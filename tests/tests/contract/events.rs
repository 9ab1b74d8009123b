//! Waiting for an operation, and its stream of events.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::json;
use tests::api::Api;
use tests::events::Events;
use tests::stage::Stage;
use tests::tenant::{Tenant, new_slug, request};

/// What is written by SQL is seen when a waiter looks, which it does every two seconds.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_provisioning_is_told_from_its_beginning_to_its_end() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?;
    let stream = Events::open(&api, &tenant.operation, None).await?;
    let events = stream.rest(Duration::from_secs(60)).await?;
    ensure!(events.len() >= 2, "{events:?}");
    for pair in events.windows(2) {
        assert!(pair[0].id < pair[1].id, "ids do not rise: {events:?}");
        let percent = |index: usize| pair[index].data["progress"]["percent"].as_i64();
        assert!(percent(0) <= percent(1), "progress goes back: {events:?}");
    }
    for event in &events {
        assert_eq!(
            (event.name.as_str(), &event.data["id"]),
            ("operation", &json!(tenant.operation))
        );
        assert!(event.data["steps"].is_array(), "{event:?}");
    }
    let (last, before) = events.split_last().context("events")?;
    assert_eq!(last.data["status"], "succeeded");
    assert!(before.iter().all(|event| event.data["finished_at"].is_null()));
    assert_eq!(
        api.get(&format!("/v1/operations/{}", tenant.operation))
            .await?
            .expect(200)?,
        last.data,
        "the last event is not what is read"
    );

    // Told again, a finished one is one event.
    let again = Events::open(&api, &tenant.operation, None)
        .await?
        .rest(SOON)
        .await?;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].id, &again[0].data), (last.id, &last.data));
    let resumed = Events::open(&api, &tenant.operation, Some(before[0].id))
        .await?
        .rest(SOON)
        .await?;
    assert_eq!(
        resumed.iter().map(|event| event.id).collect::<Vec<_>>(),
        [last.id]
    );
    assert!(
        Events::open(&api, &tenant.operation, Some(last.id))
            .await?
            .rest(SOON)
            .await?
            .is_empty()
    );
    // What was never sent is no place to go on from.
    let beyond = Events::open(&api, &tenant.operation, Some(last.id + 1000))
        .await?
        .rest(SOON)
        .await?;
    assert_eq!(beyond.len(), 1);
    tenant.delete().await
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_that_was_seen() -> Result<()> {
    let mut stage = Stage::new("viewer").await?;
    let mut stream = Events::open(&stage.api, &stage.operation.id, None).await?;
    let mut seen = vec![stream.next(SOON).await?.context("the first event")?];
    for percent in [10, 40] {
        stage
            .operation
            .advance(&mut stage.people.control, percent)
            .await?;
        let event = stream.next(SOON).await?.context("an event")?;
        assert_eq!(event.data["progress"]["percent"], percent);
        seen.push(event);
    }
    drop(stream);
    stage.operation.advance(&mut stage.people.control, 70).await?;
    let last = seen.last().context("an event")?.id;
    let mut stream = Events::open(&stage.api, &stage.operation.id, Some(last)).await?;
    let next = stream.next(SOON).await?.context("an event")?;
    assert_eq!(
        (next.id, &next.data["progress"]["percent"]),
        (last + 1, &json!(70))
    );
    // Nothing is repeated while nothing happens.
    assert!(stream.next(Duration::from_secs(3)).await.is_err());
    stage.operation.advance(&mut stage.people.control, 100).await?;
    let end = stream.rest(SOON).await?;
    assert_eq!(end.len(), 1);
    assert_eq!(
        (end[0].id, &end[0].data["status"]),
        (last + 2, &json!("succeeded"))
    );
    Ok(())
}

#[tokio::test]
async fn a_quiet_stream_is_kept_open_with_comments() -> Result<()> {
    let stage = Stage::new("viewer").await?;
    let mut stream = Events::open(&stage.api, &stage.operation.id, None).await?;
    stream.next(SOON).await?.context("the first event")?;
    let before = stream.comments.len();
    assert!(
        stream.next(Duration::from_secs(17)).await.is_err(),
        "an event came from nowhere"
    );
    assert!(stream.comments.len() > before, "nothing came in 17 seconds");
    Ok(())
}

#[tokio::test]
async fn what_may_not_be_watched_is_refused_before_the_stream_begins() -> Result<()> {
    let mut stage = Stage::new("viewer").await?;
    let organization = stage.people.organization().await?;
    let stranger = stage.people.member(&organization, "owner").await?.api().await?;
    let path = format!("/v1/operations/{}/events", stage.operation.id);
    for (api, path, status, code) in [
        (&stranger, path.as_str(), 404, "not_found"),
        (
            &stage.api,
            "/v1/operations/op_01jdjyfyh1fe82gqsfsks1j4x4/events",
            404,
            "not_found",
        ),
        (&stage.api, "/v1/operations/op_1/events", 400, "malformed_id"),
        (&Api::anyone()?, path.as_str(), 401, "unauthenticated"),
    ] {
        let answer = api
            .send(Method::GET, path, None, &[("accept", "text/event-stream")])
            .await?;
        assert_eq!(answer.problem(status)?, code, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_ends_with_the_operation_or_with_its_time() -> Result<()> {
    let mut stage = Stage::new("viewer").await?;
    let path = format!("/v1/operations/{}", stage.operation.id);
    let begun = Instant::now();
    let waited = stage.api.get(&format!("{path}?wait=2")).await?.expect(200)?;
    assert_eq!(waited["status"], "queued");
    let took = begun.elapsed();
    assert!((1.9..6.0).contains(&took.as_secs_f64()), "{took:?}");

    let begun = Instant::now();
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.operation.advance(&mut stage.people.control, 100).await
    };
    let waiting = format!("{path}?wait=60");
    let (waited, ended) = tokio::join!(stage.api.get(&waiting), ending);
    ended?;
    assert_eq!(waited?.expect(200)?["status"], "succeeded");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    Ok(())
}

/// What is open ends within about five seconds of losing its caller.
async fn ends_soon(stage: &mut Stage, lose: impl AsyncFnOnce(&mut Stage) -> Result<()>) -> Result<()> {
    let (api, operation) = (stage.api.clone(), stage.operation.id.clone());
    let mut stream = Events::open(&api, &operation, None).await?;
    stream.next(SOON).await?.context("the first event")?;
    let waiting = tokio::spawn({
        let (api, path) = (api.clone(), format!("/v1/operations/{operation}?wait=60"));
        async move { api.get(&path).await }
    });
    // The wait has begun: it is answered neither at once nor by what comes next.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    let begun = Instant::now();
    lose(stage).await?;
    let rest = stream.rest(SOON).await?;
    assert!(rest.is_empty(), "{rest:?}");
    let refused = tokio::time::timeout(SOON, waiting)
        .await
        .context("the wait goes on")???;
    assert_eq!(refused.problem(401)?, "unauthenticated");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn logging_out_ends_streams_and_waits_that_are_open() -> Result<()> {
    let mut stage = Stage::new("viewer").await?;
    ends_soon(&mut stage, async |stage| {
        stage
            .api
            .post("/v1/auth/logout", &json!({}), &[])
            .await?
            .expect(204)
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn removing_a_member_ends_streams_and_waits_that_are_open() -> Result<()> {
    let mut stage = Stage::new("viewer").await?;
    ends_soon(&mut stage, async |stage| {
        let member = stage.member.clone();
        stage.people.remove(&member).await
    })
    .await
}
