//! One more process of the API, beside the one that the supervisor keeps: for tests that end it, starve it or give it
//! other settings.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::api::Api;
use crate::place::Place;
use crate::wait;

/// A process of the API. It is killed when a test lets go of it.
#[derive(Debug)]
pub struct SecondApi {
    child: Child,
    /// Its address without a path.
    pub base: String,
    /// Its metrics.
    pub metrics: String,
}

/// The API's program with its settings and rights, and others over them; not started yet.
#[must_use]
pub fn command(arguments: &[&str], settings: &[(&str, String)]) -> Command {
    let program = &Place::get().api;
    let mut command = Command::new(&program.argv[0]);
    command
        .args(&program.argv[1..])
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .envs(&program.environment)
        .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl SecondApi {
    /// Starts one on free ports, and waits until it is ready.
    ///
    /// # Errors
    /// It is not ready in time.
    pub async fn start(settings: &[(&str, String)]) -> Result<Self> {
        let (listen, metrics) = (free_address()?, free_address()?);
        let mut all = vec![("LISTEN", listen.clone()), ("METRICS_LISTEN", metrics.clone())];
        all.extend_from_slice(settings);
        let child = command(&[], &all)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("a second api can't be started")?;
        let second = Self {
            child,
            base: format!("http://{listen}"),
            metrics: format!("http://{metrics}/metrics"),
        };
        second.anyone()?.ready().await?;
        Ok(second)
    }

    /// Somebody without a credential, at this process.
    ///
    /// # Errors
    /// None that a test could mend.
    pub fn anyone(&self) -> Result<Api> {
        Api::at(&self.base)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Its process.
    ///
    /// # Errors
    /// It has ended.
    pub fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id().context("it has ended")?)?)
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell_to_end(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()?), Signal::SIGTERM)?)
    }

    /// Waits until it has ended well.
    ///
    /// # Errors
    /// It ended in another way, or not in time.
    pub async fn ended(&mut self, deadline: Duration) -> Result<()> {
        let status = tokio::time::timeout(deadline, self.child.wait())
            .await
            .with_context(|| format!("it still runs after {deadline:?}"))??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// An address that nobody listens at.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Runs one of the program's commands to its end and answers what it says.
///
/// # Errors
/// It fails, or does not end.
pub async fn run(arguments: &[&str], settings: &[(&str, String)]) -> Result<String> {
    let output = tokio::time::timeout(Duration::from_secs(60), command(arguments, settings).output())
        .await
        .context("it does not end")??;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A counter or gauge of a metrics page, summed over its labels; 0 where it is missing.
///
/// # Errors
/// The page does not come.
pub async fn metric(page: &str, name: &str) -> Result<f64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let text = client.get(page).send().await?.text().await?;
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest
            .strip_prefix(' ')
            .or_else(|| rest.split_once("} ").map(|(_, value)| value))?;
        value.trim().parse::<f64>().ok()
    });
    Ok(values.sum())
}

/// Waits for a condition of a metric.
///
/// # Errors
/// It does not come true in time.
pub async fn metric_until(page: &str, name: &str, fine: impl Fn(f64) -> bool) -> Result<f64> {
    wait::until(
        Duration::from_secs(10),
        &format!("{name} is as it should be"),
        async || {
            let value = metric(page, name).await?;
            ensure!(fine(value), "it is {value}");
            Ok(value)
        },
    )
    .await
}
