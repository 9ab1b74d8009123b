//! What durable operations cost: empty ones a second from end to end, against Python's RQ on the same Redis; how soon one
//! starts; what a claim costs among many; what the engine asks of its database when there is nothing to do.

mod engine;
mod rq;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::engine::Engine;
use crate::report::{Report, quantile};

/// Operations of a round. RQ gets fewer, since it takes longer for them.
const OPERATIONS: usize = 6_000;
const RQ_JOBS: usize = 1_000;
/// Rounds, ours and RQ's by turns.
const ROUNDS: usize = 3;
/// Jobs that wait while claims are timed.
const FEW: usize = 100;
const MANY: usize = 20_000;
/// Claims that are timed.
const CLAIMS: u64 = 100;

pub async fn run(report: &mut Report) -> Result<()> {
    report.say("jobs: empty operations of two steps, from the enqueuing transaction to the end");
    let engine = Engine::new().await?;
    let outcome = measure(report, &engine).await;
    engine.remove().await?;
    outcome
}

async fn measure(report: &mut Report, engine: &Engine) -> Result<()> {
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value = engine.setting(setting).await?;
        ensure!(value == "on", "{setting} is {value}");
    }
    let mut rq = rq::Rq::start().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let running = engine.start(engine::CONCURRENCY);
    engine.carry_out(500).await?;
    for _ in 0..ROUNDS {
        theirs.push(rq.carry_out(RQ_JOBS).await?);
        ours.push(engine.carry_out(OPERATIONS).await?);
    }
    rq.end().await?;
    let (ours, theirs) = (middle(&ours), middle(&theirs));
    report.say(format!(
        "  operations a second: {ours:.0}; RQ, one worker a core: {theirs:.0} jobs a second"
    ));
    let ratio = ours / theirs;
    report.promise(
        "operations a second, times RQ's",
        ratio,
        "",
        ratio >= 5.0,
        "at least 5",
    );

    let starts = engine.at_rate(ours / 2.0, Duration::from_secs(10)).await?;
    let (p50, p99) = (quantile(&starts, 0.5), quantile(&starts, 0.99));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    report.promise(
        "enqueued to started at half load, p50",
        milliseconds(p50),
        "ms",
        milliseconds(p50) < 5.0,
        "under 5 ms",
    );
    report.promise(
        "enqueued to started at half load, p99",
        milliseconds(p99),
        "ms",
        milliseconds(p99) < 25.0,
        "under 25 ms",
    );

    let began = (Instant::now(), engine.transactions().await?);
    tokio::time::sleep(Duration::from_secs(15)).await;
    #[allow(clippy::cast_precision_loss)]
    let idle = (engine.transactions().await? - began.1) as f64 / began.0.elapsed().as_secs_f64();
    report.promise(
        "queries a second when idle",
        idle,
        "",
        idle < 2.0,
        "under 2 a process",
    );
    running.end().await?;

    let (few, many) = (
        engine.claim_among(FEW, CLAIMS).await?,
        engine.claim_among(MANY, CLAIMS).await?,
    );
    report.say(format!(
        "  a claim: {:.2} ms among {FEW} waiting, {:.2} ms among {MANY}",
        milliseconds(few),
        milliseconds(many)
    ));
    let growth = many.as_secs_f64() / few.as_secs_f64();
    report.promise(
        "a claim among 20,000, times one among 100",
        growth,
        "",
        growth <= 1.5,
        "at most 1.5",
    );
    Ok(())
}

fn middle(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A variable that `cargo xtask bench` sets.
fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run through `cargo xtask bench`"))
}
