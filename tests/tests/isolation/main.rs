//! What one tenant, or code that took over its Odoo, can reach of another and of the platform: nothing.
//!
//! Every refusal here is beside a proof that the same attempt succeeds where it may.

mod databases;
mod machine;
mod requests;
mod visitors;

use anyhow::Result;
use tests::api::Api;
use tests::tenant::Tenant;

async fn pair(api: &Api) -> Result<(Tenant, Tenant)> {
    Ok((Tenant::create(api).await?, Tenant::create(api).await?))
}

async fn end(a: Tenant, b: Tenant) -> Result<()> {
    a.delete().await?;
    b.delete().await
}
