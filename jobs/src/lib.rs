//! Durable operations: Postgres is the truth, Redis is the bell.
//!
//! An effect, its operation, its job and an outbox row are written in one transaction ([`enqueue`]). A [`Relay`] moves
//! outbox rows to Redis Streams; a [`Worker`] reads an entry, claims the job in Postgres under a lease epoch, runs its
//! steps, each persisted before the next, and acknowledges. A [`Sweeper`] announces again what a lost Redis or a dead
//! worker left behind, so that Redis may be wiped at any moment. What the clock causes is enqueued by [`schedule::Firing`].
//!
//! Nobody's work holds up everybody's: of one scope no more jobs run at a time than [`WorkerOptions::scope_cap`] says, and
//! what a schedule caused waits behind what a person asked for.
//!
//! The crate knows no Odoo, no organization and no HTTP: an operation has a `scope`, whose meaning is the caller's.
//! It never keeps a secret: inputs and outputs of steps are plain JSON in a table that operators read.

mod bell;
mod cancel;
mod context;
mod enqueue;
pub mod entity;
mod error;
mod hand;
mod heartbeat;
mod intake;
mod interference;
mod kind;
mod metrics;
mod migrations;
pub mod protocol;
mod registry;
mod relay;
mod retention;
mod retry;
mod revive;
mod run;
pub mod schedule;
mod store;
mod sweeper;
mod watcher;
mod worker;

pub use bell::{Bell, BellError};
pub use cancel::{CancelError, cancel};
pub use context::{FencedTransaction, JobContext, StepContext};
pub use enqueue::{EnqueueError, NewOperation, Serial, WhenBusy, enqueue};
pub use error::{Fault, StepError, StepErrorExt};
pub use interference::{Direction, Interference, Moment, Point};
pub use kind::{OperationInput, OperationKind, Outcome, Step, StepResult};
pub use metrics::Metrics;
pub use migrations::migrations;
pub use registry::{KnownKind, Registry, RegistryError};
pub use relay::{Relay, RelayOptions};
pub use retention::delete_finished;
pub use retry::RetryPolicy;
pub use revive::{ReviveError, revive};
pub use sweeper::{Sweeper, SweeperOptions};
pub use watcher::{Watcher, WatcherOptions};
pub use worker::{Names, Worker, WorkerOptions};
