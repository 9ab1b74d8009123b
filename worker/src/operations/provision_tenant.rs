//! Makes a tenant: a clone of the template with an identity of its own, seen to answer, published at the edge.

use std::time::Duration;

use async_trait::async_trait;
use jobs::{JobContext, OperationKind, Outcome, Step, StepContext, StepError, StepErrorExt as _, StepResult};
use odoo::{
    edge::{Route, RouteState},
    names::DatabaseName,
    password::{GeneratedPassword, PasswordHash},
    server::{AdminCredentials, Identity, IdentityError, RoleGroup, RoleSpec},
};
use platform::{
    id::OperationId,
    operations::kinds::ProvisionTenant,
    tenants::{SealedPassword, lifecycle},
};
use sea_orm::DatabaseTransaction;
use tokio::time::Instant;

use super::{POLL, database, edge, fenced_session, files, server, tag};
use crate::world::World;

/// The kind.
pub struct Provision;

#[async_trait]
impl OperationKind for Provision {
    type Input = ProvisionTenant;
    type World = World;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![
            Box::new(CloneDatabase),
            Box::new(SeeItAnswer),
            Box::new(PublishRoute),
        ]
    }

    async fn on_finish(
        transaction: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        let operation = OperationId(cx.operation_id());
        Ok(lifecycle::provisioning_ended(transaction, cx.input().tenant, operation, outcome).await?)
    }
}

/// Database, role and files of a tenant share this name. It comes from the tenant's id: a second run finds what the
/// first one made.
fn name(cx: &JobContext<Provision>) -> DatabaseName {
    DatabaseName::tenant(cx.input().tenant.0)
}

/// Makes role, database and files, and gives them their identity. Until that is written the role can't log in.
struct CloneDatabase;

#[async_trait]
impl Step<Provision> for CloneDatabase {
    fn name(&self) -> &'static str {
        "clone_database"
    }

    async fn apply(&self, cx: &StepContext<Provision>) -> StepResult {
        let (world, input, name) = (cx.world(), cx.input(), name(cx));
        let template: DatabaseName = input
            .template_database
            .parse()
            .permanent("invalid_template", "The template has no usable name.")?;
        let pool = database(world.pool(input.pool).await)?;
        let password = world.password(OperationId(cx.operation_id())).await?;

        let connection_limit = world.tenant_connections().ok_or_else(|| {
            StepError::permanent(
                "pool_too_large",
                "The pool has more processes than a tenant can serve.",
            )
        })?;

        let make_database = async {
            let mut session = fenced_session(cx, name.as_str()).await?;
            let password = pool.keys.ring.password_for(&name);
            server(
                session
                    .ensure_role(&RoleSpec {
                        name: &name,
                        group: RoleGroup::Tenants,
                        password: &password,
                        connection_limit,
                        login: false,
                    })
                    .await,
            )?;
            server(session.clone_database(&template, &name).await)?;
            Ok::<_, StepError>(session)
        };
        let clone_files = async { files(world.filestore.clone_template(&template, &name, &tag(cx)).await) };
        // The hash of a chosen password takes as long as all the rest, so it is made meanwhile.
        let (hash, session, files) = tokio::join!(hashed(password), make_database, clone_files);
        let (hash, mut session) = (hash?, session?);
        files?;

        let identity = Identity {
            base_url: world.domains.tenant_url(&input.slug),
            admin: AdminCredentials {
                login: input.admin_login.clone(),
                email: input.admin_login.clone(),
                password: hash,
            },
            language: input.language.clone(),
            country: input.country.clone(),
            company_name: input.name.clone(),
        };
        match session.write_identity(&name, &identity).await {
            Ok(()) => {}
            Err(IdentityError::Server(error)) => server(Err(error))?,
            Err(error @ IdentityError::LanguageNotInstalled(_)) => {
                Err(error).permanent("language_not_offered", "The language is not offered.")?;
            }
            Err(error @ IdentityError::UnknownCountry(_)) => {
                Err(error).permanent("unknown_country", "Odoo knows no such country.")?;
            }
            Err(error) => {
                Err(error).permanent("identity_failed", "The tenant could not be given its identity.")?;
            }
        }
        cx.ensure_leased().await?;
        server(session.set_login(&name, true).await)?;
        session.close().await;
        Ok(())
    }

    async fn undo(&self, cx: &StepContext<Provision>) -> StepResult {
        remove(cx, &name(cx)).await
    }
}

