//! How fast tenants appear: from sending the request to the first page through the edge.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tests::{
    api::Api,
    containers::Containers,
    http::{self, Answer},
    place::Place,
    sql,
    tenant::{Tenant, new_slug, request},
};
use tokio::process::Command;

use crate::{
    chromium::Chromium,
    report::{Report, median, quantile},
};

/// Tenants of a series.
const SERIES: usize = 20;
/// Tenants made at the same time.
const AT_ONCE: usize = 8;
/// Tenants of the run that makes several at a time.
const CROWD: usize = 40;
/// Sign-ins in a browser.
const SIGN_INS: usize = 7;
/// Tenants on the pool in the end.
const FULL: usize = 200;

/// How long an impatient user waits before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One tenant's times, all from sending the request.
struct Sample {
    tenant: Tenant,
    answered: Duration,
    first_page: Duration,
    succeeded: Duration,
}

pub async fn run(report: &mut Report) -> Result<()> {
    let api = Api::owner().await?;
    report.say("provision: from POST /v1/tenants to the first 200 of /web/login through the edge");
    // The first request after a start fills caches that every later one finds.
    made(&api).await?.tenant.delete().await?;

    let baseline = odoo_db_init().await?;
    report.say(format!(
        "  baseline, odoo db init of the same modules: {:.2} s",
        baseline.as_secs_f64()
    ));

    settle().await?;
    let series = one_after_another(&api, SERIES).await?;
    let first_page = median(&first_pages(&series));
    let succeeded = median(&series.iter().map(|sample| sample.succeeded).collect::<Vec<_>>());
    explain(report, &series).await?;
    let seconds = first_page.as_secs_f64();
    report.promise(
        "first page, one after another, median",
        seconds,
        "s",
        seconds <= 0.6,
        "at most 0.60 s",
    );
    let all = series
        .iter()
        .map(|sample| sample.succeeded)
        .max()
        .unwrap_or_default()
        .as_secs_f64();
    report.promise(
        "operation succeeded, median",
        succeeded.as_secs_f64(),
        "s",
        succeeded.as_secs_f64() <= 0.9,
        "at most 0.90 s",
    );
    report.say(format!("  slowest operation {all:.2} s"));
    let ratio = baseline.as_secs_f64() / seconds;
    report.promise(
        "times faster than odoo db init",
        ratio,
        "",
        ratio >= 15.0,
        "at least 15",
    );

    let begun = Instant::now();
    let crowd: Vec<Sample> = stream::iter(0..CROWD)
        .map(|_| made(&api))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = CROWD as f64 / begun.elapsed().as_secs_f64();
    let slow = quantile(&first_pages(&crowd), 0.95).as_secs_f64();
    report.promise(
        "8 at a time, tenants a second",
        rate,
        "",
        rate >= 4.0,
        "at least 4",
    );
    report.promise(
        "8 at a time, first page, p95",
        slow,
        "s",
        slow <= 3.0,
        "at most 3.00 s",
    );

    let mut chromium = Chromium::start().await?;
    let mut signed_in = Vec::new();
    for _ in 0..SIGN_INS {
        let begun = Instant::now();
        let tenant = Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?;
        chromium
            .sign_in(&tenant.url, &tenant.login, &tenant.password)
            .await?;
        signed_in.push(begun.elapsed());
        api.succeeded(&tenant.operation).await?;
        tenant.delete().await?;
    }
    let home = median(&signed_in).as_secs_f64();
    report.promise(
        "POST to the signed-in home page in Chromium, median",
        home,
        "s",
        home <= 3.0,
        "at most 3.00 s",
    );
    drop(chromium);

    // 200 in all at the end, the demo tenant among them.
    let more = FULL - SERIES - 1 - series.len() - crowd.len();
    let filling: Vec<Sample> = stream::iter(0..more)
        .map(|_| made(&api))
        .buffer_unordered(4)
        .try_collect()
        .await?;
    settle().await?;
    let full = one_after_another(&api, SERIES).await?;
    report.say("  with 200 tenants on the pool:");
    explain(report, &full).await?;
    let full_page = median(&first_pages(&full)).as_secs_f64();
    let slowdown = full_page / seconds;
    report.promise(
        "first page with 200 tenants on the pool, times the first series",
        slowdown,
        "",
        slowdown <= 1.3,
        "at most 1.30",
    );
    connections(report).await?;

    stream::iter(series.into_iter().chain(crowd).chain(filling).chain(full))
        .map(|sample| sample.tenant.delete())
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

fn first_pages(samples: &[Sample]) -> Vec<Duration> {
    samples.iter().map(|sample| sample.first_page).collect()
}

async fn one_after_another(api: &Api, count: usize) -> Result<Vec<Sample>> {
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        samples.push(made(api).await?);
    }
    Ok(samples)
}

/// Waits until what was written before is on the disk. A series is to show what its own tenants cost, on an empty pool or
/// on a full one, and not what is left to write of those before.
async fn settle() -> Result<()> {
    for server in [&mut sql::tenants_superuser().await?, &mut sql::control().await?] {
        sql::execute(server, "CHECKPOINT").await?;
    }
    ensure!(Command::new("sync").status().await?.success(), "sync failed");
    Ok(())
}

