//! Migrations of the control plane's database: the job engine's, then the platform's, then the grants of the two
//! processes' roles. Plain SQL, since constraints and partial indexes are the point. A migration expands first and
//! contracts a release later, so that an old and a new binary run side by side.

use sea_orm_migration::prelude::*;

/// A file of SQL.
struct Sql {
    name: &'static str,
    text: &'static str,
}

impl MigrationName for Sql {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Sql {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.text).await?;
        Ok(())
    }
}

/// The platform's own, in order.
const PLATFORM: [Sql; 4] = [
    Sql {
        name: "platform_0001_control_plane",
        text: include_str!("sql/0001_control_plane.sql"),
    },
    Sql {
        name: "platform_0002_drift",
        text: include_str!("sql/0002_drift.sql"),
    },
    Sql {
        name: "platform_0003_identity",
        text: include_str!("sql/0003_identity.sql"),
    },
    Sql {
        name: "platform_0004_data_keys",
        text: include_str!("sql/0004_data_keys.sql"),
    },
];

/// Every migration, in the order in which they are applied.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = jobs::migrations();
        migrations.extend(PLATFORM.map(|sql| Box::new(sql) as Box<dyn MigrationTrait>));
        migrations
    }
}

/// Brings the database up to date. Safe to run by several processes at once: they take turns.
///
/// # Errors
/// Whatever Postgres says; the step that failed left nothing behind.
pub async fn migrate(database: &sea_orm_migration::sea_orm::DatabaseConnection) -> Result<(), DbErr> {
    use sea_orm_migration::sea_orm::{ConnectionTrait, TransactionTrait};

    // Held to the end of the transaction that surrounds all: a second migrator waits, then finds nothing to do.
    const MIGRATION_LOCK: i64 = 0x6f64_6f6f_7361_6173;
    let transaction = database.begin().await?;
    transaction
        .execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        .await?;
    Migrator::up(&transaction, None).await?;
    transaction
        .execute_unprepared(include_str!("sql/grants.sql"))
        .await?;
    transaction.commit().await
}
