//! Tenants.

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    id::{OperationId, OrganizationId, TenantId},
    permissions::{CreateTenants, DeleteTenants, ReadTenants, SetAdminPassword, UpdateTenants},
    settings::Domains,
    tenants::{AdminAccount, LabelChanges, NewTenant, TenantChanges, TenantFilter, TenantRow},
    values::{Isolation, TenantStatus},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    labels::{LabelPatch, Labels, StoredLabels},
    operations::Operation,
};
use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Accepted, Authz, Body, Endpoint, HasOperation, Id, IdempotencyKey, IfMatch, MaybeBody, MergePatch,
        Once, Patch, Query, Reads, Recorded as _, Replayable, Reply, Resource, Versioned, endpoint,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::POST, "/v1/tenants", "create_tenant")
            .tag("tenants")
            .about(
                "Create a tenant",
                "Accepts a new Odoo database with a web address of its own. It answers there in about a second; the \
                 operation says when all is done. A generated administrator's password is answered once, and kept \
                 nowhere in clear.",
            )
            .errors(&[ErrorCode::SlugTaken, ErrorCode::NoCapacity])
            .to(create),
        endpoint(Method::GET, "/v1/tenants", "list_tenants")
            .tag("tenants")
            .about("List tenants", "The tenants of the caller's organization and of those below it, newest first.")
            .to(list),
        endpoint(Method::GET, "/v1/tenants/{id}", "get_tenant")
            .tag("tenants")
            .about("Read a tenant", "One tenant, as it is now.")
            .to(get),
        endpoint(Method::PATCH, "/v1/tenants/{id}", "update_tenant")
            .tag("tenants")
            .about(
                "Change a tenant",
                "Changes what is written down about a tenant: its display name, labels and protection. Nothing of it \
                 reaches its Odoo. A patch that changes nothing leaves the `ETag` as it is.",
            )
            .errors(&[ErrorCode::TenantBusy])
            .to(update),
        endpoint(Method::DELETE, "/v1/tenants/{id}", "delete_tenant")
            .tag("tenants")
            .about(
                "Delete a tenant",
                "Deletes the tenant for good: its database, files, role and web address. Accepted in any state: what \
                 runs is cancelled and waited for. Asked for again, it answers the same operation.",
            )
            .errors(&[ErrorCode::TenantProtected])
            .to(delete),
        endpoint(Method::POST, "/v1/tenants/{id}/admin-password", "set_admin_password")
            .tag("tenants")
            .about(
                "Set the administrator's password",
                "Sets the password of the tenant's Odoo administrator. Without one in the request a password is \
                 generated and answered once.",
            )
            .errors(&[ErrorCode::TenantBusy, ErrorCode::TenantStatus])
            .to(set_admin_password),
    ]
}

/// One Odoo database and what belongs to it.
#[derive(Serialize, ToSchema)]
pub(super) struct Tenant {
    /// The tenant.
    id: TenantId,
    /// Its host label.
    #[schema(example = "acme")]
    slug: String,
    /// Its display name.
    #[schema(example = "Acme Corporation")]
    name: String,
    /// Whose it is.
    organization_id: OrganizationId,
    /// Where it is in its life. New values may appear.
    #[schema(value_type = String, example = "active", extensions(("x-extensible-enum" = json!(["provisioning", "active", "suspended", "maintenance", "failed", "deleting"]))))]
    status: TenantStatus,
    /// Why it has this status, where there is more to say.
    #[schema(required)]
    status_reason: Option<String>,
    /// Its Odoo version.
    #[schema(example = "19.0")]
    odoo_version: String,
    /// Whether it shares its Odoo processes with others. New values may appear.
    #[schema(value_type = String, example = "shared", extensions(("x-extensible-enum" = json!(["shared"]))))]
    isolation: Isolation,
    /// Its web address.
    #[schema(example = "http://acme.localhost:8080")]
    url: String,
    /// The administrator's language in Odoo.
    #[schema(required, example = "en_US")]
    language: Option<String>,
    /// The company's country in Odoo.
    #[schema(required, example = "BE")]
    country: Option<String>,
    /// Your own notes for programs.
    labels: StoredLabels,
    /// Whether it is protected against deletion.
    protected: bool,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// Told as the `ETag`.
    #[serde(skip)]
    revision: i64,
}

impl Versioned for Tenant {
    fn version(&self) -> String {
        format!("v{}", self.revision)
    }
}

