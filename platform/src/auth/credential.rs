//! What a request shows of itself: the access token of a session, or the secret of an API key. Either says whose it is
//! and where it acts; whether that still holds is asked of the database with each statement.

use std::sync::Arc;

use chrono::Utc;
use entity::{
    api_key,
    id::{ApiKeyId, OrganizationId, UserId},
    values::Role,
};
use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, Value};

use super::{Claims, opaque, secret};
use crate::{Platform, error::Error, limits::Subject};

/// A credential that is good as far as it can be told without asking whether it was revoked.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A verified access token.
    Session(Arc<Claims>),
    /// The secret of an API key that was seen to exist.
    Key(Arc<KnownKey>),
}

/// What never changes about an API key's secret.
#[derive(Debug)]
pub struct KnownKey {
    /// The key.
    pub id: ApiKeyId,
    /// Where it acts.
    pub organization: OrganizationId,
    /// The secret's hash.
    pub(crate) hash: Vec<u8>,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A person, by a session.
    User {
        /// The user.
        id: UserId,
        /// The session.
        session: entity::id::SessionId,
    },
    /// A program.
    ApiKey(ApiKeyId),
}

impl Actor {
    /// Whether it is a person.
    #[must_use]
    pub fn is_person(self) -> bool {
        matches!(self, Self::User { .. })
    }
}

impl Credential {
    /// Where it acts.
    #[must_use]
    pub fn organization(&self) -> OrganizationId {
        match self {
            Self::Session(claims) => claims.org,
            Self::Key(key) => key.organization,
        }
    }

    /// Who acts by it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match self {
            Self::Session(claims) => Actor::User {
                id: claims.sub,
                session: claims.sid,
            },
            Self::Key(key) => Actor::ApiKey(key.id),
        }
    }

    /// Whose requests are counted together.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Session(claims) => Subject::Session(claims.sid),
            Self::Key(key) => Subject::Key(key.id),
        }
    }

    /// The effective role, where the present one is this.
    pub(crate) fn effective(&self, present: Role) -> Role {
        match self {
            // The lower of what the token says and what is so now.
            Self::Session(claims) => claims.role.min(present),
            Self::Key(_) => present,
        }
    }

    /// The call that checks the credential and enters its organization, as SQL with a parameter of this number, and the
    /// parameter. It answers the present role; null: the session has ended, its member was removed, the key was revoked
    /// or has expired.
    pub(crate) fn entrance(&self, root: OrganizationId, parameter: usize) -> (String, Value) {
        let (function, value) = match self {
            Self::Session(claims) => ("enter_session", claims.sid.into()),
            Self::Key(key) => ("enter_api_key", key.hash.clone().into()),
        };
        (format!("{function}(${parameter}, '{}')", root.0), value)
    }
}

/// What a bearer is, before anything was asked of the database for it.
#[derive(Debug)]
pub enum Bearer {
    /// It is good, as far as is known.
    Known(Credential),
    /// It has the form of an API key's secret, but this process has not seen it before: [`Platform::look_up`] asks.
    Unseen(Vec<u8>),
}

impl Platform {
    /// What a bearer token is.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn bearer(&self, bearer: &str) -> Result<Bearer, Error> {
        if !bearer.starts_with(secret::PREFIX) {
            return Ok(Bearer::Known(Credential::Session(self.verify(bearer).await?)));
        }
        // The checksum: what somebody made up is refused without asking.
        if !secret::is_well_formed(bearer) {
            return Err(Error::Unauthenticated);
        }
        let hash = opaque::hash_of(bearer);
        Ok(match self.known_keys.get(&hash) {
            Some(key) => Bearer::Known(Credential::Key(key)),
            None => Bearer::Unseen(hash),
        })
    }

    /// Forgets an API key whose secret is worth nothing any more: whoever shows it again counts as anybody.
    pub(crate) fn forget_key(&self, credential: &Credential) {
        if let Credential::Key(key) = credential {
            self.known_keys.remove(&key.hash);
        }
    }

    /// Looks for the API key of a secret that this process has not seen before. To be asked only by whom may ask often:
    /// anybody can make up a secret of the right form.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn look_up(&self, hash: Vec<u8>) -> Result<Credential, Error> {
        let previous = Condition::all()
            .add(api_key::Column::PreviousHash.eq(hash.clone()))
            .add(api_key::Column::PreviousUntil.gt(Utc::now()));
        let query = api_key::Entity::find().filter(
            Condition::any()
                .add(api_key::Column::SecretHash.eq(hash.clone()))
                .add(previous),
        );
        let row = crate::answered(query.one(self.database()))
            .await?
            .ok_or(Error::Unauthenticated)?;
        let key = Arc::new(KnownKey {
            id: row.id,
            organization: row.organization_id,
            hash: hash.clone(),
        });
        self.known_keys.insert(hash, key.clone());
        Ok(Credential::Key(key))
    }
}
