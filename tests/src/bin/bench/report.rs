//! What was measured and whether it keeps a promise.

use std::time::Duration;

use anyhow::{Result, bail};

/// Lines of a run.
#[derive(Debug, Default)]
pub struct Report {
    broken: Vec<String>,
}

impl Report {
    /// Prints a line.
    pub fn say(&self, line: impl AsRef<str>) {
        println!("{}", line.as_ref());
    }

    /// Prints a measure beside its promise.
    pub fn promise(&mut self, what: &str, measured: f64, unit: &str, kept: bool, promise: &str) {
        let mark = if kept { "✓" } else { "✗" };
        self.say(format!(
            "{mark} {what}: {measured:.2} {unit} (promised: {promise})"
        ));
        if !kept {
            self.broken.push(what.to_owned());
        }
    }

    /// Ends the run: an error if a promise was broken.
    ///
    /// # Errors
    /// It names them.
    pub fn end(self) -> Result<()> {
        if self.broken.is_empty() {
            return Ok(());
        }
        bail!("not kept: {}", self.broken.join("; "))
    }
}

/// The value below which `share` of the samples lie.
pub fn quantile(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// The middle one.
pub fn median(samples: &[Duration]) -> Duration {
    quantile(samples, 0.5)
}
