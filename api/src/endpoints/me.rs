//! Who is calling.

use actix_web::http::Method;
use base64::Engine as _;
use platform::{
    id::{OrganizationId, UserId},
    permissions::ActAsSelf,
    values::Role,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::{
    problem::ApiError,
    route::{Endpoint, Reads, Resource, Versioned, endpoint},
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
    /// The present role there. New values may appear.
    #[schema(value_type = String, example = "owner", extensions(("x-extensible-enum" = json!(["owner", "admin", "viewer"]))))]
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

impl Versioned for Me {
    /// Of all that is said: it is made of three tables' rows, and small.
    fn version(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let hash = Sha256::digest(text);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&hash[..12])
    }
}

async fn me(caller: Reads<ActAsSelf>) -> Result<Resource<Me>, ApiError> {
    let profile = caller.profile().await?;
    Ok(Resource(Me {
        kind: "user",
        id: profile.user.id,
        email: profile.user.email,
        name: profile.user.name,
        organization: MyOrganization {
            id: profile.organization.id,
            name: profile.organization.name,
        },
        role: profile.identity.role,
        permissions: profile.identity.permissions(),
    }))
}
