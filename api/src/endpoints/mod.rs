//! The endpoints, a file a resource. Handlers parse, call into `platform`, and shape the answer; they hold no rules.

mod auth;
mod me;
mod operations;
mod system;
mod tenants;

use crate::route::RouteTable;

/// The route table.
#[must_use]
pub fn table() -> RouteTable {
    RouteTable::new(
        [
            auth::endpoints(),
            me::endpoints(),
            tenants::endpoints(),
            operations::endpoints(),
            system::endpoints(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    )
}
