//! Whatever stands in Host or in the request line: it leads to its own tenant, or nowhere.

use odoo::edge::RouteState;

use super::nginx::{TestEdge, database};
use super::raw_http::{get, send, try_send};

async fn with_two_tenants() -> TestEdge {
    let test = TestEdge::start().await;
    test.publish("a.localhost", 1, RouteState::Active).await;
    test.publish("b.localhost", 2, RouteState::Active).await;
    test
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_a_host_lead_to_its_tenant() {
    let test = with_two_tenants().await;
    let port = test.address.port();
    for (host, forwarded) in [
        ("a.localhost".to_owned(), "a.localhost".to_owned()),
        ("A.LocalHost".to_owned(), "a.localhost".to_owned()),
        ("a.localhost.".to_owned(), "a.localhost".to_owned()),
        (format!("a.localhost:{port}"), format!("a.localhost:{port}")),
        (format!("A.localhost.:{port}"), format!("a.localhost:{port}")),
    ] {
        let seen = get(test.address, &host, "/", &[]).await.seen();
        assert_eq!(
            seen.header("x-platform-database"),
            Some(database(1).as_str()),
            "{host}"
        );
        assert_eq!(seen.header("host"), Some(forwarded.as_str()), "{host}");
        assert_eq!(
            seen.header("x-forwarded-host"),
            Some(forwarded.as_str()),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_none_lead_nowhere() {
    let test = with_two_tenants().await;
    std::fs::write(test.edge.path().join("hosts/.staged-x"), "").unwrap();
    let long = format!("{}.localhost", "a".repeat(5000));
    let many = format!("{}localhost", "a.".repeat(300));
    let hosts = [
        "",
        " ",
        "-",
        ".",
        "..",
        "../a.localhost",
        "a.localhost/../b.localhost",
        "a.localhost/..",
        "%61.localhost",
        "%2e%2e/a.localhost",
        "a%00.localhost",
        "a.localhost\0",
        ".a.localhost",
        "a..localhost",
        ".staged-x",
        "_",
        "a_b.localhost",
        "bücher.localhost",
        "a.localhost\u{ff0e}",
        "ａ.localhost",
        "a.localhost b.localhost",
        "a.localhost,b.localhost",
        "user@a.localhost",
        "a.localhost#b",
        "a.localhost?b",
        "a.localhost\\b",
        "'a.localhost'",
        "$host",
        "[::2]",
        "c.localhost",
        "a.localhost.evil.example",
        "127.0.0.2",
        &long,
        &many,
    ];
    for host in hosts {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = send(test.address, request.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 404 | 431), "{host:?}: {answer:?}");
    }
    assert_eq!(
        test.error_log(),
        "",
        "an unknown host costs no line in the error log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_one_host() {
    let test = with_two_tenants().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: a.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.localhost\r\n\r\n",
    ] {
        assert_eq!(
            send(test.address, request.as_bytes()).await.status,
            400,
            "{request:?}"
        );
    }
    assert_eq!(send(test.address, b"GET / HTTP/1.0\r\n\r\n").await.status, 404);

    // The host of the request line counts (RFC 9112, 3.2.2), and is what the pool is told.
    let request = "GET http://a.localhost/x HTTP/1.1\r\nHost: b.localhost:99\r\n\r\n";
    let seen = send(test.address, request.as_bytes()).await.seen();
    assert_eq!(seen.header("x-platform-database"), Some(database(1).as_str()));
    assert_eq!(seen.header("host"), Some("a.localhost"));
    assert_eq!(seen.target(), "/x");
    let request =
        "GET http://a.localhost HTTP/1.1\r\nHost: b.localhost\r\nX-Forwarded-Host: b.localhost\r\n\r\n";
    let seen = send(test.address, request.as_bytes()).await.seen();
    assert_eq!(seen.header("x-forwarded-host"), Some("a.localhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_connection_each_go_to_their_own_host() {
    let test = with_two_tenants().await;
    // Two pipelined requests; the second answer is what is read up to the end.
    let both = "GET /1 HTTP/1.1\r\nHost: a.localhost\r\n\r\n\
                GET /2 HTTP/1.1\r\nHost: b.localhost\r\nConnection: close\r\n\r\n";
    let raw = {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(test.address).await.unwrap();
        stream.write_all(both.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let (a, b) = (
        raw.find(database(1).as_str()).unwrap(),
        raw.find(database(2).as_str()).unwrap(),
    );
    assert!(a < b, "{raw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_get_a_page_that_names_no_product() {
    let test = with_two_tenants().await;
    let answer = get(
        test.address,
        "nobody.localhost",
        "/web/login",
        &["Accept: text/html"],
    )
    .await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(answer.body.contains("Nothing here"), "{}", answer.body);
    assert_eq!(answer.header("server"), Some("nginx"));
    assert!(answer.header("x-request-id").is_some());
    let answer = get(test.address, "nobody.localhost", "/json/2/res.users/read", &[]).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &"not_found".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_get_problem_details_or_nothing() {
    let test = with_two_tenants().await;
    for (request, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("GET /\0 HTTP/1.1\r\nHost: a.localhost\r\n\r\n".to_owned(), 400),
        (
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000)),
            414,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nX: {}\r\nHost: localhost\r\n\r\n",
                "a".repeat(70_000)
            ),
            431,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
                "a".repeat(70_000)
            ),
            431,
        ),
        ("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            501,
        ),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n".to_owned(), 505),
    ] {
        let answer = try_send(test.address, request.as_bytes()).await;
        let start = &request[..request.len().min(60)];
        let answer = answer.unwrap_or_else(|| panic!("no answer to {start:?}"));
        assert_eq!(answer.status, status, "{start:?}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{start:?}"
        );
        assert_eq!(answer.json()["status"], status, "{start:?}");
    }
}
