//! Invitations to organizations.

use actix_web::{ResponseError as _, http::Method};
use chrono::{DateTime, Utc};
use platform::{
    id::{InvitationId, OrganizationId},
    members::{Acceptance, InvitationFilter, InvitationRow, NewInvitation},
    permissions::{ManageMembers, ReadMembers},
    values::Role,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{members::Member, operations::checked_limit};
use crate::{
    problem::{ApiError, ErrorCode},
    route::{
        Authz, Body, Created, Endpoint, HasLocation, Html, Id, IdempotencyKey, IfMatch, MergePatch,
        NoContent, Once, Patch, Public, Query, Reads, Recorded as _, Replayable, Reply, Resource, Versioned,
        endpoint,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/v1/invitations", "list_invitations")
            .tag("members")
            .about(
                "List invitations",
                "The invitations to the caller's organization and to those below it, newest first.",
            )
            .to(list),
        endpoint(Method::POST, "/v1/invitations", "create_invitation")
            .tag("members")
            .about(
                "Invite somebody",
                "Invites an e-mail address to an organization. Where the platform can send mail, the link is mailed; \
                 else it is answered once, to be handed over. An open invitation of the same address is replaced.",
            )
            .errors(&[ErrorCode::AlreadyMember])
            .to(create),
        endpoint(Method::POST, "/v1/invitations/accept", "accept_invitation")
            .tag("members")
            .about(
                "Accept an invitation",
                "Makes the receiver a member. With an account of the invited address its password is to be given, else \
                 the one that the new account shall have. Public: the invitation's token is the credential.",
            )
            .errors(&[
                ErrorCode::WrongPassword,
                ErrorCode::TooManySignIns,
                ErrorCode::InvitationUsed,
                ErrorCode::InvitationExpired,
                ErrorCode::AlreadyMember,
                ErrorCode::Unavailable,
            ])
            .to(accept),
        endpoint(Method::GET, "/v1/invitations/{id}", "get_invitation")
            .tag("members")
            .about("Read an invitation", "One invitation, as it is now.")
            .to(get),
        endpoint(Method::PATCH, "/v1/invitations/{id}", "update_invitation")
            .tag("members")
            .about(
                "Change an invitation",
                "Changes the role that an invitation gives, as long as it was not accepted.",
            )
            .errors(&[ErrorCode::InvitationUsed])
            .to(update),
        endpoint(Method::DELETE, "/v1/invitations/{id}", "delete_invitation")
            .tag("members")
            .about(
                "Take an invitation back",
                "Its link leads to nothing from now on. One that was accepted is only forgotten; its member stays.",
            )
            .to(delete),
        endpoint(Method::GET, "/invitation", "invitation_page")
            .tag("system")
            .about(
                "The page of an invitation",
                "Where the link of an invitation leads: a form that accepts it. Public, since its reader has no account \
                 yet.",
            )
            .to(page),
    ]
}

/// An invitation of an e-mail address to an organization.
#[derive(Serialize, ToSchema)]
struct Invitation {
    /// The invitation.
    id: InvitationId,
    /// Where to.
    organization_id: OrganizationId,
    /// Whom.
    #[schema(example = "jo@acme.example")]
    email: String,
    /// As what. New values may appear.
    #[schema(value_type = String, example = "admin", extensions(("x-extensible-enum" = json!(["owner", "admin", "viewer"]))))]
    role: Role,
    /// Whether it can be accepted, was, or is too old. New values may appear.
    #[schema(example = "open", extensions(("x-extensible-enum" = json!(["open", "accepted", "expired"]))))]
    status: &'static str,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// Until when it is good.
    expires_at: DateTime<Utc>,
    /// When it was accepted.
    #[schema(required)]
    accepted_at: Option<DateTime<Utc>>,
    /// Told as the `ETag`.
    #[serde(skip)]
    version: String,
}

impl From<InvitationRow> for Invitation {
    fn from(row: InvitationRow) -> Self {
        let status = if row.accepted_at.is_some() {
            "accepted"
        } else if row.expires_at <= Utc::now() {
            "expired"
        } else {
            "open"
        };
        Self {
            version: row.version(),
            id: row.id,
            organization_id: row.organization_id,
            email: row.email,
            role: row.role,
            status,
            created_at: row.created_at,
            expires_at: row.expires_at,
            accepted_at: row.accepted_at,
        }
    }
}

impl Versioned for Invitation {
    fn version(&self) -> String {
        self.version.clone()
    }
}

/// An invitation that was made.
#[derive(Serialize, ToSchema)]
struct CreatedInvitation {
    #[serde(flatten)]
    invitation: Invitation,
    /// Whether it was mailed. If not, hand over the link.
    mailed: bool,
    /// The page that accepts it, where it was not mailed. Answered only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// The token in that link, for who accepts it by `POST /v1/invitations/accept`. Answered only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Versioned for CreatedInvitation {
    fn version(&self) -> String {
        self.invitation.version()
    }
}

impl Replayable for CreatedInvitation {
    const SECRETS: &'static [&'static str] = &["link", "token"];
}

impl HasLocation for CreatedInvitation {
    fn location(&self) -> String {
        format!("/v1/invitations/{}", self.invitation.id)
    }
}

/// A page of invitations.
#[derive(Serialize, ToSchema)]
struct InvitationPage {
    /// The invitations, newest first.
    items: Vec<Invitation>,
    /// The `page_token` of the next page; null on the last one.
    #[schema(required)]
    next_page: Option<String>,
}

