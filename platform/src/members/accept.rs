//! Accepting an invitation: the token says who is invited where; a password makes the account, or proves that the account
//! which is there already is the receiver's own.

use entity::invitation;
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _, Select,
    sea_query::{Expr, ExprTrait as _},
};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use super::{
    InvitationRow, MemberRow, check_name, create_account, invitations::snapshot, join, lock_address, name_of,
};
use crate::{
    Platform,
    audit::{self, Doer, Entry, Event, Subject},
    auth::{by_email, opaque, password},
    caller::Origin,
    error::{Error, Violation},
};

/// What the receiver of an invitation says.
#[derive(Debug)]
pub struct Acceptance {
    /// The invitation's secret.
    pub token: SecretString,
    /// The address, for who wants to be sure that it is for this one.
    pub email: Option<String>,
    /// The password of the account, or for a new one.
    pub password: SecretString,
    /// The name for a new account.
    pub name: Option<String>,
}

impl Acceptance {
    /// Under whose name idempotency keys are kept: the invitation's receiver, who has no other credential.
    #[must_use]
    pub fn idempotent_as(&self) -> Uuid {
        let hash = opaque::hash(&self.token);
        Uuid::from_slice(&hash[..16]).unwrap_or_default()
    }

    /// The invitation that the token stands for.
    fn invited(&self) -> Select<invitation::Entity> {
        invitation::Entity::find().filter(invitation::Column::TokenHash.eq(opaque::hash(&self.token)))
    }
}

impl Platform {
    /// Makes the receiver of an invitation a member, within a transaction of the platform's own.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the token or the password for a new account is not good, or the invitation is for another
    /// address; [`Error::InvitationUsed`], [`Error::InvitationExpired`], [`Error::AlreadyMember`];
    /// [`Error::WrongPassword`] for the account that is there, [`Error::TooManySignIns`].
    pub async fn accept_invitation(
        &self,
        transaction: &DatabaseTransaction,
        acceptance: &Acceptance,
        origin: &Origin,
    ) -> Result<MemberRow, Error> {
        let email = acceptance.email.as_deref();
        let open = check(
            crate::answered(acceptance.invited().one(transaction)).await?,
            email,
        )?;
        // The address first, as whoever invites it does; then once more, as it may have been accepted meanwhile.
        lock_address(transaction, &open.email).await?;
        let again = acceptance.invited().lock_exclusive();
        let open = check(crate::answered(again.one(transaction)).await?, email)?;
        let user = match crate::answered(by_email(&open.email).one(transaction)).await? {
            Some(account) => {
                self.prove(&account, acceptance.password.clone(), origin).await?;
                account
            }
            None => {
                let mut violations = Vec::new();
                let name = check_name(acceptance.name.as_deref(), &mut violations);
                let chosen = crate::tenants::chosen_password("/password", &acceptance.password)
                    .map_err(|violation| violations.push(violation));
                let Ok(chosen) = chosen else {
                    return Err(Error::Invalid(violations));
                };
                if !violations.is_empty() {
                    return Err(Error::Invalid(violations));
                }
                let name = name.unwrap_or_else(|| name_of(&open.email));
                create_account(transaction, &open.email, name, password::hash(chosen).await?).await?
            }
        };
        let member = join(transaction, &user, open.organization_id, open.role).await?;
        let accepted = invitation::Entity::update_many()
            .col_expr(invitation::Column::AcceptedAt, Expr::value(chrono::Utc::now()))
            .col_expr(invitation::Column::AcceptedBy, Expr::value(user.id))
            .col_expr(
                invitation::Column::Revision,
                Expr::col(invitation::Column::Revision).add(1),
            )
            .filter(invitation::Column::Id.eq(open.id))
            .exec(transaction);
        crate::answered(accepted).await?;
        let event = Event {
            doer: Doer::user(user.id, open.organization_id),
            origin,
            refused: None,
            entry: Entry {
                organization: open.organization_id,
                subject: Some(Subject::Invitation(open.id)),
                before: Some(snapshot(&open)),
                after: Some(json!({ "email": member.email, "role": member.role, "accepted_by": user.id })),
            },
        };
        audit::write(transaction, event).await?;
        Ok(member)
    }

    /// Writes down that an invitation was not accepted, as a sign-in that is refused is. A token that stands for none is
    /// nobody's business.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn record_refused_acceptance(
        &self,
        acceptance: &Acceptance,
        origin: &Origin,
        reason: &'static str,
    ) -> Result<(), Error> {
        let Some(invited) = crate::answered(acceptance.invited().one(self.database())).await? else {
            return Ok(());
        };
        let event = Event {
            doer: Doer::NOBODY,
            origin,
            refused: Some(reason),
            entry: Entry {
                organization: invited.organization_id,
                subject: Some(Subject::Invitation(invited.id)),
                before: None,
                after: None,
            },
        };
        audit::write(self.database(), event).await
    }

    /// Checks the password of an account, as often as a sign-in may.
    pub(crate) async fn prove(
        &self,
        account: &entity::user::Model,
        password: SecretString,
        origin: &Origin,
    ) -> Result<(), Error> {
        let attempt = self.throttle().attempt(&account.email, origin.address).await?;
        let right = password::verify(password, Some(account.password_hash.clone())).await;
        if !matches!(right, Ok(false)) {
            self.throttle().release(attempt).await;
        }
        if right? { Ok(()) } else { Err(Error::WrongPassword) }
    }
}

/// An invitation that can be accepted.
fn check(found: Option<InvitationRow>, email: Option<&str>) -> Result<InvitationRow, Error> {
    let found = found.ok_or_else(|| {
        Error::invalid(
            "/token",
            "invalid_token",
            "is not that of an invitation; it may have been taken back or replaced by a newer one",
        )
    })?;
    if email.is_some_and(|email| email.to_lowercase() != found.email.to_lowercase()) {
        return Err(Error::Invalid(vec![Violation::at(
            "/email",
            "wrong_address",
            "is not the address that was invited",
        )]));
    }
    if found.accepted_at.is_some() {
        return Err(Error::InvitationUsed);
    }
    if found.expires_at <= chrono::Utc::now() {
        return Err(Error::InvitationExpired);
    }
    Ok(found)
}
