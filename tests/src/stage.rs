//! What many tests begin with: a member of an organization of their own, with a tenant and a queued operation that exist
//! only as rows.

use anyhow::Result;

use crate::api::Api;
use crate::people::{Member, People};
use crate::rows::{OperationRow, TenantRow};

/// The rows, and who may see them. They go with the people.
#[derive(Debug)]
pub struct Stage {
    /// All of them go with these.
    pub people: People,
    /// Who may see the rows.
    pub member: Member,
    /// The member, signed in.
    pub api: Api,
    /// What the operation is about.
    pub tenant: TenantRow,
    /// Queued, and no worker takes it.
    pub operation: OperationRow,
}

impl Stage {
    /// Writes them for a member with this role.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn new(role: &str) -> Result<Self> {
        let mut people = People::new().await?;
        let organization = people.organization().await?;
        let member = people.member(&organization, role).await?;
        let tenant = TenantRow::write(&mut people.control, &organization).await?;
        let operation = OperationRow::queued(&mut people.control, &organization, &tenant).await?;
        Ok(Self {
            api: member.api().await?,
            people,
            member,
            tenant,
            operation,
        })
    }
}
