//! When to try again: exponential back-off with jitter, bounded.

use std::time::Duration;

/// How a kind's jobs are tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Wait after the first failure.
    pub first: Duration,
    /// No wait is longer, jitter included.
    pub most: Duration,
    /// Each wait is this many times the one before.
    pub factor: f64,
    /// Claims in a row without a newly persisted step before the engine gives up.
    pub attempts: i32,
}

impl RetryPolicy {
    /// 1 s, 3 s, 9 s, 27 s, at most a minute; five claims.
    pub const DEFAULT: Self = Self {
        first: Duration::from_secs(1),
        most: Duration::from_secs(60),
        factor: 3.0,
        attempts: 5,
    };

    /// The wait after the `attempt`-th failure in a row (from 1). `random` in 0..1 spreads it over the upper half, so
    /// that jobs that failed together don't come back together.
    #[must_use]
    pub fn wait(&self, attempt: i32, random: f64) -> Duration {
        let exponent = attempt.saturating_sub(1).clamp(0, 64);
        let full = (self.first.as_secs_f64() * self.factor.powi(exponent)).min(self.most.as_secs_f64());
        Duration::from_secs_f64(full * (0.5 + 0.5 * random.clamp(0.0, 1.0)))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_the_bound() {
        let policy = RetryPolicy::DEFAULT;
        assert_eq!(policy.wait(1, 1.0), Duration::from_secs(1));
        assert_eq!(policy.wait(2, 1.0), Duration::from_secs(3));
        assert_eq!(policy.wait(1, 0.0), Duration::from_millis(500));
        assert_eq!(policy.wait(i32::MAX, 1.0), Duration::from_secs(60));
    }
}
