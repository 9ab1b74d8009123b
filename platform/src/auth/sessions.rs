//! Sign-in, refresh and logout. A session is the root of every token that came of it: ending it ends them all, on
//! every process, with the next request.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use entity::{
    id::{OrganizationId, SessionId, UserId},
    membership, organization, refresh_token, session, user,
    values::Role,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select, TransactionTrait as _,
    sea_query::{Expr, SimpleExpr},
};
use secrecy::SecretString;
use serde_json::json;

use super::{opaque, password, tokens::ACCESS_TOKEN_SECONDS};
use crate::{
    Platform,
    audit::{self, Doer, Entry, Event, Subject},
    caller::Origin,
    error::Error,
};

/// How long a session lives without being refreshed.
const SESSION_DAYS: i64 = 30;

/// What a refresh token begins with.
const REFRESH_TOKEN: &str = "rt_";

/// What a person signs in with.
#[derive(Debug)]
pub struct SignIn {
    /// The account.
    pub email: String,
    /// Its password.
    pub password: SecretString,
    /// Which of the account's organizations.
    pub organization: Option<OrganizationId>,
    /// The request.
    pub origin: Origin,
    /// The program that sent it, as it calls itself.
    pub user_agent: Option<String>,
}

/// The tokens that a sign-in or a refresh yields.
#[derive(Debug)]
pub struct TokenPair {
    /// A JWT.
    pub access_token: SecretString,
    /// Seconds until it ends.
    pub expires_in: i64,
    /// Opaque; good for one refresh.
    pub refresh_token: SecretString,
}

