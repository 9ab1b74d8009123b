//! `cargo xtask bench`: measures the running platform against baselines in the same run, and says whether each promise
//! is kept. Times are printed here and asserted nowhere else.

mod chromium;
mod idle;
mod provision;
mod report;

use anyhow::{Result, bail};
use report::Report;

#[tokio::main]
async fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if let Some(unknown) = names
        .iter()
        .find(|name| !["provision", "idle"].contains(&name.as_str()))
    {
        bail!("there is no benchmark {unknown:?}; there are: idle, provision");
    }
    let mut report = Report::default();
    if chosen("idle") {
        idle::run(&mut report).await?;
    }
    if chosen("provision") {
        provision::run(&mut report).await?;
    }
    report.end()
}
