//! What became of each step of a job.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text")]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    #[sea_orm(string_value = "done")]
    Done,
    /// Its last try failed; it is tried again, or undone.
    #[sea_orm(string_value = "failed")]
    Failed,
    #[sea_orm(string_value = "undone")]
    Undone,
}

/// One step that was tried at least once. A step that never returned (its worker died) has no row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job_steps")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: Uuid,
    /// From 0, in the order of the kind's list.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i32,
    pub name: String,
    pub status: StepStatus,
    /// Times that its end was persisted: done, failed or undone.
    pub attempt: i32,
    /// What the step remembered for later ones. Never a secret.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub output: Option<Json>,
    /// Of the last try.
    pub started_at: DateTimeUtc,
    pub finished_at: DateTimeUtc,
    pub error_code: Option<String>,
    /// Safe for customers.
    pub error_message: Option<String>,
    /// Internal: for the platform's operator only.
    pub error_detail: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(
        belongs_to = "super::operation::Entity",
        from = "Column::OperationId",
        to = "super::operation::Column::Id"
    )]
    Operation,
}

impl Related<super::operation::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Operation.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
