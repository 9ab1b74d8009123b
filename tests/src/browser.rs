//! A tenant's Odoo as a browser uses it: cookies, the sign-in form, JSON calls of the web client.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use reqwest::cookie::{CookieStore as _, Jar};
use reqwest::{Client, Url};
use serde_json::{Value, json};

use crate::http::{self, Answer};

/// A browser at one tenant's address.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    jar: Arc<Jar>,
    base: Url,
}

impl Browser {
    /// A browser that has seen nothing yet.
    ///
    /// # Errors
    /// None that a test could mend.
    pub fn new(url: &str) -> Result<Self> {
        let jar = Arc::new(Jar::default());
        Ok(Self {
            client: http::builder().cookie_provider(Arc::clone(&jar)).build()?,
            jar,
            base: url.parse()?,
        })
    }

    /// GET, following redirects.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        Answer::of(self.client.get(self.base.join(path)?)).await
    }

    /// Fills in the sign-in form. Says whether someone is signed in afterwards.
    ///
    /// # Errors
    /// There is no form, or no answer came.
    pub async fn sign_in(&self, login: &str, password: &str) -> Result<bool> {
        let form = self.get("/web/login").await?;
        form.expect(200)?;
        let token = attribute(&form.text, "csrf_token").context("the form has no csrf_token")?;
        let fields = [
            ("csrf_token", token.as_str()),
            ("login", login),
            ("password", password),
            ("redirect", ""),
        ];
        let answer = Answer::of(self.client.post(self.base.join("/web/login")?).form(&fields)).await?;
        answer.expect(200)?;
        Ok(!answer.url.contains("/web/login"))
    }

    /// Whether someone is signed in, as Odoo sees it.
    ///
    /// # Errors
    /// Odoo does not answer.
    pub async fn is_signed_in(&self) -> Result<bool> {
        let answer = self.rpc("/web/session/get_session_info", &json!({})).await?;
        Ok(answer.expect(200)?["result"]["uid"].is_u64())
    }

    /// A JSON-RPC call of the web client.
    ///
    /// # Errors
    /// No answer came.
    pub async fn rpc(&self, path: &str, params: &Value) -> Result<Answer> {
        let body = json!({ "jsonrpc": "2.0", "method": "call", "id": 1, "params": params });
        Answer::of(self.client.post(self.base.join(path)?).json(&body)).await
    }

    /// Calls a method of a model and answers its result.
    ///
    /// # Errors
    /// Odoo refuses.
    pub async fn call(&self, model: &str, method: &str, args: Value) -> Result<Value> {
        self.call_with(model, method, args, &json!({})).await
    }

    /// Calls a method of a model with named arguments.
    ///
    /// # Errors
    /// Odoo refuses.
    pub async fn call_with(&self, model: &str, method: &str, args: Value, kwargs: &Value) -> Result<Value> {
        let params = json!({ "model": model, "method": method, "args": args, "kwargs": kwargs });
        let mut answer = self.rpc("/web/dataset/call_kw", &params).await?.expect(200)?;
        ensure!(
            answer.get("error").is_none(),
            "{model}.{method}: {}",
            answer["error"]
        );
        Ok(answer["result"].take())
    }

    /// Makes a server action of Python, which a tenant's administrator may. Answers its id.
    ///
    /// # Errors
    /// Odoo refuses.
    pub async fn action(&self, code: &str) -> Result<Value> {
        let model = self
            .call("ir.model", "search", json!([[["model", "=", "res.partner"]]]))
            .await?;
        let action = json!([[{ "name": "test", "model_id": model[0], "state": "code", "code": code }]]);
        self.call("ir.actions.server", "create", action).await
    }

    /// Runs Python in a server action. Answers what it leaves in `action`.
    ///
    /// # Errors
    /// The code raised an error.
    pub async fn run(&self, code: &str) -> Result<Value> {
        let action = self.action(code).await?;
        self.call("ir.actions.server", "run", json!([action])).await
    }

    /// The session's cookie, as `session_id=…`.
    #[must_use]
    pub fn cookie(&self) -> Option<String> {
        let header = self.jar.cookies(&self.base)?;
        let text = header.to_str().ok()?;
        text.split("; ")
            .find(|cookie| cookie.starts_with("session_id="))
            .map(str::to_owned)
    }
}

/// The value of the form's field of this name.
fn attribute(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\""))?;
    let (_, rest) = rest.split_once("value=\"")?;
    rest.split('"').next().map(str::to_owned)
}
