//! Reading members: one, or a page of a list.

use entity::{
    id::{OrganizationId, UserId},
    membership, user,
    values::Role,
};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, JoinType, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Select,
    sea_query::{Expr, SimpleExpr},
};
use serde::Serialize;

use super::MemberRow;
use crate::{caller::Rows, error::Error, paging::Page, permissions::Permission, reader::Reader};

/// Which members a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemberFilter {
    /// Of this organization alone.
    pub organization: Option<OrganizationId>,
    /// With this role.
    pub role: Option<Role>,
    /// With this e-mail address.
    pub email: Option<String>,
}

/// The members that a reader can see: those of its organization and of the ones below.
#[derive(Debug)]
pub struct MemberReader<'r, P> {
    reader: &'r Reader<P>,
}

/// Where a membership is.
pub(super) const ORGANIZATION: &str = "memberships.organization_id";

/// The memberships of organizations that a caller `sees`, with their users' names.
fn visible(sees: SimpleExpr) -> Select<membership::Entity> {
    membership::Entity::find()
        .column_as(user::Column::Email, "email")
        .column_as(user::Column::Name, "name")
        .column_as(user::Column::Revision, "user_revision")
        .join(
            JoinType::InnerJoin,
            membership::Entity::belongs_to(user::Entity)
                .from(membership::Column::UserId)
                .to(user::Column::Id)
                .into(),
        )
        .filter(sees)
}

/// The memberships of one user that a caller sees: in one organization, or in all.
pub(super) fn find(
    sees: SimpleExpr,
    organization: Option<OrganizationId>,
    user: UserId,
) -> Select<membership::Entity> {
    let found = visible(sees).filter(membership::Column::UserId.eq(user));
    match organization {
        Some(organization) => found.filter(membership::Column::OrganizationId.eq(organization)),
        None => found,
    }
}

/// The only membership. A change names the organization where there are several, even if one is the caller's own: sent
/// again after its answer was lost, it must not reach the next one.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::MemberOfSeveral`].
pub(super) fn the_only(mut found: Vec<MemberRow>) -> Result<MemberRow, Error> {
    if found.len() > 1 {
        let several = found.iter().map(|member| member.organization_id).collect();
        return Err(Error::MemberOfSeveral(several));
    }
    found.pop().ok_or(Error::NotFound)
}

/// The membership to be shown where no organization was named: the caller's own organization's, or the only one.
///
/// # Errors
/// As [`the_only`].
fn the_nearest(mut found: Vec<MemberRow>, own: OrganizationId) -> Result<MemberRow, Error> {
    match found.iter().position(|member| member.organization_id == own) {
        Some(at) => Ok(found.swap_remove(at)),
        None => the_only(found),
    }
}

impl<'r, P: Permission> MemberReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    /// One member.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::MemberOfSeveral`] where no organization is named and the user is a member of several.
    pub async fn get(&self, organization: Option<OrganizationId>, user: UserId) -> Result<MemberRow, Error> {
        let own = self.reader.organization();
        let query = find(self.reader.sees(Rows::ByKey, ORGANIZATION), organization, user);
        let (_, found) = self.reader.rows_as(&query, None).await?;
        the_nearest(found, own)
    }

    /// A page, who came last first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &MemberFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<MemberRow>, Error> {
        let list = ("members", filter);
        let mut query = visible(self.reader.sees(Rows::Any, ORGANIZATION));
        if let Some(organization) = filter.organization {
            query = query.filter(membership::Column::OrganizationId.eq(organization));
        }
        if let Some(role) = filter.role {
            query = query.filter(membership::Column::Role.eq(role));
        }
        if let Some(email) = &filter.email {
            query = query.filter(Expr::cust_with_values(
                "lower(users.email) = $1",
                [email.to_lowercase()],
            ));
        }
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(membership::Column::Position.lt(after));
        }
        let query = query.order_by_desc(membership::Column::Position);
        let (_, rows) = self.reader.rows_as(&query, Some(u64::from(limit) + 1)).await?;
        Ok(self
            .reader
            .page(&list, limit, rows, |row: &MemberRow| row.position))
    }
}
