//! Python's RQ as it comes: its default worker, one a core, results stored.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::variable;

/// Longest time of a round.
const PATIENCE: Duration = Duration::from_secs(180);

/// RQ's workers, and a program that enqueues and times.
pub struct Rq {
    workers: Vec<Child>,
    _driver: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Rq {
    pub async fn start() -> Result<Self> {
        let python = PathBuf::from(variable("BENCH_RQ_PYTHON")?);
        let redis = variable("TEST_REDIS_URL")?;
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/bin/bench/jobs");
        let cores = std::thread::available_parallelism()?.get();
        let workers = (0..cores)
            .map(|_| {
                Command::new(&python)
                    .args(["-m", "rq.cli", "worker", "--quiet", "--url", &redis, "bench"])
                    .current_dir(&folder)
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()
                    .context("rq can't be started")
            })
            .collect::<Result<_>>()?;
        let mut driver = Command::new(&python)
            .arg("rq_driver.py")
            .arg(&redis)
            .current_dir(&folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut rq = Self {
            workers,
            asks: driver.stdin.take().context("no input")?,
            answers: BufReader::new(driver.stdout.take().context("no output")?).lines(),
            _driver: driver,
        };
        // Until its workers are there.
        rq.ask(50).await?;
        Ok(rq)
    }

    /// Enqueues so many, waits until all have ended, and answers how many a second.
    #[allow(clippy::cast_precision_loss)]
    pub async fn carry_out(&mut self, jobs: usize) -> Result<f64> {
        Ok(jobs as f64 / self.ask(jobs).await?)
    }

    pub async fn end(mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.kill().await?;
        }
        Ok(())
    }

    async fn ask(&mut self, jobs: usize) -> Result<f64> {
        self.asks.write_all(format!("{jobs}\n").as_bytes()).await?;
        let line = tokio::time::timeout(PATIENCE, self.answers.next_line()).await??;
        let seconds: f64 = line.context("the driver ended")?.trim().parse()?;
        ensure!(seconds > 0.0, "no time passed");
        Ok(seconds)
    }
}
