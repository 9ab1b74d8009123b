//! What passes between a visitor and a tenant's Odoo, and what does not.

use odoo::edge::{EdgeConfig, PublicScheme, RouteState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::nginx::{ReservedPort, TestEdge, database};
use super::raw_http::{Answer, get, request, send};

const HOST: &str = "a.localhost";

async fn with_tenant() -> TestEdge {
    with_tenant_and(|_| {}).await
}

async fn with_tenant_and(change: impl FnOnce(&mut EdgeConfig)) -> TestEdge {
    let test = TestEdge::start_with(change).await;
    test.publish(HOST, 1, RouteState::Active).await;
    test
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_chooses_neither_database_nor_identity() {
    let test = with_tenant().await;
    test.publish("b.localhost", 2, RouteState::Active).await;
    let other = database(2);
    let forged = [
        format!("X-Platform-Database: {other}"),
        format!("x-platform-database: {other}"),
        "X-Platform-Edge: guessed".to_owned(),
        format!("X_Platform_Database: {other}"),
        format!("X-Platform_Database: {other}"),
        "X_Platform_Edge: guessed".to_owned(),
        format!("X-Odoo-Database: {other}"),
        format!("X_Odoo_Database: {other}"),
        "X-Odoo-dbfilter: .*".to_owned(),
        "X-OpenERP-dbfilter: .*".to_owned(),
        "X-Openerp-Session-Id: abc".to_owned(),
        "X-Forwarded-For: 6.6.6.6".to_owned(),
        "X-Forwarded-Proto: https".to_owned(),
        "X-Forwarded-Host: b.localhost".to_owned(),
        "X-Real-IP: 6.6.6.6".to_owned(),
        "Forwarded: host=b.localhost".to_owned(),
        "X-Original-URL: /web/database/manager".to_owned(),
        "X-Rewrite-URL: /web/database/manager".to_owned(),
    ];
    let lines: Vec<_> = forged.iter().map(String::as_str).collect();
    let target = format!("/web?db={other}");
    let seen = get(test.address, HOST, &target, &lines).await.seen();
    assert_eq!(seen.header("x-platform-database"), Some(database(1).as_str()));
    assert_eq!(seen.header("x-platform-edge"), Some(test.secret.expose()));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some(HOST));
    assert_eq!(seen.header("host"), Some(HOST));
    for removed in [
        "x_platform_database",
        "x-platform_database",
        "x_platform_edge",
        "x-odoo-database",
        "x_odoo_database",
        "x-odoo-dbfilter",
        "x-openerp-dbfilter",
        "x-openerp-session-id",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
    ] {
        assert_eq!(seen.header(removed), None, "{removed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_are_refused_however_they_are_sent() {
    let test = with_tenant().await;
    let refused: &[&[&str]] = &[
        &["Cookie: session_id=a; session_id=b"],
        &["Cookie: session_id=a;session_id=b"],
        &["Cookie: session_id=a", "Cookie: session_id=b"],
        &[
            "Cookie: x=1; session_id=a; y=2",
            "cookie: z=3;  session_id=b; w=4",
        ],
        &["Cookie: session_id = a; \tsession_id\t=b"],
        &["Cookie: session_id=a; \u{a0}session_id=b"],
        &["Cookie: session_id; session_id=b"],
        &["Cookie: session_id=a; session_id"],
        &["Cookie: session_id=; session_id=b"],
        &["Cookie: x=\"1; session_id=a\"; session_id=b"],
        &["Cookie: session_id=a, session_id=b"],
    ];
    for headers in refused {
        let answer = get(test.address, HOST, "/web", headers).await;
        assert_eq!(answer.status, 400, "{headers:?}: {answer:?}");
        assert!(answer.body.contains("two sessions"), "{headers:?}");
    }
    let fine: &[&[&str]] = &[
        &["Cookie: session_id=a"],
        &["Cookie: session_id=a; tz=UTC; cids=1"],
        &["Cookie: my_session_id=x; session_id=a; session_id2=y; session_id.z=1; x-session_id=2"],
        &["Cookie: tz=session_id; session_id=a"],
    ];
    for headers in fine {
        let seen = get(test.address, HOST, "/web", headers).await.seen();
        assert_eq!(seen.header("cookie"), Some(&headers[0]["Cookie: ".len()..]));
    }
    let seen = get(
        test.address,
        HOST,
        "/web",
        &["Cookie: session_id=a", "Cookie: tz=UTC"],
    )
    .await
    .seen();
    assert_eq!(
        seen.header("cookie"),
        Some("session_id=a; tz=UTC"),
        "one header, as two could be read differently"
    );
}

fn cookies(answer: &Answer) -> String {
    answer.all("set-cookie").join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_belong_to_their_host_and_stay_on_the_site() {
    let test = with_tenant().await;
    insta::assert_snapshot!(cookies(&get(test.address, HOST, "/cookies", &[]).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_secure_where_the_edge_is_reached_over_https() {
    let test = with_tenant_and(|config| config.public_scheme = PublicScheme::Https).await;
    let answer = get(test.address, HOST, "/cookies", &[]).await;
    insta::assert_snapshot!(cookies(&answer));
    assert_eq!(
        get(test.address, HOST, "/", &[])
            .await
            .seen()
            .header("x-forwarded-proto"),
        Some("https")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_manager_is_not_served_in_any_spelling() {
    let test = with_tenant().await;
    for path in [
        "/web/database/manager",
        "/web/database/selector",
        "/web/database/create",
        "/web/database/list",
        "/web/database",
        "/web/database/",
        "/web//database/manager",
        "//web/database/manager",
        "///web///database///manager",
        "/web/./database/manager",
        "/web/x/../database/manager",
        "/x/../web/database/manager",
        "/web/%64atabase/manager",
        "/%77%65%62/%64%61%74%61%62%61%73%65/manager",
        "/web%2Fdatabase/manager",
        "/web%2fdatabase%2fmanager",
        "/web/%2e/database/manager",
        "/web/x/%2e%2e/database/manager",
        "/web/database/manager?x=1",
        "/web/database/manager#x",
        "/WEB/Database/manager",
        "/fr/web/database/manager",
        "/en_US/web/database/manager",
        "/web/database/..%2fdatabase/manager",
        "/web/database/%0amanager",
    ] {
        let answer = get(test.address, HOST, path, &[]).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    // Odoo decodes once, as Nginx does: this is another path to both.
    assert_eq!(
        get(test.address, HOST, "/web/%2564atabase/manager", &[])
            .await
            .status,
        200
    );
    // Characters that Python would drop from a path don't pass.
    assert_eq!(
        get(test.address, HOST, "/web/data\tbase/manager", &[])
            .await
            .status,
        400
    );
    for path in [
        "/web/databases",
        "/web/database-x",
        "/web/dataset/call_kw",
        "/web/login",
    ] {
        assert_eq!(get(test.address, HOST, path, &[]).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odoos_own_answers_pass_as_they_are() {
    let test = with_tenant().await;
    let answer = get(test.address, HOST, "/own-headers", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "odoo's own page"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=604800"));
    assert_eq!(answer.header("etag"), Some("\"x\""));
    assert_eq!(answer.header("content-security-policy"), Some("default-src none"));
    assert_eq!(answer.header("x-accel-redirect"), None);
    assert_eq!(answer.header("x-accel-expires"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_compressed() {
    let test = with_tenant().await;
    let long = format!("X-Long: {}", "a".repeat(3000));
    let answer = get(test.address, HOST, "/", &["Accept-Encoding: gzip", &long]).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_pass_whole_and_too_large_ones_are_refused_early() {
    let test = with_tenant().await;
    let length = 20 * 1024 * 1024;
    let mut text = request(
        "POST",
        HOST,
        "/web/binary/upload",
        &[&format!("Content-Length: {length}")],
    )
    .into_bytes();
    text.resize(text.len() + length, b'x');
    assert_eq!(
        send(test.address, &text).await.seen().body_length(),
        u64::try_from(length).unwrap()
    );

    let declared = format!("Content-Length: {}", 131 * 1024 * 1024);
    let answer = send(
        test.address,
        request("POST", HOST, "/web/binary/upload", &[&declared]).as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("Too large"));
}

fn websocket(origin: &str) -> String {
    let headers = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    request(
        "GET",
        "a.localhost:8080",
        "/websocket?version=1",
        &[&headers[..], &[origin]].concat(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_to_the_evented_port_and_carries_bytes_both_ways() {
    let test = with_tenant().await;
    let mut stream = tokio::net::TcpStream::connect(test.address).await.unwrap();
    stream
        .write_all(websocket("Origin: http://a.localhost:8080").as_bytes())
        .await
        .unwrap();
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).await.unwrap();
    let head = String::from_utf8_lossy(&buffer[..count]).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("X-Upstream: gevent"), "{head}");
    for message in ["first", "second"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        let count = stream.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], message.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_open_no_websocket() {
    let test = with_tenant().await;
    for origin in [
        "Origin: http://b.localhost:8080",
        "Origin: https://a.localhost:8080",
        "Origin: http://a.localhost",
        "Origin: http://a.localhost:8081",
        "Origin: http://a.localhost:8080.evil.example",
        "Origin: http://evil.example/http://a.localhost:8080",
        "Origin: http://xa.localhost:8080",
        "Origin: http://a.localhost:8080 http://a.localhost:8080",
        "Origin: null",
        "Origin: ",
        "X-No-Origin: 1",
    ] {
        let answer = send(test.address, websocket(origin).as_bytes()).await;
        assert_eq!(answer.status, 403, "{origin}: {answer:?}");
        assert_eq!(answer.json()["code"], "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_websockets_are_upgraded_and_only_where_they_belong() {
    let test = with_tenant().await;
    let h2c = [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ];
    for path in ["/websocket", "/web"] {
        let seen = get(test.address, HOST, path, &h2c).await.seen();
        assert_eq!(
            (seen.header("upgrade"), seen.header("connection")),
            (None, Some("close")),
            "{path}"
        );
    }
    let elsewhere = websocket("Origin: http://a.localhost:8080").replace("/websocket", "/web");
    let seen = send(test.address, elsewhere.as_bytes()).await.seen();
    assert_eq!((seen.upstream(), seen.header("upgrade")), ("web", None));
    for (path, upstream) in [
        ("/websocket/health", "gevent"),
        ("/longpolling/poll", "gevent"),
        ("/websocketx", "web"),
        ("/bus/websocket_worker_bundle", "web"),
        ("/x/websocket", "web"),
    ] {
        assert_eq!(
            get(test.address, HOST, path, &[]).await.seen().upstream(),
            upstream,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_says_so_to_browsers_and_programs() {
    let test = TestEdge::start().await;
    test.publish(HOST, 1, RouteState::Suspended).await;
    let page = get(
        test.address,
        HOST,
        "/web/login",
        &["Accept: text/html,application/xhtml+xml,*/*;q=0.8"],
    )
    .await;
    assert_eq!(page.status, 402);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.body.contains("This Odoo was suspended"), "{}", page.body);
    let id = page.header("x-request-id").unwrap();
    insta::assert_snapshot!(page.body.replace(id, "<request id>"));

    for (path, header) in [
        ("/json/2/res.partner/search", "Accept: */*"),
        ("/jsonrpc", "Accept: text/html"),
        ("/xmlrpc/2/common", "Accept: */*"),
        ("/web/dataset/call_kw/res.users/read", "Accept: */*"),
        ("/anything", "Accept: application/json"),
        ("/anything", "Accept: application/problem+json"),
    ] {
        let answer = get(test.address, HOST, path, &[header]).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (402, &"tenant_suspended".into()),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let answer = send(
        test.address,
        websocket("Origin: http://a.localhost:8080").as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_under_maintenance_says_when_to_come_back() {
    let test = TestEdge::start().await;
    test.publish(HOST, 1, RouteState::Maintenance).await;
    let page = get(test.address, HOST, "/", &[]).await;
    assert_eq!((page.status, page.header("retry-after")), (503, Some("60")));
    assert!(page.body.contains("under maintenance"));
    let answer = send(
        test.address,
        websocket("Origin: http://a.localhost:8080").as_bytes(),
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (503, &"unavailable".into())
    );

    test.publish(HOST, 1, RouteState::Active).await;
    assert_eq!(get(test.address, HOST, "/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_down_is_502_so_that_odoos_own_client_reconnects() {
    let test = TestEdge::start().await;
    let nobody = ReservedPort::new();
    let route = odoo::edge::Route {
        web_port: nobody.address.port(),
        ..test.route(1, RouteState::Active)
    };
    test.edge
        .publish(&HOST.parse().unwrap(), &route, super::nginx::WRITER)
        .await
        .unwrap();
    let page = get(test.address, HOST, "/web", &["Accept: text/html"]).await;
    assert_eq!((page.status, page.header("retry-after")), (502, Some("5")));
    assert!(page.body.contains("restarting"), "{}", page.body);
    assert_eq!(
        get(test.address, HOST, "/jsonrpc", &[]).await.json()["code"],
        "bad_gateway"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_names_pool_and_database() {
    let test = with_tenant().await;
    get(test.address, HOST, "/web?secret=1", &["X-Request-Id: r1"]).await;
    let line = &test.access_log(1).await[0];
    assert_eq!(line["request_id"], "r1");
    assert_eq!(line["path"], "/web");
    assert_eq!(line["database"], database(1).as_str());
    assert_eq!(line["pool"], test.pool.to_string());
    assert_eq!(line["upstream_status"], "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    let test = with_tenant().await;
    let mut idle = Vec::new();
    for _ in 0..2000 {
        idle.push(tokio::net::TcpStream::connect(test.address).await.unwrap());
    }
    assert_eq!(get(test.address, HOST, "/", &[]).await.status, 200);
}
