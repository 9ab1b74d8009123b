//! Something outside that is not as the tables say, and that nobody has repaired.

use sea_orm::entity::prelude::*;
use uuid::Uuid;

use crate::id::DriftId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "drift")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DriftId,
    /// One of [`crate::values::DriftKind`], or one that a newer worker knows.
    pub kind: String,
    pub subject: String,
    pub target_type: Option<String>,
    pub target_id: Option<Uuid>,
    pub detail: String,
    pub first_seen_at: DateTimeUtc,
    pub last_seen_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
