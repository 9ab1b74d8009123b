//! The harness of the end-to-end tests: a running platform as its users, its tenants' users and an intruder see it.
//!
//! It speaks to the platform only from outside (HTTP, websockets, SQL, the container engine, files, signals) and shares
//! no code with it: a mistake in a crate can't hide behind the same mistake here. (The benchmarks' baseline alone reads the
//! platform's tables as the platform does, to be compared with it; and a worker that runs into planned faults is made of the
//! platform's own.) It must never be pointed at a platform
//! that people use: its tests kill processes.

pub mod api;
pub mod bait;
pub mod browser;
pub mod containers;
pub mod events;
pub mod faults;
pub mod forge;
pub mod http;
pub mod ids;
pub mod mailbox;
pub mod people;
pub mod place;
pub mod rows;
pub mod rpc;
pub mod second_api;
pub mod services;
pub mod socket;
pub mod sql;
pub mod stage;
pub mod tenant;
pub mod wait;
pub mod wire;
