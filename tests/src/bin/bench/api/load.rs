//! Load by `wrk`: one thread, as many connections as keep both processors busy, each request with another session's
//! token.

use std::{fmt, io::Write as _, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

const CONNECTIONS: &str = "32";

/// Every request is made before the first is sent, so that the load costs as little as it can.
const SCRIPT: &str = r#"
local requests, at = {}, 0
function init()
  for line in io.lines(os.getenv("BENCH_REQUESTS")) do
    local path, token = line:match("(%S+) (%S+)")
    requests[#requests + 1] = wrk.format("GET", path, { Authorization = "Bearer " .. token })
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"#;

/// A load that can be put on a server.
pub struct Load {
    base: String,
    requests: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Measured {
    rounds: Vec<Round>,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl Load {
    /// These paths by turns, each with another token.
    pub fn new(base: &str, paths: &[String], tokens: &[String]) -> Self {
        let requests = tokens
            .iter()
            .zip(paths.iter().cycle())
            .map(|(token, path)| format!("{path} {token}\n"))
            .collect();
        Self {
            base: base.to_owned(),
            requests,
        }
    }

    /// Puts the load on for so many seconds.
    ///
    /// # Errors
    /// A request was answered with anything but 2xx, or not at all: then there is nothing to compare.
    pub fn run(&self, seconds: u32) -> Result<Round> {
        let folder = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (script, requests) = (folder.join("load.lua"), folder.join("requests"));
        std::fs::File::create(&script)?.write_all(SCRIPT.as_bytes())?;
        std::fs::File::create(&requests)?.write_all(self.requests.as_bytes())?;
        let output = Command::new("wrk")
            .args([
                "--threads",
                "1",
                "--connections",
                CONNECTIONS,
                "--latency",
                "--duration",
            ])
            .arg(format!("{seconds}s"))
            .arg("--script")
            .arg(&script)
            .arg(&self.base)
            .env("BENCH_REQUESTS", &requests)
            .output()
            .context("wrk can't be started")?;
        std::fs::remove_dir_all(&folder)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"),
            "{}: {text}{}",
            self.base,
            String::from_utf8_lossy(&output.stderr)
        );
        Round::read(&text).with_context(|| format!("wrk says something new: {text}"))
    }
}

impl Round {
    fn read(text: &str) -> Option<Self> {
        let after = |name: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(name))
                .map(str::trim)
        };
        Some(Self {
            per_second: after("Requests/sec:")?.parse().ok()?,
            p50: duration(after("50%")?)?,
            p99: duration(after("99%")?)?,
        })
    }
}

/// A time as wrk writes it, such as `1.25ms`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().ok()?;
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number * unit))
}

impl Measured {
    /// Adds a run.
    pub fn add(&mut self, round: &Round) {
        self.rounds.push(*round);
    }

    /// Requests a second, of all runs together.
    pub fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a handful of runs")]
        let runs = self.rounds.len() as f64;
        self.rounds.iter().map(|round| round.per_second).sum::<f64>() / runs
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |pick: fn(&Round) -> Duration| {
            let times: Vec<Duration> = self.rounds.iter().map(pick).collect();
            crate::report::median(&times).as_secs_f64() * 1000.0
        };
        write!(
            f,
            "{:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms",
            self.per_second(),
            of(|round| round.p50),
            of(|round| round.p99)
        )
    }
}
