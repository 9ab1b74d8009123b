//! The caller's own account: who one is, one's name and password, one's sessions.

use entity::{
    id::{SessionId, UserId},
    organization, session, user,
};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};
use secrecy::SecretString;
use serde_json::json;

pub use entity::session::Model as SessionRow;

use crate::{
    Platform,
    api_keys::ApiKeyRow,
    audit::{self, Entry, Subject},
    auth::{Actor, end_sessions, password},
    caller::Identity,
    error::{Error, Violation},
    paging::Page,
    permissions::Permission,
    precondition::{Precondition, Versioned},
    reader::Reader,
    text,
};

/// Who is calling, with names.
#[derive(Debug)]
pub struct Profile {
    /// The user or the key.
    pub who: Who,
    /// The organization that the credential acts for.
    pub organization: organization::Model,
    /// The role and what comes with it.
    pub identity: Identity,
}

/// A person or a program.
#[derive(Debug)]
pub enum Who {
    /// A person.
    User(user::Model),
    /// A program.
    ApiKey(ApiKeyRow),
}

impl Versioned for Profile {
    fn version(&self) -> String {
        let (who, revision) = match &self.who {
            Who::User(user) => (user.id.0, user.revision),
            Who::ApiKey(key) => (key.id.0, key.revision),
        };
        // One address shows each caller another thing.
        format!(
            "v{revision}.{}.{}.{}.{}",
            self.organization.revision,
            self.identity.permissions().len(),
            who.simple(),
            self.organization.id.0.simple()
        )
    }
}

impl Versioned for SessionRow {
    fn version(&self) -> String {
        format!("v{}", self.refreshed_at.timestamp_micros())
    }
}

/// The caller's own account, to read.
#[derive(Debug)]
pub struct ProfileReader<'r, P> {
    reader: &'r Reader<P>,
}

impl<'r, P: Permission> ProfileReader<'r, P> {
    pub(crate) fn new(reader: &'r Reader<P>) -> Self {
        Self { reader }
    }

    /// Who is calling, with names.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub async fn get(&self) -> Result<Profile, Error> {
        let who = match self.reader.credential().actor() {
            Actor::User { id, .. } => {
                let (_, found) = self.reader.rows(user::Entity::find_by_id(id), None).await?;
                found.into_iter().next().map(Who::User)
            }
            Actor::ApiKey(id) => {
                let (_, found) = self
                    .reader
                    .rows(entity::api_key::Entity::find_by_id(id), None)
                    .await?;
                found.into_iter().next().map(Who::ApiKey)
            }
        };
        let own = organization::Entity::find_by_id(self.reader.organization());
        let (identity, organizations) = self.reader.rows(own, None).await?;
        let (who, organization) = who
            .zip(organizations.into_iter().next())
            .ok_or(Error::Unauthenticated)?;
        Ok(Profile {
            who,
            organization,
            identity,
        })
    }

    /// The caller's sessions that have not ended, in whichever organization, newest first; and which of them asks.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub async fn sessions(
        &self,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<(Option<SessionId>, Page<SessionRow>), Error> {
        let (id, own) = match self.reader.credential().actor() {
            Actor::User { id, session } => (id, Some(session)),
            // It has none; whether it may ask is told with the answer.
            Actor::ApiKey(_) => (UserId(uuid::Uuid::nil()), None),
        };
        let list = ("sessions", id);
        let mut query = session::Entity::find()
            .filter(session::Column::UserId.eq(id))
            .filter(session::Column::EndedAt.is_null())
            .filter(session::Column::ExpiresAt.gt(chrono::Utc::now()));
        if let Some(after) = self.reader.after(&list, page_token)? {
            query = query.filter(session::Column::Id.lt(after));
        }
        let query = query.order_by_desc(session::Column::Id);
        let (_, rows) = self.reader.rows(query, Some(u64::from(limit) + 1)).await?;
        Ok((own, self.reader.page(&list, limit, rows, |row| row.id.0)))
    }
}

/// What shall change about the caller; what is absent stays.
#[derive(Debug, Default)]
pub struct MyChanges {
    /// Name.
    pub name: Option<String>,
    /// A new password.
    pub password: Option<SecretString>,
    /// The present one, which a new one takes.
    pub current_password: Option<SecretString>,
}

/// The caller's own account, to change.
#[derive(Debug)]
pub struct Myself<'c> {
    platform: &'c Platform,
    identity: &'c Identity,
}

impl<'c> Myself<'c> {
    pub(crate) fn new(platform: &'c Platform, identity: &'c Identity) -> Self {
        Self { platform, identity }
    }

    /// The user and the session. Whoever has the permission to change itself is a person.
    fn person(&self) -> Result<(UserId, SessionId), Error> {
        match self.identity.actor {
            Actor::User { id, session } => Ok((id, session)),
            Actor::ApiKey(_) => Err(Error::Forbidden {
                permission: "self.manage",
            }),
        }
    }

