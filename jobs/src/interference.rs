//! Where a test may lay hands on a running job: end the process there, stop it, or make the step fail.
//!
//! A worker has none unless it is given one, so that a program that carries out operations for people can't be told to
//! break them.

use async_trait::async_trait;
use uuid::Uuid;

use crate::StepError;

/// Which way a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It is done.
    Forward,
    /// It is undone.
    Back,
}

impl Direction {
    /// The name in metrics: `apply` or `undo`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "apply",
            Self::Back => "undo",
        }
    }
}

/// When, within one try of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before its first statement.
    Begin,
    /// It has asked whether it may still touch the world outside, and heard yes: the effect comes next.
    Effect,
    /// It succeeded, and nothing is written down yet.
    End,
}

impl Moment {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Effect => "effect",
            Self::End => "end",
        }
    }
}

/// A place in a running job.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The operation.
    pub operation_id: Uuid,
    /// This claim's epoch.
    pub epoch: i64,
    /// Its kind.
    pub kind: &'static str,
    /// Of the request that caused it.
    pub request_id: Option<&'a str>,
    /// The step.
    pub step: &'static str,
    /// Which way.
    pub direction: Direction,
    /// When.
    pub moment: Moment,
}

/// Something that is called at each [`Point`] that a worker's jobs pass.
#[async_trait]
pub trait Interference: Send + Sync + 'static {
    /// Does what it likes; an error is the step's own from there on.
    async fn at(&self, point: Point<'_>) -> Result<(), StepError>;
}
