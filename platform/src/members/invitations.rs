//! Invitations: a link that makes its receiver a member. Its token is kept as a hash; a new invitation of the same address
//! takes the place of an open one.

use chrono::{DateTime, Duration, Utc};
pub use entity::invitation::Model as InvitationRow;
use entity::{
    id::{InvitationId, OrganizationId},
    invitation, membership,
    values::Role,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Value, json};

use super::{check_email, lock_address};
use crate::{
    Platform,
    audit::{self, Entry, Subject},
    auth::{by_email, opaque},
    caller::{Identity, Rows},
    error::{Error, Violation},
    mail::Invitation,
    organizations,
    paging::Page,
    permissions::Permission,
    precondition::{Precondition, Versioned, revision},
    reader::Reader,
};

/// How long an invitation is good where nothing is said.
const GOOD_DAYS: i64 = 7;
/// And at most.
const GOOD_DAYS_AT_MOST: i64 = 30;
/// What an invitation's token begins with.
const TOKEN: &str = "it_";

/// The invitations that a caller can change: those of its organization and of the ones below.
#[derive(Debug)]
pub struct Invitations<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

/// An invitation to be.
#[derive(Debug)]
pub struct NewInvitation {
    /// Whom.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Where; the caller's own organization where none is given.
    pub organization: Option<OrganizationId>,
    /// Until when it is good.
    pub expires_at: Option<DateTime<Utc>>,
}

/// An invitation that was made.
#[derive(Debug)]
pub struct Invited {
    /// The invitation.
    pub invitation: InvitationRow,
    /// The secret that accepts it.
    pub token: SecretString,
    /// Whether it was mailed; if not, the inviter hands the token over.
    pub mailed: bool,
}

impl Versioned for InvitationRow {
    fn version(&self) -> String {
        // It changes by itself when its time is over.
        let over = if self.accepted_at.is_none() && self.expires_at <= Utc::now() {
            ".expired"
        } else {
            ""
        };
        revision(self.revision) + over
    }
}

