//! When all is quiet again: is the world as the tables say, and as the customers believe?

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::api::Api;
use tests::browser::Browser;
use tests::place::Place;
use tests::{sql, wait};

use crate::customers::Kept;

/// How long the last pieces of work may take.
const QUIET: Duration = Duration::from_secs(180);

/// Answers what is wrong.
pub async fn reckon(tenants: &[Kept]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let api = wait::until(QUIET, "the API answers", async || {
        let api = Api::owner().await?;
        api.ready().await?;
        Ok(api)
    })
    .await?;
    quiet().await?;
    for tenant in tenants {
        if let Err(error) = as_believed(&api, tenant).await {
            wrong.push(format!("{}: {error:#}", tenant.id));
        }
    }
    wrong.extend(strays().await?);
    wrong.extend(queue().await?);
    wrong.extend(drift(&api).await?);
    Ok(wrong)
}

/// Waits until all work has ended.
async fn quiet() -> Result<()> {
    wait::until(QUIET, "all work has ended", async || {
        let mut control = sql::control().await?;
        let live =
            "SELECT string_agg(kind || ' ' || state, ', ') FROM jobs WHERE state NOT IN ('finished', 'dead')";
        let live = sql::text(&mut control, live).await?;
        ensure!(live.is_none(), "{live:?}");
        Ok(())
    })
    .await
}

/// What a comparison that is asked for now finds.
async fn drift(api: &Api) -> Result<Vec<String>> {
    let asked = tests::second_api::command(&["reconcile"], &[]).output().await?;
    ensure!(
        asked.status.success(),
        "no comparison: {}",
        String::from_utf8_lossy(&asked.stderr)
    );
    quiet().await?;
    let listed = api.get("/v1/drift?limit=200").await?.expect(200)?;
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().map(|item| format!("drift: {item}")).collect())
}

async fn as_believed(api: &Api, tenant: &Kept) -> Result<()> {
    let state = api
        .get(&format!("/v1/tenants/{}", tenant.id))
        .await?
        .expect(200)?;
    let status = if tenant.active { "active" } else { "failed" };
    ensure!(state["status"] == status, "believed {status}: {state}");
    let place = Place::get();
    let (files, route) = (
        place.filestore(&tenant.database).is_dir(),
        place.route(&tenant.host).exists(),
    );
    if !tenant.active {
        ensure!(!files && !route, "left behind: files {files}, route {route}");
        return Ok(());
    }
    wait::until(
        Duration::from_secs(60),
        "its administrator signs in",
        async || {
            let url = state["url"].as_str().unwrap_or_default();
            let browser = Browser::new(url)?;
            ensure!(
                browser.sign_in(&tenant.login, &tenant.password).await?,
                "refused at {}",
                tenant.slug
            );
            Ok(())
        },
    )
    .await
}

/// Databases, roles, files and routes without a row, and rows without them.
async fn strays() -> Result<Vec<String>> {
    let mut control = sql::control().await?;
    let mut server = sql::tenants().await?;
    let names = |texts: Vec<Option<String>>| texts.into_iter().flatten().collect::<BTreeSet<String>>();
    let rows = names(
        sql::texts(
            &mut control,
            "SELECT id::text FROM tenants WHERE status = 'active'",
        )
        .await?,
    );
    let ids: BTreeSet<String> = rows
        .iter()
        .map(|id| Ok(tests::tenant::database_of(&tests::ids::id_of("ten", id.parse()?))))
        .collect::<Result<_>>()?;
    let databases = names(
        sql::texts(
            &mut server,
            "SELECT datname::text FROM pg_database WHERE datname ~ '^t_'",
        )
        .await?,
    );
    let roles = names(
        sql::texts(
            &mut server,
            "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^t_'",
        )
        .await?,
    );
    let files: BTreeSet<String> = std::fs::read_dir(Place::get().filestore(""))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("t_"))
        .collect();
    let mut wrong = Vec::new();
    for (what, found) in [("databases", &databases), ("roles", &roles), ("files", &files)] {
        for stray in found.difference(&ids) {
            wrong.push(format!("{what} of no tenant: {stray}"));
        }
        for missing in ids.difference(found) {
            wrong.push(format!("{what} missing of {missing}"));
        }
    }
    let locks =
        "SELECT string_agg(application_name, ', ') FROM pg_stat_activity WHERE application_name LIKE 'job:%'";
    if let Some(sessions) = sql::text(&mut server, locks).await? {
        wrong.push(format!("sessions of operations that are over: {sessions}"));
    }
    Ok(wrong)
}

/// What is left in the queue.
async fn queue() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut control = sql::control().await?;
    for (what, count) in [
        (
            "dead operations",
            "SELECT count(*)::text FROM jobs WHERE state = 'dead'",
        ),
        ("rows of the outbox", "SELECT count(*)::text FROM outbox"),
    ] {
        let found = sql::text(&mut control, count).await?.unwrap_or_default();
        if found != "0" {
            wrong.push(format!("{found} {what}"));
        }
    }
    let emptied = wait::until(Duration::from_secs(60), "the streams are empty", async || {
        let client = redis::Client::open(tests::place::variable("TEST_REDIS_URL"))?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let mut length = 0;
        for stream in ["platform:jobs:stream", "platform:jobs:stream:scheduled"] {
            length += redis::cmd("XLEN")
                .arg(stream)
                .query_async::<u64>(&mut redis)
                .await?;
        }
        ensure!(length == 0, "{length} entries");
        Ok(())
    });
    if let Err(error) = emptied.await {
        wrong.push(format!("{error:#}"));
    }
    Ok(wrong)
}
