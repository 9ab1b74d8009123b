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
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, stream};
use tests::api::Api;
use tests::faults::{Plans, Workers};

use crate::cases::Kind;
use crate::run::Rig;

/// Workers, and cases at a time.
const WORKERS: usize = 6;

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
    outcome
}

async fn all(rig: &Rig, kinds: &[Kind]) -> Result<()> {
    let mut cases = Vec::new();
    for kind in kinds {
        let stage = stages::of(&kind.name).with_context(|| format!("{} has no stage", kind.name))?;
        let found = cases::of(rig, kind, stage)
            .await
            .with_context(|| format!("an unharmed {}", kind.name))?;
        println!("{}: {} cases", kind.name, found.len());
        cases.extend(found);
    }
    let begun = Instant::now();
    let count = cases.len();
    let results: Vec<(String, Result<()>)> = stream::iter(cases)
        .map(|case| async move {
            let name = case.to_string();
            let outcome = run::case(rig, &case).await.map(drop);
            if let Err(error) = &outcome {
                println!("✗ {name}: {error:#}");
            }
            (name, outcome)
        })
        .buffer_unordered(WORKERS)
        .collect()
        .await;
    println!("{count} cases, {:.0} s", begun.elapsed().as_secs_f64());
    let failed: BTreeMap<String, String> = results
        .into_iter()
        .filter_map(|(name, outcome)| Some((name, format!("{:#}", outcome.err()?))))
        .collect();
    world::nothing_left_over().await?;
    if !failed.is_empty() {
        bail!("{} of {count} cases failed: {failed:#?}", failed.len());
    }
    Ok(())
}