impl<'c> Invitations<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }

    /// Invites somebody within the caller's transaction, and mails them where mail can be sent.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyMember`]; [`Error::Unavailable`]: the mail server doesn't answer, and nobody was
    /// invited.
    pub async fn create(
        &self,
        transaction: &DatabaseTransaction,
        new: &NewInvitation,
    ) -> Result<Invited, Error> {
        let now = Utc::now();
        let mut violations = Vec::new();
        let email = check_email(&new.email, &mut violations);
        self.identity.check_given_role(new.role, &mut violations);
        let expires_at = new.expires_at.unwrap_or(now + Duration::days(GOOD_DAYS));
        if expires_at <= now || expires_at > now + Duration::days(GOOD_DAYS_AT_MOST) + Duration::minutes(1) {
            violations.push(Violation::at(
                "/expires_at",
                "invalid_expiry",
                format!("must be in the future, and at most {GOOD_DAYS_AT_MOST} days away"),
            ));
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let organization =
            organizations::named(transaction, self.identity, "/organization_id", new.organization).await?;
        lock_address(transaction, &email).await?;
        let member = self
            .identity
            .as_the_platform(transaction, async |transaction| {
                let Some(user) = crate::answered(by_email(&email).one(transaction)).await? else {
                    return Ok(false);
                };
                let member = membership::Entity::find_by_id((user.id, organization.id)).one(transaction);
                Ok(crate::answered(member).await?.is_some())
            })
            .await?;
        if member {
            return Err(Error::AlreadyMember);
        }
        // One open invitation for an address: the new one counts.
        let older = invitation::Entity::delete_many()
            .filter(invitation::Column::OrganizationId.eq(organization.id))
            .filter(Expr::cust_with_values(
                "lower(email) = $1",
                [email.to_lowercase()],
            ))
            .filter(invitation::Column::AcceptedAt.is_null())
            .exec(transaction);
        crate::answered(older).await?;
        let token = opaque::token(TOKEN);
        let row = invitation::ActiveModel {
            id: Set(InvitationId::new()),
            organization_id: Set(organization.id),
            email: Set(email),
            role: Set(new.role),
            token_hash: Set(opaque::hash(&token)),
            created_at: Set(now),
            expires_at: Set(expires_at),
            accepted_at: Set(None),
            accepted_by: Set(None),
            revision: Set(1),
        };
        let row = crate::answered(invitation::Entity::insert(row).exec_with_returning(transaction)).await?;
        let entry = Entry {
            organization: organization.id,
            subject: Some(Subject::Invitation(row.id)),
            before: None,
            after: Some(snapshot(&row)),
        };
        audit::record(transaction, self.identity, entry).await?;
        // Last: should the mail not be sent, nothing has been done; should the transaction fail after it, the link in
        // the mail leads to nothing, and the inviter is told so.
        let mailed = match self.platform.mailer() {
            None => false,
            Some(mailer) => {
                let invitation = Invitation {
                    email: &row.email,
                    organization: &organization.name,
                    link: &self.platform.domains().invitation_url(token.expose_secret()),
                    expires_at: row.expires_at,
                };
                mailer.send_invitation(&invitation).await?;
                true
            }
        };
        Ok(Invited {
            invitation: row,
            token,
            mailed,
        })
    }

    /// Changes the role that an open invitation gives.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::InvitationUsed`], [`Error::Invalid`].
    pub async fn change_role(
        &self,
        id: InvitationId,
        precondition: &Precondition,
        role: Option<Role>,
    ) -> Result<InvitationRow, Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let before = self.lock(&transaction, id).await?;
        precondition.check(&before)?;
        let role = role.unwrap_or(before.role);
        if role == before.role {
            return Ok(before);
        }
        let mut violations = Vec::new();
        self.identity.check_given_role(role, &mut violations);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        if before.accepted_at.is_some() {
            return Err(Error::InvitationUsed);
        }
        let updated = invitation::Entity::update_many()
            .col_expr(invitation::Column::Role, Expr::value(role))
            .col_expr(
                invitation::Column::Revision,
                Expr::col(invitation::Column::Revision).add(1),
            )
            .filter(invitation::Column::Id.eq(id))
            .exec_with_returning(&transaction);
        let row = crate::answered(updated)
            .await?
            .into_iter()
            .next()
            .ok_or(Error::NotFound)?;
        let entry = Entry {
            organization: row.organization_id,
            subject: Some(Subject::Invitation(id)),
            before: Some(snapshot(&before)),
            after: Some(snapshot(&row)),
        };
        audit::record(&transaction, self.identity, entry).await?;
        crate::answered(transaction.commit()).await?;
        Ok(row)
    }

    /// Takes an invitation back; one that was accepted is only forgotten.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`].
    pub async fn delete(&self, id: InvitationId, precondition: &Precondition) -> Result<(), Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let before = self.lock(&transaction, id).await?;
        precondition.check(&before)?;
        let entry = Entry {
            organization: before.organization_id,
            subject: Some(Subject::Invitation(id)),
            before: Some(snapshot(&before)),
            after: None,
        };
        audit::record(&transaction, self.identity, entry).await?;
        crate::answered(invitation::Entity::delete_by_id(id).exec(&transaction)).await?;
        crate::answered(transaction.commit()).await
    }

    async fn lock(
        &self,
        transaction: &DatabaseTransaction,
        id: InvitationId,
    ) -> Result<InvitationRow, Error> {
        let query = invitation::Entity::find()
            .filter(self.identity.sees("invitations.organization_id"))
            .filter(invitation::Column::Id.eq(id))
            .lock_exclusive();
        crate::answered(query.one(transaction))
            .await?
            .ok_or(Error::NotFound)
    }
}

/// What the log shows of an invitation.
pub(super) fn snapshot(row: &InvitationRow) -> Value {
    json!({
        "email": row.email,
        "role": row.role,
        "expires_at": row.expires_at,
        "accepted_by": row.accepted_by,
    })
}

/// Which invitations a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InvitationFilter {
    /// To this organization alone.
    pub organization: Option<OrganizationId>,
}

/// The invitations that a reader can see.
#[derive(Debug)]
pub struct InvitationReader<'r, P> {
    reader: &'r Reader<P>,
}

impl<'r, P: Permission> InvitationReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    fn visible(&self, rows: Rows) -> sea_orm::Select<invitation::Entity> {
        invitation::Entity::find().filter(self.reader.sees(rows, "invitations.organization_id"))
    }

    /// One invitation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: InvitationId) -> Result<InvitationRow, Error> {
        let query = self.visible(Rows::ByKey).filter(invitation::Column::Id.eq(id));
        let (_, found) = self.reader.rows(query, None).await?;
        found.into_iter().next().ok_or(Error::NotFound)
    }

    /// A page, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn list(
        &self,
        filter: &InvitationFilter,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<Page<InvitationRow>, Error> {
        let list = ("invitations", filter);
        let mut query = self.visible(Rows::Any);
        if let Some(organization) = filter.organization {
            query = query.filter(invitation::Column::OrganizationId.eq(organization));
        }
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(invitation::Column::Id.lt(after));
        }
        let query = query.order_by_desc(invitation::Column::Id);
        let (_, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        Ok(self.reader.page(&list, limit, rows, |row| row.id.0))
    }
}
