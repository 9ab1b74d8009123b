//! What is not as the platform's tables say.

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    id::DriftId,
    operations::Target,
    permissions::ReadDrift,
    reconcile::{DriftFilter, DriftRow},
    values::DriftKind,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::checked_limit;
use crate::{
    problem::ApiError,
    route::{Authz, Endpoint, Query, Reply, endpoint},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/drift", "list_drift")
            .tag("system")
            .about(
                "List drift",
                "What the last comparison of the platform's tables with databases, roles, files, routes and \
                 containers found and could not, or may not, repair; what was found last comes first. A row is there \
                 as long as what it tells of.",
            )
            .to(list),
    ]
}

/// Something outside that is not as the platform's tables say.
#[derive(Serialize, ToSchema)]
struct Drift {
    /// The row.
    id: DriftId,
    /// How it differs. New values may appear.
    #[schema(
        example = "stray_filestore",
        extensions(("x-extensible-enum" = json!([
            "stray_database", "unfinished_database", "missing_database", "stray_role", "missing_role",
            "changed_role", "changed_password", "stray_filestore", "missing_filestore", "stray_route",
            "missing_route", "changed_route", "stray_container", "missing_container"
        ])))
    )]
    kind: String,
    /// The name of the database, role, folder, host or container.
    #[schema(example = "t_01jdjyfyh1fe82gqsfsks1j4x4")]
    subject: String,
    /// The tenant, pool or template that it belongs to, where that is known.
    #[schema(required)]
    target: Option<DriftTarget>,
    /// What is known, and what may be done.
    detail: String,
    /// When a comparison first found it.
    first_seen_at: DateTime<Utc>,
    /// When a comparison last found it.
    last_seen_at: DateTime<Utc>,
}

/// What something that differs belongs to.
#[derive(Serialize, ToSchema)]
struct DriftTarget {
    /// What kind of thing. New kinds may appear.
    #[schema(example = "tenant")]
    r#type: String,
    /// Its id.
    #[schema(
        example = "ten_01jdjyfyh1fe82gqsfsks1j4x4",
        pattern = "^[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}$"
    )]
    id: String,
}

impl Drift {
    fn new(row: DriftRow) -> Self {
        let target = row.target_type.zip(row.target_id).and_then(|(kind, id)| {
            let target = Target::of_columns(&kind, id)?;
            Some(DriftTarget {
                r#type: kind,
                id: target.id_text(),
            })
        });
        Self {
            id: row.id,
            kind: row.kind,
            subject: row.subject,
            target,
            detail: row.detail,
            first_seen_at: row.first_seen_at,
            last_seen_at: row.last_seen_at,
        }
    }
}

/// A page of what is not as the tables say.
#[derive(Serialize, ToSchema)]
struct DriftPage {
    /// The rows; what was found last comes first.
    items: Vec<Drift>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListDrift {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those of this kind.
    #[param(inline)]
    kind: Option<DriftKind>,
}

async fn list(caller: Authz<ReadDrift>, query: Query<ListDrift>) -> Result<Reply<DriftPage>, ApiError> {
    let ListDrift {
        limit,
        page_token,
        kind,
    } = query.0;
    let page = caller
        .drift()
        .list(
            &DriftFilter { kind },
            checked_limit(limit)?,
            page_token.as_deref(),
        )
        .await?;
    Ok(Reply(DriftPage {
        items: page.items.into_iter().map(Drift::new).collect(),
        next_page: page.next_page,
    }))
}

#[cfg(test)]
mod tests {
    use platform::values::Iterable as _;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_names_every_kind() {
        let document: Value = serde_json::from_str(&crate::openapi_text()).unwrap();
        let named = &document["components"]["schemas"]["Drift"]["properties"]["kind"]["x-extensible-enum"];
        let kinds: Vec<&str> = DriftKind::iter().map(DriftKind::as_str).collect();
        assert_eq!(*named, serde_json::json!(kinds));
    }
}
