//! Faults that a test plans for an operation, and the worker that runs into them.
//!
//! A plan is a file named after the request that causes the operation; `faulty-worker` reads it at each point that the
//! operation passes. What has happened is written down as files too, so that a process that was killed by a fault does
//! not run into it again.

mod mischief;
mod plan;
mod workers;

pub use mischief::FromFiles;
pub use plan::{Action, Fault, Place, Plans, Point};
pub use workers::Workers;
