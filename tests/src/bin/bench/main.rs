//! `cargo xtask bench`: measures the running platform against baselines in the same run, and says whether each promise
//! is kept. Times are printed here and asserted nowhere else.

mod api;
mod chromium;
mod copy;
mod idle;
mod jobs;
mod provision;
mod report;

use anyhow::{Result, bail};
use report::Report;

#[actix_web::main]
async fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names == ["serve-bare"] {
        return api::serve_bare().await;
    }
    let chosen = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if let Some(unknown) = names
        .iter()
        .find(|name| !["api", "idle", "jobs", "provision"].contains(&name.as_str()))
    {
        bail!("there is no benchmark {unknown:?}; there are: api, idle, jobs, provision");
    }
    let mut report = Report::default();
    if chosen("idle") {
        idle::run(&mut report).await?;
    }
    if chosen("api") {
        api::run(&mut report).await?;
    }
    if chosen("jobs") {
        jobs::run(&mut report).await?;
    }
    if chosen("provision") {
        provision::run(&mut report).await?;
    }
    report.end()
}
