//! Who is calling and what that lets them do. A [`Caller`] exists only for a credential that is good and a permission
//! that its role has, and it alone yields stores that change something; they see nothing outside the caller's part of
//! the tree. What only reads goes through a [`Reader`](crate::reader::Reader), which asks the same in the statement that
//! reads.

use std::{marker::PhantomData, net::IpAddr, sync::Arc};

use entity::{id::OrganizationId, values::Role};
use sea_orm::{
    ConnectionTrait as _, DatabaseTransaction, DbBackend, QueryResult, Statement, TransactionTrait as _,
    sea_query::{Expr, SimpleExpr},
};
use uuid::Uuid;

use crate::{
    Platform,
    api_keys::ApiKeys,
    auth::{Actor, Credential},
    error::{Error, Violation},
    members::{Invitations, Members},
    operations::Operations,
    organizations::Organizations,
    permissions::{self, Permission, ReadDrift},
    profile::Myself,
    reconcile::DriftReader,
    tenants::Tenants,
};

/// The request that somebody sent: what the log and the work that it causes say of it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request's id.
    pub request_id: Arc<str>,
    /// Where it came from.
    pub address: IpAddr,
    /// What was asked for: the operation's name in the API's document.
    pub action: &'static str,
}

/// Who is calling.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user or the key.
    pub actor: Actor,
    /// The organization that the credential acts for.
    pub organization: OrganizationId,
    /// The effective role: the lower of the token's and the present one.
    pub role: Role,
    /// Whether the organization is the root.
    pub root: bool,
    /// The request.
    pub origin: Origin,
    /// By which the same is asked once more, in the transaction of a change.
    credential: Credential,
    /// The permission that was demanded, and the least role that has it.
    demanded: (&'static str, Role),
}

/// A caller that has the permission `P`.
#[derive(Debug)]
pub struct Caller<P> {
    platform: Arc<Platform>,
    identity: Identity,
    permission: PhantomData<fn() -> P>,
}

impl Platform {
    /// Checks that what stands behind a credential permits `P`, now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub async fn authorize<P: Permission>(
        self: &Arc<Self>,
        credential: &Credential,
        origin: Origin,
    ) -> Result<Caller<P>, Error> {
        let rows = self.reads().rows(entering(credential, self.root())).await?;
        let role = standing(rows.first())?;
        Ok(Caller {
            platform: self.clone(),
            identity: self.identify::<P>(credential, role, origin)?,
            permission: PhantomData,
        })
    }

    /// Who shows a credential whose present role is this, if that has the permission `P`.
    pub(crate) fn identify<P: Permission>(
        &self,
        credential: &Credential,
        present: Option<Role>,
        origin: Origin,
    ) -> Result<Identity, Error> {
        let Some(present) = present else {
            self.forget_key(credential);
            return Err(Error::Unauthenticated);
        };
        let role = credential.effective(present);
        let organization = credential.organization();
        let root = organization == self.root();
        let actor = credential.actor();
        if role < P::LEAST || (P::ROOT_ONLY && !root) || (P::PERSON_ONLY && !actor.is_person()) {
            return Err(Error::Forbidden { permission: P::ID });
        }
        if let Actor::ApiKey(key) = actor {
            self.key_uses.note(key);
        }
        Ok(Identity {
            actor,
            organization,
            role,
            root,
            origin,
            credential: credential.clone(),
            demanded: (P::ID, P::LEAST),
        })
    }
}

/// Enters a credential's organization and answers its present role.
fn entering(credential: &Credential, root: OrganizationId) -> Statement {
    let (entrance, parameter) = credential.entrance(root, 1);
    let sql = format!("SELECT {entrance} AS role");
    Statement::from_sql_and_values(DbBackend::Postgres, sql, [parameter])
}

/// The present role that [`entering`] answered; `None` once the credential is worth nothing.
fn standing(row: Option<&QueryResult>) -> Result<Option<Role>, Error> {
    Ok(row.map(|row| row.try_get("", "role")).transpose()?.flatten())
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

    /// The organizations that the caller can change.
    #[must_use]
    pub fn organizations(&self) -> Organizations<'_> {
        Organizations::new(&self.platform, &self.identity)
    }

    /// The members that the caller can change.
    #[must_use]
    pub fn members(&self) -> Members<'_> {
        Members::new(&self.platform, &self.identity)
    }

    /// The invitations that the caller can change.
    #[must_use]
    pub fn invitations(&self) -> Invitations<'_> {
        Invitations::new(&self.platform, &self.identity)
    }

    /// The API keys that the caller can change.
    #[must_use]
    pub fn api_keys(&self) -> ApiKeys<'_> {
        ApiKeys::new(&self.platform, &self.identity)
    }

    /// The caller's own account.
    #[must_use]
    pub fn myself(&self) -> Myself<'_> {
        Myself::new(&self.platform, &self.identity)
    }

    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }
}