/// Odoo's hash of the administrator's password.
async fn hashed(sealed: SealedPassword) -> Result<PasswordHash, StepError> {
    if sealed.generated {
        let password = GeneratedPassword::reopen(sealed.password)
            .permanent("password_damaged", "The generated password is not readable.")?;
        return Ok(PasswordHash::of_generated(&password));
    }
    Ok(PasswordHash::of_chosen(sealed.password).await)
}

/// Removes a tenant's database, role and files, however much of them there is.
pub(super) async fn remove<K: OperationKind<World = World>>(
    cx: &StepContext<K>,
    name: &DatabaseName,
) -> Result<(), StepError> {
    let mut session = fenced_session(cx, name.as_str()).await?;
    server(session.drop_database(name).await)?;
    server(session.drop_role(name).await)?;
    session.close().await;
    files(cx.world().filestore.delete(name).await)
}

/// Sees Odoo load the tenant and answer for it: only then is it published. The pool itself is asked, since the first
/// request loads the tenant into an Odoo process; a visitor who came through the edge meanwhile would have another
/// process do the same work.
struct SeeItAnswer;

/// How long a pool may take to serve a new tenant; it may just be restarting.
const PATIENCE: Duration = Duration::from_secs(60);

#[async_trait]
impl Step<Provision> for SeeItAnswer {
    fn name(&self) -> &'static str {
        "see_it_answer"
    }

    async fn apply(&self, cx: &StepContext<Provision>) -> StepResult {
        let (world, name) = (cx.world(), name(cx));
        let pool = database(world.pool(cx.input().pool).await)?;
        let host = world.domains.tenant_host(&cx.input().slug);
        let web = (std::net::Ipv4Addr::LOCALHOST, pool.web_port).into();
        let give_up = Instant::now() + PATIENCE;
        loop {
            match world.probe.serves(web, &host, &name, &pool.keys.edge).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= give_up => {
                    return Err(error).retry("no_answer", "The tenant's Odoo does not answer.");
                }
                Err(error) => tracing::debug!(%error, "the tenant's Odoo does not answer yet"),
            }
            cx.check()?;
            tokio::time::sleep(POLL * 5).await;
        }
    }

    async fn undo(&self, _: &StepContext<Provision>) -> StepResult {
        Ok(())
    }
}

/// Opens the tenant's address.
struct PublishRoute;

#[async_trait]
impl Step<Provision> for PublishRoute {
    fn name(&self) -> &'static str {
        "publish_route"
    }

    async fn apply(&self, cx: &StepContext<Provision>) -> StepResult {
        let (world, input) = (cx.world(), cx.input());
        let pool = database(world.pool(input.pool).await)?;
        let route = Route {
            pool: pool.id(),
            web_port: pool.web_port,
            gevent_port: pool.gevent_port,
            database: name(cx),
            state: RouteState::Active,
        };
        cx.ensure_leased().await?;
        edge(
            world
                .edge
                .publish(&world.host(&input.slug)?, &route, &cx.application_name())
                .await,
        )?;
        Ok(())
    }

    async fn undo(&self, cx: &StepContext<Provision>) -> StepResult {
        let world = cx.world();
        edge(
            world
                .edge
                .withdraw(&world.host(&cx.input().slug)?, &name(cx))
                .await,
        )?;
        Ok(())
    }
}
