//! Renaming an organization, and moving it to another place in the tree.

use entity::{id::OrganizationId, organization, values::Role};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _,
    sea_query::{Expr, ExprTrait as _, LockType},
};

use super::{OrganizationRow, Organizations, lock, named, snapshot, tree};
use crate::{
    audit::{self, Entry, Subject},
    error::Error,
    operations::Target,
    precondition::Precondition,
    text,
};

/// What shall change; what is absent stays.
#[derive(Debug, Default)]
pub struct OrganizationChanges {
    /// Display name.
    pub name: Option<String>,
    /// Below which it is.
    pub parent: Option<OrganizationId>,
}

impl Organizations<'_> {
    /// Changes an organization. What is as it should be already is left alone, and then so is the version.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::Invalid`].
    pub async fn update(
        &self,
        id: OrganizationId,
        precondition: &Precondition,
        changes: &OrganizationChanges,
    ) -> Result<OrganizationRow, Error> {
        let transaction = self.identity.begin(self.platform).await?;
        if changes.parent.is_some() {
            tree::lock(&transaction).await?;
        }
        let before = lock(&transaction, self.identity, id, LockType::Update)
            .await?
            .ok_or(Error::NotFound)?;
        precondition.check(&before)?;
        let mut after = before.clone();
        if let Some(name) = &changes.name {
            after.name = text::display_name(name).map_err(|violation| Error::Invalid(vec![violation]))?;
        }
        if let Some(parent) = changes.parent {
            after.parent_id = Some(parent);
        }
        if after == before {
            return Ok(before);
        }
        if after.parent_id != before.parent_id {
            // What hangs above the caller is not its to move, and that includes its own organization.
            if id == self.identity.organization {
                return Err(Error::invalid(
                    "/parent_id",
                    "own_organization",
                    "can't be changed for the organization that the credential acts for",
                ));
            }
            // Who is an owner somewhere below would be one of whatever is moved there.
            if self.identity.role < Role::Owner {
                return Err(Error::invalid(
                    "/parent_id",
                    "owner_required",
                    "can be changed by an owner only",
                ));
            }
            let parent = named(&transaction, self.identity, "/parent_id", changes.parent).await?;
            self.identity
                .as_the_platform(&transaction, async |transaction| {
                    tree::transplant(transaction, id, parent.id).await
                })
                .await?;
        }
        let updated = organization::Entity::update_many()
            .col_expr(organization::Column::Name, Expr::value(after.name))
            .col_expr(organization::Column::ParentId, Expr::value(after.parent_id))
            .col_expr(
                organization::Column::Revision,
                Expr::col(organization::Column::Revision).add(1),
            )
            .col_expr(organization::Column::UpdatedAt, Expr::cust("now()"))
            .filter(organization::Column::Id.eq(id))
            .exec_with_returning(&transaction);
        let row = crate::answered(updated)
            .await?
            .into_iter()
            .next()
            .ok_or(Error::NotFound)?;
        let entry = Entry {
            organization: id,
            subject: Some(Subject::Of(Target::Organization(id))),
            before: Some(snapshot(&before)),
            after: Some(snapshot(&row)),
        };
        audit::record(&transaction, self.identity, entry).await?;
        crate::answered(transaction.commit()).await?;
        Ok(row)
    }
}
