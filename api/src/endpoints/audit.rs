//! The audit log.

use actix_web::{http::Method, web};
use chrono::{DateTime, Datelike as _, Utc};
use futures::stream;
use platform::{
    audit::{AuditFilter, SealedEvent, actor_text, target_text},
    error::Violation,
    id::{AuditEventId, OrganizationId},
    permissions::ReadAuditEvents,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::operations::checked_limit;
use crate::{
    problem::{ApiError, ErrorCode},
    route::{Endpoint, Lines, Query, Reads, Reply, endpoint},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/audit-events", "list_audit_events")
            .tag("audit")
            .about(
                "List audit events",
                "What was done and what was refused in the caller's organization and in those below it, newest first.",
            )
            .to(list),
        endpoint(Method::GET, "/v1/audit-events/export", "export_audit_events")
            .tag("audit")
            .about(
                "Export audit events",
                "All events that fit the filters, oldest first, as a stream of JSON objects, one a line. An export that \
                 breaks off is not whole: ask again with `since`.",
            )
            .to(export),
        endpoint(Method::GET, "/v1/audit-events/verify", "verify_audit_events")
            .tag("audit")
            .about(
                "Verify the audit log",
                "Checks the hash chain of one organization, or of the caller's and all below it: every event, in its \
                 place, as it was sealed. Stops at the first that was changed, removed, moved or put in.",
            )
            .errors(&[ErrorCode::NotFound])
            .to(verify),
    ]
}

/// Something that was done, or refused.
#[derive(Serialize, ToSchema)]
struct AuditEvent {
    /// The event.
    id: AuditEventId,
    /// In whose log it stands: the organization that owns the target.
    organization_id: OrganizationId,
    /// When.
    occurred_at: DateTime<Utc>,
    /// What was asked for: an `operationId` of this document.
    #[schema(example = "create_tenant")]
    action: String,
    /// Whether it was done. New values may appear.
    #[schema(example = "succeeded", extensions(("x-extensible-enum" = json!(["succeeded", "refused"]))))]
    outcome: String,
    /// The code of the error that refused it.
    #[schema(required, example = "forbidden")]
    reason: Option<String>,
    /// Who asked.
    actor: AuditActor,
    /// On what.
    #[schema(required)]
    target: Option<AuditTarget>,
    /// How it was before, without secrets.
    #[schema(required, value_type = Option<Object>)]
    before: Option<Value>,
    /// How it was afterwards, without secrets.
    #[schema(required, value_type = Option<Object>)]
    after: Option<Value>,
    /// Where the request came from.
    #[schema(required, example = "192.0.2.7")]
    address: Option<String>,
    /// The request.
    #[schema(required, pattern = "^[A-Za-z0-9._-]{1,128}$")]
    request_id: Option<String>,
    /// Its number in its organization's chain, from 1; null for a second or so, until it is sealed.
    #[schema(required, example = 42)]
    sequence: Option<i64>,
    /// SHA-256 of the hash before it and the event, in hexadecimal.
    #[schema(
        required,
        example = "5f70a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e"
    )]
    hash: Option<String>,
}

/// Who asked for something.
#[derive(Serialize, ToSchema)]
struct AuditActor {
    /// What they are. New kinds may appear.
    #[schema(example = "user", extensions(("x-extensible-enum" = json!(["user", "api_key", "nobody", "platform"]))))]
    r#type: String,
    /// The user or the key; null for nobody.
    #[schema(
        required,
        example = "usr_01jdjyfyh1fe82gqsfsks1j4x4",
        pattern = "^(usr|key)_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    id: Option<String>,
    /// The e-mail address or the key's name, as it was then.
    #[schema(required, example = "owner@example.com")]
    name: Option<String>,
    /// Through which organization.
    #[schema(required)]
    organization_id: Option<OrganizationId>,
}

/// What something was done to.
#[derive(Serialize, ToSchema)]
struct AuditTarget {
    /// What kind of thing. New kinds may appear.
    #[schema(example = "tenant")]
    r#type: String,
    /// Its id.
    #[schema(
        required,
        example = "ten_01jdjyfyh1fe82gqsfsks1j4x4",
        pattern = "^[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    id: Option<String>,
}