/// Makes one and watches it as an impatient user would.
async fn made(api: &Api) -> Result<Sample> {
    let body = request(&new_slug(), &json!({}));
    let begun = Instant::now();
    let tenant = Tenant::accept(api, &body, &[]).await?;
    let answered = begun.elapsed();
    let browser = http::client()?;
    let sign_in = format!("{}/web/login", tenant.url);
    let page = async {
        loop {
            let answer = Answer::of(browser.get(&sign_in)).await?;
            if answer.status == 200 {
                return anyhow::Ok(begun.elapsed());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "{} does not answer: {}",
                tenant.host,
                answer.status
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let end = async {
        api.succeeded(&tenant.operation).await?;
        anyhow::Ok(begun.elapsed())
    };
    let (first_page, succeeded) = tokio::try_join!(page, end)?;
    Ok(Sample {
        tenant,
        answered,
        first_page,
        succeeded,
    })
}

/// Says where the time of the samples that were made last goes, from the steps that the worker persisted.
async fn explain(report: &Report, samples: &[Sample]) -> Result<()> {
    let mut control = sql::control().await?;
    let count = i64::try_from(samples.len())?;
    let rows = sqlx::query(
        "SELECT s.name, s.position,
                (percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM s.finished_at - s.started_at)))::float8 AS took
           FROM job_steps s
           JOIN (SELECT id FROM operations WHERE kind = 'tenant.provision' ORDER BY id DESC LIMIT $1) o
             ON o.id = s.operation_id
          GROUP BY 1, 2 ORDER BY 2",
    )
    .bind(count)
    .fetch_all(&mut control)
    .await?;
    let started: f64 = sqlx::query_scalar(
        "SELECT (percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - created_at)))::float8
           FROM (SELECT * FROM operations WHERE kind = 'tenant.provision' ORDER BY id DESC LIMIT $1) o",
    )
    .bind(count)
    .fetch_one(&mut control)
    .await?;
    let answered = median(&samples.iter().map(|sample| sample.answered).collect::<Vec<_>>());
    report.say(format!(
        "  the request is answered after {:.0} ms",
        answered.as_secs_f64() * 1e3
    ));
    report.say(format!(
        "  a worker takes it up {:.0} ms after it was written",
        started * 1e3
    ));
    for row in rows {
        let (name, took): (String, f64) = (row.get("name"), row.get("took"));
        report.say(format!("  step {name}: {:.0} ms", took * 1e3));
    }
    Ok(())
}

/// How long Odoo's own way takes: its command makes a database with the same modules, in a container of the pool.
async fn odoo_db_init() -> Result<Duration> {
    let containers = Containers::connect().await?;
    let url = url_parts(&Place::get().tenant_database_url)?;
    let name = format!("bench_{}", new_slug().replace('-', "_"));
    let script = format!(
        "PGPASSWORD='{}' exec odoo db --db_host=/run/platform-sql --db_port={} --db_user={} --data-dir=/tmp/bench init {name}",
        url.password, url.port, url.user
    );
    let container = containers
        .of_role("web")
        .await?
        .id
        .context("a container has an id")?;
    let begun = Instant::now();
    let (exit, output) = containers.execute(&container, &["sh", "-c", &script]).await?;
    let took = begun.elapsed();
    ensure!(exit == 0, "odoo db init ended with {exit}: {output}");
    let mut server = PgConnection::connect(&Place::get().tenant_database_url).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "DROP DATABASE \"{name}\" WITH (FORCE)"
    )))
    .execute(&mut server)
    .await?;
    containers
        .execute(&container, &["rm", "-rf", "/tmp/bench"])
        .await?;
    Ok(took)
}

struct UrlParts {
    user: String,
    password: String,
    port: String,
}

fn url_parts(url: &str) -> Result<UrlParts> {
    let (_, rest) = url.split_once("://").context("a URL has a scheme")?;
    let (account, rest) = rest.split_once('@').context("the URL has an account")?;
    let (user, password) = account.split_once(':').context("the URL has a password")?;
    let (_, rest) = rest.split_once(':').context("the URL has a port")?;
    let port = rest.split('/').next().unwrap_or_default();
    Ok(UrlParts {
        user: user.to_owned(),
        password: password.to_owned(),
        port: port.to_owned(),
    })
}

/// Compares the pool's connections with what the server keeps for it.
async fn connections(report: &mut Report) -> Result<()> {
    let mut server = PgConnection::connect(&Place::get().tenant_database_url).await?;
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^(t|pool)_'")
        .fetch_one(&mut server)
        .await?;
    let most: i64 =
        sqlx::query_scalar("SELECT setting::bigint - 30 FROM pg_settings WHERE name = 'max_connections'")
            .fetch_one(&mut server)
            .await?;
    #[allow(clippy::cast_precision_loss)]
    report.promise(
        "connections of the pool",
        held as f64,
        "",
        held <= most,
        &format!("at most {most}"),
    );
    Ok(())
}
