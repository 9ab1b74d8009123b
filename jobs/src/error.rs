//! How a step fails: try again, never again, or stopped because it was told to.
//!
//! A fault has two texts: `message` is shown to customers and never names hosts, SQL or paths; `detail` is for the
//! platform's operator only.

use std::{borrow::Cow, fmt, time::Duration};

use sea_orm::DbErr;

/// What went wrong, for a program, for a customer, and for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable and machine-readable, `snake_case`.
    pub code: Cow<'static, str>,
    /// Safe for customers.
    pub message: Cow<'static, str>,
    /// Internal: the chain of causes.
    pub detail: Option<String>,
}

impl Fault {
    /// A fault without a detail.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            detail: None,
        }
    }

    /// The same with a detail.
    #[must_use]
    pub fn detailed(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

/// How a step ended when it did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StepError {
    /// May work later: the job waits (exponential back-off, or `after`) and runs the step again.
    #[error("{fault}")]
    Retry {
        /// What went wrong.
        fault: Fault,
        /// Wait this long instead of the kind's back-off.
        after: Option<Duration>,
    },
    /// Will never work: before the pivot the job undoes, after it the job is dead.
    #[error("{0}")]
    Permanent(Fault),
    /// The step stopped because its token fired; the engine knows why (cancel, lost lease, shutdown).
    #[error("stopped on request")]
    Stopped,
}

impl StepError {
    /// An error worth another try.
    pub fn retry(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Retry {
            fault: Fault::new(code, message),
            after: None,
        }
    }

    /// An error that no further try can mend.
    pub fn permanent(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Permanent(Fault::new(code, message))
    }

    /// The same with a wait of one's own (no effect on errors that aren't retried).
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        if let Self::Retry { after, .. } = &mut self {
            *after = Some(wait);
        }
        self
    }

    /// The same with an internal detail.
    #[must_use]
    pub fn detailed(mut self, text: impl fmt::Display) -> Self {
        match &mut self {
            Self::Retry { fault, .. } | Self::Permanent(fault) => fault.detail = Some(text.to_string()),
            Self::Stopped => {}
        }
        self
    }
}

/// Our own database is a place where another try is always right.
impl From<DbErr> for StepError {
    fn from(error: DbErr) -> Self {
        Self::retry("internal", "The platform's database did not answer as expected.").detailed(chain(&error))
    }
}

/// Turns any error into a [`StepError`] at the place where its meaning is known.
pub trait StepErrorExt<T> {
    /// Worth another try.
    ///
    /// # Errors
    /// The mapped one.
    fn retry(
        self,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Result<T, StepError>;

    /// Beyond repair.
    ///
    /// # Errors
    /// The mapped one.
    fn permanent(
        self,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Result<T, StepError>;
}

impl<T, E: std::error::Error> StepErrorExt<T> for Result<T, E> {
    fn retry(
        self,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Result<T, StepError> {
        self.map_err(|error| StepError::retry(code, message).detailed(chain(&error)))
    }

    fn permanent(
        self,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Result<T, StepError> {
        self.map_err(|error| StepError::permanent(code, message).detailed(chain(&error)))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let line = next.to_string();
        // Many libraries print their cause themselves.
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_keeps_its_causes_in_the_detail_only() {
        let result: Result<(), _> = Err(Outer(std::io::Error::other("socket gone")));
        let StepError::Retry { fault, .. } = result.retry("server_away", "The server is away.").unwrap_err()
        else {
            panic!("not a retry")
        };
        assert_eq!(fault.message, "The server is away.");
        assert_eq!(fault.detail.as_deref(), Some("outer: socket gone"));
    }
}