impl Tenant {
    pub(super) fn new(row: TenantRow, domains: &Domains) -> Self {
        Self {
            revision: row.revision,
            url: domains.tenant_url(&row.slug),
            labels: StoredLabels(row.labels),
            id: row.id,
            slug: row.slug,
            name: row.name,
            organization_id: row.organization_id,
            status: row.status,
            status_reason: row.status_reason,
            odoo_version: row.odoo_version,
            isolation: row.isolation,
            language: row.language,
            country: row.country,
            protected: row.protected,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A page of tenants.
#[derive(Serialize, ToSchema)]
struct TenantPage {
    /// The tenants, newest first.
    items: Vec<Tenant>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

/// A tenant to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTenant {
    /// Its host label: 2 to 40 lower-case ASCII letters, digits and hyphens.
    #[schema(
        example = "acme",
        pattern = "^([a-z0-9]{2}|[a-z0-9][a-z0-9-]{1,2}[a-z0-9]|[a-z0-9][a-z0-9-]([a-z0-9][a-z0-9-]|-[a-z0-9])[a-z0-9-]{0,35}[a-z0-9])$",
        min_length = 2,
        max_length = 40
    )]
    slug: String,
    /// Its display name, also the company's name in Odoo.
    #[schema(
        example = "Acme Corporation",
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: String,
    /// Its Odoo version.
    #[schema(example = "19.0")]
    odoo_version: Option<String>,
    /// Whether it shares its Odoo processes with others.
    isolation: Option<RequestedIsolation>,
    /// The administrator's language in Odoo, of those that the platform offers.
    #[schema(example = "en_US")]
    language: Option<String>,
    /// The company's country: two letters of ISO 3166.
    #[schema(example = "BE", pattern = "^[A-Z]{2}$")]
    country: Option<String>,
    /// Its Odoo administrator.
    admin: TenantAdmin,
    /// Whose it is; the caller's own organization if left out.
    organization_id: Option<OrganizationId>,
    /// Your own notes for programs: at most 64.
    #[serde(default)]
    #[schema(required = false)]
    labels: Labels,
    /// Protects it against deletion.
    #[serde(default)]
    #[schema(required = false)]
    protected: bool,
}

/// What can be asked for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RequestedIsolation {
    /// In a pool with other tenants.
    Shared,
}

/// The Odoo administrator of a new tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantAdmin {
    /// Login and e-mail address.
    #[schema(
        example = "admin@acme.example",
        max_length = 254,
        pattern = "^[^\\s@\\x00-\\x1f\\x7f-\\x9f]{1,64}@[A-Za-z0-9][A-Za-z0-9-]*([.][A-Za-z0-9][A-Za-z0-9-]*)*$"
    )]
    email: String,
    /// Its password, 8 to 128 characters; one is generated if left out.
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    password: Option<SecretString>,
}

/// A tenant whose creation has been accepted.
#[derive(Serialize, ToSchema)]
struct TenantCreated {
    /// The tenant.
    tenant: Tenant,
    /// What makes it.
    operation: Operation,
    /// The generated password of its Odoo administrator, answered only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_password: Option<String>,
}

impl Replayable for TenantCreated {
    const SECRETS: &'static [&'static str] = &["admin_password"];
}

impl HasOperation for TenantCreated {
    fn operation_id(&self) -> OperationId {
        self.operation.id
    }
}

/// A tenant and the operation that works on it.
#[derive(Serialize, ToSchema)]
struct TenantAccepted {
    /// The tenant.
    tenant: Tenant,
    /// What works on it.
    operation: Operation,
}

impl Replayable for TenantAccepted {}

impl HasOperation for TenantAccepted {
    fn operation_id(&self) -> OperationId {
        self.operation.id
    }
}

/// A new password for a tenant's Odoo administrator.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
struct AdminPassword {
    /// The password, 8 to 128 characters; one is generated if left out.
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    password: Option<SecretString>,
}

/// Which tenants, and how many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListTenants {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those with this status.
    #[param(inline)]
    status: Option<TenantStatus>,
    /// Only the one with this slug.
    #[param(example = "acme", pattern = "^[^\\x00]*$")]
    slug: Option<String>,
    /// Only those of this organization.
    organization_id: Option<OrganizationId>,
}

/// What shall change about a tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateTenant {
    /// Its display name. The company's name in Odoo stays.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, example = "Acme Corporation", min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$")]
    name: Patch<String>,
    /// Labels to set, or with null to remove. Null instead of the object removes all.
    #[serde(default)]
    #[schema(value_type = Option<LabelPatch>)]
    labels: Patch<LabelPatch>,
    /// Whether it is protected against deletion.
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false, example = true)]
    protected: Patch<bool>,
}

