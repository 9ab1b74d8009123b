//! Reading API keys: one, or a page of a list. Never their secrets, which nobody knows.

use entity::{
    api_key,
    id::{ApiKeyId, OrganizationId},
};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde::Serialize;

use super::ApiKeyRow;
use crate::{caller::Rows, error::Error, paging::Page, permissions::Permission, reader::Reader};

/// Which keys a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ApiKeyFilter {
    /// Of this organization alone.
    pub organization: Option<OrganizationId>,
}

/// The API keys that a reader can see: those of its organization and of the ones below.
#[derive(Debug)]
pub struct ApiKeyReader<'r, P> {
    reader: &'r Reader<P>,
}

impl<'r, P: Permission> ApiKeyReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    fn visible(&self, rows: Rows) -> sea_orm::Select<api_key::Entity> {
        api_key::Entity::find().filter(self.reader.sees(rows, "api_keys.organization_id"))
    }

    /// One key.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: ApiKeyId) -> Result<ApiKeyRow, Error> {
        let query = self.visible(Rows::ByKey).filter(api_key::Column::Id.eq(id));
        let (_, found) = self.reader.rows(query, None).await?;
        found.into_iter().next().ok_or(Error::NotFound)
    }

    /// A page, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &ApiKeyFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<ApiKeyRow>, Error> {
        let list = ("api-keys", filter);
        let mut query = self.visible(Rows::Any);
        if let Some(organization) = filter.organization {
            query = query.filter(api_key::Column::OrganizationId.eq(organization));
        }
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(api_key::Column::Id.lt(after));
        }
        let query = query.order_by_desc(api_key::Column::Id);
        let (_, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        Ok(self.reader.page(&list, limit, rows, |row| row.id.0))
    }
}
