//! A comparison finds a tenant whose route is gone.

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use jobs::{NewOperation, WhenBusy};
use platform::operations::kinds::Reconcile;
use sea_orm::TransactionTrait as _;
use tests::api::Api;
use tests::faults::Plans;
use tests::place::Place;
use tests::tenant::Tenant;

use super::home::{Home, enqueued};
use super::{Scene, Stage};

pub struct Compare;

#[async_trait(?Send)]
impl Stage for Compare {
    async fn set(&self, api: &Api) -> Result<Box<dyn Scene>> {
        let tenant = Tenant::create(api).await?;
        std::fs::remove_file(Place::get().route(&tenant.host)).context("the tenant has a route")?;
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
        let transaction = self.home.control.begin().await?;
        let root = self.home.root;
        // Workers that start ask for comparisons, too: this one waits for them, and they don't for this one.
        let operation = NewOperation::new(Reconcile {}, root, "organization", root)
            .serial("platform.reconcile", WhenBusy::Wait)
            .request_id(request);
        enqueued(transaction, operation).await
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