impl Platform {
    /// Checks e-mail address and password and opens a session.
    ///
    /// # Errors
    /// [`Error::WrongPassword`] for an unknown account too, in the same time; [`Error::OrganizationRequired`] when the
    /// account has several and named none; [`Error::TooManySignIns`].
    pub async fn sign_in(&self, sign_in: SignIn) -> Result<TokenPair, Error> {
        let SignIn {
            email,
            password,
            organization,
            origin,
            user_agent,
        } = sign_in;
        let attempt = self.throttle().attempt(&email, origin.address).await?;
        let checked = async {
            let account = self.account(&email).await?;
            let hash = account.as_ref().map(|account| account.password_hash.clone());
            let right = password::verify(password, hash).await?;
            Ok((account, right))
        };
        let (account, right) = match checked.await {
            Ok(checked) => checked,
            Err(error) => {
                // What could not be checked was no wrong guess.
                self.throttle().release(attempt).await;
                return Err(error);
            }
        };
        if right {
            self.throttle().release(attempt).await;
        }
        // Asked of nobody's account too, so that either takes as long.
        let (user, hash) = account.map_or((UserId(uuid::Uuid::nil()), String::new()), |account| {
            (account.id, account.password_hash)
        });
        let memberships = self.memberships(user).await?;
        let outcome = match choose(right, organization, &memberships) {
            Ok(chosen) => {
                self.open_session(user, &hash, chosen.organization_id, &origin, user_agent)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error @ (Error::WrongPassword | Error::OrganizationRequired(_))) = &outcome {
            self.record_refused_sign_in(user, &memberships, &origin, error)
                .await?;
        }
        outcome
    }

    /// The memberships of an account with the organizations' names, oldest first.
    async fn memberships(&self, user: UserId) -> Result<Vec<(membership::Model, String)>, Error> {
        let query = membership::Entity::find()
            .filter(membership::Column::UserId.eq(user))
            .order_by_asc(membership::Column::CreatedAt);
        let rows = crate::answered(query.all(self.database())).await?;
        let organizations = organization::Entity::find()
            .filter(organization::Column::Id.is_in(rows.iter().map(|row| row.organization_id)));
        let names: HashMap<OrganizationId, String> = crate::answered(organizations.all(self.database()))
            .await?
            .into_iter()
            .map(|row| (row.id, row.name))
            .collect();
        Ok(rows
            .into_iter()
            .map(|row| {
                let name = names.get(&row.organization_id).cloned().unwrap_or_default();
                (row, name)
            })
            .collect())
    }

    /// Opens a session of somebody who has proved to know the password of this hash, and writes it down.
    async fn open_session(
        &self,
        user: UserId,
        proved: &str,
        organization: OrganizationId,
        origin: &Origin,
        user_agent: Option<String>,
    ) -> Result<TokenPair, Error> {
        let now = Utc::now();
        let session = SessionId::new();
        let refresh_token = opaque::token(REFRESH_TOKEN);
        let transaction = crate::answered(self.database().begin()).await?;
        // Both stay as they are until the session is there to be ended with them: the password may have been changed, and
        // the member removed, since they were looked at.
        let account = user::Entity::find_by_id(user)
            .filter(user::Column::PasswordHash.eq(proved))
            .lock_shared();
        let stays = membership::Entity::find_by_id((user, organization)).lock_shared();
        if crate::answered(account.one(&transaction)).await?.is_none() {
            return Err(Error::WrongPassword);
        }
        let membership = crate::answered(stays.one(&transaction))
            .await?
            .ok_or(Error::WrongPassword)?;
        session::Entity::insert(session::ActiveModel {
            id: Set(session),
            user_id: Set(user),
            organization_id: Set(organization),
            created_at: Set(now),
            expires_at: Set(now + Duration::days(SESSION_DAYS)),
            ended_at: Set(None),
            address: Set(Some(origin.address.to_string())),
            user_agent: Set(user_agent),
            refreshed_at: Set(now),
            role: Set(Some(membership.role)),
        })
        .exec(&transaction)
        .await?;
        store_refresh_token(&transaction, session, &refresh_token, now).await?;
        let event = Event {
            doer: Doer::user(user, organization),
            origin,
            refused: None,
            entry: Entry {
                organization,
                subject: Some(Subject::Session(session)),
                before: None,
                after: Some(json!({ "role": membership.role })),
            },
        };
        audit::write(&transaction, event).await?;
        transaction.commit().await?;
        self.pair(user, organization, membership.role, session, refresh_token, now)
    }

    /// Writes a refused sign-in into the logs of the account's organizations. One to an account that does not exist is
    /// counted: all in one transaction, so that either takes as long.
    async fn record_refused_sign_in(
        &self,
        user: UserId,
        memberships: &[(membership::Model, String)],
        origin: &Origin,
        error: &Error,
    ) -> Result<(), Error> {
        let transaction = crate::answered(self.database().begin()).await?;
        if memberships.is_empty() {
            Self::count_unknown_sign_in(&transaction, origin.address).await?;
        }
        let reason = match error {
            Error::OrganizationRequired(_) => "organization_required",
            _ => "wrong_password",
        };
        for (membership, _) in memberships {
            let event = Event {
                // Whoever it was: the account is what was tried.
                doer: Doer::NOBODY,
                origin,
                refused: Some(reason),
                entry: Entry {
                    organization: membership.organization_id,
                    subject: Some(Subject::User(user)),
                    before: None,
                    after: None,
                },
            };
            audit::write(&transaction, event).await?;
        }
        crate::answered(transaction.commit()).await
    }

    /// The account of an e-mail address.
    pub(crate) async fn account(&self, email: &str) -> Result<Option<user::Model>, Error> {
        crate::answered(by_email(email).one(self.database())).await
    }

    /// Trades a refresh token for a new pair. The old one is used up.
    ///
    /// # Errors
    /// [`Error::RefreshTokenReused`] for one that was used before, which also ends its session: either it or its
    /// successor is in the wrong hands.
    pub async fn refresh(&self, token: &SecretString, origin: &Origin) -> Result<TokenPair, Error> {
        let now = Utc::now();
        let transaction = crate::answered(self.database().begin()).await?;
        let used = refresh_token::Entity::update_many()
            .col_expr(refresh_token::Column::UsedAt, Expr::value(now))
            .filter(refresh_token::Column::TokenHash.eq(opaque::hash(token)))
            .filter(refresh_token::Column::UsedAt.is_null())
            .filter(refresh_token::Column::ExpiresAt.gt(now))
            .exec_with_returning(&transaction)
            .await?;
        let Some(used) = used.into_iter().next() else {
            transaction.rollback().await?;
            return Err(self.refuse_refresh(token, origin, now).await?);
        };
        let session = session::Entity::find_by_id(used.session_id)
            .filter(session::Column::EndedAt.is_null())
            .filter(session::Column::ExpiresAt.gt(now))
            .one(&transaction)
            .await?
            .ok_or(Error::Unauthenticated)?;
        let role = session.role.ok_or(Error::Unauthenticated)?;
        let refresh_token = opaque::token(REFRESH_TOKEN);
        store_refresh_token(&transaction, session.id, &refresh_token, now).await?;
        session::Entity::update_many()
            .col_expr(
                session::Column::ExpiresAt,
                Expr::value(now + Duration::days(SESSION_DAYS)),
            )
            .col_expr(session::Column::RefreshedAt, Expr::value(now))
            .col_expr(
                session::Column::Address,
                Expr::value(Some(origin.address.to_string())),
            )
            .filter(session::Column::Id.eq(session.id))
            .exec(&transaction)
            .await?;
        audit::write(&transaction, refreshing(&session, origin, None)).await?;
        transaction.commit().await?;
        self.pair(
            session.user_id,
            session.organization_id,
            role,
            session.id,
            refresh_token,
            now,
        )
    }

    /// Why a refresh token was not taken. A used one ends its whole session.
    async fn refuse_refresh(
        &self,
        token: &SecretString,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Error, Error> {
        let known = refresh_token::Entity::find_by_id(opaque::hash(token));
        let known = crate::answered(known.one(self.database())).await?;
        let Some(used) = known.filter(|known| known.used_at.is_some()) else {
            return Ok(Error::Unauthenticated);
        };
        let transaction = crate::answered(self.database().begin()).await?;
        end_sessions(&transaction, session::Column::Id.eq(used.session_id), now).await?;
        if let Some(session) = session::Entity::find_by_id(used.session_id)
            .one(&transaction)
            .await?
        {
            audit::write(
                &transaction,
                refreshing(&session, origin, Some("refresh_token_reused")),
            )
            .await?;
        }
        transaction.commit().await?;
        Ok(Error::RefreshTokenReused)
    }

    fn pair(
        &self,
        user: UserId,
        organization: OrganizationId,
        role: Role,
        session: SessionId,
        refresh_token: SecretString,
        now: DateTime<Utc>,
    ) -> Result<TokenPair, Error> {
        let access_token = self.token_keys().sign(user, organization, role, session, now)?;
        Ok(TokenPair {
            access_token: access_token.into(),
            expires_in: ACCESS_TOKEN_SECONDS,
            refresh_token,
        })
    }
}

/// The account of an e-mail address, in whatever case it is written.
pub(crate) fn by_email(email: &str) -> Select<user::Entity> {
    user::Entity::find().filter(Expr::cust_with_values(
        "lower(email) = $1",
        [email.to_lowercase()],
    ))
}

/// Which membership a sign-in is for.
fn choose(
    right: bool,
    wanted: Option<OrganizationId>,
    memberships: &[(membership::Model, String)],
) -> Result<&membership::Model, Error> {
    if !right {
        return Err(Error::WrongPassword);
    }
    match (wanted, memberships) {
        (None, [(only, _)]) => Ok(only),
        (None, [_, _, ..]) => Err(Error::OrganizationRequired(
            memberships
                .iter()
                .map(|(membership, name)| (membership.organization_id, name.clone()))
                .collect(),
        )),
        // A wrong organization looks like a wrong password: whether it exists is nobody's business.
        (wanted, _) => memberships
            .iter()
            .map(|(membership, _)| membership)
            .find(|membership| Some(membership.organization_id) == wanted)
            .ok_or(Error::WrongPassword),
    }
}

/// What the log says of a refresh.
fn refreshing<'e>(session: &session::Model, origin: &'e Origin, refused: Option<&'e str>) -> Event<'e> {
    Event {
        doer: Doer::user(session.user_id, session.organization_id),
        origin,
        refused,
        entry: Entry {
            organization: session.organization_id,
            subject: Some(Subject::Session(session.id)),
            before: None,
            after: None,
        },
    }
}

/// Ends sessions at once, with all their tokens, and answers them. Ending one again changes nothing.
pub(crate) async fn end_sessions(
    transaction: &DatabaseTransaction,
    which: SimpleExpr,
    now: DateTime<Utc>,
) -> Result<Vec<session::Model>, Error> {
    let ended = session::Entity::update_many()
        .col_expr(session::Column::EndedAt, Expr::value(now))
        .col_expr(session::Column::Role, Expr::value(None::<Role>))
        .filter(which)
        .filter(session::Column::EndedAt.is_null())
        .exec_with_returning(transaction);
    crate::answered(ended).await
}

async fn store_refresh_token(
    database: &impl ConnectionTrait,
    session: SessionId,
    token: &SecretString,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    refresh_token::Entity::insert(refresh_token::ActiveModel {
        token_hash: Set(opaque::hash(token)),
        session_id: Set(session),
        created_at: Set(now),
        expires_at: Set(now + Duration::days(SESSION_DAYS)),
        used_at: Set(None),
    })
    .exec(database)
    .await?;
    Ok(())
}
