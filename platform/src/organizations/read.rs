//! Reading organizations: one, or a page of a list.

use entity::{id::OrganizationId, organization};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde::Serialize;

use super::OrganizationRow;
use crate::{caller::Rows, error::Error, paging::Page, permissions::Permission, reader::Reader};

/// Which organizations a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OrganizationFilter {
    /// Right below this one.
    pub parent: Option<OrganizationId>,
}

/// The organizations that a reader can see: its own and those below.
#[derive(Debug)]
pub struct OrganizationReader<'r, P> {
    reader: &'r Reader<P>,
}

impl<'r, P: Permission> OrganizationReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    fn visible(&self, rows: Rows) -> sea_orm::Select<organization::Entity> {
        organization::Entity::find()
            .filter(self.reader.sees(rows, "organizations.id"))
            .filter(organization::Column::DeletedAt.is_null())
    }

    /// The caller's own organization, above which it sees nothing.
    #[must_use]
    pub fn own(&self) -> OrganizationId {
        self.reader.organization()
    }

    /// One organization.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: OrganizationId) -> Result<OrganizationRow, Error> {
        let query = self.visible(Rows::ByKey).filter(organization::Column::Id.eq(id));
        let (_, found) = self.reader.rows(query, None).await?;
        found.into_iter().next().ok_or(Error::NotFound)
    }

    /// A page, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &OrganizationFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<OrganizationRow>, Error> {
        let list = ("organizations", filter);
        let mut query = self.visible(Rows::Any);
        if let Some(parent) = filter.parent {
            // Above the caller's own it sees nothing, and the own one is below nothing that it sees.
            query = query
                .filter(organization::Column::ParentId.eq(parent))
                .filter(organization::Column::Id.ne(self.reader.organization()));
        }
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(organization::Column::Id.lt(after));
        }
        let query = query.order_by_desc(organization::Column::Id);
        let (_, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        Ok(self.reader.page(&list, limit, rows, |row| row.id.0))
    }
}
