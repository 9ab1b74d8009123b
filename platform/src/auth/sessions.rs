//! Sign-in, refresh and logout. A session is the root of every token that came of it: ending it ends them all, on
//! every process, with the next request.

use std::net::IpAddr;

use chrono::{DateTime, Duration, Utc};
use entity::{
    id::{OrganizationId, SessionId, UserId},
    membership, organization, refresh_token, session, user,
    values::Role,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    Statement, TransactionTrait as _, sea_query::Expr,
};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::{password, tokens::ACCESS_TOKEN_SECONDS};
use crate::{Platform, error::Error};

/// How long a session lives without being refreshed.
const SESSION_DAYS: i64 = 30;

/// What a person signs in with.
#[derive(Debug)]
pub struct SignIn {
    /// The account.
    pub email: String,
    /// Its password.
    pub password: SecretString,
    /// Which of the account's organizations.
    pub organization: Option<OrganizationId>,
    /// Where the request comes from.
    pub address: IpAddr,
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
        let attempt = self.throttle().attempt(&sign_in.email, sign_in.address).await?;
        let account = match self.account(&sign_in.email, sign_in.password).await {
            Ok(Some(account)) => account,
            Ok(None) => return Err(Error::WrongPassword),
            Err(error) => {
                // What could not be checked was no wrong guess.
                self.throttle().release(attempt).await;
                return Err(error);
            }
        };
        self.throttle().release(attempt).await;

        let memberships: Vec<(membership::Model, Option<organization::Model>)> = {
            let rows = membership::Entity::find()
                .filter(membership::Column::UserId.eq(account.id))
                .order_by_asc(membership::Column::CreatedAt)
                .all(self.database())
                .await?;
            let mut with_names = Vec::with_capacity(rows.len());
            for row in rows {
                let organization = organization::Entity::find_by_id(row.organization_id)
                    .one(self.database())
                    .await?;
                with_names.push((row, organization));
            }
            with_names
        };
        let chosen = match (sign_in.organization, memberships.as_slice()) {
            (None, [only]) => only,
            (None, [_, _, ..]) => {
                let named = memberships
                    .iter()
                    .filter_map(|(_, organization)| organization.as_ref())
                    .map(|organization| (organization.id, organization.name.clone()))
                    .collect();
                return Err(Error::OrganizationRequired(named));
            }
            // A wrong organization looks like a wrong password: whether it exists is nobody's business.
            (wanted, _) => memberships
                .iter()
                .find(|(membership, _)| Some(membership.organization_id) == wanted)
                .ok_or(Error::WrongPassword)?,
        };

