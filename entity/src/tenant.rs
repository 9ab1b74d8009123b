//! One Odoo database and what belongs to it, as it should be.

use sea_orm::entity::prelude::*;

use crate::{
    id::{DatabaseServerId, OrganizationId, PoolId, TemplateId, TenantId},
    values::{Isolation, TenantStatus},
};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TenantId,
    pub organization_id: OrganizationId,
    pub slug: String,
    pub name: String,
    pub status: TenantStatus,
    pub status_reason: Option<String>,
    pub odoo_version: String,
    pub isolation: Isolation,
    pub pool_id: PoolId,
    pub database_server_id: DatabaseServerId,
    pub template_id: TemplateId,
    pub admin_login: String,
    pub language: Option<String>,
    pub country: Option<String>,
    pub labels: Json,
    pub protected: bool,
    pub revision: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
