//! Pools are started and templates built: of their own, beside those that the tenants of other cases use. They are what
//! costs most here, since each is a real Odoo that starts or installs.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use jobs::{NewOperation, WhenBusy};
use platform::id::{PoolId, TemplateId};
use platform::operations::kinds::{BuildTemplate, StartPool};
use platform::pools;
use platform::secrets::{MasterKeys, Secrets};
use platform::values::Isolation;
use sea_orm::TransactionTrait as _;
use tests::api::Api;
use tests::containers::Containers;
use tests::faults::{Action, Fault, Place, Plans};
use tests::sql;
use uuid::Uuid;

use super::home::{Home, enqueued};
use super::{Scene, Stage};

/// Modules of that template: others than those of the platform's own.
const MODULES: [&str; 1] = ["base"];

pub struct Start;
pub struct Build;

/// Has an operation undone that succeeded: once more, with a last step that fails.
async fn undone(
    api: &Api,
    plans: &Plans,
    step: &str,
    ask: impl AsyncFnOnce(&str) -> Result<String>,
) -> Result<()> {
    let request = format!("clear-{}", Uuid::new_v4().simple());
    plans.write(
        &request,
        &[Fault::once(Place::end("apply", step), Action::Permanent)],
    )?;
    let ended = api.ended(&ask(&request).await?).await?;
    ensure!(
        ended["status"] == "failed" && ended["retryable"] == false,
        "{ended}"
    );
    Ok(())
}

#[async_trait(?Send)]
impl Stage for Start {
    fn is_costly(&self) -> bool {
        true
    }

    // The server is asked for room for every pool that there is.
    fn at_a_time(&self) -> usize {
        1
    }

    async fn set(&self, _: &Api) -> Result<Box<dyn Scene>> {
        let home = Home::find().await?;
        let transaction = home.control.begin().await?;
        let master = MasterKeys::from_base64(&tests::forge::master_key_text()?.into(), None)?;
        let secrets = Secrets::new(home.control.clone(), master);
        let server = home.server.into();
        let pool = pools::add_pool(&transaction, &secrets, server, Isolation::Dedicated, 1).await?;
        transaction.commit().await?;
        let (web, gevent) = (unused_port()?, unused_port()?);
        let mut rows = sql::control().await?;
        sqlx::query("UPDATE pools SET web_port = $2, gevent_port = $3 WHERE id = $1")
            .bind(pool.0)
            .bind(i32::from(web))
            .bind(i32::from(gevent))
            .execute(&mut rows)
            .await?;
        Ok(Box::new(Starting { home, pool }))
    }
}

/// A port that no pool of this run has had: an engine may think for a while that a port is taken whose container it has
/// just removed. (The platform's own pools keep their ports for good.)
fn unused_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(24_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        ensure!(port < 25_000, "no port is free");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

struct Starting {
    home: Home,
    pool: PoolId,
}

impl Starting {
    async fn enqueue(&self, request: &str) -> Result<String> {
        let transaction = self.home.control.begin().await?;
        let operation = NewOperation::new(StartPool { pool: self.pool }, self.home.root, "pool", self.pool.0)
            .serial(self.pool.to_string(), WhenBusy::Wait)
            .request_id(request);
        enqueued(transaction, operation).await
    }
}

#[async_trait(?Send)]
impl Scene for Starting {
    async fn ask(&mut self, _: &Api, request: &str) -> Result<String> {
        self.enqueue(request).await
    }

    async fn check(&self, _: &Api, succeeded: bool) -> Result<()> {
        let mut rows = sql::control().await?;
        let status: String = sqlx::query_scalar("SELECT status FROM pools WHERE id = $1")
            .bind(self.pool.0)
            .fetch_one(&mut rows)
            .await?;
        let mut server = sql::tenants().await?;
        let (database, role): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname LIKE '%' || $1),
                    EXISTS (SELECT FROM pg_roles WHERE rolname LIKE '%' || $1)",
        )
        .bind(self.pool.suffix())
        .fetch_one(&mut server)
        .await?;
        let serving = containers_of(self.pool).await?;
        if succeeded {
            ensure!(
                status == "ready" && database && role && serving == 3,
                "{status}, database {database}, role {role}, {serving} containers"
            );
        } else {
            ensure!(
                status == "failed" && !database && !role && serving == 0,
                "{status}, database {database}, role {role}, {serving} containers"
            );
        }
        Ok(())
    }

    async fn abandon(&self) -> Result<()> {
        self.home.forget("pools", self.pool.0).await
    }

    async fn clear(self: Box<Self>, api: &Api, plans: &Plans) -> Result<()> {
        undone(api, plans, "open_edge", async |request| {
            self.enqueue(request).await
        })
        .await?;
        self.home.forget("pools", self.pool.0).await
    }
}

