//! Organizations: a tree with the platform's operator at its root, resellers and customers below. Rights flow down it.
//! Each organization's ancestors are rows of their own, so that "is this one below mine?" is one look-up, however deep the
//! tree is.

mod change;
mod create;
mod read;
mod remove;
mod tree;

pub use change::OrganizationChanges;
pub use create::NewOrganization;
pub use entity::organization::Model as OrganizationRow;
use entity::{id::OrganizationId, organization};
pub use read::{OrganizationFilter, OrganizationReader};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    sea_query::LockType,
};
use serde_json::{Value, json};

use crate::{
    Platform,
    caller::Identity,
    error::Error,
    precondition::{Versioned, revision},
};

/// The organizations that a caller can change: its own and those below.
#[derive(Debug)]
pub struct Organizations<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> Organizations<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }
}

impl Versioned for OrganizationRow {
    fn version(&self) -> String {
        revision(self.revision)
    }
}

/// An organization that a caller can see, locked until the transaction ends.
pub(crate) async fn lock(
    transaction: &DatabaseTransaction,
    identity: &Identity,
    id: OrganizationId,
    how: LockType,
) -> Result<Option<OrganizationRow>, Error> {
    let query = organization::Entity::find()
        .filter(identity.sees("organizations.id"))
        .filter(organization::Column::Id.eq(id))
        .filter(organization::Column::DeletedAt.is_null())
        .lock(how);
    crate::answered(query.one(transaction)).await
}

/// The organization that a request's body names for what it makes, or the caller's own. It stays until the transaction
/// ends.
///
/// # Errors
/// [`Error::Invalid`]: the caller sees no such organization.
pub(crate) async fn named(
    transaction: &DatabaseTransaction,
    identity: &Identity,
    pointer: &'static str,
    wanted: Option<OrganizationId>,
) -> Result<OrganizationRow, Error> {
    let id = wanted.unwrap_or(identity.organization);
    lock(transaction, identity, id, LockType::Share)
        .await?
        .ok_or_else(|| {
            Error::invalid(
                pointer,
                "unknown_organization",
                "is no organization that you can see",
            )
        })
}

/// What the log shows of an organization.
fn snapshot(row: &OrganizationRow) -> Value {
    json!({ "name": row.name, "parent_id": row.parent_id })
}
