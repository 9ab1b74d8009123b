//! What a caller sees of one long-running piece of work.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Where an operation is, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text")]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// No worker has claimed it yet.
    #[sea_orm(string_value = "queued")]
    Queued,
    /// Claimed at least once: running, undoing, or waiting for its next attempt.
    #[sea_orm(string_value = "running")]
    Running,
    /// Every step is done.
    #[sea_orm(string_value = "succeeded")]
    Succeeded,
    /// Ended by an error, which `error_code` names.
    #[sea_orm(string_value = "failed")]
    Failed,
    /// Ended on request, and undone.
    #[sea_orm(string_value = "cancelled")]
    Cancelled,
}

impl OperationStatus {
    /// Whether it never changes again (short of a dead job retried by hand).
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name in the table and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operations")]
pub struct Model {
    /// UUIDv7: sorts by creation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Name of the kind, e.g. `tenant.provision`.
    pub kind: String,
    /// Whose it is; the engine gives it no meaning (the platform: the organization).
    pub scope: Uuid,
    pub target_type: String,
    pub target_id: Uuid,
    pub status: OperationStatus,
    /// 0 to 100.
    pub percent: i16,
    /// The step that runs, or ran last.
    pub step: Option<String>,
    /// What it is doing, for its owner.
    pub message: Option<String>,
    /// Stable, machine-readable.
    pub error_code: Option<String>,
    /// Safe for customers.
    pub error_message: Option<String>,
    /// Internal: for the platform's operator only.
    pub error_detail: Option<String>,
    /// Claims so far.
    pub attempt: i32,
    /// Raised at every visible change.
    pub revision: i64,
    /// Of the request that caused it.
    pub request_id: Option<String>,
    pub cancel_requested_at: Option<DateTimeUtc>,
    /// From here on it only goes forward.
    pub pivoted_at: Option<DateTimeUtc>,
    /// When it was given up half-way; it shows as failed, and can be retried.
    pub dead_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
    pub started_at: Option<DateTimeUtc>,
    pub finished_at: Option<DateTimeUtc>,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(has_many = "super::job_step::Entity")]
    Steps,
}

impl Related<super::job_step::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Steps.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
