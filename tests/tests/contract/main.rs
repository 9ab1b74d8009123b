//! What the API promises to programs beyond its resources: how it refuses, versions, pages, repeats, limits and tells.

mod credentials;
mod errors;
mod events;
mod idempotency;
mod limits;
mod pages;
mod patches;
mod versions;
