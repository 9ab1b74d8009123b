//! HTTP for tests: every host name leads to the edge, as browsers treat `*.localhost`; the C library may not.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, RequestBuilder, redirect::Policy};
use serde_json::Value;

use crate::place::Place;

/// Longest time of one request: installing an app takes a while.
const DEADLINE: Duration = Duration::from_secs(240);

/// Leads every name to loopback.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: Name) -> Resolving {
        let address = SocketAddr::new(Place::get().edge().ip(), 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

/// A client that follows no redirects and keeps no cookies.
///
/// # Errors
/// None that a test could mend.
pub fn client() -> Result<Client> {
    Ok(builder().redirect(Policy::none()).build()?)
}

pub(crate) fn builder() -> ClientBuilder {
    // Connections are not kept: tests kill what they lead to.
    Client::builder()
        .dns_resolver(Loopback)
        .no_proxy()
        .timeout(DEADLINE)
        .pool_max_idle_per_host(0)
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The address after all redirects that were followed.
    pub url: String,
    /// The body.
    pub text: String,
}

impl Answer {
    /// Sends a request. Where the API says that there were too many, it waits for as long as it is told and sends it
    /// again: a rate limit is no outcome of what a test asks.
    ///
    /// # Errors
    /// No answer came.
    pub async fn of(request: RequestBuilder) -> Result<Self> {
        let mut next = Some(request);
        loop {
            let request = next.take().context("a request is sent")?;
            next = request.try_clone();
            let answer = Self::at_once(request).await?;
            if next.is_none() || answer.status != 429 || answer.json()["code"] != "rate_limited" {
                return Ok(answer);
            }
            let wait = answer.header("retry-after").parse().context("Retry-After")?;
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }

    /// Sends a request and takes what comes, also that there were too many.
    ///
    /// # Errors
    /// No answer came.
    pub async fn at_once(request: RequestBuilder) -> Result<Self> {
        let response = request.send().await?;
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            url: response.url().to_string(),
            text: response.text().await.context("the body ended early")?,
        })
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A header's text; empty where it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON, where the status is as expected.
    ///
    /// # Errors
    /// Another status, with all that was answered.
    pub fn expect(&self, status: u16) -> Result<Value> {
        ensure!(
            self.status == status,
            "expected {status}, got {} from {}: {}",
            self.status,
            self.url,
            self.text
        );
        Ok(self.json())
    }

    /// The `code` of problem details.
    ///
    /// # Errors
    /// Another status, or no problem details.
    pub fn problem(&self, status: u16) -> Result<String> {
        let body = self.expect(status)?;
        ensure!(
            self.header("content-type")
                .starts_with("application/problem+json"),
            "no problem details: {self:?}"
        );
        ensure!(body["status"] == status, "the body names another status: {body}");
        for field in ["type", "title", "detail", "request_id"] {
            ensure!(body[field].is_string(), "no {field} in {body}");
        }
        ensure!(
            body["request_id"] == self.header("x-request-id"),
            "the body names another request than the header: {self:?}"
        );
        Ok(body["code"].as_str().context("no code")?.to_owned())
    }
}
