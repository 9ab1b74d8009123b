//! The closed sets of values that columns hold. Stored as text, so that a row reads by itself in `psql`.

pub use sea_orm::Iterable;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a member may do. Ordered: a later one may do all that an earlier one may.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumIter,
    DeriveActiveEnum,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Admin,
    Owner,
}

/// Where a tenant is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum TenantStatus {
    Provisioning,
    Active,
    Suspended,
    Maintenance,
    Failed,
    Deleting,
}

/// Whether a tenant shares its Odoo processes with others.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Isolation {
    Shared,
    Dedicated,
}

/// Whether a prepared thing (a pool, a template) can be used.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Readiness {
    Preparing,
    Ready,
    Failed,
}

/// How something outside differs from what the tables say.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    StrayDatabase,
    UnfinishedDatabase,
    MissingDatabase,
    StrayRole,
    MissingRole,
    ChangedRole,
    ChangedPassword,
    StrayFilestore,
    MissingFilestore,
    StrayRoute,
    MissingRoute,
    ChangedRoute,
    StrayContainer,
    MissingContainer,
}

impl DriftKind {
    /// The column's value, which is also what the API calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StrayDatabase => "stray_database",
            Self::UnfinishedDatabase => "unfinished_database",
            Self::MissingDatabase => "missing_database",
            Self::StrayRole => "stray_role",
            Self::MissingRole => "missing_role",
            Self::ChangedRole => "changed_role",
            Self::ChangedPassword => "changed_password",
            Self::StrayFilestore => "stray_filestore",
            Self::MissingFilestore => "missing_filestore",
            Self::StrayRoute => "stray_route",
            Self::MissingRoute => "missing_route",
            Self::ChangedRoute => "changed_route",
            Self::StrayContainer => "stray_container",
            Self::MissingContainer => "missing_container",
        }
    }
}
