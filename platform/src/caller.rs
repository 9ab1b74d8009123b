//! Who is calling and what that lets them do. A [`Caller`] exists only for a credential that is good and a permission
//! that its role has, and it alone yields stores, which see nothing outside the caller's part of the tree.

use std::{marker::PhantomData, sync::Arc};

use entity::{
    id::{OrganizationId, SessionId, UserId},
    values::Role,
};
use sea_orm::sea_query::{Expr, SimpleExpr};

use crate::{
    Platform,
    error::Error,
    operations::Operations,
    permissions::{self, Permission},
    tenants::Tenants,
};

/// Who is calling.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// The organization that was signed in to.
    pub organization: OrganizationId,
    /// The effective role: the lower of the token's and the present one.
    pub role: Role,
    /// Whether the organization is the root.
    pub root: bool,
    /// The request, for logs and for the work that it causes.
    pub request_id: String,
}

/// A caller that has the permission `P`.
#[derive(Debug)]
pub struct Caller<P> {
    platform: Arc<Platform>,
    identity: Identity,
    permission: PhantomData<fn() -> P>,
}

impl Platform {
    /// Checks a bearer token and that its session, membership and role permit `P`, now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub async fn authorize<P: Permission>(
        self: &Arc<Self>,
        bearer: &str,
        request_id: &str,
    ) -> Result<Caller<P>, Error> {
        let claims = self.token_keys().verify(bearer)?;
        let standing = self.standing(claims.sid).await?.ok_or(Error::Unauthenticated)?;
        let identity = Identity {
            user: claims.sub,
            session: claims.sid,
            organization: claims.org,
            role: claims.role.min(standing.role),
            root: standing.root,
            request_id: request_id.to_owned(),
        };
        if identity.role < P::LEAST || (P::ROOT_ONLY && !identity.root) {
            return Err(Error::Forbidden { permission: P::ID });
        }
        Ok(Caller {
            platform: self.clone(),
            identity,
            permission: PhantomData,
        })
    }
}

impl<P: Permission> Caller<P> {
    /// Who is calling.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The tenants that the caller can see.
    #[must_use]
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants::new(&self.platform, &self.identity)
    }

    /// The operations that the caller can see.
    #[must_use]
    pub fn operations(&self) -> Operations<'_> {
        Operations::new(&self.platform, &self.identity)
    }

    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// Ends the caller's own session.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn log_out(&self) -> Result<(), Error> {
        self.platform
            .end_session(self.identity.session, chrono::Utc::now())
            .await
    }

    /// The ids of all that the caller may do.
    #[must_use]
    pub fn permissions(&self) -> Vec<&'static str> {
        permissions::of(self.identity.role, self.identity.root)
    }
}

impl Identity {
    /// The condition that a row's organization is the caller's own or below it. Every query of a store has it.
    pub(crate) fn sees(&self, organization_column: &'static str) -> SimpleExpr {
        Expr::cust_with_values(
            format!(
                "EXISTS (SELECT FROM organization_ancestors up \
                  WHERE up.organization_id = {organization_column} AND up.ancestor_id = $1)"
            ),
            [self.organization.0],
        )
    }
}

/// Who is calling, with names.
#[derive(Debug)]
pub struct Profile {
    /// The user.
    pub user: entity::user::Model,
    /// The organization that the credential acts for.
    pub organization: entity::organization::Model,
}

impl<P: Permission> Caller<P> {
    /// Who is calling, with names.
    ///
    /// # Errors
    /// The database doesn't answer.
    pub async fn profile(&self) -> Result<Profile, Error> {
        use sea_orm::EntityTrait as _;

        let database = self.platform.database();
        let user = entity::user::Entity::find_by_id(self.identity.user)
            .one(database)
            .await?;
        let organization = entity::organization::Entity::find_by_id(self.identity.organization)
            .one(database)
            .await?;
        let (user, organization) = user.zip(organization).ok_or(Error::Unauthenticated)?;
        Ok(Profile { user, organization })
    }
}
