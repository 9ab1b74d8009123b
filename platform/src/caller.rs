//! Who is calling and what that lets them do. A [`Caller`] exists only for a credential that is good and a permission
//! that its role has, and it alone yields stores that change something; they see nothing outside the caller's part of
//! the tree. What only reads goes through a [`Reader`](crate::reader::Reader), which asks the same in the statement that
//! reads.

use std::{marker::PhantomData, sync::Arc};

use entity::{
    id::{OrganizationId, SessionId, UserId},
    values::Role,
};
use sea_orm::sea_query::{Expr, SimpleExpr};

use crate::{
    Platform,
    auth::Claims,
    error::Error,
    operations::Operations,
    permissions::{self, Permission, ReadDrift},
    reconcile::DriftReader,
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
    /// Checks that the session, membership and role behind a verified token permit `P`, now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub async fn authorize<P: Permission>(
        self: &Arc<Self>,
        claims: &Claims,
        request_id: &str,
    ) -> Result<Caller<P>, Error> {
        let role = self.standing(claims.sid).await?;
        Ok(Caller {
            platform: self.clone(),
            identity: self.identify::<P>(claims, role, request_id)?,
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

    /// The tenants that the caller can change.
    #[must_use]
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants::new(&self.platform, &self.identity)
    }

    /// The operations that the caller can change.
    #[must_use]
    pub fn operations(&self) -> Operations<'_> {
        Operations::new(&self.identity)
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
}

impl Caller<ReadDrift> {
    /// What is not as the tables say.
    #[must_use]
    pub fn drift(&self) -> DriftReader<'_> {
        DriftReader::new(&self.platform, &self.identity)
    }
}

impl Platform {
    /// A verified token's bearer, whose session and membership have this role at present, if that has the permission
    /// `P`.
    pub(crate) fn identify<P: Permission>(
        &self,
        claims: &Claims,
        present: Option<Role>,
        request_id: &str,
    ) -> Result<Identity, Error> {
        let role = claims.role.min(present.ok_or(Error::Unauthenticated)?);
        let root = claims.org == self.root();
        if role < P::LEAST || (P::ROOT_ONLY && !root) {
            return Err(Error::Forbidden { permission: P::ID });
        }
        Ok(Identity {
            user: claims.sub,
            session: claims.sid,
            organization: claims.org,
            role,
            root,
            request_id: request_id.to_owned(),
        })
    }
}

impl Identity {
    /// The condition that a row's organization is the caller's own or below it. Every query of a store has it.
    pub(crate) fn sees(&self, organization_column: &'static str) -> SimpleExpr {
        below(self.organization, organization_column)
    }

    /// Whether the caller may see internal details, such as host names in an operation's error.
    #[must_use]
    pub fn sees_details(&self) -> bool {
        self.root && self.role >= Role::Admin
    }

    /// The ids of all that the caller may do.
    #[must_use]
    pub fn permissions(&self) -> Vec<&'static str> {
        permissions::of(self.role, self.root)
    }
}

/// The condition that a row's organization is this one or below it.
pub(crate) fn below(organization: OrganizationId, organization_column: &'static str) -> SimpleExpr {
    Expr::cust_with_values(
        format!(
            "EXISTS (SELECT FROM organization_ancestors up \
              WHERE up.organization_id = {organization_column} AND up.ancestor_id = $1)"
        ),
        [organization.0],
    )
}