        let now = Utc::now();
        let session = SessionId::new();
        let (refresh_token, token_hash) = new_refresh_token();
        let transaction = self.database().begin().await?;
        session::Entity::insert(session::ActiveModel {
            id: Set(session),
            user_id: Set(account.id),
            organization_id: Set(chosen.0.organization_id),
            created_at: Set(now),
            expires_at: Set(now + Duration::days(SESSION_DAYS)),
            ended_at: Set(None),
        })
        .exec(&transaction)
        .await?;
        store_refresh_token(&transaction, session, token_hash, now).await?;
        transaction.commit().await?;
        self.pair(
            account.id,
            chosen.0.organization_id,
            chosen.0.role,
            session,
            refresh_token,
            now,
        )
    }

    /// The account of an e-mail address and its password. One that does not exist takes as long.
    async fn account(&self, email: &str, password: SecretString) -> Result<Option<user::Model>, Error> {
        let by_email = user::Entity::find().filter(Expr::cust_with_values(
            "lower(email) = $1",
            [email.to_lowercase()],
        ));
        let account = crate::answered(by_email.one(self.database())).await?;
        let hash = account.as_ref().map(|account| account.password_hash.clone());
        let right = password::verify(password, hash).await?;
        Ok(account.filter(|_| right))
    }

    /// Trades a refresh token for a new pair. The old one is used up.
    ///
    /// # Errors
    /// [`Error::RefreshTokenReused`] for one that was used before, which also ends its session: either it or its
    /// successor is in the wrong hands.
    pub async fn refresh(&self, token: &SecretString) -> Result<TokenPair, Error> {
        let now = Utc::now();
        let transaction = crate::answered(self.database().begin()).await?;
        let used = refresh_token::Entity::update_many()
            .col_expr(refresh_token::Column::UsedAt, Expr::value(now))
            .filter(refresh_token::Column::TokenHash.eq(hash_token(token)))
            .filter(refresh_token::Column::UsedAt.is_null())
            .filter(refresh_token::Column::ExpiresAt.gt(now))
            .exec_with_returning(&transaction)
            .await?;
        let Some(used) = used.into_iter().next() else {
            transaction.rollback().await?;
            return Err(self.refuse_refresh(token, now).await?);
        };
        let session = session::Entity::find_by_id(used.session_id)
            .filter(session::Column::EndedAt.is_null())
            .filter(session::Column::ExpiresAt.gt(now))
            .one(&transaction)
            .await?
            .ok_or(Error::Unauthenticated)?;
        let membership = membership::Entity::find_by_id((session.user_id, session.organization_id))
            .one(&transaction)
            .await?
            .ok_or(Error::Unauthenticated)?;
        let (refresh_token, token_hash) = new_refresh_token();
        store_refresh_token(&transaction, session.id, token_hash, now).await?;
        session::Entity::update_many()
            .col_expr(
                session::Column::ExpiresAt,
                Expr::value(now + Duration::days(SESSION_DAYS)),
            )
            .filter(session::Column::Id.eq(session.id))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        self.pair(
            session.user_id,
            session.organization_id,
            membership.role,
            session.id,
            refresh_token,
            now,
        )
    }

    /// Why a refresh token was not taken. A used one ends its whole session.
    async fn refuse_refresh(&self, token: &SecretString, now: DateTime<Utc>) -> Result<Error, Error> {
        let known = refresh_token::Entity::find_by_id(hash_token(token))
            .one(self.database())
            .await?;
        match known {
            Some(known) if known.used_at.is_some() => {
                self.end_session(known.session_id, now).await?;
                Ok(Error::RefreshTokenReused)
            }
            _ => Ok(Error::Unauthenticated),
        }
    }

    /// Ends a session at once, with all its tokens. Ending it again changes nothing.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn end_session(&self, session: SessionId, now: DateTime<Utc>) -> Result<(), Error> {
        session::Entity::update_many()
            .col_expr(session::Column::EndedAt, Expr::value(now))
            .filter(session::Column::Id.eq(session))
            .filter(session::Column::EndedAt.is_null())
            .exec(self.database())
            .await?;
        Ok(())
    }

    /// The present role of a session's member: `None` once it has ended or its member was removed.
    pub(crate) async fn standing(&self, session: SessionId) -> Result<Option<Role>, Error> {
        let statement =
            Statement::from_sql_and_values(sea_orm::DbBackend::Postgres, standing_query(1), [session.into()]);
        let row = crate::answered(self.database().query_one_raw(statement)).await?;
        Ok(row.map(|row| row.try_get("", "role")).transpose()?)
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

/// The query for the present role of the member of the session whose id is the parameter of this number: no row once the session has
/// ended or its member was removed.
pub(crate) fn standing_query(parameter: usize) -> String {
    format!(
        "SELECT m.role \
           FROM sessions s \
           JOIN memberships m ON m.user_id = s.user_id AND m.organization_id = s.organization_id \
          WHERE s.id = ${parameter} AND s.ended_at IS NULL AND s.expires_at > now()"
    )
}

/// A new refresh token and its hash. It has 256 random bits, so a plain hash keeps it.
fn new_refresh_token() -> (SecretString, Vec<u8>) {
    use base64::Engine as _;
    let random: [u8; 32] = rand::random();
    let token = SecretString::from(format!(
        "rt_{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random)
    ));
    let hash = hash_token(&token);
    (token, hash)
}

fn hash_token(token: &SecretString) -> Vec<u8> {
    Sha256::digest(token.expose_secret().as_bytes()).to_vec()
}

async fn store_refresh_token(
    database: &impl ConnectionTrait,
    session: SessionId,
    token_hash: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    refresh_token::Entity::insert(refresh_token::ActiveModel {
        token_hash: Set(token_hash),
        session_id: Set(session),
        created_at: Set(now),
        expires_at: Set(now + Duration::days(SESSION_DAYS)),
        used_at: Set(None),
    })
    .exec(database)
    .await?;
    Ok(())
}
