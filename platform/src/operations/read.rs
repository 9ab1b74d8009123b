//! Reading operations: one, a page, one that has changed.

use std::time::Duration;

use entity::id::OperationId;
use jobs::{
    Watcher,
    entity::{job_step, operation},
};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use tokio::time::Instant;

use super::{OperationFilter, OperationRow, StepRow};
use crate::{
    caller::{Identity, Rows},
    error::Error,
    paging::Page,
    permissions::Permission,
    reader::Reader,
};

/// How long a wait or a stream trusts what it knows of its caller: then session and membership are asked for again.
const TRUST: Duration = Duration::from_secs(5);

/// The operations that a reader can see: those of its organization and the ones below, as the tree was when they began.
#[derive(Debug)]
pub struct OperationReader<'r, P> {
    reader: &'r Reader<P>,
}

impl<'r, P: Permission> OperationReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    fn visible(&self, rows: Rows) -> sea_orm::Select<operation::Entity> {
        operation::Entity::find().filter(self.reader.sees(rows, "operations.scope"))
    }

    /// One operation, and who asks.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: OperationId) -> Result<(Identity, OperationRow), Error> {
        let (identity, found) = self
            .reader
            .rows(
                self.visible(Rows::ByKey).filter(operation::Column::Id.eq(id.0)),
                None,
            )
            .await?;
        Ok((identity, found.into_iter().next().ok_or(Error::NotFound)?))
    }

    /// The steps of an operation that has been read: those that have come to an end, in order.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn steps(&self, operation: &OperationRow) -> Result<Vec<StepRow>, Error> {
        Ok(job_step::Entity::find()
            .filter(job_step::Column::OperationId.eq(operation.id))
            .order_by_asc(job_step::Column::Position)
            .all(self.reader.platform().database())
            .await?)
    }

    /// Waits until an operation has ended or the deadline has come, and answers how it is then. Holds no database
    /// connection while it waits.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unauthenticated`] or [`Error::Forbidden`] within seconds of the caller's losing
    /// the right to wait.
    pub async fn settled(
        &self,
        watcher: &Watcher,
        id: OperationId,
        deadline: Instant,
    ) -> Result<(Identity, OperationRow), Error> {
        loop {
            let (identity, row) = self.get(id).await?;
            if row.status.is_terminal() || Instant::now() >= deadline {
                return Ok((identity, row));
            }
            let look = deadline.min(Instant::now() + TRUST);
            watcher.changed(id.0, row.revision, look).await?;
        }
    }

    /// Waits until an operation's revision is above `since` and answers it; `None` at the deadline. Holds no database
    /// connection while it waits.
    ///
    /// # Errors
    /// As [`OperationReader::settled`].
    pub async fn changed(
        &self,
        watcher: &Watcher,
        id: OperationId,
        since: i64,
        deadline: Instant,
    ) -> Result<Option<(Identity, OperationRow)>, Error> {
        loop {
            let (identity, row) = self.get(id).await?;
            if row.revision > since {
                return Ok(Some((identity, row)));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let look = deadline.min(Instant::now() + TRUST);
            watcher.changed(id.0, since, look).await?;
        }
    }

    /// A page, newest first, and who asks.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &OperationFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<(Identity, Page<OperationRow>), Error> {
        let list = ("operations", filter);
        let mut query = self.visible(Rows::Any);
        if let Some(ids) = &filter.ids {
            query = query.filter(operation::Column::Id.is_in(ids.iter().map(|id| id.0)));
        }
        if let Some(status) = filter.status {
            query = query.filter(operation::Column::Status.eq(status));
        }
        if let Some(kind) = &filter.kind {
            query = query.filter(operation::Column::Kind.eq(kind.as_str()));
        }
        if let Some(target) = filter.target {
            query = query.filter(operation::Column::TargetId.eq(target));
        }
        if let Some(retryable) = filter.retryable {
            let dead = operation::Column::DeadAt;
            query = query.filter(if retryable {
                dead.is_not_null()
            } else {
                dead.is_null()
            });
        }
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(operation::Column::Id.lt(after));
        }
        let query = query.order_by_desc(operation::Column::Id);
        let (identity, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        let page = self.reader.page(&list, limit, rows, |row| row.id);
        Ok((identity, page))
    }
}
