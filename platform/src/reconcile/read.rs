//! Reading what is not as it should be.

use entity::{drift, values::DriftKind};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde::Serialize;

use crate::{error::Error, paging::Page, permissions::ReadDrift, reader::Reader};

pub use drift::Model as DriftRow;

/// Which rows a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DriftFilter {
    /// Of this kind.
    pub kind: Option<DriftKind>,
}

/// What is not as it should be, for the platform's operator: it belongs to no organization, so that only a reader with
/// this very permission gets here.
#[derive(Debug)]
pub struct DriftReader<'r> {
    reader: &'r Reader<ReadDrift>,
}

impl<'r> DriftReader<'r> {
    pub(crate) fn new(reader: &'r Reader<ReadDrift>) -> Self {
        Self { reader }
    }

    /// A page, what was found last first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &DriftFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<DriftRow>, Error> {
        let (organization, list) = (self.reader.claims().org, ("drift", filter));
        let tokens = self.reader.platform().page_tokens();
        let mut query = drift::Entity::find();
        if let Some(kind) = filter.kind {
            query = query.filter(drift::Column::Kind.eq(kind.as_str()));
        }
        if let Some(token) = page_token {
            query = query.filter(drift::Column::Id.lt(tokens.read(organization, &list, token)?));
        }
        let query = query.order_by_desc(drift::Column::Id);
        let (_, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        Ok(tokens.page(organization, &list, limit, rows, |row| row.id.0))
    }
}
