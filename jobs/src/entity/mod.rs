//! The engine's tables as SeaORM entities, for whoever lists, filters or shows operations.
//!
//! Reading is free; writing is the engine's alone. A write past it breaks the fence of a running job.

#![allow(
    missing_docs,
    reason = "derives generate items that can't carry documentation"
)]

pub mod job;
pub mod job_step;
pub mod operation;
pub mod outbox;
pub mod schedule;
pub mod schedule_fire;
