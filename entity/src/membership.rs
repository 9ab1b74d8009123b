//! A user's role in an organization.

use sea_orm::entity::prelude::*;

use crate::{
    id::{OrganizationId, UserId},
    values::Role,
};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "memberships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    pub role: Role,
    pub created_at: DateTimeUtc,
    pub revision: i64,
    pub position: Uuid,
}

impl ActiveModelBehavior for ActiveModel {}
