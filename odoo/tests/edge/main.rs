//! The edge on a real Nginx, in front of upstreams that answer with what they saw.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy takes only functions marked as tests for such"
)]

mod fake_upstream;
mod nginx;
mod raw_http;

mod admin;
mod hosts;
mod pools;
mod routes;
mod tenants;