impl From<SealedEvent> for AuditEvent {
    fn from(sealed: SealedEvent) -> Self {
        let SealedEvent {
            event,
            sequence,
            hash,
        } = sealed;
        Self {
            actor: AuditActor {
                id: actor_text(&event),
                r#type: event.actor_type.clone(),
                name: event.actor_name.clone(),
                organization_id: event.actor_organization_id,
            },
            target: event.target_type.clone().map(|kind| AuditTarget {
                r#type: kind,
                id: target_text(&event),
            }),
            id: event.id,
            organization_id: event.organization_id,
            occurred_at: event.occurred_at,
            action: event.action,
            outcome: event.outcome,
            reason: event.reason,
            before: event.before,
            after: event.after,
            address: event.address,
            request_id: event.request_id,
            sequence,
            hash: hash.map(|hash| hex(&hash)),
        }
    }
}

/// A page of audit events.
#[derive(Serialize, ToSchema)]
struct AuditEventPage {
    /// The events, newest first.
    items: Vec<AuditEvent>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

/// What a check of the log found.
#[derive(Serialize, ToSchema)]
struct AuditVerdict {
    /// Whether all is as it was sealed.
    valid: bool,
    /// Events that were checked.
    #[schema(example = 1024)]
    checked: u64,
    /// Events that are not sealed yet, and so not checked.
    unsealed: u64,
    /// The last hash of the organization's chain, in hexadecimal. Whoever noted an earlier one finds it in the export.
    #[schema(required)]
    head: Option<String>,
    /// The first event that is not as it was; null where all are, or where the end of a chain is missing.
    #[schema(required)]
    first_bad: Option<AuditEventId>,
    /// What is wrong with it. New values may appear.
    #[schema(required, example = "changed", extensions(("x-extensible-enum" = json!(["changed", "removed", "gap", "moved", "forged", "inserted", "end_missing"]))))]
    first_bad_reason: Option<&'static str>,
    /// In whose log it stands.
    #[schema(required)]
    first_bad_organization_id: Option<OrganizationId>,
    /// In which place.
    #[schema(required)]
    first_bad_sequence: Option<i64>,
}

#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum OutcomeFilter {
    Succeeded,
    Refused,
}

