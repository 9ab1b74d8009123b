//! Starts a pool: sees that the server is fit for it, takes its ports, makes its bus database and its containers, and
//! tells the edge.

use std::{net::TcpListener, time::Duration};

use async_trait::async_trait;
use jobs::{JobContext, OperationKind, Outcome, Step, StepContext, StepError, StepResult};
use platform::{error::Error, operations::kinds::StartPool};
use sea_orm::DatabaseTransaction;
use tokio::time::Instant;

use super::{database, fenced_session, runtime, server};
use crate::world::{World, outside};

/// The kind.
pub struct Start;

#[async_trait]
impl OperationKind for Start {
    type Input = StartPool;
    type World = World;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![
            Box::new(PrepareServer),
            Box::new(TakePorts),
            Box::new(StartContainers),
            Box::new(OpenEdge),
        ]
    }

    async fn on_finish(
        transaction: &DatabaseTransaction,
        cx: &JobContext<Self>,
        outcome: &Outcome,
    ) -> Result<(), StepError> {
        Ok(platform::pools::start_ended(transaction, cx.input().pool, outcome).await?)
    }
}

fn lock_name(cx: &JobContext<Start>) -> String {
    outside(cx.input().pool).to_string()
}

/// Sees that the tenants' server has the roles, the rights and the room that pools need, and makes the bus database.
struct PrepareServer;

#[async_trait]
impl Step<Start> for PrepareServer {
    fn name(&self) -> &'static str {
        "prepare_server"
    }

    async fn apply(&self, cx: &StepContext<Start>) -> StepResult {
        let world = cx.world();
        let pools = database(platform::pools::all(&world.database).await)?;
        let facts = server(
            world
                .server
                .prepare(&cx.application_name(), world.requirements(pools.len()))
                .await,
        )?;
        tracing::info!(?facts, "the tenants' server is fit for its pools");
        let pool = pools
            .iter()
            .find(|pool| pool.id == cx.input().pool)
            .ok_or_else(|| StepError::permanent("pool_gone", "The pool is gone."))?;
        let keys = database(world.keys(pool).await)?;
        let mut session = fenced_session(cx, &lock_name(cx)).await?;
        let bus = outside(pool.id);
        server(
            session
                .ensure_bus_database(bus, &keys.ring.password_for(&bus.bus_database()))
                .await,
        )?;
        session.close().await;
        Ok(())
    }

    async fn undo(&self, cx: &StepContext<Start>) -> StepResult {
        let bus = outside(cx.input().pool).bus_database();
        let mut session = fenced_session(cx, &lock_name(cx)).await?;
        server(session.drop_database(&bus).await)?;
        server(session.drop_role(&bus).await)?;
        session.close().await;
        Ok(())
    }
}

/// Takes two ports on loopback, for good: routes name them.
struct TakePorts;

#[async_trait]
impl Step<Start> for TakePorts {
    fn name(&self) -> &'static str {
        "take_ports"
    }

    async fn apply(&self, cx: &StepContext<Start>) -> StepResult {
        let range = cx.world().pools.ports;
        let transaction = cx.begin().await?;
        let usable = |port| TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok();
        match platform::pools::take_ports(&transaction, cx.input().pool, range.first..=range.last, usable)
            .await
        {
            Ok(_) => transaction.commit().await,
            Err(Error::NoCapacity) => Err(StepError::permanent("no_ports", "Every port for pools is taken.")),
            Err(error) => database(Err(error)),
        }
    }

    async fn undo(&self, _: &StepContext<Start>) -> StepResult {
        Ok(())
    }
}

/// Starts the containers and waits until each is healthy.
struct StartContainers;

/// How long Odoo may take to start.
const PATIENCE: Duration = Duration::from_secs(180);

#[async_trait]
impl Step<Start> for StartContainers {
    fn name(&self) -> &'static str {
        "start_containers"
    }

    async fn apply(&self, cx: &StepContext<Start>) -> StepResult {
        let world = cx.world();
        let pool = database(world.pool(cx.input().pool).await)?;
        let spec = runtime(world.spec(&pool).await)?;
        let session = fenced_session(cx, &lock_name(cx)).await?;
        let report = runtime(world.runtime.ensure_pool(&spec).await)?;
        session.close().await;
        for warning in &report.warnings {
            tracing::warn!(pool = %pool.row.id, warning, "a pool starts with a warning");
        }
        let give_up = Instant::now() + PATIENCE;
        loop {
            // Asked directly: the runtime's own check first looks after ten seconds.
            let (web, gevent) = tokio::join!(
                world.probe.answers(report.endpoints.web),
                world.probe.answers(report.endpoints.gevent)
            );
            if web.is_ok() && gevent.is_ok() {
                return Ok(());
            }
            if Instant::now() >= give_up {
                let state = runtime(world.runtime.pool_state(spec.pool).await)?;
                return Err(StepError::retry(
                    "pool_not_ready",
                    "The pool's processes did not get ready in time.",
                )
                .detailed(format!("{state:?}")));
            }
            cx.check()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn undo(&self, cx: &StepContext<Start>) -> StepResult {
        let session = fenced_session(cx, &lock_name(cx)).await?;
        runtime(cx.world().runtime.remove_pool(outside(cx.input().pool)).await)?;
        session.close().await;
        Ok(())
    }
}

/// Tells the edge of the pool.
struct OpenEdge;

#[async_trait]
impl Step<Start> for OpenEdge {
    fn name(&self) -> &'static str {
        "open_edge"
    }

    async fn apply(&self, cx: &StepContext<Start>) -> StepResult {
        cx.ensure_leased().await?;
        cx.world().open_edge().await
    }

    async fn undo(&self, _: &StepContext<Start>) -> StepResult {
        Ok(())
    }
}
