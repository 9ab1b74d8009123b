//! Thousands of waits, streams and connections that do nothing: what they cost, and that they cost nobody else.
//!
//! A program of its own, one test at a time: they measure a process that others would use as well.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use reqwest::Method;
use sqlx::postgres::PgConnection;
use tests::api::Api;
use tests::events::Events;
use tests::http::Answer;
use tests::place::Place;
use tests::second_api::SecondApi;
use tests::stage::Stage;
use tests::wire::Wire;
use tests::{services, sql};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

const WAITS: usize = 1000;
const STREAMS: usize = 1000;
const IDLE: usize = 5000;

/// Sessions that share the waits and streams, so that none is over its limit.
const SESSIONS: usize = 20;

/// What a process of the API may hold: itself, and what a connection takes.
const MOST_KIB: usize = 40 * 1024;
const KIB_A_CONNECTION: usize = 40;

async fn sessions(stage: &Stage, base: &str) -> Result<Vec<Api>> {
    let base = Api::at(base)?;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let tokens = base
            .sign_in(&stage.member.email, &Place::get().access.owner_password)
            .await?;
        sessions.push(base.with(&tokens.access));
    }
    Ok(sessions)
}

/// Database connections of a process that was started after a moment, and those of them that hold a transaction open
/// and do nothing.
async fn connections(control: &mut PgConnection, since: &str) -> Result<(i64, i64)> {
    let row = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%' \
                                             AND state_change < now() - interval '1 second') \
           FROM pg_stat_activity \
          WHERE application_name = 'odoo-saas-api' AND datname = 'platform' AND backend_start > $1::timestamptz",
    );
    Ok(row.bind(since).fetch_one(control).await?)
}

/// What a load took at most.
struct Taken {
    kib: usize,
    connections: i64,
    /// The slowest of the ordinary requests meanwhile.
    slowest: Duration,
}

/// Waits, streams and idle connections for a while, and then their end.
async fn load(second: &SecondApi, since: &str) -> Result<Taken> {
    let mut stage = Stage::new("viewer").await?;
    let sessions = sessions(&stage, &second.base).await?;
    let mut control = sql::control().await?;
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(second.address()).await?);
    }
    let path = format!("/v1/operations/{}?wait=60", stage.operation.id);
    let waits: Vec<_> = (0..WAITS)
        .map(|number| {
            let request = sessions[number % SESSIONS].request(Method::GET, &path);
            tokio::spawn(async move { Answer::of(request).await })
        })
        .collect();
    // Opened a few at a time, as a listen queue is only so long.
    let opening =
        (0..STREAMS).map(|number| Events::open(&sessions[number % SESSIONS], &stage.operation.id, None));
    let mut streams: Vec<Events> = futures::stream::iter(opening)
        .buffer_unordered(50)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_>>()?;
    for event in join_all(
        streams
            .iter_mut()
            .map(|stream| stream.next(Duration::from_secs(30))),
    )
    .await
    {
        event?.context("each stream begins with how things are")?;
    }

    // For a while, in which all of them look once and again.
    let begun = Instant::now();
    let mut taken = Taken {
        kib: 0,
        connections: 0,
        slowest: Duration::ZERO,
    };
    while begun.elapsed() < Duration::from_secs(12) {
        taken.kib = taken
            .kib
            .max(usize::try_from(services::resident_kib(second.pid()?)?)?);
        let (open, idle) = connections(&mut control, since).await?;
        ensure!(idle == 0, "{idle} connections hold a transaction and do nothing");
        taken.connections = taken.connections.max(open);
        let asked = Instant::now();
        sessions[0].get("/v1/me").await?.expect(200)?;
        taken.slowest = taken.slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }

    stage.operation.advance(&mut stage.people.control, 100).await?;
    for waited in waits {
        assert_eq!(waited.await??.expect(200)?["status"], "succeeded");
    }
    let ends = streams
        .into_iter()
        .map(|stream| stream.rest(Duration::from_secs(30)));
    for events in try_join_all(ends).await? {
        assert_eq!(events.last().context("a last event")?.data["status"], "succeeded");
    }
    Ok(taken)
}

