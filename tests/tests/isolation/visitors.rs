//! Visitors of sibling tenants: cookies for a common parent domain, websockets, and the way past the edge.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::api::Api;
use tests::containers::Containers;
use tests::http::{self, Answer};
use tests::socket::Socket;
use tests::tenant::Tenant;

use crate::{end, pair};

#[tokio::test]
async fn a_sibling_can_not_give_a_visitor_its_session() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = pair(&api).await?;
    let (at_a, at_b) = (a.signed_in().await?, b.signed_in().await?);
    let (cookie_a, cookie_b) = (
        at_a.cookie().context("A's cookie")?,
        at_b.cookie().context("B's cookie")?,
    );
    let client = http::client()?;
    for cookies in [
        format!("{cookie_a}; {cookie_b}"),
        format!("{cookie_b};{cookie_a}"),
        format!("{cookie_a}; x=1; {cookie_b}"),
    ] {
        let answer = Answer::of(client.get(format!("{}/odoo", a.url)).header("cookie", &cookies)).await?;
        assert_eq!(answer.status, 400, "two sessions are let in: {cookies}");
    }
    Answer::of(
        client
            .get(format!("{}/odoo", a.url))
            .header("cookie", format!("x_session_id=1; {cookie_a}")),
    )
    .await?
    .expect(200)?;

    let answer = a.visit("/web/login").await?;
    let cookies: Vec<&str> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    assert!(
        cookies.iter().any(|cookie| cookie.starts_with("session_id=")),
        "{cookies:?}"
    );
    for cookie in cookies {
        let lower = cookie.to_lowercase();
        assert!(lower.contains("samesite=lax"), "{cookie}");
        let wide = lower.split(';').any(|part| {
            part.trim()
                .strip_prefix("domain=")
                .is_some_and(|domain| !domain.is_empty())
        });
        assert!(!wide, "for all siblings: {cookie}");
    }
    end(a, b).await
}

#[tokio::test]
async fn a_websocket_hears_only_its_own_tenant() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = pair(&api).await?;
    let (at_a, at_b) = (a.signed_in().await?, b.signed_in().await?);
    let (cookie_a, cookie_b) = (
        at_a.cookie().context("A's cookie")?,
        at_b.cookie().context("B's cookie")?,
    );
    let forged = [
        ("cookie", cookie_b.as_str()),
        ("x-platform-database", b.database.as_str()),
        ("x-odoo-database", b.database.as_str()),
    ];
    let mut at_a_as_b = Socket::open(&a.host, &a.url, &forged)
        .await?
        .map_err(|code| anyhow::anyhow!("refused: {code}"))?;
    let mut own = Socket::open(&b.host, &b.url, &[("cookie", &cookie_b)])
        .await?
        .map_err(|code| anyhow::anyhow!("refused: {code}"))?;
    let both = Socket::open(&a.host, &a.url, &[("cookie", &format!("{cookie_a}; {cookie_b}"))]).await?;
    assert_eq!(both.err(), Some(400), "two sessions open a websocket");
    for socket in [&mut at_a_as_b, &mut own] {
        socket.subscribe(&["e2e-channel"]).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;

    at_b.run("env.user.partner_id._bus_send('e2e/private', {'n': 1}); env['bus.bus']._sendone('e2e-channel', 'e2e/channel', {'n': 2})").await?;
    assert_eq!(
        own.payload("e2e/channel", Duration::from_secs(20)).await?["n"],
        2,
        "B's own websocket hears it"
    );
    assert!(
        at_a_as_b
            .payload("e2e/channel", Duration::from_secs(3))
            .await
            .is_err(),
        "A's host tells what happens at B"
    );
    // Code at A that names B's channel reaches nobody there.
    let forgery = format!(
        "env['bus.bus']._sendone(('{}', 'res.partner', 3), 'e2e/forged', {{}})",
        b.database
    );
    at_a.run(&forgery).await.ok();
    assert!(
        own.payload("e2e/forged", Duration::from_secs(3)).await.is_err(),
        "A has sent to B's channel"
    );
    end(a, b).await
}

#[tokio::test]
async fn only_the_edge_is_answered_by_a_pool() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let a = Tenant::create(&api).await?;
    let web = containers.of_role("web").await?;
    let ports = web
        .host_config
        .and_then(|host| host.port_bindings)
        .context("ports")?;
    let port = ports["8069/tcp"]
        .as_ref()
        .and_then(|bound| bound[0].host_port.clone())
        .context("a port")?;
    let client = http::client()?;
    for secret in ["", "guess", &"e".repeat(43)] {
        let request = client.get(format!("http://127.0.0.1:{port}/web/login"));
        let request = request
            .header("x-platform-database", &a.database)
            .header("x-platform-edge", secret);
        assert_eq!(Answer::of(request).await?.status, 403, "secret {secret:?}");
    }
    let health = Answer::of(client.get(format!("http://127.0.0.1:{port}/platform/health"))).await?;
    assert_eq!(health.status, 200, "the probe itself reaches the pool");
    a.delete().await
}
