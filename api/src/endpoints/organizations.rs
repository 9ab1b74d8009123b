//! Organizations.

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    id::OrganizationId,
    organizations::{NewOrganization, OrganizationChanges, OrganizationFilter, OrganizationRow},
    permissions::{CreateOrganizations, DeleteOrganizations, ReadOrganizations, UpdateOrganizations},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::checked_limit;
use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Authz, Body, Created, Endpoint, HasLocation, Id, IdempotencyKey, IfMatch, MergePatch, NoContent,
        Once, Patch, Query, Reads, Recorded as _, Replayable, Reply, Resource, Versioned, endpoint,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/organizations", "list_organizations")
            .tag("organizations")
            .about(
                "List organizations",
                "The caller's organization and all below it, newest first. With `parent_id` those right below one.",
            )
            .to(list),
        endpoint(Method::POST, "/v1/organizations", "create_organization")
            .tag("organizations")
            .about(
                "Create an organization",
                "Makes an organization below the caller's, or below another that the caller can see. Whoever may do \
                 something in an organization may do it in all below it.",
            )
            .to(create),
        endpoint(Method::GET, "/v1/organizations/{id}", "get_organization")
            .tag("organizations")
            .about("Read an organization", "One organization, as it is now.")
            .to(get),
        endpoint(Method::PATCH, "/v1/organizations/{id}", "update_organization")
            .tag("organizations")
            .about(
                "Change an organization",
                "Renames an organization, or moves it, with all below it, to below another. The caller's own can't be \
                 moved.",
            )
            .to(update),
        endpoint(Method::DELETE, "/v1/organizations/{id}", "delete_organization")
            .tag("organizations")
            .about(
                "Delete an organization",
                "Deletes an organization with its members, invitations and API keys. Refused while it has tenants, or \
                 organizations below it. Its operations and its audit log stay readable for those above.",
            )
            .errors(&[ErrorCode::OrganizationInUse])
            .to(delete),
    ]
}

/// An account: a reseller, a customer, or the operator at the root.
#[derive(Serialize, ToSchema)]
pub(super) struct Organization {
    /// The organization.
    id: OrganizationId,
    /// Its name.
    #[schema(example = "Acme Resellers")]
    name: String,
    /// Below which it is; null for the caller's own, above which it sees nothing.
    #[schema(required)]
    parent_id: Option<OrganizationId>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// Told as the `ETag`.
    #[serde(skip)]
    version: String,
}

impl Organization {
    /// As somebody of the organization `own` sees it.
    fn new(row: OrganizationRow, own: OrganizationId) -> Self {
        Self {
            version: row.version(),
            parent_id: row.parent_id.filter(|_| row.id != own),
            id: row.id,
            name: row.name,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Versioned for Organization {
    fn version(&self) -> String {
        self.version.clone()
    }
}

impl Replayable for Organization {}

impl HasLocation for Organization {
    fn location(&self) -> String {
        format!("/v1/organizations/{}", self.id)
    }
}

/// A page of organizations.
#[derive(Serialize, ToSchema)]
struct OrganizationPage {
    /// The organizations, newest first.
    items: Vec<Organization>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

/// An organization to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateOrganization {
    /// Its name.
    #[schema(
        example = "Acme Resellers",
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: String,
    /// Below which it shall be; the caller's own if left out.
    parent_id: Option<OrganizationId>,
}

/// What shall change about an organization.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateOrganization {
    /// Its name.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, example = "Acme Resellers", min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$")]
    name: Patch<String>,
    /// Below which it shall be.
    #[serde(default)]
    #[schema(value_type = Option<OrganizationId>, nullable = false)]
    parent_id: Patch<OrganizationId>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListOrganizations {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those right below this one.
    parent_id: Option<OrganizationId>,
}

async fn list(
    caller: Reads<ReadOrganizations>,
    query: Query<ListOrganizations>,
) -> Result<Reply<OrganizationPage>, ApiError> {
    let ListOrganizations {
        limit,
        page_token,
        parent_id,
    } = query.0;
    let organizations = caller.organizations();
    let filter = OrganizationFilter { parent: parent_id };
    let page = organizations
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    let own = organizations.own();
    Ok(Reply(OrganizationPage {
        items: page
            .items
            .into_iter()
            .map(|row| Organization::new(row, own))
            .collect(),
        next_page: page.next_page,
    }))
}

async fn create(
    caller: Authz<CreateOrganizations>,
    key: IdempotencyKey,
    body: Body<CreateOrganization>,
) -> Result<Once<Created<Organization>>, ApiError> {
    let once = key.with(&body);
    let CreateOrganization { name, parent_id } = body.into_inner();
    let new = NewOrganization {
        name,
        parent: parent_id,
    };
    let own = caller.identity().organization;
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let row = caller.organizations().create(transaction, &new).await?;
                Ok(Created(Organization::new(row, own)))
            },
            Created::record,
        )
        .await?;
    Ok(effect.into())
}

async fn get(
    caller: Reads<ReadOrganizations>,
    id: Id<OrganizationId>,
) -> Result<Resource<Organization>, ApiError> {
    let organizations = caller.organizations();
    let row = organizations.get(id.0).await?;
    Ok(Resource(Organization::new(row, organizations.own())))
}

async fn update(
    caller: Authz<UpdateOrganizations>,
    id: Id<OrganizationId>,
    precondition: IfMatch,
    patch: MergePatch<UpdateOrganization>,
) -> Result<Resource<Organization>, ApiError> {
    let UpdateOrganization { name, parent_id } = patch.0;
    let mut violations = Vec::new();
    let changes = OrganizationChanges {
        name: name.required("/name", &mut violations),
        parent: parent_id.required("/parent_id", &mut violations),
    };
    if !violations.is_empty() {
        return Err(ApiError::invalid(violations));
    }
    let row = caller
        .organizations()
        .update(id.0, &precondition.0, &changes)
        .await?;
    Ok(Resource(Organization::new(row, caller.identity().organization)))
}

async fn delete(
    caller: Authz<DeleteOrganizations>,
    id: Id<OrganizationId>,
    precondition: IfMatch,
) -> Result<NoContent, ApiError> {
    caller.organizations().delete(id.0, &precondition.0).await?;
    Ok(NoContent)
}
