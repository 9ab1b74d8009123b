//! Deletes a tenant: first its address, so that nobody is served by something half gone, then database, role and files.

use async_trait::async_trait;
use jobs::{JobContext, OperationKind, Outcome, Step, StepContext, StepError, StepResult};
use odoo::names::DatabaseName;
use platform::{operations::kinds::DeleteTenant, tenants::lifecycle};
use sea_orm::DatabaseTransaction;

use super::{edge, provision_tenant::remove};
use crate::world::World;

/// The kind. From its first step on it only goes forward: there is no way back to a tenant that people use.
pub struct Delete;

#[async_trait]
impl OperationKind for Delete {
    type Input = DeleteTenant;
    type World = World;

    const PIVOT: Option<&'static str> = Some("withdraw_route");

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![Box::new(WithdrawRoute), Box::new(DropDatabase)]
    }

    async fn on_finish(
        transaction: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        Ok(lifecycle::deletion_ended(transaction, cx.input(), outcome).await?)
    }
}

fn name(cx: &JobContext<Delete>) -> DatabaseName {
    DatabaseName::tenant(cx.input().tenant.0)
}

/// Closes the tenant's address: from now on the edge answers 404.
struct WithdrawRoute;

#[async_trait]
impl Step<Delete> for WithdrawRoute {
    fn name(&self) -> &'static str {
        "withdraw_route"
    }

    async fn apply(&self, cx: &StepContext<Delete>) -> StepResult {
        let world = cx.world();
        cx.ensure_leased().await?;
        edge(
            world
                .edge
                .withdraw(&world.host(&cx.input().slug)?, &name(cx))
                .await,
        )?;
        Ok(())
    }

    async fn undo(&self, _: &StepContext<Delete>) -> StepResult {
        Ok(())
    }
}

/// Drops database and role, with whoever is connected, and removes the files.
struct DropDatabase;

#[async_trait]
impl Step<Delete> for DropDatabase {
    fn name(&self) -> &'static str {
        "drop_database"
    }

    async fn apply(&self, cx: &StepContext<Delete>) -> StepResult {
        remove(cx, &name(cx)).await
    }

    async fn undo(&self, _: &StepContext<Delete>) -> StepResult {
        Ok(())
    }
}
