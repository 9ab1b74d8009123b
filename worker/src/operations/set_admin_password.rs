//! Sets the password of a tenant's Odoo administrator, and signs its sessions out.

use async_trait::async_trait;
use jobs::{JobContext, OperationKind, Outcome, Step, StepContext, StepError, StepErrorExt as _, StepResult};
use odoo::{
    names::DatabaseName,
    password::{GeneratedPassword, PasswordHash},
    server::IdentityError,
};
use platform::{id::OperationId, operations::kinds::SetAdminPassword, tenants::lifecycle};
use sea_orm::DatabaseTransaction;

use super::{database, fenced_session, server};
use crate::world::World;

/// The kind.
pub struct SetPassword;

#[async_trait]
impl OperationKind for SetPassword {
    type Input = SetAdminPassword;
    type World = World;

    // The old password is nowhere in clear, so there is no way back.
    const PIVOT: Option<&'static str> = Some("set_password");

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![Box::new(ChangeIt)]
    }

    async fn on_finish(
        transaction: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        // A job that was given up may be tried again by hand, and needs it then.
        if !matches!(outcome, Outcome::Dead(_)) {
            lifecycle::forget_secret(transaction, OperationId(cx.operation_id())).await?;
        }
        Ok(())
    }
}

/// Writes the hash into the tenant's database, as the tenant's own role.
struct ChangeIt;

#[async_trait]
impl Step<SetPassword> for ChangeIt {
    fn name(&self) -> &'static str {
        "set_password"
    }

    async fn apply(&self, cx: &StepContext<SetPassword>) -> StepResult {
        let world = cx.world();
        let tenant = cx.input().tenant;
        let name = DatabaseName::tenant(tenant.0);
        let row = database(platform::tenants::find(&world.database, tenant).await)?
            .ok_or_else(|| StepError::permanent("tenant_gone", "The tenant is gone."))?;
        let pool = database(world.pool(row.pool_id).await)?;
        let sealed = world.password(OperationId(cx.operation_id())).await?;
        let hash = if sealed.generated {
            let password = GeneratedPassword::reopen(sealed.password)
                .permanent("password_damaged", "The generated password is not readable.")?;
            PasswordHash::of_generated(&password)
        } else {
            PasswordHash::of_chosen(sealed.password).await
        };
        let session = fenced_session(cx, name.as_str()).await?;
        match world
            .server
            .set_admin_password(&cx.application_name(), &name, &pool.keys.ring, &hash)
            .await
        {
            Ok(_login) => {}
            Err(IdentityError::Server(error)) => server(Err(error))?,
            Err(error) => Err(error).permanent(
                "no_administrator",
                "The tenant has no administrator with the first id.",
            )?,
        }
        session.close().await;
        Ok(())
    }

    async fn undo(&self, _: &StepContext<SetPassword>) -> StepResult {
        Ok(())
    }
}
