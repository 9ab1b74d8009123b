//! The tree of organizations, closed over its paths: a row for each organization and each of its ancestors, itself included.

use sea_orm::entity::prelude::*;

use crate::id::OrganizationId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "organization_ancestors")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub ancestor_id: OrganizationId,
}

impl ActiveModelBehavior for ActiveModel {}
