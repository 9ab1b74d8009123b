//! What became of the moments of schedules.

use sea_orm::entity::prelude::*;

/// One moment that was fired. Of several that passed while nothing ran, only the last one is.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "schedule_fires")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub schedule_id: Uuid,
    /// The moment, without jitter.
    #[sea_orm(primary_key, auto_increment = false)]
    pub fire_at: DateTimeUtc,
    /// What came of it; none: its serial key was busy. The operation may be forgotten by now.
    pub operation_id: Option<Uuid>,
    pub fired_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(
        belongs_to = "super::schedule::Entity",
        from = "Column::ScheduleId",
        to = "super::schedule::Column::Id"
    )]
    Schedule,
}

impl Related<super::schedule::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Schedule.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
