//! Tenants are made, deleted, and given another password.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::faults::Plans;
use tests::tenant::{Tenant, new_slug, request};

use super::{Scene, Stage};
use crate::world::Parts;

const REQUEST_ID: &str = "x-request-id";

/// Longest time until a tenant that is there serves, on a machine that is busy with other cases.
const SERVES: Duration = Duration::from_secs(30);

pub struct Provision;
pub struct Delete;
pub struct SetPassword;

#[async_trait(?Send)]
impl Stage for Provision {
    async fn set(&self, _: &Api) -> Result<Box<dyn Scene>> {
        Ok(Box::new(Provisioning { tenant: None }))
    }
}

#[async_trait(?Send)]
impl Stage for Delete {
    async fn set(&self, api: &Api) -> Result<Box<dyn Scene>> {
        let tenant = Some(Tenant::create(api).await?);
        Ok(Box::new(Deleting { tenant }))
    }
}

#[async_trait(?Send)]
impl Stage for SetPassword {
    async fn set(&self, api: &Api) -> Result<Box<dyn Scene>> {
        let tenant = Tenant::create(api).await?;
        Ok(Box::new(SettingPassword {
            tenant,
            new: String::new(),
        }))
    }
}

async fn parts(tenant: &Tenant) -> Result<Parts> {
    Parts::of(&tenant.database, &tenant.host).await
}

async fn status(tenant: &Tenant) -> Result<Value> {
    Ok(tenant.read().await?.expect(200)?["status"].clone())
}

fn operation(answer: &Value) -> Result<String> {
    let id = answer["operation"]["id"].as_str();
    id.map(str::to_owned).context("no operation")
}

struct Provisioning {
    tenant: Option<Tenant>,
}

#[async_trait(?Send)]
impl Scene for Provisioning {
    async fn ask(&mut self, api: &Api, request_id: &str) -> Result<String> {
        let tenant = Tenant::accept(
            api,
            &request(&new_slug(), &json!({})),
            &[(REQUEST_ID, request_id)],
        )
        .await?;
        Ok(self.tenant.insert(tenant).operation.clone())
    }

    async fn check(&self, _: &Api, succeeded: bool) -> Result<()> {
        let tenant = self.tenant.as_ref().context("no tenant")?;
        let (status, parts) = (status(tenant).await?, parts(tenant).await?);
        if succeeded {
            ensure!(status == "active" && parts == Parts::ALL, "{status}, {parts:?}");
            return tenant.serves(SERVES).await;
        }
        ensure!(status == "failed" && parts == Parts::NONE, "{status}, {parts:?}");
        Ok(())
    }

    async fn clear(self: Box<Self>, _: &Api, _: &Plans) -> Result<()> {
        self.tenant.context("no tenant")?.delete().await
    }
}

struct Deleting {
    tenant: Option<Tenant>,
}

#[async_trait(?Send)]
impl Scene for Deleting {
    async fn ask(&mut self, api: &Api, request_id: &str) -> Result<String> {
        let tenant = self.tenant.as_ref().context("no tenant")?;
        let path = format!("/v1/tenants/{}", tenant.id);
        let headers = [(REQUEST_ID, request_id)];
        let answer = api.send(Method::DELETE, &path, None, &headers).await?;
        operation(&answer.expect(202)?)
    }

    async fn check(&self, _: &Api, succeeded: bool) -> Result<()> {
        let tenant = self.tenant.as_ref().context("no tenant")?;
        let parts = parts(tenant).await?;
        if succeeded {
            ensure!(parts == Parts::NONE, "{parts:?}");
            tenant.read().await?.expect(404)?;
        } else {
            ensure!(parts == Parts::ALL, "{parts:?}");
            let status = status(tenant).await?;
            ensure!(status == "active", "{status}");
        }
        Ok(())
    }

    async fn clear(self: Box<Self>, _: &Api, _: &Plans) -> Result<()> {
        let tenant = self.tenant.context("no tenant")?;
        if tenant.read().await?.status == 404 {
            tenant.forget();
            return Ok(());
        }
        tenant.delete().await
    }
}

struct SettingPassword {
    tenant: Tenant,
    new: String,
}

#[async_trait(?Send)]
impl Scene for SettingPassword {
    async fn ask(&mut self, api: &Api, request_id: &str) -> Result<String> {
        let path = format!("/v1/tenants/{}/admin-password", self.tenant.id);
        let answer = api.post(&path, &json!({}), &[(REQUEST_ID, request_id)]).await?;
        let accepted = answer.expect(202)?;
        self.new = accepted["admin_password"]
            .as_str()
            .context("no password")?
            .to_owned();
        operation(&accepted)
    }

    async fn check(&self, _: &Api, succeeded: bool) -> Result<()> {
        let (status, parts) = (status(&self.tenant).await?, parts(&self.tenant).await?);
        ensure!(status == "active" && parts == Parts::ALL, "{status}, {parts:?}");
        let password = if succeeded {
            &self.new
        } else {
            &self.tenant.password
        };
        let browser = tests::browser::Browser::new(&self.tenant.url)?;
        ensure!(
            browser.sign_in(&self.tenant.login, password).await?,
            "the password is not the one it should be"
        );
        Ok(())
    }

    async fn clear(self: Box<Self>, _: &Api, _: &Plans) -> Result<()> {
        self.tenant.delete().await
    }
}
