//! Every kind of operation, broken at every point of every step in every way there is. The cases are generated from the
//! worker's own list of kinds and from the points that an unharmed run passes: a new kind joins by itself, and fails here
//! until there is a stage for it.
//!
//! Each case ends with the operation over, the world as the tables say, and nothing left over.

mod cases;
mod run;
mod stages;
mod world;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use tests::api::Api;
use tests::faults::{Plans, Workers};

use crate::cases::Kind;
use crate::run::Rig;

/// Workers: as many as there are cases at a time, all lanes together.
const WORKERS: usize = 7;

/// A worker that was killed is replaced after so long.
const LEASE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_survives_every_fault_at_every_point() -> Result<()> {
    let program = env!("CARGO_BIN_EXE_faulty-worker");
    let kinds = cases::kinds(program)?;
    let plans = Plans::new()?;
    let workers = Workers::start(program, &plans, WORKERS, LEASE).await?;
    let rig = Rig {
        api: Api::owner().await?,
        plans,
        lease: LEASE,
    };
    let outcome = all(&rig, &kinds).await;
    workers.end().await;
    std::fs::remove_dir_all(rig.plans.folder()).ok();
    outcome
}

async fn all(rig: &Rig, kinds: &[Kind]) -> Result<()> {
    let begun = Instant::now();
    // Each kind has a lane of its own, so that what takes long holds nobody up.
    let lanes: Vec<_> = join_all(kinds.iter().map(|kind| lane(rig, kind))).await;
    let (mut count, mut failed) = (0, BTreeMap::new());
    for (kind, lane) in kinds.iter().zip(lanes) {
        let outcomes = lane.with_context(|| format!("{} without a fault", kind.name))?;
        println!("{}: {} cases", kind.name, outcomes.len());
        count += outcomes.len();
        failed.extend(
            outcomes
                .into_iter()
                .filter_map(|(name, outcome)| Some((name, outcome.err()?))),
        );
    }
    println!("{count} cases, {:.0} s", begun.elapsed().as_secs_f64());
    if !failed.is_empty() {
        let failed: Vec<_> = failed
            .iter()
            .map(|(name, error)| format!("{name}: {error:#}"))
            .collect();
        bail!("{} of {count} cases failed:\n{}", failed.len(), failed.join("\n"));
    }
    world::nothing_left_over().await
}

/// Runs a kind's cases, some at a time.
async fn lane(rig: &Rig, kind: &Kind) -> Result<Vec<(String, Result<()>)>> {
    let stage = stages::of(&kind.name).with_context(|| format!("{} has no stage", kind.name))?;
    let cases = cases::of(rig, kind, stage).await?;
    let outcomes = stream::iter(cases).map(|case| async move {
        let name = case.to_string();
        let outcome = run::case(rig, &case).await.map(drop);
        // Past the test's capture: one sees how far it is.
        match &outcome {
            Ok(()) => writeln!(std::io::stderr(), "✓ {name}"),
            Err(error) => writeln!(std::io::stderr(), "✗ {name}: {error:#}"),
        }
        .ok();
        (name, outcome)
    });
    Ok(outcomes.buffer_unordered(stage.at_a_time()).collect().await)
}
