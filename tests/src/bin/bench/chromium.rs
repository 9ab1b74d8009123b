//! A real browser, driven by the DevTools protocol: what a person at a new tenant waits for.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

const DEADLINE: Duration = Duration::from_secs(60);

/// A headless Chromium.
pub struct Chromium {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    _process: Child,
    _profile: Profile,
}

/// The browser's own folder, removed with it.
struct Profile(std::path::PathBuf);

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} can't be removed: {error}", self.0.display());
        }
    }
}

impl Chromium {
    /// Starts it with an empty profile.
    pub async fn start() -> Result<Self> {
        let profile = Profile(std::env::temp_dir().join(format!("bench-chromium-{}", std::process::id())));
        let mut process = Command::new(tests::place::variable("TEST_CHROMIUM"))
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.0.display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("Chromium does not start")?;
        let stderr = process.stderr.take().context("Chromium has an error output")?;
        let mut lines = BufReader::new(stderr).lines();
        let address = tokio::time::timeout(DEADLINE, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    return Ok(address.to_owned());
                }
            }
            bail!("Chromium ended without listening")
        })
        .await
        .context("Chromium does not listen")??;
        // Its error output must be read on, or it blocks one day.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = tokio_tungstenite::connect_async(address).await?;
        Ok(Self {
            socket,
            last_id: 0,
            _process: process,
            _profile: profile,
        })
    }

    /// Opens a tenant in a fresh browser context as soon as it answers, signs in, and waits for the home page.
    pub async fn sign_in(&mut self, url: &str, login: &str, password: &str) -> Result<()> {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await?;
        let context = context["browserContextId"].clone();
        let target = json!({ "url": "about:blank", "browserContextId": context });
        let target = self.call(None, "Target.createTarget", target).await?["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach).await?;
        let session = session["sessionId"].as_str().context("no session")?.to_owned();
        let page = format!("{url}/web/login");
        let begun = Instant::now();
        loop {
            self.call(Some(&session), "Page.navigate", json!({ "url": page }))
                .await?;
            let form = "new Promise(done => { const look = () => document.readyState === 'complete' \
                        ? done(!!document.querySelector('form.oe_login_form')) : setTimeout(look, 5); look(); })";
            if self.evaluate(&session, form).await? == json!(true) {
                break;
            }
            if begun.elapsed() > DEADLINE {
                bail!("{page} shows no sign-in form");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let fill = format!(
            "document.querySelector('input[name=login]').value = {}; \
             document.querySelector('input[name=password]').value = {}; \
             document.querySelector('form.oe_login_form').submit(); true",
            json!(login),
            json!(password)
        );
        self.evaluate(&session, &fill).await?;
        let begun = Instant::now();
        loop {
            let home = "!!document.querySelector('.o_web_client .o_main_navbar')";
            // Between two pages there is nothing to ask.
            if matches!(self.evaluate(&session, home).await, Ok(Value::Bool(true))) {
                break;
            }
            if begun.elapsed() > DEADLINE {
                bail!("{url} shows no home page after signing in");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.call(
            None,
            "Target.disposeBrowserContext",
            json!({ "browserContextId": context }),
        )
        .await?;
        Ok(())
    }

    async fn evaluate(&mut self, session: &str, expression: &str) -> Result<Value> {
        let question = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call(Some(session), "Runtime.evaluate", question).await?;
        Ok(answer["result"]["value"].clone())
    }

    async fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await?;
        let answer = async {
            while let Some(message) = self.socket.next().await {
                let Message::Text(text) = message? else { continue };
                let answer: Value = serde_json::from_str(&text)?;
                if answer["id"] == id {
                    if let Some(error) = answer.get("error") {
                        bail!("{method}: {error}");
                    }
                    return Ok(answer["result"].clone());
                }
            }
            bail!("Chromium has closed the connection")
        };
        tokio::time::timeout(DEADLINE, answer)
            .await
            .with_context(|| format!("{method} is not answered"))?
    }
}
