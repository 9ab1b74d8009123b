//! A key pair that signs access tokens. The private half is sealed under a data key.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "signing_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub kid: String,
    pub public_key: Vec<u8>,
    pub private_key_sealed: Vec<u8>,
    pub created_at: DateTimeUtc,
    pub signs_until: Option<DateTimeUtc>,
    pub verifies_until: Option<DateTimeUtc>,
}

impl ActiveModelBehavior for ActiveModel {}
