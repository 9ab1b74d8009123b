//! The endpoints, a file a resource. Handlers parse, call into `platform`, and shape the answer; they hold no rules.

mod api_keys;
mod audit;
mod auth;
mod drift;
mod invitations;
mod labels;
mod me;
mod members;
mod operations;
mod organizations;
mod system;
mod tenants;

use crate::route::RouteTable;

/// A pattern for texts without control characters, in the syntax that all regular expressions share.
const NO_CONTROL_CHARACTERS: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

/// The route table.
#[must_use]
pub fn table() -> RouteTable {
    RouteTable::new(
        [
            auth::endpoints(),
            me::endpoints(),
            organizations::endpoints(),
            members::endpoints(),
            invitations::endpoints(),
            api_keys::endpoints(),
            audit::endpoints(),
            tenants::endpoints(),
            operations::endpoints(),
            drift::endpoints(),
            system::endpoints(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    )
}
