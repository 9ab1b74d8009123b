//! Changing a member's role, and removing members.

use entity::{
    id::{OrganizationId, UserId},
    membership, session,
    values::Role,
};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, LockType},
};
use serde_json::json;

use super::{MemberRow, Members, read::ORGANIZATION};
use crate::{
    audit::{self, Entry, Subject},
    auth::end_sessions,
    error::Error,
    organizations,
    precondition::Precondition,
};

impl Members<'_> {
    /// Gives a member another role.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::LastOwner`]; [`Error::MemberOfSeveral`] where no
    /// organization is named and the user is a member of several.
    pub async fn change_role(
        &self,
        organization: Option<OrganizationId>,
        user: UserId,
        precondition: &Precondition,
        role: Option<Role>,
    ) -> Result<MemberRow, Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let before = self.lock(&transaction, organization, user).await?;
        precondition.check(&before)?;
        let role = role.unwrap_or(before.role);
        if role == before.role {
            return Ok(before);
        }
        let mut violations = Vec::new();
        self.identity.check_given_role(role, &mut violations);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        if before.role == Role::Owner {
            another_owner(&transaction, &before).await?;
        }
        let updated = membership::Entity::update_many()
            .col_expr(membership::Column::Role, Expr::value(role))
            .col_expr(
                membership::Column::Revision,
                Expr::col(membership::Column::Revision).add(1),
            )
            .filter(membership::Column::UserId.eq(user))
            .filter(membership::Column::OrganizationId.eq(before.organization_id))
            .exec(&transaction);
        crate::answered(updated).await?;
        let after = MemberRow {
            role,
            revision: before.revision + 1,
            ..before.clone()
        };
        let entry = Entry {
            organization: before.organization_id,
            subject: Some(Subject::User(user)),
            before: Some(json!({ "role": before.role })),
            after: Some(json!({ "role": role })),
        };
        audit::record(&transaction, self.identity, entry).await?;
        crate::answered(transaction.commit()).await?;
        Ok(after)
    }

    /// Removes a member. Its sessions there end at once, and stay ended should it come back.
    ///
    /// # Errors
    /// As [`Members::change_role`].
    pub async fn remove(
        &self,
        organization: Option<OrganizationId>,
        user: UserId,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let before = self.lock(&transaction, organization, user).await?;
        precondition.check(&before)?;
        if before.role == Role::Owner {
            another_owner(&transaction, &before).await?;
        }
        let entry = Entry {
            organization: before.organization_id,
            subject: Some(Subject::User(user)),
            before: Some(json!({ "email": before.email, "role": before.role })),
            after: None,
        };
        // Before the membership goes, by which the database shows who the caller is, should it remove itself.
        audit::record(&transaction, self.identity, entry).await?;
        let there = session::Column::UserId
            .eq(user)
            .and(session::Column::OrganizationId.eq(before.organization_id));
        end_sessions(&transaction, there, chrono::Utc::now()).await?;
        let gone = membership::Entity::delete_by_id((user, before.organization_id)).exec(&transaction);
        crate::answered(gone).await?;
        crate::answered(transaction.commit()).await
    }

    /// A member, locked together with its organization, so that changes of one organization's members take turns.
    async fn lock(
        &self,
        transaction: &DatabaseTransaction,
        organization: Option<OrganizationId>,
        user: UserId,
    ) -> Result<MemberRow, Error> {
        let found = super::read::find(self.identity.sees(ORGANIZATION), organization, user);
        let found = crate::answered(found.into_model::<MemberRow>().all(transaction)).await?;
        let organization = super::read::the_only(found)?.organization_id;
        organizations::lock(transaction, self.identity, organization, LockType::Update)
            .await?
            .ok_or(Error::NotFound)?;
        // Read again under the lock.
        let member = super::read::find(self.identity.sees(ORGANIZATION), Some(organization), user)
            .into_model::<MemberRow>();
        crate::answered(member.one(transaction))
            .await?
            .ok_or(Error::NotFound)
    }
}

/// The organization has an owner beside this one.
async fn another_owner(transaction: &DatabaseTransaction, owner: &MemberRow) -> Result<(), Error> {
    let others = membership::Entity::find()
        .filter(membership::Column::OrganizationId.eq(owner.organization_id))
        .filter(membership::Column::Role.eq(Role::Owner))
        .filter(membership::Column::UserId.ne(owner.user_id))
        .limit(1)
        .count(transaction);
    if crate::answered(others).await? == 0 {
        return Err(Error::LastOwner);
    }
    Ok(())
}
