//! Writing events.

use chrono::{DateTime, Utc};
use entity::id::{ApiKeyId, AuditEventId, Id as _, InvitationId, OrganizationId, SessionId, UserId};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Platform,
    auth::{Actor, Credential},
    caller::{Identity, Origin},
    error::Error,
    operations::Target,
};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Something that operations work on.
    Of(Target),
    /// A person.
    User(UserId),
    /// A session of one.
    Session(SessionId),
    /// An invitation.
    Invitation(InvitationId),
    /// An API key.
    ApiKey(ApiKeyId),
    /// An operation.
    Operation(entity::id::OperationId),
}

impl Subject {
    /// The columns' values.
    pub(crate) fn columns(self) -> (&'static str, Uuid) {
        match self {
            Self::Of(target) => (target.kind(), target.uuid()),
            Self::User(id) => ("user", id.0),
            Self::Session(id) => ("session", id.0),
            Self::Invitation(id) => ("invitation", id.0),
            Self::ApiKey(id) => ("api_key", id.0),
            Self::Operation(id) => ("operation", id.0),
        }
    }

    /// Reads the columns back, as an id with its prefix.
    pub(crate) fn id_text(kind: &str, id: Uuid) -> Option<String> {
        Some(match kind {
            "user" => UserId(id).to_string(),
            "session" => SessionId(id).to_string(),
            "invitation" => InvitationId(id).to_string(),
            "api_key" => ApiKeyId(id).to_string(),
            "operation" => entity::id::OperationId(id).to_string(),
            other => Target::of_columns(other, id)?.id_text(),
        })
    }

    /// Reads an id of any kind that an event can be about.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (prefix, _) = text.split_once('_')?;
        Some(match prefix {
            UserId::PREFIX => Self::User(text.parse().ok()?),
            SessionId::PREFIX => Self::Session(text.parse().ok()?),
            InvitationId::PREFIX => Self::Invitation(text.parse().ok()?),
            ApiKeyId::PREFIX => Self::ApiKey(text.parse().ok()?),
            entity::id::OperationId::PREFIX => Self::Operation(text.parse().ok()?),
            _ => Self::Of(Target::parse(text)?),
        })
    }

    /// The column that tells whose a thing of this kind is; none for what belongs to a person or to the platform.
    fn owner_column(self) -> Option<&'static str> {
        Some(match self {
            Self::Of(Target::Tenant(_)) => "SELECT organization_id FROM tenants WHERE id = $1",
            Self::Of(Target::Organization(_)) => "SELECT id FROM organizations WHERE id = $1",
            Self::Operation(_) => "SELECT scope FROM operations WHERE id = $1",
            Self::Invitation(_) => "SELECT organization_id FROM invitations WHERE id = $1",
            Self::ApiKey(_) => "SELECT organization_id FROM api_keys WHERE id = $1",
            Self::Of(Target::Pool(_) | Target::Template(_) | Target::DatabaseServer(_))
            | Self::User(_)
            | Self::Session(_) => return None,
        })
    }
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Whose log: the organization that owns the target.
    pub organization: OrganizationId,
    /// On what.
    pub subject: Option<Subject>,
    /// How it was before, without secrets.
    pub before: Option<Value>,
    /// How it is now, without secrets.
    pub after: Option<Value>,
}

/// Who did it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doer {
    pub kind: &'static str,
    pub id: Option<Uuid>,
    pub organization: Option<OrganizationId>,
}

impl Doer {
    /// Somebody who showed no credential that could be believed.
    pub(crate) const NOBODY: Self = Self {
        kind: "nobody",
        id: None,
        organization: None,
    };

    /// A person, by the organization through which it acts.
    pub(crate) fn user(id: UserId, organization: OrganizationId) -> Self {
        Self {
            kind: "user",
            id: Some(id.0),
            organization: Some(organization),
        }
    }

    fn of(actor: Actor, organization: OrganizationId) -> Self {
        match actor {
            Actor::User { id, .. } => Self::user(id, organization),
            Actor::ApiKey(id) => Self {
                kind: "api_key",
                id: Some(id.0),
                organization: Some(organization),
            },
        }
    }
}