impl UpdateTenant {
    fn changes(self) -> Result<TenantChanges, ApiError> {
        let Self {
            name,
            labels,
            protected,
        } = self;
        let mut violations = Vec::new();
        let changes = TenantChanges {
            name: name.required("/name", &mut violations),
            labels: match labels {
                Patch::Keep => None,
                Patch::Clear => Some(LabelChanges::Clear),
                Patch::Set(changes) => Some(LabelChanges::Merge(changes.0)),
            },
            protected: protected.required("/protected", &mut violations),
        };
        if violations.is_empty() {
            Ok(changes)
        } else {
            Err(ApiError::invalid(violations))
        }
    }
}

async fn create(
    caller: Authz<CreateTenants>,
    key: IdempotencyKey,
    body: Body<CreateTenant>,
) -> Result<Once<Accepted<TenantCreated>>, ApiError> {
    let once = key.with(&body);
    let CreateTenant {
        slug,
        name,
        odoo_version,
        isolation,
        language,
        country,
        admin: TenantAdmin { email, password },
        organization_id,
        labels,
        protected,
    } = body.into_inner();
    // The only one there is to ask for; another value was refused when the body was read.
    let (None | Some(RequestedIsolation::Shared)) = isolation;
    let new = NewTenant {
        slug,
        name,
        odoo_version,
        language,
        country,
        admin: AdminAccount { email, password },
        organization_id,
        labels: labels.0,
        protected,
    };
    let details = caller.identity().sees_details();
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let created = caller.tenants().create(transaction, &new).await?;
                Ok(Accepted(TenantCreated {
                    tenant: Tenant::new(created.accepted.tenant, caller.platform().domains()),
                    operation: Operation::new(created.accepted.operation, details),
                    admin_password: created
                        .generated_password
                        .map(|password| password.expose_secret().to_owned()),
                }))
            },
            Accepted::record,
        )
        .await?;
    Ok(effect.into())
}

async fn list(caller: Reads<ReadTenants>, query: Query<ListTenants>) -> Result<Reply<TenantPage>, ApiError> {
    let ListTenants {
        limit,
        page_token,
        status,
        slug,
        organization_id,
    } = query.0;
    let limit = super::operations::checked_limit(limit)?;
    let filter = TenantFilter {
        status,
        slug,
        organization: organization_id,
    };
    let page = caller
        .tenants()
        .list(&filter, limit, page_token.as_deref())
        .await?;
    let domains = caller.platform().domains();
    Ok(Reply(TenantPage {
        items: page
            .items
            .into_iter()
            .map(|row| Tenant::new(row, domains))
            .collect(),
        next_page: page.next_page,
    }))
}

async fn get(caller: Reads<ReadTenants>, id: Id<TenantId>) -> Result<Resource<Tenant>, ApiError> {
    let row = caller.tenants().get(id.0).await?;
    Ok(Resource(Tenant::new(row, caller.platform().domains())))
}

async fn update(
    caller: Authz<UpdateTenants>,
    id: Id<TenantId>,
    precondition: IfMatch,
    patch: MergePatch<UpdateTenant>,
) -> Result<Resource<Tenant>, ApiError> {
    let row = caller
        .tenants()
        .update(id.0, &precondition.0, &patch.0.changes()?)
        .await?;
    Ok(Resource(Tenant::new(row, caller.platform().domains())))
}

async fn delete(
    caller: Authz<DeleteTenants>,
    id: Id<TenantId>,
    precondition: IfMatch,
) -> Result<Accepted<TenantAccepted>, ApiError> {
    let accepted = caller.tenants().delete(id.0, &precondition.0).await?;
    Ok(Accepted(TenantAccepted {
        tenant: Tenant::new(accepted.tenant, caller.platform().domains()),
        operation: Operation::new(accepted.operation, caller.identity().sees_details()),
    }))
}

async fn set_admin_password(
    caller: Authz<SetAdminPassword>,
    id: Id<TenantId>,
    key: IdempotencyKey,
    body: MaybeBody<AdminPassword>,
) -> Result<Once<Accepted<TenantCreated>>, ApiError> {
    let once = key.with(&body.0);
    let password = body.0.into_inner().password;
    let details = caller.identity().sees_details();
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let change = caller
                    .tenants()
                    .set_admin_password(transaction, id.0, password.as_ref())
                    .await?;
                Ok(Accepted(TenantCreated {
                    tenant: Tenant::new(change.accepted.tenant, caller.platform().domains()),
                    operation: Operation::new(change.accepted.operation, details),
                    admin_password: change
                        .generated_password
                        .map(|password| password.expose_secret().to_owned()),
                }))
            },
            Accepted::record,
        )
        .await?;
    Ok(effect.into())
}
