//! Creating an organization below another.

use entity::{id::OrganizationId, organization};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    DatabaseTransaction, EntityTrait as _,
};

use super::{OrganizationRow, Organizations, named, snapshot, tree};
use crate::{
    audit::{self, Entry, Subject},
    error::Error,
    operations::Target,
    text,
};

/// An organization to be.
#[derive(Debug)]
pub struct NewOrganization {
    /// Display name.
    pub name: String,
    /// Below which; the caller's own where none is given.
    pub parent: Option<OrganizationId>,
}

impl Organizations<'_> {
    /// Creates an organization within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub async fn create(
        &self,
        transaction: &DatabaseTransaction,
        new: &NewOrganization,
    ) -> Result<OrganizationRow, Error> {
        let name = text::display_name(&new.name).map_err(|violation| Error::Invalid(vec![violation]))?;
        tree::lock(transaction).await?;
        let parent = named(transaction, self.identity, "/parent_id", new.parent).await?;
        let (id, now) = (OrganizationId::new(), chrono::Utc::now());
        let row = organization::ActiveModel {
            id: Set(id),
            parent_id: Set(Some(parent.id)),
            name: Set(name),
            created_at: Set(now),
            updated_at: Set(now),
            revision: NotSet,
            deleted_at: NotSet,
        };
        // All ancestors are written down, those above the caller too.
        let row = self
            .identity
            .as_the_platform(transaction, async |transaction| {
                let row = crate::answered(organization::Entity::insert(row).exec_with_returning(transaction))
                    .await?;
                tree::plant(transaction, id, parent.id).await?;
                Ok(row)
            })
            .await?;
        let entry = Entry {
            organization: id,
            subject: Some(Subject::Of(Target::Organization(id))),
            before: None,
            after: Some(snapshot(&row)),
        };
        audit::record(transaction, self.identity, entry).await?;
        Ok(row)
    }
}