/// A whole event.
#[derive(Debug)]
pub(crate) struct Event<'e> {
    pub doer: Doer,
    pub origin: &'e Origin,
    /// The error's code, if it was refused.
    pub refused: Option<&'e str>,
    pub entry: Entry,
}

/// Writes down what a caller has done, in the transaction that does it.
///
/// # Errors
/// The database doesn't answer.
pub(crate) async fn record(
    transaction: &DatabaseTransaction,
    identity: &Identity,
    entry: Entry,
) -> Result<(), Error> {
    let event = Event {
        doer: Doer::of(identity.actor, identity.organization),
        origin: &identity.origin,
        refused: None,
        entry,
    };
    write(transaction, event).await
}

/// Writes an event. The name of whoever did it is written too: it is what the log's readers know them by.
///
/// # Errors
/// The database doesn't answer.
pub(crate) async fn write(database: &impl ConnectionTrait, event: Event<'_>) -> Result<(), Error> {
    const WRITE: &str = "
        WITH event AS (
            INSERT INTO audit_events (id, organization_id, occurred_at, action, outcome, reason, actor_type, actor_id,
                                      actor_name, actor_organization_id, target_type, target_id, before, after,
                                      address, request_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
                    CASE $7 WHEN 'user' THEN (SELECT email FROM users WHERE id = $8)
                            WHEN 'api_key' THEN (SELECT name FROM api_keys WHERE id = $8) END,
                    $9, $10, $11, $12, $13, $14, $15)
        ), unsealed AS (
            INSERT INTO audit_unsealed (event_id, organization_id) VALUES ($1, $2)
        )
        SELECT pg_notify('audit_unsealed', '')::text";

    let Event {
        doer,
        origin,
        refused,
        entry,
    } = event;
    let (target_type, target_id) = entry.subject.map(Subject::columns).unzip();
    let values = [
        AuditEventId::new().into(),
        entry.organization.into(),
        now_in_micros().into(),
        origin.action.into(),
        if refused.is_some() { "refused" } else { "succeeded" }.into(),
        refused.into(),
        doer.kind.into(),
        doer.id.into(),
        doer.organization.map(|id| id.0).into(),
        target_type.into(),
        target_id.into(),
        entry.before.into(),
        entry.after.into(),
        origin.address.to_string().into(),
        (!origin.request_id.is_empty())
            .then_some(&*origin.request_id)
            .into(),
    ];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, WRITE, values);
    crate::answered(database.query_one_raw(statement)).await?;
    Ok(())
}

/// Postgres keeps microseconds; what is hashed must be what is kept.
fn now_in_micros() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

impl Platform {
    /// Writes down that something was refused, in a transaction of its own. `thing` is the id in the request's path.
    /// What can't be written is logged: a refusal stays one.
    pub async fn record_refusal(
        &self,
        credential: &Credential,
        origin: &Origin,
        thing: Option<&str>,
        reason: &'static str,
    ) {
        let subject = thing.and_then(Subject::parse);
        let outcome = async {
            let organization = self.log_of(credential.organization(), subject).await?;
            let event = Event {
                doer: Doer::of(credential.actor(), credential.organization()),
                origin,
                refused: Some(reason),
                entry: Entry {
                    organization,
                    subject,
                    before: None,
                    after: None,
                },
            };
            write(self.database(), event).await
        };
        if let Err(error) = outcome.await {
            tracing::error!(%error, request_id = &*origin.request_id, action = origin.action, reason, "a refusal is not in the audit log");
        }
    }

    /// In whose log a refusal stands: the owner's of the thing, if the caller can see it, else in the caller's own.
    async fn log_of(
        &self,
        caller: OrganizationId,
        subject: Option<Subject>,
    ) -> Result<OrganizationId, Error> {
        let Some((subject, owner)) = subject.and_then(|subject| Some((subject, subject.owner_column()?)))
        else {
            return Ok(caller);
        };
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            format!(
                "SELECT up.organization_id FROM organization_ancestors up \
                  WHERE up.organization_id = ({owner}) AND up.ancestor_id = $2"
            ),
            [subject.columns().1.into(), caller.into()],
        );
        let row = crate::answered(self.database().query_one_raw(statement)).await?;
        Ok(row
            .map(|row| row.try_get("", "organization_id"))
            .transpose()?
            .unwrap_or(caller))
    }
}
