//! Changing what is written down about a tenant. Nothing of it reaches the tenant's Odoo, so it is done at once.

use std::collections::BTreeMap;

use entity::{id::TenantId, tenant};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _,
    sea_query::{Expr, ExprTrait as _},
};

use super::{TenantRow, Tenants, delete::unfinished_operations, labels};
use crate::{
    audit::{self, Entry, Subject},
    error::Error,
    operations::Target,
    precondition::Precondition,
    text,
};

/// What shall change; what is absent stays.
#[derive(Debug, Default)]
pub struct TenantChanges {
    /// Display name.
    pub name: Option<String>,
    /// Labels to set or, with `None`, to remove.
    pub labels: Option<LabelChanges>,
    /// Protection against deletion.
    pub protected: Option<bool>,
}

/// Changes of labels, as a merge patch says them (RFC 7396).
#[derive(Debug)]
pub enum LabelChanges {
    /// All of them go.
    Clear,
    /// Each is set, or removed where there is no value.
    Merge(BTreeMap<String, Option<String>>),
}

impl LabelChanges {
    fn apply(&self, labels: &mut BTreeMap<String, String>) {
        match self {
            Self::Clear => labels.clear(),
            Self::Merge(changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => labels.insert(key.clone(), value.clone()),
                        None => labels.remove(key),
                    };
                }
            }
        }
    }
}

impl Tenants<'_> {
    /// Changes a tenant. What is as it should be already is left alone, and then so is the revision.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::Invalid`], [`Error::TenantBusy`].
    pub async fn update(
        &self,
        id: TenantId,
        precondition: &Precondition,
        changes: &TenantChanges,
    ) -> Result<TenantRow, Error> {
        let transaction = self.identity.begin(self.platform).await?;
        let before = self.lock(&transaction, id).await?;
        precondition.check(&before)?;
        let after = changed(&before, changes)?;
        if after == before {
            return Ok(before);
        }
        if let Some(busy) = unfinished_operations(&transaction, id).await?.first() {
            return Err(Error::TenantBusy(busy.id.into()));
        }
        let updated = tenant::Entity::update_many()
            .col_expr(tenant::Column::Name, Expr::value(after.name))
            .col_expr(tenant::Column::Labels, Expr::value(after.labels))
            .col_expr(tenant::Column::Protected, Expr::value(after.protected))
            .col_expr(
                tenant::Column::Revision,
                Expr::col(tenant::Column::Revision).add(1),
            )
            .col_expr(tenant::Column::UpdatedAt, Expr::cust("now()"))
            .filter(tenant::Column::Id.eq(id))
            .exec_with_returning(&transaction)
            .await?;
        let row = updated.into_iter().next().ok_or(Error::NotFound)?;
        let entry = Entry {
            organization: row.organization_id,
            subject: Some(Subject::Of(Target::Tenant(id))),
            before: Some(super::snapshot(&before)),
            after: Some(super::snapshot(&row)),
        };
        audit::record(&transaction, self.identity, entry).await?;
        transaction.commit().await?;
        Ok(row)
    }
}

/// The row as it shall be.
fn changed(before: &TenantRow, changes: &TenantChanges) -> Result<TenantRow, Error> {
    let TenantChanges {
        name,
        labels: label_changes,
        protected,
    } = changes;
    let mut after = before.clone();
    let mut violations = Vec::new();
    if let Some(name) = name {
        match text::display_name(name) {
            Ok(name) => after.name = name,
            Err(violation) => violations.push(violation),
        }
    }
    if let Some(label_changes) = label_changes {
        let mut all = labels(before);
        label_changes.apply(&mut all);
        if let Err(wrong) = text::labels(&all) {
            violations.extend(wrong);
        }
        after.labels = serde_json::to_value(&all).map_err(Error::internal)?;
    }
    if let Some(protected) = protected {
        after.protected = *protected;
    }
    if violations.is_empty() {
        Ok(after)
    } else {
        Err(Error::Invalid(violations))
    }
}
