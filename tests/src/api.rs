//! The platform's API as a program uses it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::place::Place;
use crate::wait;

/// Longest time that an operation may take on a busy machine.
const OPERATION: Duration = Duration::from_secs(150);

/// A signed-in caller.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    base: String,
    token: String,
}

/// What a sign-in or a refresh yields.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

impl Tokens {
    /// Those of an answer.
    ///
    /// # Errors
    /// It holds none.
    pub fn of(answer: &Answer) -> Result<Self> {
        let session = answer.expect(200)?;
        let text = |field: &str| {
            let value = session[field].as_str();
            value.map(str::to_owned).with_context(|| format!("no {field}"))
        };
        Ok(Self {
            access: text("access_token")?,
            refresh: text("refresh_token")?,
        })
    }
}

impl Api {
    /// The platform's first owner.
    ///
    /// # Errors
    /// The sign-in was refused.
    pub async fn owner() -> Result<Self> {
        let access = &Place::get().access;
        let anyone = Self::anyone()?;
        let tokens = anyone
            .sign_in(&access.owner_email, &access.owner_password)
            .await?;
        Ok(anyone.with(&tokens.access))
    }

    /// Somebody without a credential, through the edge.
    ///
    /// # Errors
    /// None that a test could mend.
    pub fn anyone() -> Result<Self> {
        Self::at(&Place::get().access.api_url)
    }

    /// Somebody without a credential, at an address of the API.
    ///
    /// # Errors
    /// None that a test could mend.
    pub fn at(base: &str) -> Result<Self> {
        Ok(Self {
            client: http::client()?,
            base: base.trim_end_matches('/').to_owned(),
            token: String::new(),
        })
    }

    /// The same with this access token.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Signs in.
    ///
    /// # Errors
    /// It was refused.
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<Tokens> {
        let body = json!({ "email": email, "password": password });
        Tokens::of(&self.post("/v1/auth/token", &body, &[]).await?)
    }

    /// Trades a refresh token.
    ///
    /// # Errors
    /// No answer came.
    pub async fn refresh(&self, token: &str) -> Result<Answer> {
        self.post("/v1/auth/refresh", &json!({ "refresh_token": token }), &[])
            .await
    }

    /// A request that can be given more before it is sent.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        }
    }

    /// The access token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::of(request).await
    }

    /// GET.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None, &[]).await
    }

    /// POST.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::POST, path, Some(body), headers).await
    }

    /// PATCH.
    ///
    /// # Errors
    /// No answer came.
    pub async fn patch(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Answer> {
        self.send(Method::PATCH, path, Some(body), headers).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// No answer came.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, None, &[]).await
    }

    /// Waits until an operation has ended, and answers it. Goes on while the API itself is being restarted.
    ///
    /// # Errors
    /// It has not ended in time.
    pub async fn ended(&self, operation: &str) -> Result<Value> {
        wait::until(OPERATION, &format!("{operation} ends"), async || {
            let answer = self.get(&format!("/v1/operations/{operation}?wait=20")).await?;
            let operation = answer.expect(200)?;
            let status = operation["status"].as_str().unwrap_or_default();
            ensure!(
                matches!(status, "succeeded" | "failed" | "cancelled"),
                "still {operation}"
            );
            Ok(operation)
        })
        .await
    }

    /// Waits until an operation has succeeded.
    ///
    /// # Errors
    /// It ended in another way, or not in time.
    pub async fn succeeded(&self, operation: &str) -> Result<Value> {
        let ended = self.ended(operation).await?;
        ensure!(ended["status"] == "succeeded", "{ended}");
        Ok(ended)
    }

    /// Waits until the API takes requests.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn ready(&self) -> Result<()> {
        wait::until(Duration::from_secs(30), "the API is ready", async || {
            self.get("/readyz").await?.expect(200).map(drop)
        })
        .await
    }
}
