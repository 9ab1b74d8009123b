//! `cargo xtask chaos --minutes N --seed S`: customers make, change, cancel and delete tenants while processes are killed
//! and stopped, Redis is wiped and databases fall over. In the end everything that was asked for has come to an end, and
//! the world is as the tables say.
//!
//! The seed decides what is done, in which order and with which pauses; what it meets depends on the machine's own timing.

mod customers;
mod gremlin;
mod reckoning;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

/// Customers at a time.
const CUSTOMERS: u64 = 6;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (minutes, seed) = arguments()?;
    LocalSet::new().run_until(run(minutes, seed)).await
}

async fn run(minutes: u64, seed: u64) -> Result<()> {
    println!("chaos: {minutes} minutes, seed {seed}");
    let begun = Instant::now();
    let (peace, closing) = (CancellationToken::new(), CancellationToken::new());
    let gremlin = tokio::task::spawn_local(gremlin::run(StdRng::seed_from_u64(seed), peace.clone()));
    let customers: Vec<_> = (1..=CUSTOMERS)
        .map(|number| {
            let random = StdRng::seed_from_u64(seed.wrapping_add(number));
            tokio::task::spawn_local(customers::run(number, random, closing.clone()))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
    // Nothing breaks any more; what was begun has to end.
    peace.cancel();
    let mischief = gremlin.await?;
    closing.cancel();
    let mut tenants = Vec::new();
    let mut done = customers::Done::default();
    let mut complaints = Vec::new();
    for customer in customers {
        let (kept, did, complained) = customer.await?;
        tenants.extend(kept);
        done.add(&did);
        complaints.extend(complained);
    }
    println!("mischief: {mischief}");
    println!("customers: {done}");
    complaints.extend(reckoning::reckon(&tenants).await?);
    println!("{:.0} minutes", begun.elapsed().as_secs_f64() / 60.0);
    if complaints.is_empty() {
        println!(
            "nothing is wrong: {} tenants are as they should be",
            tenants.len()
        );
        return Ok(());
    }
    bail!(
        "{} things are wrong:\n{}",
        complaints.len(),
        complaints.join("\n")
    )
}

fn arguments() -> Result<(u64, u64)> {
    let (mut minutes, mut seed) = (20, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{name} needs a number"))?;
        let number = value.parse().with_context(|| format!("{value} is no number"))?;
        match name.as_str() {
            "--minutes" => minutes = number,
            "--seed" => seed = number,
            _ => bail!("usage: chaos [--minutes N] [--seed S]"),
        }
    }
    Ok((minutes, seed))
}
