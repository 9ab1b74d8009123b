//! The engine against a real Postgres and a real Redis.
//!
//! `TEST_DATABASE_URL`: a role that may create databases; each test makes one of its own. `TEST_REDIS_URL`: shared; each
//! test has keys of its own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod clocks;
mod crash;
mod fair;
mod gate;
mod kinds;
mod lifecycle;
mod moments;
mod priority;
mod race;
mod schedules;
mod serial;
mod stream;
mod support;
mod versions;
mod watch;
