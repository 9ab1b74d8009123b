//! A set of identical Odoo processes of one version, and the secrets that they share with the edge and Postgres.

use sea_orm::entity::prelude::*;

use crate::{
    id::{DatabaseServerId, PoolId},
    values::{Isolation, Readiness},
};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pools")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: PoolId,
    pub database_server_id: DatabaseServerId,
    pub odoo_version: String,
    pub isolation: Isolation,
    pub status: Readiness,
    pub capacity: i32,
    pub tenants: i32,
    pub web_port: Option<i32>,
    pub gevent_port: Option<i32>,
    pub keys_sealed: Vec<u8>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
