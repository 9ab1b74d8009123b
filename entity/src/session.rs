//! One sign-in of a user to an organization; its end ends every token that came of it.

use sea_orm::entity::prelude::*;

use crate::{
    id::{OrganizationId, SessionId, UserId},
    values::Role,
};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SessionId,
    pub user_id: UserId,
    pub organization_id: OrganizationId,
    pub created_at: DateTimeUtc,
    pub expires_at: DateTimeUtc,
    pub ended_at: Option<DateTimeUtc>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub refreshed_at: DateTimeUtc,
    /// The member's role now, kept by the database; none once the session has ended.
    pub role: Option<Role>,
}

impl ActiveModelBehavior for ActiveModel {}
