//! Tenants of one test each.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Api;
use crate::browser::Browser;
use crate::http::{self, Answer};
use crate::place::Place;
use crate::wait;

/// A tenant that one test made. It is deleted when the test lets go of it, also when the test fails.
#[derive(Debug)]
pub struct Tenant {
    /// Its id, `ten_…`.
    pub id: String,
    /// Its host label.
    pub slug: String,
    /// Its address without a path.
    pub url: String,
    /// Host and port of its address.
    pub host: String,
    /// Its database, which is also the name of its role and of its files' folder.
    pub database: String,
    /// Its administrator's login.
    pub login: String,
    /// The password.
    pub password: String,
    /// The operation that made it.
    pub operation: String,
    api: Api,
    deleted: bool,
}

/// A host label that no other test has.
#[must_use]
pub fn new_slug() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("e2e-{}", &random[..12])
}

/// The body of a request for a tenant, with more fields or others.
#[must_use]
pub fn request(slug: &str, more: &Value) -> Value {
    let mut body = json!({ "slug": slug, "name": format!("Company {slug}"), "admin": { "email": format!("admin@{slug}.example") } });
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    body
}

/// The database of a tenant's id.
#[must_use]
pub fn database_of(id: &str) -> String {
    format!("t_{}", id.trim_start_matches("ten_"))
}

impl Tenant {
    /// Makes a tenant and waits until it serves.
    ///
    /// # Errors
    /// It was not made.
    pub async fn create(api: &Api) -> Result<Self> {
        Self::create_with(api, &json!({})).await
    }

    /// Makes a tenant with more fields in the request.
    ///
    /// # Errors
    /// It was not made.
    pub async fn create_with(api: &Api, more: &Value) -> Result<Self> {
        let body = request(&new_slug(), more);
        let tenant = Self::accept(api, &body, &[]).await?;
        api.succeeded(&tenant.operation).await?;
        Ok(tenant)
    }

    /// Asks for a tenant and does not wait.
    ///
    /// # Errors
    /// The request was refused.
    pub async fn accept(api: &Api, body: &Value, headers: &[(&str, &str)]) -> Result<Self> {
        Self::of(api, &api.post("/v1/tenants", body, headers).await?, body)
    }

    /// The tenant of an answer to `POST /v1/tenants`.
    ///
    /// # Errors
    /// It is none.
    pub fn of(api: &Api, answer: &Answer, body: &Value) -> Result<Self> {
        let accepted = answer.expect(202)?;
        let text = |value: &Value| {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("a text is missing: {accepted}"))
        };
        let (id, slug) = (
            text(&accepted["tenant"]["id"])?,
            text(&accepted["tenant"]["slug"])?,
        );
        Ok(Self {
            url: text(&accepted["tenant"]["url"])?,
            host: Place::get().host_of(&slug),
            database: database_of(&id),
            login: text(&body["admin"]["email"])?,
            password: accepted["admin_password"]
                .as_str()
                .or(body["admin"]["password"].as_str())
                .unwrap_or_default()
                .to_owned(),
            operation: text(&accepted["operation"]["id"])?,
            api: api.clone(),
            deleted: false,
            id,
            slug,
        })
    }

    /// What the API says of it.
    ///
    /// # Errors
    /// No answer came.
    pub async fn read(&self) -> Result<Answer> {
        self.api.get(&format!("/v1/tenants/{}", self.id)).await
    }

    /// A browser with its administrator signed in.
    ///
    /// # Errors
    /// The sign-in was refused.
    pub async fn signed_in(&self) -> Result<Browser> {
        let browser = Browser::new(&self.url)?;
        ensure!(
            browser.sign_in(&self.login, &self.password).await?,
            "{} can't sign in",
            self.login
        );
        Ok(browser)
    }

    /// GET at its address, as nobody.
    ///
    /// # Errors
    /// No answer came.
    pub async fn visit(&self, path: &str) -> Result<Answer> {
        Answer::of(http::client()?.get(format!("{}{path}", self.url))).await
    }

    /// Waits until its sign-in page comes.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn serves(&self, deadline: Duration) -> Result<()> {
        wait::until(deadline, &format!("{} serves", self.slug), async || {
            self.visit("/web/login").await?.expect(200).map(drop)
        })
        .await
    }

    /// Deletes it and waits until it is gone.
    ///
    /// # Errors
    /// It is not gone.
    pub async fn delete(mut self) -> Result<()> {
        let answer = self
            .api
            .delete(&format!("/v1/tenants/{}", self.id))
            .await?
            .expect(202)?;
        self.deleted = true;
        self.api
            .succeeded(answer["operation"]["id"].as_str().context("no operation")?)
            .await?;
        Ok(())
    }

    /// Leaves it as it is: the test has deleted it itself.
    pub fn forget(mut self) {
        self.deleted = true;
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if self.deleted {
            return;
        }
        // Dropped inside a runtime, where blocking is not allowed: a thread with a runtime of its own asks.
        let path = format!("/v1/tenants/{}", self.id);
        let asking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async { Api::owner().await.ok()?.delete(&path).await.ok() })
        });
        if asking.join().is_err() {
            eprintln!("{} stays behind", self.slug);
        }
    }
}