/// Which events, and how many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListAuditEvents {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those in this organization's log.
    organization_id: Option<OrganizationId>,
    /// Only what this user or API key asked for.
    #[param(pattern = "^(usr|key)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    actor_id: Option<String>,
    /// Only this, by its `operationId`.
    #[param(example = "create_tenant", pattern = "^[^\\x00]*$")]
    action: Option<String>,
    /// Only what was done to this.
    #[param(pattern = "^(ten|org|usr|ses|inv|key|op|pool|tpl|dbs)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    target_id: Option<String>,
    /// Only what was done, or only what was refused.
    #[param(inline)]
    outcome: Option<OutcomeFilter>,
    /// Not earlier than this.
    since: Option<DateTime<Utc>>,
    /// Earlier than this.
    until: Option<DateTime<Utc>>,
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExportAuditEvents {
    /// Only those in this organization's log.
    organization_id: Option<OrganizationId>,
    /// Only what this user or API key asked for.
    #[param(pattern = "^(usr|key)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    actor_id: Option<String>,
    /// Only this, by its `operationId`.
    #[param(example = "create_tenant", pattern = "^[^\\x00]*$")]
    action: Option<String>,
    /// Only what was done to this.
    #[param(pattern = "^(ten|org|usr|ses|inv|key|op|pool|tpl|dbs)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    target_id: Option<String>,
    /// Only what was done, or only what was refused.
    #[param(inline)]
    outcome: Option<OutcomeFilter>,
    /// Not earlier than this.
    since: Option<DateTime<Utc>>,
    /// Earlier than this; now if left out.
    until: Option<DateTime<Utc>>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VerifyAuditEvents {
    /// Only the chain of this organization; the caller's and all below it if left out.
    organization_id: Option<OrganizationId>,
}

impl ExportAuditEvents {
    fn filter(self) -> Result<AuditFilter, ApiError> {
        let Self {
            organization_id,
            actor_id,
            action,
            target_id,
            outcome,
            since,
            until,
        } = self;
        for (parameter, moment) in [("since", since), ("until", until)] {
            check_moment(parameter, moment)?;
        }
        Ok(AuditFilter {
            organization: organization_id,
            actor: id_of("actor_id", actor_id)?,
            action,
            target: id_of("target_id", target_id)?,
            outcome: outcome.map(|outcome| match outcome {
                OutcomeFilter::Succeeded => "succeeded",
                OutcomeFilter::Refused => "refused",
            }),
            since,
            until,
        })
    }
}

/// RFC 3339 has years of four digits, and the database knows no others.
fn check_moment(parameter: &'static str, moment: Option<DateTime<Utc>>) -> Result<(), ApiError> {
    if moment.is_none_or(|moment| (0..=9999).contains(&moment.year())) {
        return Ok(());
    }
    Err(ApiError::invalid(vec![Violation::of_parameter(
        parameter,
        "invalid_value",
        "must be a moment in the years 0000 to 9999",
    )]))
}

/// Reads an id of whatever kind the log knows.
fn id_of(parameter: &'static str, text: Option<String>) -> Result<Option<Uuid>, ApiError> {
    text.map(|text| {
        platform::audit::parse_id(&text).ok_or_else(|| {
            ApiError::invalid(vec![Violation::of_parameter(
                parameter,
                "invalid_value",
                "must be an id of something that the log knows",
            )])
        })
    })
    .transpose()
}

async fn list(
    caller: Reads<ReadAuditEvents>,
    query: Query<ListAuditEvents>,
) -> Result<Reply<AuditEventPage>, ApiError> {
    let ListAuditEvents {
        limit,
        page_token,
        organization_id,
        actor_id,
        action,
        target_id,
        outcome,
        since,
        until,
    } = query.0;
    let filter = ExportAuditEvents {
        organization_id,
        actor_id,
        action,
        target_id,
        outcome,
        since,
        until,
    }
    .filter()?;
    let page = caller
        .audit()
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    Ok(Reply(AuditEventPage {
        items: page.items.into_iter().map(AuditEvent::from).collect(),
        next_page: page.next_page,
    }))
}

async fn export(caller: Reads<ReadAuditEvents>, query: Query<ExportAuditEvents>) -> Result<Lines, ApiError> {
    let mut filter = query.0.filter()?;
    // What comes meanwhile is left to the next export, or this one might never end.
    filter.until.get_or_insert_with(Utc::now);
    // Read before the answer begins: what may not be read is an error like any other.
    let first = caller.audit().export(&filter, None).await?;
    let state = (caller, filter, Some(first));
    Ok(Lines::new(stream::try_unfold(
        state,
        async |(caller, filter, ready): (Reads<ReadAuditEvents>, AuditFilter, Option<Vec<SealedEvent>>)| {
            let Some(events) = ready else { return Ok(None) };
            let Some(last) = events.last().map(|sealed| sealed.event.id) else {
                return Ok(None);
            };
            let mut lines = Vec::new();
            for event in events {
                serde_json::to_writer(&mut lines, &AuditEvent::from(event))
                    .map_err(platform::error::Error::internal)?;
                lines.push(b'\n');
            }
            let next = caller.audit().export(&filter, Some(last)).await?;
            let next = (!next.is_empty()).then_some(next);
            Ok::<_, ApiError>(Some((web::Bytes::from(lines), (caller, filter, next))))
        },
    )))
}

async fn verify(
    caller: Reads<ReadAuditEvents>,
    query: Query<VerifyAuditEvents>,
) -> Result<Reply<AuditVerdict>, ApiError> {
    let verdict = caller.audit().verify(query.0.organization_id).await?;
    let bad = verdict.first_bad;
    Ok(Reply(AuditVerdict {
        valid: bad.is_none(),
        checked: verdict.checked,
        unsealed: verdict.unsealed,
        head: verdict.head.map(|hash| hex(&hash)),
        first_bad: bad.as_ref().and_then(|flaw| flaw.event),
        first_bad_reason: bad.as_ref().map(|flaw| flaw.reason),
        first_bad_organization_id: bad.as_ref().map(|flaw| flaw.organization),
        first_bad_sequence: bad.as_ref().and_then(|flaw| flaw.sequence),
    }))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
