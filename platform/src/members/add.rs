//! Adding a member without asking them: an account made for somebody, or a person whom the caller knows already.

use entity::{id::OrganizationId, values::Role};
use sea_orm::DatabaseTransaction;
use secrecy::SecretString;
use serde_json::json;

use super::{
    MemberRow, Members, check_email, check_name, create_account, is_known_to, join, lock_address, name_of,
};
use crate::{
    audit::{self, Entry, Subject},
    auth::{by_email, password},
    error::{Error, Violation},
    organizations,
};

/// A member to be.
#[derive(Debug)]
pub struct NewMember {
    /// The e-mail address.
    pub email: String,
    /// As what.
    pub role: Role,
    /// The person's name, for a new account.
    pub name: Option<String>,
    /// The password of a new account; one is generated where none is given.
    pub password: Option<SecretString>,
    /// Where; the caller's own organization where none is given.
    pub organization: Option<OrganizationId>,
}

/// A member that was added.
#[derive(Debug)]
pub struct AddedMember {
    /// The member.
    pub member: MemberRow,
    /// The password of a new account, where it was generated: answered once, kept nowhere in clear.
    pub generated_password: Option<SecretString>,
}

impl Members<'_> {
    /// Adds a member within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyMember`]; [`Error::AccountExists`] for the account of somebody whom the caller
    /// does not know: they are to be invited.
    pub async fn add(
        &self,
        transaction: &DatabaseTransaction,
        new: &NewMember,
    ) -> Result<AddedMember, Error> {
        let mut violations = Vec::new();
        let email = check_email(&new.email, &mut violations);
        self.identity.check_given_role(new.role, &mut violations);
        let name = check_name(new.name.as_deref(), &mut violations);
        if let Some(chosen) = &new.password
            && let Err(violation) = crate::tenants::chosen_password("/password", chosen)
        {
            violations.push(violation);
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let organization =
            organizations::named(transaction, self.identity, "/organization_id", new.organization).await?;
        lock_address(transaction, &email).await?;
        let known = self
            .identity
            .as_the_platform(transaction, async |transaction| {
                crate::answered(by_email(&email).one(transaction)).await
            })
            .await?;
        let (user, generated_password) = match known {
            Some(user) => {
                if !is_known_to(transaction, self.identity, user.id).await? {
                    return Err(Error::AccountExists);
                }
                if new.password.is_some() {
                    return Err(Error::Invalid(vec![Violation::at(
                        "/password",
                        "account_exists",
                        "must be left out: there is an account with this address, and it has a password",
                    )]));
                }
                (user, None)
            }
            None => {
                let (chosen, generated) = match &new.password {
                    Some(chosen) => (chosen.clone(), None),
                    None => {
                        let generated = password::generate();
                        (generated.clone(), Some(generated))
                    }
                };
                let hash = password::hash(chosen).await?;
                let name = name.unwrap_or_else(|| name_of(&email));
                let user = self
                    .identity
                    .as_the_platform(transaction, async |transaction| {
                        create_account(transaction, &email, name, hash).await
                    })
                    .await?;
                (user, generated)
            }
        };
        let member = join(transaction, &user, organization.id, new.role).await?;
        let entry = Entry {
            organization: organization.id,
            subject: Some(Subject::User(user.id)),
            before: None,
            after: Some(json!({ "email": member.email, "role": member.role })),
        };
        audit::record(transaction, self.identity, entry).await?;
        Ok(AddedMember {
            member,
            generated_password,
        })
    }
}
