//! Operating Odoo safely: tenants' databases and roles, templates and their clones, filestores, the pools that serve
//! them and the edge in front.
//!
//! Knows nothing of organizations, billing, jobs or HTTP servers: names and secrets come in, effects come out, and
//! each effect can be had twice. The caller decides what should be, and holds the fence ([`server::Session`]).

pub mod edge;
pub mod filestore;
pub mod keys;
pub mod names;
pub mod password;
pub mod probe;
pub mod runtime;
pub mod server;
mod sql;
pub mod template;
