//! A prepared Odoo database that tenants are cloned from.

use sea_orm::entity::prelude::*;

use crate::{
    id::{DatabaseServerId, TemplateId},
    values::Readiness,
};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "templates")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TemplateId,
    pub database_server_id: DatabaseServerId,
    pub odoo_version: String,
    pub database_name: Option<String>,
    pub modules: Json,
    pub languages: Json,
    pub status: Readiness,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
