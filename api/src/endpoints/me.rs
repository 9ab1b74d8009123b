//! Who is calling.

use actix_web::http::Method;
use platform::{
    id::{OrganizationId, UserId},
    permissions::ActAsSelf,
    values::Role,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    problem::ApiError,
    route::{Authz, Endpoint, Reply, endpoint},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/me", "get_me")
            .tag("me")
            .about(
                "Who am I?",
                "The user behind the credential, the organization it acts for, and what its role permits there, now.",
            )
            .to(me),
    ]
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct Me {
    /// What kind of credential this is. New kinds may appear.
    #[schema(example = "user", extensions(("x-extensible-enum" = json!(["user"]))))]
    kind: &'static str,
    /// The user.
    id: UserId,
    /// Its e-mail address.
    #[schema(example = "owner@example.com")]
    email: String,
    /// Its name.
    #[schema(example = "Owner")]
    name: String,
    /// The organization that the credential acts for.
    organization: MyOrganization,
    /// The present role there.
    role: Role,
    /// What that role permits.
    #[schema(example = json!(["self", "tenants.read"]))]
    permissions: Vec<&'static str>,
}

/// The organization that a credential acts for.
#[derive(Serialize, ToSchema)]
struct MyOrganization {
    /// Its id.
    id: OrganizationId,
    /// Its name.
    #[schema(example = "Platform")]
    name: String,
}

async fn me(caller: Authz<ActAsSelf>) -> Result<Reply<Me>, ApiError> {
    let profile = caller.profile().await?;
    Ok(Reply(Me {
        kind: "user",
        id: profile.user.id,
        email: profile.user.email,
        name: profile.user.name,
        organization: MyOrganization {
            id: profile.organization.id,
            name: profile.organization.name,
        },
        role: caller.identity().role,
        permissions: caller.permissions(),
    }))
}
