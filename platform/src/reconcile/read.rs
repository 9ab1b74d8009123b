//! Reading what is not as it should be.

use entity::{drift, values::DriftKind};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use serde::Serialize;

use crate::{Platform, caller::Identity, error::Error, paging::Page};

pub use drift::Model as DriftRow;

/// Which rows a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DriftFilter {
    /// Of this kind.
    pub kind: Option<DriftKind>,
}

/// What is not as it should be, for the platform's operator: it belongs to no organization, so that only a caller with
/// this very permission gets here. That is asked for beforehand, and not in the statement that reads: most callers lack
/// it, and are told so before they are told what is wrong with their request.
#[derive(Debug)]
pub struct DriftReader<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> DriftReader<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
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
        let (organization, list) = (self.identity.organization, ("drift", filter));
        let tokens = self.platform.page_tokens();
        let mut query = drift::Entity::find();
        if let Some(kind) = filter.kind {
            query = query.filter(drift::Column::Kind.eq(kind.as_str()));
        }
        if let Some(token) = page_token {
            query = query.filter(drift::Column::Id.lt(tokens.read(organization, &list, token)?));
        }
        let query = query.order_by_desc(drift::Column::Id).limit(u64::from(limit) + 1);
        let rows = crate::answered(query.all(self.platform.database())).await?;
        Ok(tokens.page(organization, &list, limit, rows, |row| row.id.0))
    }
}
