//! A comparison finds a tenant whose route is gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use jobs::{NewOperation, WhenBusy};
use platform::operations::kinds::Reconcile;
use sea_orm::TransactionTrait as _;
use tests::api::Api;
use tests::faults::{self, Plans};
use tests::place::Place;
use tests::tenant::Tenant;

use super::home::Home;
use super::{Scene, Stage};

/// Effects of a repair that every run has: those of its own tenant's route.
const OWN_EFFECTS: u32 = 2;

/// Longest wait for the comparisons of others.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Compare;

#[async_trait(?Send)]
impl Stage for Compare {
    fn at_a_time(&self) -> usize {
        // There is one comparison at a time.
        1
    }

    fn always_passes(&self, place: &faults::Place) -> bool {
        // What else it repairs belongs to the cases beside it, and is there or not.
        place.nth <= OWN_EFFECTS
    }

    async fn set(&self, api: &Api) -> Result<Box<dyn Scene>> {
        let tenant = Tenant::create(api).await?;
        Ok(Box::new(Comparing {
            home: Home::find().await?,
            tenant,
        }))
    }
}

struct Comparing {
    home: Home,
    tenant: Tenant,
}

#[async_trait(?Send)]
impl Scene for Comparing {
    async fn ask(&mut self, _: &Api, request: &str) -> Result<String> {
        let root = self.home.root;
        // Workers that start, and the clock, ask for comparisons too. One of theirs must not repair what this one is to
        // find: the route goes in the moment in which no other can come any more before this one.
        tests::wait::until(PATIENCE, "no other comparison is under way", async || {
            let transaction = self.home.control.begin().await?;
            let operation = NewOperation::new(Reconcile {}, root, "organization", root)
                .serial("platform.reconcile", WhenBusy::Refuse)
                .request_id(request);
            let operation = jobs::enqueue(&transaction, operation).await?;
            std::fs::remove_file(Place::get().route(&self.tenant.host)).context("the tenant has a route")?;
            transaction.commit().await?;
            Ok(tests::ids::id_of("op", operation.id))
        })
        .await
    }

    async fn check(&self, api: &Api, succeeded: bool) -> Result<()> {
        if succeeded {
            ensure!(
                Place::get().route(&self.tenant.host).exists(),
                "the route is still missing"
            );
            let listed = api.get("/v1/drift?limit=200").await?.expect(200)?;
            let names_it = listed.to_string().contains(&self.tenant.id);
            ensure!(!names_it, "what was repaired is listed: {listed}");
        }
        Ok(())
    }

    async fn clear(self: Box<Self>, _: &Api, _: &Plans) -> Result<()> {
        self.tenant.delete().await
    }
}
