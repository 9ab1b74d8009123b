//! Deleting an organization: only one in which nothing lives any more.

use entity::{api_key, id::OrganizationId, invitation, membership, organization, session, tenant};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, LockType},
};

use super::{Organizations, lock, snapshot, tree};
use crate::{
    audit::{self, Entry, Subject},
    auth::end_sessions,
    error::Error,
    operations::Target,
    precondition::Precondition,
};

impl Organizations<'_> {
    /// Deletes an organization with its members, invitations and API keys. Its name and place in the tree stay, for those
    /// who read the log.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::OrganizationInUse`].
    pub async fn delete(&self, id: OrganizationId, precondition: &Precondition) -> Result<(), Error> {
        let transaction = self.identity.begin(self.platform).await?;
        tree::lock(&transaction).await?;
        // Nobody makes a tenant for it meanwhile: that takes a lock which excludes this one.
        let before = lock(&transaction, self.identity, id, LockType::Update)
            .await?
            .ok_or(Error::NotFound)?;
        precondition.check(&before)?;
        if id == self.platform.root() {
            return Err(Error::OrganizationInUse("it is the root of the tree"));
        }
        let child = organization::Entity::find()
            .filter(organization::Column::ParentId.eq(id))
            .filter(organization::Column::DeletedAt.is_null())
            .limit(1);
        if crate::answered(child.one(&transaction)).await?.is_some() {
            return Err(Error::OrganizationInUse("there are organizations below it"));
        }
        let tenant = tenant::Entity::find()
            .filter(tenant::Column::OrganizationId.eq(id))
            .limit(1);
        if crate::answered(tenant.one(&transaction)).await?.is_some() {
            return Err(Error::OrganizationInUse("it has tenants"));
        }
        let now = chrono::Utc::now();
        let entry = Entry {
            organization: id,
            subject: Some(Subject::Of(Target::Organization(id))),
            before: Some(snapshot(&before)),
            after: None,
        };
        audit::record(&transaction, self.identity, entry).await?;
        let gone = organization::Entity::update_many()
            .col_expr(organization::Column::DeletedAt, Expr::value(now))
            .col_expr(organization::Column::UpdatedAt, Expr::value(now))
            .col_expr(
                organization::Column::Revision,
                Expr::col(organization::Column::Revision).add(1),
            )
            .filter(organization::Column::Id.eq(id))
            .exec(&transaction);
        crate::answered(gone).await?;
        end_sessions(&transaction, session::Column::OrganizationId.eq(id), now).await?;
        crate::answered(
            invitation::Entity::delete_many()
                .filter(invitation::Column::OrganizationId.eq(id))
                .exec(&transaction),
        )
        .await?;
        crate::answered(
            api_key::Entity::delete_many()
                .filter(api_key::Column::OrganizationId.eq(id))
                .exec(&transaction),
        )
        .await?;
        crate::answered(
            membership::Entity::delete_many()
                .filter(membership::Column::OrganizationId.eq(id))
                .exec(&transaction),
        )
        .await?;
        crate::answered(transaction.commit()).await
    }
}