    /// Changes the caller's name or password. A new password ends all other sessions.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::PreconditionFailed`], [`Error::TooManySignIns`].
    pub async fn update(&self, precondition: &Precondition, changes: &MyChanges) -> Result<Profile, Error> {
        let (id, own_session) = self.person()?;
        let mut violations = Vec::new();
        let name = changes.name.as_deref().and_then(|name| {
            text::display_name(name)
                .map_err(|violation| violations.push(violation))
                .ok()
        });
        let chosen = changes.password.as_ref().and_then(|password| {
            crate::tenants::chosen_password("/password", password)
                .map_err(|violation| violations.push(violation))
                .ok()
        });
        if changes.password.is_some() != changes.current_password.is_some() {
            let (pointer, missing) = if changes.password.is_some() {
                ("/current_password", "must be given with a new password")
            } else {
                ("/password", "must be given with the current one")
            };
            violations.push(Violation::at(pointer, "missing_field", missing));
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        // Before the transaction: hashing takes its time.
        let known = user::Entity::find_by_id(id).one(self.platform.database());
        let known = crate::answered(known).await?.ok_or(Error::Unauthenticated)?;
        let new_hash = match (chosen, &changes.current_password) {
            (Some(chosen), Some(current)) => {
                match self
                    .platform
                    .prove(&known, current.clone(), &self.identity.origin)
                    .await
                {
                    Err(Error::WrongPassword) => {
                        return Err(Error::invalid(
                            "/current_password",
                            "wrong_password",
                            "is not the present password",
                        ));
                    }
                    proved => proved?,
                }
                Some(password::hash(chosen).await?)
            }
            _ => None,
        };

        let transaction = self.identity.begin(self.platform).await?;
        let locked = user::Entity::find_by_id(id).lock_exclusive();
        let before = crate::answered(locked.one(&transaction))
            .await?
            .ok_or(Error::Unauthenticated)?;
        let own = organization::Entity::find_by_id(self.identity.organization);
        let organization = crate::answered(own.one(&transaction))
            .await?
            .ok_or(Error::Unauthenticated)?;
        let mut profile = Profile {
            who: Who::User(before.clone()),
            organization,
            identity: self.identity.clone(),
        };
        precondition.check(&profile)?;
        if new_hash.is_some() && before.password_hash != known.password_hash {
            // Another change of the password came first: the present one is not what was proved.
            return Err(Error::PreconditionFailed);
        }
        let name = name.filter(|name| *name != before.name);
        if name.is_none() && new_hash.is_none() {
            return Ok(profile);
        }
        let changed_password = new_hash.is_some();
        let mut update = user::Entity::update_many()
            .col_expr(user::Column::Revision, Expr::col(user::Column::Revision).add(1))
            .col_expr(user::Column::UpdatedAt, Expr::cust("now()"))
            .filter(user::Column::Id.eq(id));
        if let Some(name) = name {
            update = update.col_expr(user::Column::Name, Expr::value(name));
        }
        if let Some(hash) = new_hash {
            update = update.col_expr(user::Column::PasswordHash, Expr::value(hash));
            let others = session::Column::UserId
                .eq(id)
                .and(session::Column::Id.ne(own_session));
            end_sessions(&transaction, others, chrono::Utc::now()).await?;
        }
        let after = crate::answered(update.exec_with_returning(&transaction))
            .await?
            .into_iter()
            .next()
            .ok_or(Error::Unauthenticated)?;
        let entry = Entry {
            organization: self.identity.organization,
            subject: Some(Subject::User(id)),
            before: Some(json!({ "name": before.name })),
            after: Some(json!({ "name": after.name, "password_changed": changed_password })),
        };
        audit::record(&transaction, self.identity, entry).await?;
        crate::answered(transaction.commit()).await?;
        profile.who = Who::User(after);
        Ok(profile)
    }

    /// Ends one of the caller's sessions.
    ///
    /// # Errors
    /// [`Error::NotFound`]: it is somebody else's, or has ended; [`Error::PreconditionFailed`].
    pub async fn end_session(&self, session: SessionId, precondition: &Precondition) -> Result<(), Error> {
        let (id, _) = self.person()?;
        let transaction = self.identity.begin(self.platform).await?;
        let locked = session::Entity::find_by_id(session)
            .filter(session::Column::UserId.eq(id))
            .lock_exclusive()
            .one(&transaction);
        let before = crate::answered(locked).await?.ok_or(Error::NotFound)?;
        precondition.check(&before)?;
        let which = session::Column::Id
            .eq(session)
            .and(session::Column::UserId.eq(id));
        let ended = end_sessions(&transaction, which, chrono::Utc::now()).await?;
        let ended = ended.first().ok_or(Error::NotFound)?;
        let entry = Entry {
            organization: before.organization_id,
            subject: Some(Subject::Session(ended.id)),
            before: None,
            after: None,
        };
        // In the log of the session's organization, which may be another than the one that was entered.
        self.identity
            .as_the_platform(&transaction, async |transaction| {
                audit::record(transaction, self.identity, entry).await
            })
            .await?;
        crate::answered(transaction.commit()).await
    }

    /// Ends the caller's own session.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn log_out(&self) -> Result<(), Error> {
        let (_, own) = self.person()?;
        match self.end_session(own, &Precondition::None).await {
            // It ended meanwhile.
            Err(Error::NotFound) => Ok(()),
            outcome => outcome,
        }
    }
}
