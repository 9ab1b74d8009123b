//! The platform's public API as any customer uses it: through the edge, with a token.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::http::{self, Address, Body, Request, Response};
use crate::instance::Instance;
use crate::services;

/// A signed-in client of the public API.
pub(crate) struct Client {
    address: Address,
    host: String,
    token: String,
    signed_in: Instant,
    credentials: Value,
}

impl Client {
    /// Signs in as the instance's owner.
    pub(crate) fn sign_in(instance: &Instance) -> Result<Self> {
        Self::sign_in_as(
            instance,
            &services::owner_email(),
            &services::owner_password(instance)?,
        )
    }

    /// Signs in with an account's e-mail address and password.
    pub(crate) fn sign_in_as(instance: &Instance, email: &str, password: &str) -> Result<Self> {
        let mut client = Self {
            // Programs may not resolve `localhost` names; the edge is asked by its address.
            address: Address::Loopback(instance.ports.edge),
            host: format!("localhost:{}", instance.ports.edge),
            token: String::new(),
            signed_in: Instant::now(),
            credentials: json!({ "email": email, "password": password }),
        };
        client.renew()?;
        Ok(client)
    }

    /// The present access token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    fn renew(&mut self) -> Result<()> {
        let answer = self.send("POST", "/v1/auth/token", Some(&self.credentials), &[])?;
        if answer.status == 401 {
            bail!(
                "the owner's e-mail and password are refused: they were changed since the first start; \
                 `cargo xtask down --purge` starts anew"
            );
        }
        let token = expect(&answer, "POST /v1/auth/token")?["access_token"]
            .as_str()
            .map(str::to_owned);
        self.token = token.context("the API answered no access_token")?;
        self.signed_in = Instant::now();
        Ok(())
    }

    /// Sends a request; tokens live for 15 minutes and are renewed in time.
    pub(crate) fn call(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&Value>,
        headers: &[(&'static str, String)],
    ) -> Result<Response> {
        if self.signed_in.elapsed() > Duration::from_secs(600) {
            self.renew()?;
        }
        let mut all = vec![("Authorization", format!("Bearer {}", self.token))];
        all.extend_from_slice(headers);
        self.send(method, target, body, &all)
    }

    /// Sends a request and demands success.
    pub(crate) fn get(&mut self, target: &str) -> Result<Value> {
        let answer = self.call("GET", target, None, &[])?;
        expect(&answer, &format!("GET {target}"))
    }

    /// Waits until an operation is over; it must have succeeded.
    pub(crate) fn finish(&mut self, operation: &str, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            let state = self.get(&format!("/v1/operations/{operation}?wait=10"))?;
            match state["status"].as_str() {
                Some("succeeded") => return Ok(()),
                Some(status @ ("failed" | "cancelled")) => {
                    bail!("operation {operation} {status}: {}", state["error"])
                }
                _ if Instant::now() >= end => bail!("operation {operation} is not over yet: {state}"),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn send(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
        headers: &[(&'static str, String)],
    ) -> Result<Response> {
        http::send(
            &self.address,
            Request {
                method,
                target,
                host: &self.host,
                headers: headers.to_vec(),
                body: body.map_or(Body::Empty, Body::Json),
                patience: Duration::from_secs(30),
            },
        )
    }
}

/// The answer's JSON, or an error with the API's own words.
pub(crate) fn expect(answer: &Response, what: &str) -> Result<Value> {
    if answer.is_success() {
        return answer.json();
    }
    let problem = answer.json().unwrap_or_default();
    let detail = problem["detail"].as_str().or_else(|| problem["title"].as_str());
    bail!(
        "{what} answered {}: {}",
        answer.status,
        detail.map_or_else(|| answer.text(), str::to_owned)
    )
}