#[tokio::test]
async fn thousands_that_wait_take_little_memory_and_few_database_connections() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut control = sql::control().await?;
    let since = sql::text(&mut control, "SELECT now()")
        .await?
        .context("the time")?;
    let second = SecondApi::start(&[]).await?;
    let mut rounds = Vec::new();
    // A second time it takes no more: nothing of the first is kept for ever.
    for _ in 0..2 {
        let taken = load(&second, &since).await?;
        println!(
            "{WAITS} waits, {STREAMS} streams, {IDLE} idle connections: {} MiB, {} database connections, an ordinary \
             request took {:.1?} at most; then {} MiB",
            taken.kib / 1024,
            taken.connections,
            taken.slowest,
            services::resident_kib(second.pid()?)? / 1024
        );
        let allowed = MOST_KIB + KIB_A_CONNECTION * (WAITS + STREAMS + IDLE);
        ensure!(
            taken.kib < allowed,
            "{} KiB are held, {allowed} at most should be",
            taken.kib
        );
        ensure!(
            taken.connections <= 16,
            "{} database connections",
            taken.connections
        );
        ensure!(
            taken.slowest < Duration::from_secs(10),
            "an ordinary request took {:?}",
            taken.slowest
        );
        rounds.push(taken.kib);
    }
    // What is never given back would double it; what the allocator keeps in reserve varies.
    ensure!(
        rounds[1] < rounds[0] * 8 / 5,
        "it grows: {} KiB, then {} KiB",
        rounds[0],
        rounds[1]
    );
    Ok(())
}

#[tokio::test]
async fn half_a_body_is_not_waited_for() -> Result<()> {
    let _alone = ALONE.lock().await;
    let token = Api::owner().await?.token().to_owned();
    let head = format!(
        "POST /v1/tenants HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"slug\":"
    );
    let mut wires = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::open(Place::get().api_listen()).await?;
        wire.send(head.as_bytes()).await?;
        wires.push(wire);
    }
    let begun = Instant::now();
    let answers = wires.iter_mut().map(|wire| wire.answer(Duration::from_secs(38)));
    for answer in join_all(answers).await {
        assert_eq!(answer?.problem(408)?, "request_timeout");
    }
    assert!(begun.elapsed() > Duration::from_secs(20), "nobody was given time");
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_told_to_end_lets_nobody_hang() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = Stage::new("viewer").await?;
    let mut second = SecondApi::start(&[]).await?;
    let sessions = sessions(&stage, &second.base).await?;
    let path = format!("/v1/operations/{}?wait=60", stage.operation.id);
    let waits: Vec<_> = (0..100)
        .map(|number| {
            let request = sessions[number % SESSIONS].request(Method::GET, &path);
            tokio::spawn(async move { Answer::of(request).await })
        })
        .collect();
    let opening =
        (0..100).map(|number| Events::open(&sessions[number % SESSIONS], &stage.operation.id, None));
    let mut streams = try_join_all(opening).await?;
    for stream in &mut streams {
        stream
            .next(Duration::from_secs(10))
            .await?
            .context("how things are")?;
    }
    let idle = TcpStream::connect(second.address()).await?;
    // The waits have begun.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(waits.iter().all(|wait| !wait.is_finished()));

    let begun = Instant::now();
    second.tell_to_end()?;
    for waited in waits {
        assert_eq!(waited.await??.expect(200)?["status"], "queued");
    }
    for stream in streams {
        let rest = stream.rest(Duration::from_secs(10)).await?;
        assert!(rest.is_empty(), "{rest:?}");
    }
    second.ended(Duration::from_secs(15)).await?;
    println!("ended after {:.1?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(idle);
    Ok(())
}
