//! Repairs what has one name: holds it as operations do, looks again under that hold, and does what may be done.
//!
//! A comparison of everything takes a while, and operations go on meanwhile. So what it found is only a suspicion: the
//! tables and the things are read again while nothing can begin to work on them.

use std::{collections::HashSet, time::Duration};

use jobs::{FencedTransaction, StepContext, StepError};
use odoo::{
    names::{DatabaseKind, DatabaseName},
    server::{RoleGroup, RoleSpec, ServerError, Session},
};
use platform::{
    id::TenantId,
    reconcile::{self, Finding, Tables},
    values::DriftKind,
};

use super::{
    super::{database, edge, files, runtime, server},
    Compare,
    actual::{Actual, Found},
    compare::{Difference, Remedy, differences},
    wanted::{Plan, Wanted},
};
use crate::pools;

/// How long it is waited for whoever works on the same thing. The next comparison comes soon.
const PATIENCE: Duration = Duration::from_millis(200);

/// Kind and subject of what has been listed long enough to be removed.
pub(super) type Settled = HashSet<(String, String)>;

/// What became of what has one name.
pub(super) enum Outcome {
    /// An operation is at work on it.
    Held,
    /// It was looked at: what is left, and how many things were repaired.
    Seen { left: Vec<Finding>, repaired: u32 },
}

/// Holds, looks again, repairs.
pub(super) async fn repair(
    cx: &StepContext<Compare>,
    session: &mut Session,
    name: &DatabaseName,
    settled: &Settled,
) -> Result<Outcome, StepError> {
    match session.lock_within(name.as_str(), PATIENCE).await {
        Ok(()) => {}
        Err(ServerError::Locked { .. }) => return Ok(Outcome::Held),
        Err(error) => return server(Err(error)),
    }
    let outcome = held(cx, session, name, settled).await;
    // Given back also when something failed: the session goes on with other names.
    server(session.unlock(name.as_str()).await)?;
    outcome
}

async fn held(
    cx: &StepContext<Compare>,
    session: &mut Session,
    name: &DatabaseName,
    settled: &Settled,
) -> Result<Outcome, StepError> {
    cx.ensure_leased().await?;
    let (tables, row) = tables(cx, name).await?;
    let plan = Plan::new(cx.world(), tables).await?;
    if plan.is_worked_on(name) {
        return Ok(Outcome::Held);
    }
    let mut actual = Actual::look(cx, session, Some(name)).await?;
    actual.try_passwords(cx, &plan.wanted).await?;
    let found = actual.found.remove(name).unwrap_or_default();
    let wanted = plan.wanted.get(name);
    let target = wanted.map(|wanted| wanted.target().id_text());
    let (mut left, mut repaired) = (Vec::new(), 0);
    for difference in differences(name, wanted, &found) {
        if is_a_running_tasks(&plan, &difference) {
            continue;
        }
        let mut finding = Finding {
            kind: difference.kind,
            subject: difference.subject.clone(),
            target: target.clone(),
            detail: difference.detail.clone(),
        };
        let waits = difference.remedy.is_final()
            && !settled.contains(&(finding.kind.as_str().to_owned(), finding.subject.clone()));
        if difference.remedy == Remedy::None || waits {
            left.push(finding);
            continue;
        }
        cx.ensure_leased().await?;
        match apply(cx, session, name, wanted, &found, &difference.remedy).await {
            Ok(()) => {
                tracing::warn!(
                    kind = finding.kind.as_str(),
                    subject = finding.subject,
                    "repaired a drift"
                );
                let counter = &cx.world().repaired;
                counter.with_label_values(&[finding.kind.as_str()]).inc();
                repaired += 1;
            }
            Err(StepError::Stopped) => return Err(StepError::Stopped),
            Err(StepError::Retry { fault, .. } | StepError::Permanent(fault)) => {
                tracing::warn!(%fault, kind = finding.kind.as_str(), subject = finding.subject, "a drift could not be repaired");
                finding.detail = format!("{} It could not be repaired: {fault}.", finding.detail);
                left.push(finding);
            }
        }
    }
    if let Some(row) = row {
        row.commit().await?;
    }
    Ok(Outcome::Seen { left, repaired })
}

/// What should be, and the lock on the tenant's row if it is one's. An operation on a tenant is asked for under the same
/// lock, so that no address is opened here while it is closed there. Pools and templates have no such lock and need
/// none, since all that is done to them is done under that of their name; and what takes long is done to them alone.
async fn tables(
    cx: &StepContext<Compare>,
    name: &DatabaseName,
) -> Result<(Tables, Option<FencedTransaction>), StepError> {
    if name.kind() != DatabaseKind::Tenant {
        return Ok((database(reconcile::all(&cx.world().database).await)?, None));
    }
    let transaction = cx.begin().await?;
    let tables = database(reconcile::of_tenant(&transaction, TenantId(name.id())).await)?;
    // A row that is gone does not come back: ids are made once.
    let row = (!tables.tenants.is_empty()).then_some(transaction);
    Ok((tables, row))
}

/// A template is built in a container that is no process of the pool.
pub(super) fn is_a_running_tasks(plan: &Plan, difference: &Difference) -> bool {
    difference.kind == DriftKind::StrayContainer && plan.template_in_the_making()
}

async fn apply(
    cx: &StepContext<Compare>,
    session: &mut Session,
    name: &DatabaseName,
    wanted: Option<&Wanted>,
    found: &Found,
    remedy: &Remedy,
) -> Result<(), StepError> {
    let world = cx.world();
    match (remedy, wanted) {
        (Remedy::MendRole, Some(Wanted::Tenant(tenant))) => {
            let password = tenant.pool.keys.ring.password_for(name);
            let login = tenant
                .login
                .or_else(|| found.role.as_ref().map(|role| role.login))
                .unwrap_or(false);
            server(
                session
                    .ensure_role(&RoleSpec {
                        name,
                        group: RoleGroup::Tenants,
                        password: &password,
                        connection_limit: tenant.connections,
                        login,
                    })
                    .await,
            )
        }
        (Remedy::Publish, Some(Wanted::Tenant(tenant))) => edge(
            world
                .edge
                .publish(&tenant.host, &tenant.route, &cx.application_name())
                .await,
        )
        .map(drop),
        (Remedy::Withdraw(host), _) => edge(world.edge.withdraw(host, name).await).map(drop),
        (Remedy::MendBus, Some(Wanted::Pool(pool))) => server(
            session
                .ensure_bus_database(pool.id(), &pool.keys.ring.password_for(name))
                .await,
        ),
        (Remedy::MendContainers, Some(Wanted::Pool(pool))) => {
            runtime(pools::mend(world, pool).await).map(drop)
        }
        (Remedy::DropRole, _) => server(session.drop_role(name).await),
        (Remedy::DropUnfinished, _) => {
            server(session.drop_database(name).await)?;
            server(session.drop_role(name).await)?;
            if found.owns_files {
                files(world.filestore.delete(name).await)?;
                files(world.filestore.delete_template(name).await)?;
            }
            Ok(())
        }
        (Remedy::None, _) => Ok(()),
        (Remedy::MendRole | Remedy::Publish | Remedy::MendBus | Remedy::MendContainers, _) => Err(
            StepError::permanent("internal", "A repair was chosen for something else."),
        ),
    }
}
