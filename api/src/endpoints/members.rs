//! Members of organizations.

use actix_web::http::Method;
use chrono::{DateTime, Utc};
use platform::{
    id::{OrganizationId, UserId},
    members::{MemberFilter, MemberRow, NewMember},
    permissions::{ManageMembers, ReadMembers},
    values::Role,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::checked_limit;
use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Authz, Body, Created, Endpoint, HasLocation, IdempotencyKey, IfMatch, MergePatch, NoContent, Once,
        Patch, Query, Reads, Recorded as _, Replayable, Reply, Resource, UserInPath, Versioned, endpoint,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/members", "list_members")
            .tag("members")
            .about(
                "List members",
                "The members of the caller's organization and of those below it, who came last first.",
            )
            .to(list),
        endpoint(Method::POST, "/v1/members", "add_member")
            .tag("members")
            .about(
                "Add a member",
                "Makes an account with a role in an organization, or gives somebody who is a member of one of the \
                 caller's organizations a role in another. Anybody else who has an account is to be invited. A \
                 generated password is answered once, and kept nowhere in clear.",
            )
            .errors(&[ErrorCode::AlreadyMember, ErrorCode::AccountExists])
            .to(add),
        endpoint(Method::GET, "/v1/members/{user_id}", "get_member")
            .tag("members")
            .about(
                "Read a member",
                "One member of the caller's organization, or of the one that `organization_id` names.",
            )
            .to(get),
        endpoint(Method::PATCH, "/v1/members/{user_id}", "update_member")
            .tag("members")
            .about(
                "Change a member's role",
                "Gives a member another role, which counts with the next request. The last owner stays one.",
            )
            .errors(&[ErrorCode::LastOwner])
            .to(update),
        endpoint(Method::DELETE, "/v1/members/{user_id}", "remove_member")
            .tag("members")
            .about(
                "Remove a member",
                "Takes all rights in the organization away at once: sessions there end. The account stays. The last \
                 owner can't be removed.",
            )
            .errors(&[ErrorCode::LastOwner])
            .to(remove),
    ]
}

/// A user with a role in an organization.
#[derive(Serialize, ToSchema)]
pub(super) struct Member {
    /// The user.
    user_id: UserId,
    /// Where.
    organization_id: OrganizationId,
    /// The e-mail address.
    #[schema(example = "jo@acme.example")]
    email: String,
    /// The user's name.
    #[schema(example = "Jo Doe")]
    name: String,
    /// The role. New values may appear.
    #[schema(value_type = String, example = "admin", extensions(("x-extensible-enum" = json!(["owner", "admin", "viewer"]))))]
    role: Role,
    /// Since when.
    created_at: DateTime<Utc>,
    /// Told as the `ETag`.
    #[serde(skip)]
    version: String,
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Self {
        Self {
            version: row.version(),
            user_id: row.user_id,
            organization_id: row.organization_id,
            email: row.email,
            name: row.name,
            role: row.role,
            created_at: row.created_at,
        }
    }
}

impl Versioned for Member {
    fn version(&self) -> String {
        self.version.clone()
    }
}

impl Replayable for Member {}

/// A member that was added.
#[derive(Serialize, ToSchema)]
struct AddedMember {
    #[serde(flatten)]
    member: Member,
    /// The generated password of a new account, answered only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl Versioned for AddedMember {
    fn version(&self) -> String {
        self.member.version()
    }
}

impl Replayable for AddedMember {
    const SECRETS: &'static [&'static str] = &["password"];
}

impl HasLocation for Member {
    fn location(&self) -> String {
        format!(
            "/v1/members/{}?organization_id={}",
            self.user_id, self.organization_id
        )
    }
}

impl HasLocation for AddedMember {
    fn location(&self) -> String {
        self.member.location()
    }
}

/// A page of members.
#[derive(Serialize, ToSchema)]
struct MemberPage {
    /// The members, who came last first.
    items: Vec<Member>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

/// A member to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddMember {
    /// The e-mail address.
    #[schema(
        example = "jo@acme.example",
        max_length = 254,
        pattern = "^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?){0,6}$"
    )]
    email: String,
    /// The role.
    role: Role,
    /// The person's name, for a new account.
    #[schema(
        example = "Jo Doe",
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: Option<String>,
    /// The password of a new account, 8 to 128 characters; one is generated if left out.
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    password: Option<SecretString>,
    /// Where; the caller's own organization if left out.
    organization_id: Option<OrganizationId>,
}

/// What shall change about a member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateMember {
    /// The role.
    #[serde(default)]
    #[schema(value_type = Option<Role>, nullable = false)]
    role: Patch<Role>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListMembers {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those of this organization.
    organization_id: Option<OrganizationId>,
    /// Only those with this role.
    #[param(inline)]
    role: Option<Role>,
    /// Only the one with this e-mail address.
    #[param(example = "jo@acme.example", pattern = "^[^\\x00]*$")]
    email: Option<String>,
}

/// Whose member is meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OfOrganization {
    /// Of which organization; the caller's own if left out, or the only one that the user is a member of below it.
    organization_id: Option<OrganizationId>,
}

async fn list(caller: Reads<ReadMembers>, query: Query<ListMembers>) -> Result<Reply<MemberPage>, ApiError> {
    let ListMembers {
        limit,
        page_token,
        organization_id,
        role,
        email,
    } = query.0;
    let filter = MemberFilter {
        organization: organization_id,
        role,
        email,
    };
    let page = caller
        .members()
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    Ok(Reply(MemberPage {
        items: page.items.into_iter().map(Member::from).collect(),
        next_page: page.next_page,
    }))
}

async fn add(
    caller: Authz<ManageMembers>,
    key: IdempotencyKey,
    body: Body<AddMember>,
) -> Result<Once<Created<AddedMember>>, ApiError> {
    let once = key.with(&body);
    let AddMember {
        email,
        role,
        name,
        password,
        organization_id,
    } = body.into_inner();
    let new = NewMember {
        email,
        role,
        name,
        password,
        organization: organization_id,
    };
    let _turn = caller.platform().slow_change().await?;
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let added = caller.members().add(transaction, &new).await?;
                Ok(Created(AddedMember {
                    member: added.member.into(),
                    password: added
                        .generated_password
                        .map(|password| password.expose_secret().to_owned()),
                }))
            },
            Created::record,
        )
        .await?;
    Ok(effect.into())
}

async fn get(
    caller: Reads<ReadMembers>,
    user: UserInPath,
    query: Query<OfOrganization>,
) -> Result<Resource<Member>, ApiError> {
    let row = caller.members().get(query.0.organization_id, user.0).await?;
    Ok(Resource(row.into()))
}

async fn update(
    caller: Authz<ManageMembers>,
    user: UserInPath,
    query: Query<OfOrganization>,
    precondition: IfMatch,
    patch: MergePatch<UpdateMember>,
) -> Result<Resource<Member>, ApiError> {
    let mut violations = Vec::new();
    let role = patch.0.role.required("/role", &mut violations);
    if !violations.is_empty() {
        return Err(ApiError::invalid(violations));
    }
    let row = caller
        .members()
        .change_role(query.0.organization_id, user.0, &precondition.0, role)
        .await?;
    Ok(Resource(row.into()))
}

async fn remove(
    caller: Authz<ManageMembers>,
    user: UserInPath,
    query: Query<OfOrganization>,
    precondition: IfMatch,
) -> Result<NoContent, ApiError> {
    caller
        .members()
        .remove(query.0.organization_id, user.0, &precondition.0)
        .await?;
    Ok(NoContent)
}
