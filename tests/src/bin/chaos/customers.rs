//! Customers: they ask for tenants and change them, as a careful program would. A request that got no answer is sent again
//! with the same idempotency key.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::http::Answer;
use tests::place::Place;
use tests::tenant::{database_of, new_slug, request};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A request is sent again for so long.
const PATIENCE: Duration = Duration::from_secs(240);
/// An operation ends within this, whatever is broken meanwhile.
const OPERATION: Duration = Duration::from_secs(420);

/// A tenant, as its customer believes it to be.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: String,
    pub slug: String,
    pub host: String,
    pub database: String,
    pub login: String,
    pub password: String,
    /// Active, or failed.
    pub active: bool,
}

/// What the customers did.
#[derive(Debug, Default)]
pub struct Done {
    pub made: u32,
    pub failed: u32,
    pub cancelled: u32,
    pub passwords: u32,
    pub deleted: u32,
    pub retried: u32,
    pub repeated: u32,
}

impl Done {
    pub fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.passwords += other.passwords;
        self.deleted += other.deleted;
        self.retried += other.retried;
        self.repeated += other.repeated;
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tenants made, {} failed, {} cancelled, {} passwords set, {} tenants deleted, {} operations retried by hand, \
             {} requests repeated",
            self.made, self.failed, self.cancelled, self.passwords, self.deleted, self.retried, self.repeated
        )
    }
}

/// Works until the shop closes; answers what is left and what was wrong.
pub async fn run(number: u64, random: StdRng, closing: CancellationToken) -> (Vec<Kept>, Done, Vec<String>) {
    let mut customer = Customer {
        random,
        api: None,
        kept: Vec::new(),
        done: Done::default(),
    };
    let mut complaints = Vec::new();
    while !closing.is_cancelled() {
        if let Err(error) = customer.act().await {
            println!("  customer {number} complains: {error:#}");
            complaints.push(format!("customer {number}: {error:#}"));
        }
        let pause = Duration::from_millis(customer.random.random_range(0..1_500));
        closing.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    (customer.kept, customer.done, complaints)
}

struct Customer {
    random: StdRng,
    api: Option<Api>,
    kept: Vec<Kept>,
    done: Done,
}

impl Customer {
    async fn act(&mut self) -> Result<()> {
        let choice = self.random.random_range(0..100);
        match choice {
            _ if self.kept.len() < 2 => self.make().await,
            0..35 if self.kept.len() < 8 => self.make().await,
            35..65 => self.set_password().await,
            _ => self.delete().await,
        }
    }

    async fn make(&mut self) -> Result<()> {
        let slug = new_slug();
        let password = format!("chaos {}", Uuid::new_v4().simple());
        let login = format!("admin@{slug}.example");
        let body = request(
            &slug,
            &json!({ "admin": { "email": login, "password": password } }),
        );
        let accepted = self
            .ask(Method::POST, "/v1/tenants", Some(&body))
            .await?
            .expect(202)?;
        let id = accepted["tenant"]["id"].as_str().context("no id")?.to_owned();
        let operation = operation_of(&accepted)?;
        let gives_up = self.random.random_range(0..6) == 0;
        if gives_up {
            let pause = Duration::from_millis(self.random.random_range(0..600));
            tokio::time::sleep(pause).await;
            let path = format!("/v1/operations/{operation}/cancel");
            let answer = self.ask(Method::POST, &path, Some(&json!({}))).await?;
            ensure!(matches!(answer.status, 202 | 409), "{answer:?}");
        }
        let status = self.ended(&operation).await?;
        match status.as_str() {
            "succeeded" => self.done.made += 1,
            "cancelled" => {
                ensure!(gives_up, "{operation} was cancelled by nobody");
                self.done.cancelled += 1;
            }
            _ => self.done.failed += 1,
        }
        self.kept.push(Kept {
            host: Place::get().host_of(&slug),
            database: database_of(&id),
            active: status == "succeeded",
            id,
            slug,
            login,
            password,
        });
        Ok(())
    }

    async fn set_password(&mut self) -> Result<()> {
        let active: Vec<usize> = (0..self.kept.len()).filter(|at| self.kept[*at].active).collect();
        if active.is_empty() {
            return self.make().await;
        }
        let at = active[self.random.random_range(0..active.len())];
        let password = format!("chaos {}", Uuid::new_v4().simple());
        let path = format!("/v1/tenants/{}/admin-password", self.kept[at].id);
        let body = json!({ "password": password });
        let accepted = self.ask(Method::POST, &path, Some(&body)).await?.expect(202)?;
        let status = self.ended(&operation_of(&accepted)?).await?;
        ensure!(status == "succeeded", "a password was not set: {status}");
        self.kept[at].password = password;
        self.done.passwords += 1;
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let at = self.random.random_range(0..self.kept.len());
        let kept = self.kept.swap_remove(at);
        let answer = self
            .ask(Method::DELETE, &format!("/v1/tenants/{}", kept.id), None)
            .await?;
        if answer.status == 404 {
            // An answer was lost, and the tenant is gone.
            self.done.deleted += 1;
            return Ok(());
        }
        let status = self.ended(&operation_of(&answer.expect(202)?)?).await?;
        ensure!(status == "succeeded", "{} was not deleted: {status}", kept.id);
        self.done.deleted += 1;
        Ok(())
    }

    /// Waits for an operation's end; one that was given up is retried by the operator.
    async fn ended(&mut self, operation: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            let path = format!("/v1/operations/{operation}?wait=20");
            let state = self.ask(Method::GET, &path, None).await?.expect(200)?;
            let status = state["status"].as_str().unwrap_or_default();
            if state["retryable"] == true {
                self.done.retried += 1;
                let path = format!("/v1/operations/{operation}/retry");
                self.ask(Method::POST, &path, Some(&json!({})))
                    .await?
                    .expect(202)?;
            } else if !matches!(status, "queued" | "running") {
                return Ok(status.to_owned());
            }
            ensure!(begun.elapsed() < OPERATION, "it does not end: {state}");
        }
    }

    /// Asks until there is an answer that is the platform's own.
    async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let key = Uuid::new_v4().to_string();
        let headers: &[(&str, &str)] = if method == Method::POST {
            &[("idempotency-key", &key)]
        } else {
            &[]
        };
        let begun = Instant::now();
        loop {
            let why = match self.try_to(method.clone(), path, body, headers).await {
                Ok(answer) if answer.status == 401 => {
                    // Its token has expired.
                    self.api = None;
                    continue;
                }
                Ok(answer) if in_flight(&answer) => "in flight".to_owned(),
                Ok(answer) if !matches!(answer.status, 429 | 500..=599) => return Ok(answer),
                Ok(answer) if answer.status == 500 => bail!("{method} {path}: {answer:?}"),
                Ok(answer) => format!("{answer:?}"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                begun.elapsed() < PATIENCE,
                "{method} {path} is not answered: {why}"
            );
            self.done.repeated += 1;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    async fn try_to(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let api = match &self.api {
            Some(api) => api,
            None => self.api.insert(Api::owner().await?),
        };
        let call = api.send(method, path, body, headers);
        tokio::time::timeout(Duration::from_secs(60), call).await?
    }
}

fn in_flight(answer: &Answer) -> bool {
    answer.status == 409 && answer.text.contains("idempotency_in_flight")
}

fn operation_of(answer: &Value) -> Result<String> {
    let id = answer["operation"]["id"].as_str();
    id.map(str::to_owned)
        .with_context(|| format!("no operation: {answer}"))
}