impl Caller<ReadDrift> {
    /// What is not as the tables say.
    #[must_use]
    pub fn drift(&self) -> DriftReader<'_> {
        DriftReader::new(&self.platform, &self.identity)
    }
}

impl Identity {
    /// The condition that a row's organization is the caller's own or below it. Every query of a store has it.
    pub(crate) fn sees(&self, organization_column: &'static str) -> SimpleExpr {
        below(Rows::ByKey, self.organization, self.root, organization_column)
    }

    /// Begins a transaction that sees what the caller sees, and nothing else. Whether the credential still holds is asked
    /// in it once more: a request's body may have taken its time since it was first asked.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`].
    pub(crate) async fn begin(&self, platform: &Platform) -> Result<DatabaseTransaction, Error> {
        let transaction = crate::answered(platform.changes().begin()).await?;
        let row =
            crate::answered(transaction.query_one_raw(entering(&self.credential, platform.root()))).await?;
        let present = standing(row.as_ref())?.ok_or(Error::Unauthenticated)?;
        let (permission, least) = self.demanded;
        if self.credential.effective(present) < least {
            return Err(Error::Forbidden { permission });
        }
        Ok(transaction)
    }

    /// Lets a transaction see everything for as long as `work` takes: for what the platform must know, and its caller
    /// need not, such as whether an e-mail address has an account.
    pub(crate) async fn as_the_platform<T>(
        &self,
        transaction: &DatabaseTransaction,
        work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        crate::answered(transaction.execute_unprepared("SET LOCAL platform.scope = 'system'")).await?;
        let outcome = work(transaction).await?;
        let own = if self.root {
            "SET LOCAL platform.scope = 'root'"
        } else {
            "SET LOCAL platform.scope = 'entered'"
        };
        crate::answered(transaction.execute_unprepared(own)).await?;
        Ok(outcome)
    }

    /// A role that the caller gives must not be above its own.
    pub(crate) fn check_given_role(&self, role: Role, violations: &mut Vec<Violation>) {
        if role > self.role {
            violations.push(Violation::at(
                "/role",
                "role_too_high",
                "must not be above your own role",
            ));
        }
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.origin.request_id
    }

    /// Under whose name idempotency keys are kept: the API key, or the user in its organization, since a refreshed
    /// session is no new client.
    pub(crate) fn idempotent_as(&self) -> Uuid {
        match self.actor {
            Actor::User { id, .. } => {
                Uuid::from_u128(id.0.as_u128() ^ self.organization.0.as_u128().rotate_left(64))
            }
            Actor::ApiKey(key) => key.0,
        }
    }

    /// Whether the caller may see internal details, such as host names in an operation's error.
    #[must_use]
    pub fn sees_details(&self) -> bool {
        self.root && self.role >= Role::Admin
    }

    /// The ids of all that the caller may do.
    #[must_use]
    pub fn permissions(&self) -> Vec<&'static str> {
        permissions::of(self.role, self.root, self.actor.is_person())
    }
}

/// How a query finds its rows, apart from whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// By their key: their organization is looked up for each.
    ByKey,
    /// All there are: whoever has few among many is better found by the organizations.
    Any,
}

/// The condition that a row's organization is this one or below it, as all are below the root.
pub(crate) fn below(
    rows: Rows,
    organization: OrganizationId,
    is_root: bool,
    organization_column: &'static str,
) -> SimpleExpr {
    if is_root {
        return Expr::cust("true");
    }
    Expr::cust_with_values(
        format!(
            "EXISTS (SELECT FROM organization_ancestors up \
              WHERE up.organization_id = {organization_column} AND up.ancestor_id = $1{})",
            match rows {
                // Keeps the planner, which does not know how many organizations are below this one, from reading them all.
                Rows::ByKey => " OFFSET 0",
                Rows::Any => "",
            }
        ),
        [organization.0],
    )
}
