//! An operation to be, and when.

use sea_orm::entity::prelude::*;

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "schedules")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Of the platform's own schedules; unique.
    pub name: Option<String>,
    /// Of its operations.
    pub kind: String,
    pub version: i32,
    /// The kind's input. Never a secret.
    #[sea_orm(column_type = "JsonBinary")]
    pub input: Json,
    pub scope: Uuid,
    pub target_type: String,
    pub target_id: Uuid,
    /// A moment at which this key is busy passes without an operation.
    pub serial_key: Option<String>,
    /// Five fields.
    pub cron: String,
    /// Its name in the IANA database.
    pub time_zone: String,
    /// Its operations run up to so much later than its moments.
    pub jitter_seconds: i32,
    pub enabled: bool,
    /// The first moment that was not fired; none: it does not fire.
    pub next_fire_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(has_many = "super::schedule_fire::Entity")]
    Fires,
}

impl Related<super::schedule_fire::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Fires.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
