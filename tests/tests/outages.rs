//! Parts of the data plane break: users keep their sessions and tenants, and nobody has to help.
//!
//! These tests break what they share, so that one runs at a time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::api::Api;
use tests::browser::Browser;
use tests::containers::Containers;
use tests::services;
use tests::socket::Socket;
use tests::tenant::Tenant;
use tests::wait;
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

/// Longest time of a pool until it serves again on a busy machine.
const BACK: Duration = Duration::from_secs(90);

#[tokio::test]
async fn everyone_stays_signed_in_when_postgres_dies() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let (a, b) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let (at_a, at_b) = (a.signed_in().await?, b.signed_in().await?);
    let cookies = (at_a.cookie(), at_b.cookie());
    let mut socket = listen(&a, &at_a).await?;
    socket.subscribe(&[]).await?;
    hears(&at_a, &mut socket).await?;

    services::kill_hard("postgres-tenants").await?;
    wait::until(BACK, "both are served again", async || {
        for browser in [&at_a, &at_b] {
            let page = browser.get("/odoo").await?;
            if page.status == 503 {
                // Refused, but not signed out, and with a word when to come again.
                assert!(!page.header("retry-after").is_empty(), "{page:?}");
                assert!(
                    page.header("set-cookie").is_empty(),
                    "an outage sets a cookie: {page:?}"
                );
            }
            page.expect(200)?;
            // Only a session can end here: then Odoo leads to the sign-in page.
            assert!(!page.url.contains("/web/login"), "signed out by an outage");
        }
        Ok(())
    })
    .await?;
    assert!(
        at_a.is_signed_in().await? && at_b.is_signed_in().await?,
        "signed out by an outage"
    );
    assert_eq!((at_a.cookie(), at_b.cookie()), cookies, "sessions were replaced");

    hears(&at_a, &mut socket).await?;
    a.delete().await?;
    b.delete().await
}

/// Opens the websocket of a signed-in user.
async fn listen(tenant: &Tenant, browser: &Browser) -> Result<Socket> {
    let cookie = browser.cookie().context("a session")?;
    Socket::open(&tenant.host, &tenant.url, &[("cookie", &cookie)])
        .await?
        .map_err(|code| anyhow::anyhow!("refused: {code}"))
}

/// Sends messages to the user until one is heard.
async fn hears(browser: &Browser, socket: &mut Socket) -> Result<()> {
    wait::until(BACK, "the websocket hears", async || {
        browser
            .run("env.user.partner_id._bus_send('e2e/message', {'n': 1})")
            .await?;
        socket
            .payload("e2e/message", Duration::from_secs(3))
            .await
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn a_subscription_that_an_outage_swallows_ends_its_websocket() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    let mut socket = listen(&tenant, &browser).await?;
    let send = "env.user.partner_id._bus_send('e2e/message', {'n': 1})";
    let send = browser.action(send).await?;
    services::kill_hard("postgres-tenants").await?;
    socket.subscribe(&[]).await?;
    tenant.serves(BACK).await?;
    // A browser subscribes once a connection: it must be heard, or connect again.
    let heard = async {
        loop {
            browser.call("ir.actions.server", "run", json!([send])).await?;
            match socket.payload("e2e/message", Duration::from_secs(3)).await {
                Err(error) if error.is::<tokio::time::error::Elapsed>() => {}
                Ok(_) | Err(_) => return anyhow::Ok(()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(45), heard)
        .await
        .context("the websocket stays open and hears nothing")??;
    tenant.delete().await
}

/// A clone begins with the template's sequences. Postgres does not log each value that a sequence hands out; a clone
/// that inherits the unlogged rest goes back to the template's numbers in a crash.
#[tokio::test]
async fn what_a_new_tenant_wrote_before_a_crash_is_not_numbered_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    let create = async |name: &str| -> Result<Value> {
        browser
            .call("res.partner", "create", json!([[{ "name": name }]]))
            .await
    };
    let mut before = Vec::new();
    for number in 0..3 {
        before.push(create(&format!("before {number}")).await?);
    }
    services::kill_hard("postgres-tenants").await?;
    tenant.serves(BACK).await?;
    for number in 0..3 {
        let after = create(&format!("after {number}")).await?;
        assert!(!before.contains(&after), "{after} was given out before the crash");
    }
    let kept = json!([[["name", "=like", "before _"]]]);
    assert_eq!(browser.call("res.partner", "search_count", kept).await?, 3);
    // What Odoo's processes tell each other is numbered too.
    browser
        .call("ir.config_parameter", "set_param", json!(["e2e", "1"]))
        .await?;
    tenant.delete().await
}

#[tokio::test]
async fn a_restarted_container_loses_no_tenant_and_no_session() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let (at_a, at_b) = (a.signed_in().await?, b.signed_in().await?);
    for role in ["web", "gevent", "cron"] {
        containers.restart(role).await?;
    }
    for (tenant, browser) in [(&a, &at_a), (&b, &at_b)] {
        tenant.serves(BACK).await?;
        assert!(browser.is_signed_in().await?, "a session is lost");
        let company = browser
            .call("res.company", "search_read", json!([[], ["name"]]))
            .await?;
        assert!(
            company[0]["name"]
                .as_str()
                .is_some_and(|name| name.contains(&tenant.slug)),
            "{company}"
        );
        let cookie = browser.cookie().context("a session")?;
        wait::until(BACK, "the websocket opens", async || {
            let opened = Socket::open(&tenant.host, &tenant.url, &[("cookie", &cookie)]).await?;
            ensure!(opened.is_ok(), "refused: {:?}", opened.err());
            Ok(())
        })
        .await?;
    }
    a.delete().await?;
    b.delete().await
}

#[tokio::test]
async fn a_container_that_dies_comes_back_by_itself() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    for role in ["web", "gevent", "cron"] {
        let state = containers.of_role(role).await?.state.context("a state")?;
        let pid = state
            .pid
            .and_then(|pid| i32::try_from(pid).ok())
            .filter(|pid| *pid > 0)
            .context("a process")?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        wait::until(BACK, &format!("{role} runs again"), async || {
            let new = containers.of_role(role).await?.state.context("a state")?;
            ensure!(new.running == Some(true) && new.pid != state.pid, "{new:?}");
            Ok(())
        })
        .await?;
    }
    tenant.serves(BACK).await?;
    assert!(browser.is_signed_in().await?, "a session is lost");
    tenant.delete().await
}

/// Processes that stand still, until the end of the test.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn stop(names: &[&str]) -> Result<Self> {
        let mut stopped = Self(Vec::new());
        for name in names {
            let pid = Pid::from_raw(services::process(name)?);
            kill(pid, Signal::SIGSTOP)?;
            stopped.0.push(pid);
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // A process that has ended meanwhile needs no signal.
            kill(*pid, Signal::SIGCONT).ok();
        }
    }
}

#[tokio::test]
async fn tenants_are_served_while_the_whole_control_plane_stands_still() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    let stopped = Stopped::stop(&["api", "worker", "redis", "postgres"])?;
    browser.get("/odoo").await?.expect(200)?;
    let again = tenant.signed_in().await?;
    assert!(again.is_signed_in().await?);
    drop(stopped);
    api.ready().await?;
    tenant.delete().await
}