/// An invitation to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateInvitation {
    /// Whom.
    #[schema(
        example = "jo@acme.example",
        max_length = 254,
        pattern = "^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?){0,6}$"
    )]
    email: String,
    /// As what.
    role: Role,
    /// Where to; the caller's own organization if left out.
    organization_id: Option<OrganizationId>,
    /// Until when it is good: at most 30 days; 7 if left out.
    expires_at: Option<DateTime<Utc>>,
}

/// What shall change about an invitation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateInvitation {
    /// As what.
    #[serde(default)]
    #[schema(value_type = Option<Role>, nullable = false)]
    role: Patch<Role>,
}

/// What the receiver of an invitation says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AcceptInvitation {
    /// The invitation's token.
    #[schema(value_type = String)]
    token: SecretString,
    /// The password of the account of the invited address; where there is none, the one that it shall have: 8 to 128
    /// characters.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// The person's name, for a new account.
    #[schema(
        example = "Jo Doe",
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: Option<String>,
    /// The address, for who wants an invitation of another one to be refused.
    #[schema(example = "jo@acme.example", pattern = "^[^\\x00]*$")]
    email: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListInvitations {
    /// How many rows a page has at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_page` of the page before.
    page_token: Option<String>,
    /// Only those to this organization.
    organization_id: Option<OrganizationId>,
}

async fn list(
    caller: Reads<ReadMembers>,
    query: Query<ListInvitations>,
) -> Result<Reply<InvitationPage>, ApiError> {
    let ListInvitations {
        limit,
        page_token,
        organization_id,
    } = query.0;
    let filter = InvitationFilter {
        organization: organization_id,
    };
    let page = caller
        .invitations()
        .list(&filter, checked_limit(limit)?, page_token.as_deref())
        .await?;
    Ok(Reply(InvitationPage {
        items: page.items.into_iter().map(Invitation::from).collect(),
        next_page: page.next_page,
    }))
}

async fn create(
    caller: Authz<ManageMembers>,
    key: IdempotencyKey,
    body: Body<CreateInvitation>,
) -> Result<Once<Created<CreatedInvitation>>, ApiError> {
    let once = key.with(&body);
    let CreateInvitation {
        email,
        role,
        organization_id,
        expires_at,
    } = body.into_inner();
    let new = NewInvitation {
        email,
        role,
        organization: organization_id,
        expires_at,
    };
    let _turn = caller.platform().slow_change().await?;
    let effect = caller
        .once(
            once.as_ref(),
            async |transaction| {
                let invited = caller.invitations().create(transaction, &new).await?;
                let token = invited.token.expose_secret();
                let link = caller.platform().domains().invitation_url(token);
                Ok(Created(CreatedInvitation {
                    mailed: invited.mailed,
                    link: (!invited.mailed).then_some(link),
                    token: (!invited.mailed).then(|| token.to_owned()),
                    invitation: invited.invitation.into(),
                }))
            },
            Created::record,
        )
        .await?;
    Ok(effect.into())
}

async fn accept(
    public: Public,
    key: IdempotencyKey,
    body: Body<AcceptInvitation>,
) -> Result<Once<Created<Member>>, ApiError> {
    let once = key.with(&body);
    let AcceptInvitation {
        token,
        password,
        name,
        email,
    } = body.into_inner();
    let acceptance = Acceptance {
        token,
        email,
        password,
        name,
    };
    let platform = public.platform();
    let _turn = platform.slow_change().await?;
    let outcome = platform
        .once(
            acceptance.idempotent_as(),
            once.as_ref(),
            async |transaction| {
                let member = platform
                    .accept_invitation(transaction, &acceptance, public.origin())
                    .await?;
                Ok(Created(member.into()))
            },
            Created::record,
        )
        .await;
    match outcome {
        Ok(effect) => Ok(effect.into()),
        Err(error) => {
            let refusal = ApiError::from(error);
            if refusal.status_code().is_client_error() {
                platform
                    .record_refused_acceptance(&acceptance, public.origin(), refusal.code().code())
                    .await?;
            }
            Err(refusal)
        }
    }
}

async fn get(caller: Reads<ReadMembers>, id: Id<InvitationId>) -> Result<Resource<Invitation>, ApiError> {
    Ok(Resource(caller.invitations().get(id.0).await?.into()))
}

async fn update(
    caller: Authz<ManageMembers>,
    id: Id<InvitationId>,
    precondition: IfMatch,
    patch: MergePatch<UpdateInvitation>,
) -> Result<Resource<Invitation>, ApiError> {
    let mut violations = Vec::new();
    let role = patch.0.role.required("/role", &mut violations);
    if !violations.is_empty() {
        return Err(ApiError::invalid(violations));
    }
    let row = caller
        .invitations()
        .change_role(id.0, &precondition.0, role)
        .await?;
    Ok(Resource(row.into()))
}

async fn delete(
    caller: Authz<ManageMembers>,
    id: Id<InvitationId>,
    precondition: IfMatch,
) -> Result<NoContent, ApiError> {
    caller.invitations().delete(id.0, &precondition.0).await?;
    Ok(NoContent)
}

async fn page(_: Public) -> Result<Html, ApiError> {
    Ok(Html(super::system::page(
        include_str!("invitation.html").to_owned(),
    )))
}
