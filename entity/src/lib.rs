//! SeaORM entities of the control plane's database, the typed ids that name its rows, and the closed sets of values
//! that its columns hold. Rules live in `platform`; the tables of durable operations live in `jobs`.
#![allow(
    missing_docs,
    reason = "an entity's columns are documented by the migration that makes them"
)]

pub mod api_key;
pub mod audit_event;
pub mod data_key;
pub mod database_server;
pub mod drift;
pub mod id;
pub mod idempotency_record;
pub mod invitation;
pub mod membership;
pub mod organization;
pub mod organization_ancestor;
pub mod platform_secret;
pub mod pool;
pub mod refresh_token;
pub mod sealed_secret;
pub mod session;
pub mod signing_key;
pub mod template;
pub mod tenant;
pub mod user;
pub mod values;
