//! Reading tenants: one, or a page of a list.

use entity::{id::TenantId, tenant};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};

use super::{TenantFilter, TenantRow};
use crate::{caller::Rows, error::Error, paging::Page, permissions::Permission, reader::Reader};

/// The tenants that a reader can see: those of its organization and of the ones below.
#[derive(Debug)]
pub struct TenantReader<'r, P> {
    reader: &'r Reader<P>,
}

impl<'r, P: Permission> TenantReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    fn visible(&self, rows: Rows) -> sea_orm::Select<tenant::Entity> {
        tenant::Entity::find().filter(self.reader.sees(rows, "tenants.organization_id"))
    }

    /// One tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: TenantId) -> Result<TenantRow, Error> {
        let (_, found) = self
            .reader
            .rows(self.visible(Rows::ByKey).filter(tenant::Column::Id.eq(id)), None)
            .await?;
        found.into_iter().next().ok_or(Error::NotFound)
    }

    /// A page, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &TenantFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<TenantRow>, Error> {
        let list = ("tenants", filter);
        let mut query = self.visible(Rows::Any);
        if let Some(status) = filter.status {
            query = query.filter(tenant::Column::Status.eq(status));
        }
        if let Some(slug) = &filter.slug {
            query = query.filter(tenant::Column::Slug.eq(slug.as_str()));
        }
        if let Some(organization) = filter.organization {
            query = query.filter(tenant::Column::OrganizationId.eq(organization));
        }
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(tenant::Column::Id.lt(after));
        }
        let query = query.order_by_desc(tenant::Column::Id);
        let (_, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        Ok(self.reader.page(&list, limit, rows, |row| row.id.0))
    }
}