/// Containers of a pool that run.
async fn containers_of(pool: PoolId) -> Result<usize> {
    let containers = Containers::connect().await?.ours().await?;
    Ok(containers
        .iter()
        .filter(|container| {
            let named = container
                .names
                .iter()
                .flatten()
                .any(|name| name.contains(&pool.suffix()));
            named
                && container
                    .state
                    .as_ref()
                    .is_some_and(|state| state.to_string() == "running")
        })
        .count())
}

#[async_trait(?Send)]
impl Stage for Build {
    fn is_costly(&self) -> bool {
        true
    }

    // A template is named after what is in it, so that all of these have one name.
    fn at_a_time(&self) -> usize {
        1
    }

    async fn set(&self, _: &Api) -> Result<Box<dyn Scene>> {
        let home = Home::find().await?;
        let transaction = home.control.begin().await?;
        let template = pools::add_template(&transaction, home.server.into(), &MODULES).await?;
        transaction.commit().await?;
        // No tenant shall be cloned from it.
        let mut rows = sql::control().await?;
        sqlx::query("UPDATE templates SET odoo_version = 'none' WHERE id = $1")
            .bind(template.0)
            .execute(&mut rows)
            .await?;
        Ok(Box::new(Building { home, template }))
    }
}

struct Building {
    home: Home,
    template: TemplateId,
}

impl Building {
    async fn enqueue(&self, request: &str) -> Result<String> {
        let transaction = self.home.control.begin().await?;
        let input = BuildTemplate {
            template: self.template,
            pool: self.home.pool.into(),
        };
        let operation = NewOperation::new(input, self.home.root, "template", self.template.0)
            .serial(self.template.to_string(), WhenBusy::Wait)
            .request_id(request);
        enqueued(transaction, operation).await
    }
}

#[async_trait(?Send)]
impl Scene for Building {
    async fn ask(&mut self, _: &Api, request: &str) -> Result<String> {
        self.enqueue(request).await
    }

    async fn check(&self, _: &Api, succeeded: bool) -> Result<()> {
        let mut rows = sql::control().await?;
        let (status, database): (String, Option<String>) =
            sqlx::query_as("SELECT status, database_name FROM templates WHERE id = $1")
                .bind(self.template.0)
                .fetch_one(&mut rows)
                .await?;
        let own: Vec<String> =
            sqlx::query_scalar("SELECT database_name FROM templates WHERE database_name IS NOT NULL")
                .fetch_all(&mut rows)
                .await?;
        let mut server = sql::tenants().await?;
        let there: Vec<String> =
            sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'tpl\\_%'")
                .fetch_all(&mut server)
                .await?;
        let strays: Vec<_> = there.iter().filter(|name| !own.contains(name)).collect();
        ensure!(strays.is_empty(), "databases of no template: {strays:?}");
        if succeeded {
            let database = database.context("a template without a database")?;
            ensure!(
                status == "ready" && there.contains(&database),
                "{status}, {database}"
            );
        } else {
            ensure!(status == "failed" && database.is_none(), "{status}, {database:?}");
        }
        Ok(())
    }

    async fn clear(self: Box<Self>, api: &Api, plans: &Plans) -> Result<()> {
        undone(api, plans, "seal", async |request| self.enqueue(request).await).await?;
        self.home.forget("templates", self.template.0).await
    }
}
