//! Reading the log: a page, or all of it in a stream.

use chrono::{DateTime, Utc};
use entity::id::{AuditEventId, OrganizationId};
use sea_orm::{DbBackend, FromQueryResult, Statement, Value};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{EventRow, Subject};
use crate::{error::Error, paging::Page, permissions::Permission, reader::Reader};

/// Events that an export reads at once.
const EXPORT_BATCH: u64 = 500;

/// Which events a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditFilter {
    /// In this organization's log alone.
    pub organization: Option<OrganizationId>,
    /// Done by this user or key.
    pub actor: Option<Uuid>,
    /// Asked for under this name.
    pub action: Option<String>,
    /// On this.
    pub target: Option<Uuid>,
    /// Done, or refused.
    pub outcome: Option<&'static str>,
    /// Not earlier.
    pub since: Option<DateTime<Utc>>,
    /// Earlier.
    pub until: Option<DateTime<Utc>>,
}

/// An event and its place in the chain, once it has one.
#[derive(Debug, FromQueryResult)]
pub struct SealedEvent {
    /// The event.
    #[sea_orm(nested)]
    pub event: EventRow,
    /// Its number in its organization's chain, from 1.
    pub sequence: Option<i64>,
    /// The hash of it and all before it.
    pub hash: Option<Vec<u8>>,
}

/// The id of an event's target, with its prefix.
#[must_use]
pub fn target_text(row: &EventRow) -> Option<String> {
    Subject::id_text(row.target_type.as_deref()?, row.target_id?)
}

/// The id of whoever did it, with its prefix.
#[must_use]
pub fn actor_text(row: &EventRow) -> Option<String> {
    Subject::id_text(&row.actor_type, row.actor_id?)
}

/// An event as it leaves the platform, without its place in the chain.
pub(super) fn plain(row: &EventRow) -> serde_json::Value {
    let EventRow {
        id,
        organization_id,
        occurred_at,
        action,
        outcome,
        reason,
        actor_type,
        actor_id: _,
        actor_name,
        actor_organization_id,
        target_type,
        target_id: _,
        before,
        after,
        address,
        request_id,
    } = row;
    json!({
        "id": id,
        "organization_id": organization_id,
        "occurred_at": occurred_at,
        "action": action,
        "outcome": outcome,
        "reason": reason,
        "actor": {
            "type": actor_type,
            "id": actor_text(row),
            "name": actor_name,
            "organization_id": actor_organization_id,
        },
        "target": target_type.as_ref().map(|kind| json!({ "type": kind, "id": target_text(row) })),
        "before": before,
        "after": after,
        "address": address,
        "request_id": request_id,
    })
}

/// The log that a reader can see: that of its organization and of those below.
#[derive(Debug)]
pub struct AuditReader<'r, P> {
    pub(super) reader: &'r Reader<P>,
}

/// Conditions with their parameters.
struct Conditions {
    texts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, text: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.texts
            .push(text.replace('?', &format!("${}", self.values.len())));
    }
}

impl<'r, P: Permission> AuditReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    fn conditions(&self, filter: &AuditFilter) -> Conditions {
        let AuditFilter {
            organization,
            actor,
            action,
            target,
            outcome,
            since,
            until,
        } = filter;
        let mut all = Conditions {
            texts: Vec::new(),
            values: Vec::new(),
        };
        all.add(
            "EXISTS (SELECT FROM organization_ancestors up \
              WHERE up.organization_id = e.organization_id AND up.ancestor_id = ?)",
            self.reader.organization(),
        );
        if let Some(organization) = organization {
            all.add("e.organization_id = ?", *organization);
        }
        if let Some(actor) = actor {
            all.add("e.actor_id = ?", *actor);
        }
        if let Some(action) = action {
            all.add("e.action = ?", action.as_str());
        }
        if let Some(target) = target {
            all.add("e.target_id = ?", *target);
        }
        if let Some(outcome) = outcome {
            all.add("e.outcome = ?", *outcome);
        }
        if let Some(since) = since {
            all.add("e.occurred_at >= ?", *since);
        }
        if let Some(until) = until {
            all.add("e.occurred_at < ?", *until);
        }
        all
    }

    async fn read(&self, conditions: Conditions, order: &str, limit: u64) -> Result<Vec<SealedEvent>, Error> {
        let sql = format!(
            "SELECT e.*, s.sequence, s.hash FROM audit_events e LEFT JOIN audit_seals s ON s.event_id = e.id \
              WHERE {} ORDER BY e.id {order}",
            conditions.texts.join(" AND ")
        );
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, conditions.values);
        let (_, rows) = self.reader.rows_of(statement, Some(limit)).await?;
        Ok(rows)
    }

    /// A page, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &AuditFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<SealedEvent>, Error> {
        let list = ("audit-events", filter);
        let mut conditions = self.conditions(filter);
        if let Some(after) = self.reader.after(&list, page_token)? {
            conditions.add("e.id < ?", after);
        }
        let rows = self.read(conditions, "DESC", u64::from(limit) + 1).await?;
        Ok(self.reader.page(&list, limit, rows, |row| row.event.id.0))
    }

    /// The events after one, oldest first; as many as are read at once. None: there are no more. Whether the caller may
    /// still read them is asked each time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub async fn export(
        &self,
        filter: &AuditFilter,
        after: Option<AuditEventId>,
    ) -> Result<Vec<SealedEvent>, Error> {
        let mut conditions = self.conditions(filter);
        if let Some(after) = after {
            conditions.add("e.id > ?", after);
        }
        self.read(conditions, "ASC", EXPORT_BATCH).await
    }
}

/// Reads an id of any kind that the log knows.
#[must_use]
pub fn parse_id(text: &str) -> Option<Uuid> {
    Subject::parse(text).map(|subject| subject.columns().1)
}
