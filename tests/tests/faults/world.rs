//! What there is of a tenant outside the tables.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::containers::Containers;
use tests::ids::id_of;
use tests::place::Place;
use tests::{sql, wait};
use uuid::Uuid;

/// The parts of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub database: bool,
    pub role: bool,
    pub files: bool,
    pub route: bool,
}

impl Parts {
    pub const ALL: Self = Self {
        database: true,
        role: true,
        files: true,
        route: true,
    };
    pub const NONE: Self = Self {
        database: false,
        role: false,
        files: false,
        route: false,
    };

    /// Looks. A role counts only if it may log in.
    pub async fn of(database: &str, host: &str) -> Result<Self> {
        let mut server = sql::tenants().await?;
        let (found, role): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1
                            AND shobj_description(oid, 'pg_database') IS NOT NULL),
                    EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin)",
        )
        .bind(database)
        .fetch_one(&mut server)
        .await?;
        let place = Place::get();
        Ok(Self {
            database: found,
            role,
            files: place.filestore(database).is_dir(),
            route: place.route(host).exists(),
        })
    }
}

/// Nothing of the operations is left: no entries, no sessions, no locks.
pub async fn nothing_left_over() -> Result<()> {
    let mut control = sql::control().await?;
    // Comparisons that started workers asked for come to their end, too.
    wait::until(Duration::from_secs(60), "all operations have ended", async || {
        let live = sql::text(
            &mut control,
            "SELECT string_agg(kind || ' ' || state, ', ') FROM jobs WHERE state NOT IN ('finished')",
        )
        .await?;
        ensure!(live.is_none(), "operations that are not over: {live:?}");
        Ok(())
    })
    .await?;
    let mut server = sql::tenants().await?;
    let sessions = sql::text(
        &mut server,
        "SELECT string_agg(application_name || ': ' || left(query, 80), ', ') FROM pg_stat_activity
         WHERE application_name LIKE 'job:%'",
    )
    .await?;
    ensure!(
        sessions.is_none(),
        "sessions of operations that are over: {sessions:?}"
    );
    let pools: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM pools")
        .fetch_all(&mut control)
        .await?;
    let pools: Vec<String> = pools.into_iter().map(|row| id_of("pool", row)).collect();
    let containers = Containers::connect().await?.ours().await?;
    let strays: Vec<_> = containers
        .iter()
        .flat_map(|container| container.names.iter().flatten())
        .filter(|name| !pools.iter().any(|pool| name.contains(pool.as_str())))
        .collect();
    ensure!(strays.is_empty(), "containers of no pool: {strays:?}");
    let filestore = PathBuf::from(Place::get().setting("FILESTORE_PATH"));
    let trash: Vec<_> = fs::read_dir(filestore.join("trash"))?.flatten().collect();
    ensure!(
        trash.len() < 100,
        "the trash is never emptied: {} trees",
        trash.len()
    );
    Ok(())
}
