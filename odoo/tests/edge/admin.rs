//! The API's host: answers pass as the API gave them, and what the edge says itself are problem details.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::nginx::{ReservedPort, TestEdge};
use super::raw_http::{get, request, send};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_reached_under_its_domain_and_on_loopback_names() {
    let test = TestEdge::start().await;
    let port = test.address.port();
    for host in [
        "console.example.com",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "LOCALHOST",
    ] {
        let seen = get(test.address, &format!("{host}:{port}"), "/v1/me?x=%2F", &[])
            .await
            .seen();
        assert_eq!(
            (seen.upstream(), seen.target()),
            ("api", "/v1/me?x=%2F"),
            "{host}"
        );
        assert_eq!(
            seen.header("host"),
            Some(format!("{}:{port}", host.to_lowercase()).as_str())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_told_who_asks_by_the_edge_alone() {
    let test = TestEdge::start().await;
    let forged = [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-For: 7.7.7.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "X-Real-IP: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Prefix: /x",
        "Proxy: http://evil.example",
        "X_Forwarded_For: 6.6.6.6",
        "Authorization: Bearer kept",
        "Idempotency-Key: kept",
    ];
    let seen = get(test.address, "localhost", "/v1/me", &forged).await.seen();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
    for removed in [
        "forwarded",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "proxy",
        "x_forwarded_for",
    ] {
        assert_eq!(seen.header(removed), None, "{removed}");
    }
    assert_eq!(seen.header("authorization"), Some("Bearer kept"));
    assert_eq!(seen.header("idempotency-key"), Some("kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_kept_or_made() {
    let test = TestEdge::start().await;
    let id = |line: &'static str| {
        let address = test.address;
        async move {
            let seen = get(address, "localhost", "/", &[line]).await.seen();
            seen.header("x-request-id").unwrap().to_owned()
        }
    };
    assert_eq!(id("X-Request-Id: my.request-1_A").await, "my.request-1_A");
    for bad in [
        "X-Request-Id: a b",
        "X-Request-Id: a\"b",
        "X-Request-Id: ",
        "X-Other: x",
    ] {
        let made = id(bad).await;
        assert!(
            made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{bad}: {made}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_edge_is_a_problem() {
    let test = TestEdge::start().await;
    // The API's limit is 1 MiB: a little more still reaches it, so that it answers in its own words.
    for (length, status) in [
        (1024 * 1024 + 1, 200),
        (2 * 1024 * 1024, 200),
        (2 * 1024 * 1024 + 1, 413),
    ] {
        let mut text = request(
            "POST",
            "localhost",
            "/v1/tenants",
            &[&format!("Content-Length: {length}")],
        )
        .into_bytes();
        text.resize(text.len() + length, b'x');
        let answer = send(test.address, &text).await;
        assert_eq!(answer.status, status, "{length}: {:?}", answer.body);
        if status == 413 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert_eq!(answer.json()["code"], "body_too_large");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_down_is_a_problem() {
    let nobody = ReservedPort::new();
    let test = TestEdge::start_with(|config| config.api = nobody.address).await;
    let answer = get(test.address, "localhost", "/v1/me", &["X-Request-Id: abc"]).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("x-request-id"), Some("abc"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    insta::assert_json_snapshot!(answer.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_breaks_off_is_a_problem() {
    let test = TestEdge::start().await;
    let answer = get(test.address, "localhost", "/close", &[]).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (502, &"bad_gateway".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_silent_is_a_problem() {
    let test = TestEdge::start().await;
    // The usual limit is two minutes.
    let file = test.file("nginx.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("proxy_read_timeout 120s;", "proxy_read_timeout 1s;"),
    )
    .unwrap();
    test.reload().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answer = get(test.address, "localhost", "/never", &[]).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (504, &"gateway_timeout".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_when_they_are_sent() {
    let test = TestEdge::start().await;
    for target in ["/v1/operations/op_1/events", "/anything/events"] {
        let start = Instant::now();
        let mut stream = tokio::net::TcpStream::connect(test.address).await.unwrap();
        let text = request(
            "GET",
            "localhost",
            target,
            &["Accept: text/event-stream", "Accept-Encoding: gzip"],
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.contains("data: 1\n\n") {
            let mut chunk = [0; 1024];
            let count = stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "closed after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        // The upstream keeps its answer open for half a minute.
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the event was held back"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_tags_stay_strong() {
    let test = TestEdge::start().await;
    // Long enough to be worth compressing, which would weaken the tag.
    let long = format!("X-Long: {}", "a".repeat(3000));
    let answer = get(test.address, "localhost", "/", &["Accept-Encoding: gzip", &long]).await;
    assert_eq!(answer.header("etag"), Some("\"x\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edges_own_pages_are_for_loopback_and_reach_nothing_else() {
    let test = TestEdge::start().await;
    let answer = get(test.address, "localhost", "/.edge/generation", &[]).await;
    assert_eq!((answer.status, answer.body.trim().len()), (200, 32));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    for internal in ["/.edge/problem", "/.edge/page", "/.edge/x", "/.edge/"] {
        assert_eq!(
            get(test.address, "localhost", internal, &[]).await.status,
            404,
            "{internal}"
        );
        assert_eq!(
            get(test.address, "nobody.localhost", internal, &[]).await.status,
            404,
            "{internal}"
        );
    }
    // A visitor whom a proxy in front names is not on loopback.
    let proxied =
        TestEdge::start_with(|config| config.trusted_proxies = vec!["127.0.0.0/8".to_owned()]).await;
    let answer = get(
        proxied.address,
        "localhost",
        "/.edge/generation",
        &["X-Forwarded-For: 9.9.9.9"],
    )
    .await;
    assert_eq!(answer.status, 404);
    let seen = get(
        proxied.address,
        "localhost",
        "/",
        &["X-Forwarded-For: 6.6.6.6, 9.9.9.9"],
    )
    .await
    .seen();
    assert_eq!(seen.header("x-forwarded-for"), Some("9.9.9.9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_hold_no_query_strings() {
    let nobody = ReservedPort::new();
    let test = TestEdge::start_with(|config| config.api = nobody.address).await;
    let secret = "token-in-a-query";
    let target = format!("/web/reset?token={secret}");
    for host in ["localhost", "nobody.localhost"] {
        let referer = format!("Referer: http://{host}{target}");
        get(test.address, host, &target, &[&referer]).await;
    }
    let lines = test.access_log(2).await;
    let line = lines.iter().find(|line| line["host"] == "localhost").unwrap();
    assert_eq!(line["path"], "/web/reset");
    assert_eq!(
        (&line["status"], &line["upstream_status"]),
        (&502.into(), &"502".into())
    );
    for log in [serde_json::to_string(&lines).unwrap(), test.error_log()] {
        assert!(!log.contains(secret), "{log}");
    }
}
