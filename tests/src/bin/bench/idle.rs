//! What the processes cost when nothing happens, and how fast they start.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tests::place::Place;

use crate::copy::Copy;
use crate::report::{Report, median};

/// Ports of the copies that are started to be timed.
const PORTS: (u16, u16) = (28_931, 28_932);

pub async fn run(report: &mut Report) -> Result<()> {
    report.say("idle: memory, and time from start to ready");
    for name in ["api", "worker"] {
        let pid = std::fs::read_to_string(Place::get().state.join(format!("run/{name}.pid")))?;
        let pid = pid
            .split_whitespace()
            .next()
            .context("a pid file names a process")?
            .to_owned();
        let mib = resident_mib(&pid)?;
        report.promise(
            &format!("{name}, resident"),
            mib,
            "MiB",
            mib < 40.0,
            "under 40 MiB",
        );
        let mut starts = Vec::new();
        for _ in 0..5 {
            starts.push(start_of_a_copy(name).await?);
        }
        let seconds = median(&starts).as_secs_f64();
        report.promise(
            &format!("{name}, start to ready"),
            seconds,
            "s",
            seconds < 0.5,
            "under 0.50 s",
        );
    }
    Ok(())
}

fn resident_mib(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Starts a second process with the same settings on other ports, and times it until it answers.
async fn start_of_a_copy(name: &str) -> Result<Duration> {
    let mut copy = Copy::of(name)?.with("METRICS_LISTEN", &format!("127.0.0.1:{}", PORTS.1));
    let ready = if name == "api" {
        copy = copy.with("LISTEN", &format!("127.0.0.1:{}", PORTS.0));
        format!("http://127.0.0.1:{}/readyz", PORTS.0)
    } else {
        format!("http://127.0.0.1:{}/metrics", PORTS.1)
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1))
        .build()?;
    let begun = Instant::now();
    let _running = copy.start()?;
    loop {
        if client
            .get(&ready)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("a second {name} does not get ready");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
