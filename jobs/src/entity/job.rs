//! The worker's side of an operation: who holds it, until when, and where it stands.

use sea_orm::entity::prelude::*;

/// Where a job stands between its workers. Transitions: `crate::protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum JobState {
    /// May be claimed from `due_at` on.
    #[sea_orm(string_value = "ready")]
    Ready,
    /// Held by `lease_owner` until `due_at`, from when on it may be stolen.
    #[sea_orm(string_value = "leased")]
    Leased,
    /// Its serial key is another's, or every slot of its scope (`in_line`); that one's end wakes it.
    #[sea_orm(string_value = "blocked")]
    Blocked,
    /// Over: succeeded, or failed or cancelled and wholly undone.
    #[sea_orm(string_value = "finished")]
    Finished,
    /// Given up half-way, so something may be left behind. Can be retried by hand.
    #[sea_orm(string_value = "dead")]
    Dead,
}

/// What a job gives way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Priority {
    /// Someone waits for it.
    #[sea_orm(string_value = "interactive")]
    Interactive,
    /// A schedule caused it: what people ask for comes first.
    #[sea_orm(string_value = "scheduled")]
    Scheduled,
}

impl Priority {
    pub(crate) const ALL: [Self; 2] = [Self::Interactive, Self::Scheduled];

    /// The name in tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Scheduled => "scheduled",
        }
    }
}

/// What a job that undoes its steps will end as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Ending {
    #[sea_orm(string_value = "failed")]
    Failed,
    #[sea_orm(string_value = "cancelled")]
    Cancelled,
}

/// One job.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "jobs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: Uuid,
    pub kind: String,
    /// Version of the kind's list of steps.
    pub version: i32,
    /// The kind's input. Never a secret.
    #[sea_orm(column_type = "JsonBinary")]
    pub input: Json,
    /// Jobs with the same key run one after another.
    pub serial_key: Option<String>,
    /// Set from the first claim to the end, waits for retry included.
    pub holds_key: bool,
    pub state: JobState,
    /// When the job next needs someone: ready: to run it; leased: to steal it.
    pub due_at: DateTimeUtc,
    /// When an entry for it last went to the outbox; none: no entry is on its way.
    pub announced_at: Option<DateTimeUtc>,
    /// Raised by each claim; every write of a running job is conditional on it.
    pub lease_epoch: i64,
    /// Process that claimed it last.
    pub lease_owner: Option<String>,
    /// Claims in a row that persisted no step.
    pub attempts: i32,
    /// Steps that are done (and not undone).
    pub position: i32,
    /// Set once it undoes.
    pub ending: Option<Ending>,
    pub created_at: DateTimeUtc,
    /// The operation's scope; none: an old binary enqueued it, and nobody claimed it yet.
    pub scope: Option<Uuid>,
    /// Which of the scope's slots is its, while it is leased.
    pub slot: Option<i16>,
    /// From when it found no slot to its next claim.
    pub in_line: bool,
    pub priority: Priority,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
