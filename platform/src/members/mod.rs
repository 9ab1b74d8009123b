//! Members: users with a role in an organization. They are invited, or added by somebody who stands above them; their role
//! is changed and they are removed by owners, and the last owner of an organization stays.

mod accept;
mod add;
mod change;
mod invitations;
mod read;

pub use accept::Acceptance;
pub use add::{AddedMember, NewMember};
use chrono::{DateTime, Utc};
use entity::{
    id::{OrganizationId, UserId},
    membership, user,
    values::Role,
};
pub use invitations::{
    InvitationFilter, InvitationReader, InvitationRow, Invitations, Invited, NewInvitation,
};
pub use read::{MemberFilter, MemberReader};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, DatabaseTransaction, EntityTrait as _, FromQueryResult,
    QueryFilter as _,
};
use uuid::Uuid;

use crate::{
    Platform,
    caller::Identity,
    error::{Error, Violation},
    precondition::Versioned,
    text,
};

/// The members that a caller can change: those of its organization and of the ones below.
#[derive(Debug)]
pub struct Members<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> Members<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }
}

/// A member with the user's name and address.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct MemberRow {
    /// The user.
    pub user_id: UserId,
    /// Where.
    pub organization_id: OrganizationId,
    /// As what.
    pub role: Role,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// The user's address.
    pub email: String,
    /// The user's name.
    pub name: String,
    /// Counts changes of the membership.
    pub revision: i64,
    /// Counts changes of the user.
    pub user_revision: i64,
    /// The place in a list.
    pub position: Uuid,
}

impl MemberRow {
    fn new(membership: &membership::Model, user: &user::Model) -> Self {
        Self {
            user_id: user.id,
            organization_id: membership.organization_id,
            role: membership.role,
            created_at: membership.created_at,
            email: user.email.clone(),
            name: user.name.clone(),
            revision: membership.revision,
            user_revision: user.revision,
            position: membership.position,
        }
    }
}

impl Versioned for MemberRow {
    fn version(&self) -> String {
        format!("v{}.{}", self.revision, self.user_revision)
    }
}

/// An address that an account can have.
fn check_email(text: &str, violations: &mut Vec<Violation>) -> String {
    match text::account_email(text) {
        Ok(email) => email,
        Err(detail) => {
            violations.push(Violation::at("/email", "invalid_email", detail));
            String::new()
        }
    }
}

/// Makes an account. Whether there is one already is asked under a lock on the address: see [`lock_address`].
async fn create_account(
    transaction: &DatabaseTransaction,
    email: &str,
    name: String,
    password_hash: String,
) -> Result<user::Model, Error> {
    let now = Utc::now();
    let account = user::ActiveModel {
        id: Set(UserId::new()),
        email: Set(email.to_owned()),
        name: Set(name),
        password_hash: Set(password_hash),
        created_at: Set(now),
        updated_at: Set(now),
        revision: Set(1),
    };
    crate::answered(user::Entity::insert(account).exec_with_returning(transaction)).await
}

/// Makes a membership.
///
/// # Errors
/// [`Error::AlreadyMember`].
async fn join(
    transaction: &DatabaseTransaction,
    user: &user::Model,
    organization: OrganizationId,
    role: Role,
) -> Result<MemberRow, Error> {
    let known = membership::Entity::find_by_id((user.id, organization)).one(transaction);
    if crate::answered(known).await?.is_some() {
        return Err(Error::AlreadyMember);
    }
    let row = membership::ActiveModel {
        user_id: Set(user.id),
        organization_id: Set(organization),
        role: Set(role),
        created_at: Set(Utc::now()),
        revision: Set(1),
        position: Set(Uuid::now_v7()),
    };
    let row = crate::answered(membership::Entity::insert(row).exec_with_returning(transaction)).await?;
    Ok(MemberRow::new(&row, user))
}

/// One at a time makes an account of an address, or looks whether there is one.
async fn lock_address(transaction: &DatabaseTransaction, email: &str) -> Result<(), Error> {
    use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

    let lock = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
        [format!("account:{}", email.to_lowercase()).into()],
    );
    crate::answered(transaction.execute_raw(lock)).await?;
    Ok(())
}

/// The name of an account that was given none: what stands before the `@`.
fn name_of(email: &str) -> String {
    email.split('@').next().unwrap_or(email).to_owned()
}

/// A chosen name of an account.
fn check_name(name: Option<&str>, violations: &mut Vec<Violation>) -> Option<String> {
    name.and_then(|name| {
        text::display_name(name)
            .map_err(|violation| violations.push(violation))
            .ok()
    })
}

/// Whether a user is a member of an organization that the caller can see.
async fn is_known_to(
    transaction: &DatabaseTransaction,
    identity: &Identity,
    user: UserId,
) -> Result<bool, Error> {
    let seen = membership::Entity::find()
        .filter(identity.sees("memberships.organization_id"))
        .filter(membership::Column::UserId.eq(user));
    Ok(crate::answered(seen.one(transaction)).await?.is_some())
}
