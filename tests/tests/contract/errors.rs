//! Refusals: problem details with a stable code, whatever is wrong with a request.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Api;
use tests::http::Answer;
use tests::place::Place;
use tests::tenant::{new_slug, request};
use tests::wire::Wire;

/// The API through the edge and past it: a refusal is the same.
async fn owner_both_ways() -> Result<[Api; 2]> {
    let owner = Api::owner().await?;
    let directly = Api::at(&Place::get().api_directly())?.with(owner.token());
    Ok([owner, directly])
}

/// Where each of both listens, and the host that is asked for there.
fn addresses() -> [(SocketAddr, &'static str); 2] {
    [
        (Place::get().edge(), "localhost"),
        (Place::get().api_listen(), "localhost"),
    ]
}

async fn post_text(api: &Api, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> Result<Answer> {
    let mut request = api.request(Method::POST, path).body(body.into());
    if !media_type.is_empty() {
        request = request.header("content-type", media_type);
    }
    Answer::of(request).await
}

/// The place and the code of the first wrong value.
fn first(answer: &Answer) -> (String, String) {
    let error = answer.json()["errors"][0].clone();
    let place = error["pointer"].as_str().or(error["parameter"].as_str());
    (
        place.unwrap_or("nowhere").to_owned(),
        error["code"].as_str().unwrap_or("none").to_owned(),
    )
}

#[tokio::test]
async fn a_parameter_is_refused_where_none_is_known() -> Result<()> {
    let owner = Api::owner().await?;
    let path = "/v1/tenants/ten_01jdjyfyh1fe82gqsfsks1j4x4?final_backup=true";
    for method in [Method::GET, Method::DELETE, Method::PATCH] {
        let answer = Answer::of(owner.request(method.clone(), path)).await?;
        ensure!(
            answer.problem(422)? == "invalid_request",
            "{method}: {}",
            answer.text
        );
        assert_eq!(
            first(&answer),
            ("final_backup".to_owned(), "unknown_parameter".to_owned())
        );
    }
    // What is not the API itself is for browsers and probes, which add what they like.
    owner.get("/healthz?probe=1").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_moment_is_one_that_the_database_knows() -> Result<()> {
    let owner = Api::owner().await?;
    for path in ["/v1/audit-events", "/v1/audit-events/export"] {
        for parameter in ["since", "until"] {
            let path = format!("{path}?{parameter}=-5000-01-01T00:00:00Z");
            let answer = owner.get(&path).await?;
            ensure!(
                answer.problem(422)? == "invalid_request",
                "{path}: {}",
                answer.text
            );
            assert_eq!(first(&answer), (parameter.to_owned(), "invalid_value".to_owned()));
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_json_is_malformed() -> Result<()> {
    for api in owner_both_ways().await? {
        for body in [
            Vec::new(),
            b" ".to_vec(),
            b"{".to_vec(),
            b"{} {}".to_vec(),
            b"{'slug':'a'}".to_vec(),
            b"{\"slug\":\"a\",}".to_vec(),
            b"NaN".to_vec(),
            b"{\"slug\":\"\xff\xfe\"}".to_vec(),
            b"{\"slug\":\"\\ud800\"}".to_vec(),
            b"{\"slug\":\"\n\"}".to_vec(),
            "[".repeat(10_000).into_bytes(),
            "{\"a\":".repeat(10_000).into_bytes(),
            format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes(),
        ] {
            let told = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            for path in ["/v1/tenants", "/v1/auth/token", "/v1/auth/refresh"] {
                let answer = post_text(&api, path, "application/json", body.clone()).await?;
                let code = answer.problem(400).with_context(|| format!("{path}: {told}"))?;
                assert_eq!(code, "malformed_json", "{path}: {told}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() -> Result<()> {
    let body = request(&new_slug(), &json!({})).to_string();
    for api in owner_both_ways().await? {
        for media_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/merge-patch+json",
            "application/json; charset=iso-8859-1",
            "application/jsonp",
            "nonsense",
        ] {
            let answer = post_text(&api, "/v1/tenants", media_type, body.clone()).await?;
            assert_eq!(answer.problem(415)?, "unsupported_media_type", "{media_type}");
        }
        for media_type in ["application/json; charset=UTF-8", "Application/JSON"] {
            let answer = post_text(&api, "/v1/tenants", media_type, "{}").await?;
            assert_eq!(answer.problem(422)?, "invalid_request", "{media_type}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_value_is_pointed_at() -> Result<()> {
    let slug = new_slug();
    let with = |field: &str, value: Value| request(&slug, &json!({ field: value })).to_string();
    let cases = [
        (with("colour", json!("red")), "/colour", "unknown_field"),
        (
            with("admin", json!({ "email": "a@b.example", "x/y~z": 1 })),
            "/admin/x~1y~0z",
            "unknown_field",
        ),
        (with("name", json!(7)), "/name", "invalid_type"),
        (with("name", json!(null)), "/name", "invalid_type"),
        (with("name", json!("a\u{0}b")), "/name", "invalid_text"),
        (
            with("labels", json!({ "a": "\u{0}" })),
            "/labels/a",
            "invalid_text",
        ),
        (with("labels", json!({ "a": 1 })), "/labels/a", "invalid_type"),
        (with("labels", json!(["a"])), "/labels", "invalid_type"),
        (with("protected", json!("yes")), "/protected", "invalid_type"),
        (
            with("organization_id", json!("ten_01jdjyfyh1fe82gqsfsks1j4x4")),
            "/organization_id",
            "invalid_value",
        ),
        (
            format!("{{\"slug\":\"{slug}\",\"slug\":\"{slug}\"}}"),
            "",
            "duplicate_key",
        ),
        (
            "{\"slug\":\"a1\",\"admin\":{\"email\":\"a\",\"email\":\"b\"}}".to_owned(),
            "",
            "duplicate_key",
        ),
        ("{}".to_owned(), "/slug", "missing_field"),
        ("[]".to_owned(), "", "invalid_type"),
        (json!([slug, "A list of values"]).to_string(), "", "invalid_type"),
        ("\"text\"".to_owned(), "", "invalid_type"),
        ("null".to_owned(), "", "invalid_type"),
    ];
    for api in owner_both_ways().await? {
        for (body, pointer, code) in &cases {
            let answer = post_text(&api, "/v1/tenants", "application/json", body.clone()).await?;
            assert_eq!(
                answer.problem(422).with_context(|| body.clone())?,
                "invalid_request"
            );
            assert_eq!(
                first(&answer),
                ((*pointer).to_owned(), (*code).to_owned()),
                "{body}"
            );
        }
    }
    let listed = Api::owner()
        .await?
        .get(&format!("/v1/tenants?slug={slug}"))
        .await?
        .expect(200)?;
    assert_eq!(listed["items"], json!([]), "something was made");
    Ok(())
}

#[tokio::test]
async fn a_wrong_parameter_is_named() -> Result<()> {
    for api in owner_both_ways().await? {
        for (path, parameter, code) in [
            ("/v1/tenants?colour=red", "colour", "unknown_parameter"),
            ("/v1/tenants?limit=x", "limit", "invalid_value"),
            ("/v1/tenants?limit=-1", "limit", "invalid_value"),
            ("/v1/tenants?limit=99999999999", "limit", "invalid_value"),
            ("/v1/tenants?limit=2&limit=3", "limit", "duplicate_parameter"),
            ("/v1/tenants?status=happy", "status", "invalid_value"),
            ("/v1/tenants?slug=%00", "slug", "invalid_text"),
            (
                "/v1/tenants?organization_id=ten_01jdjyfyh1fe82gqsfsks1j4x4",
                "organization_id",
                "invalid_value",
            ),
            ("/v1/operations?kind=a%00b", "kind", "invalid_text"),
            ("/v1/operations?status=done", "status", "invalid_value"),
            ("/v1/operations?id=op_1", "id", "invalid_value"),
            (
                "/v1/operations?target_id=usr_01jdjyfyh1fe82gqsfsks1j4x4",
                "target_id",
                "invalid_value",
            ),
            (
                "/v1/operations/op_01jdjyfyh1fe82gqsfsks1j4x4?wait=0",
                "wait",
                "invalid_value",
            ),
            (
                "/v1/operations/op_01jdjyfyh1fe82gqsfsks1j4x4?wait=61",
                "wait",
                "invalid_value",
            ),
            (
                "/v1/operations/op_01jdjyfyh1fe82gqsfsks1j4x4?wait=soon",
                "wait",
                "invalid_value",
            ),
        ] {
            let answer = api.get(path).await?;
            assert_eq!(
                answer.problem(422).with_context(|| path.to_owned())?,
                "invalid_request"
            );
            assert_eq!(first(&answer), (parameter.to_owned(), code.to_owned()), "{path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_sign_in_with_impossible_texts_is_refused_and_no_mistake_of_ours() -> Result<()> {
    let anyone = Api::anyone()?;
    for (email, password, pointer) in [
        ("a\u{0}@b.example", "x", "/email"),
        ("a@b.example", "\u{0}", "/password"),
    ] {
        let body = json!({ "email": email, "password": password });
        let answer = anyone.post("/v1/auth/token", &body, &[]).await?;
        assert_eq!(answer.problem(422)?, "invalid_request");
        assert_eq!(first(&answer), (pointer.to_owned(), "invalid_text".to_owned()));
    }
    for email in ["", "no-at", &"a".repeat(100_000), "\u{202e}@\u{feff}", "a@b@c"] {
        let body = json!({ "email": email, "password": "a password" });
        let answer = anyone.post("/v1/auth/token", &body, &[]).await?;
        assert_eq!(answer.problem(401)?, "wrong_password");
    }
    for token in ["", "rt_", "rt_unknown", "\u{1f}", &"r".repeat(100_000)] {
        assert_eq!(anyone.refresh(token).await?.problem(401)?, "unauthenticated");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_path_is_not_found() -> Result<()> {
    for api in owner_both_ways().await? {
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/nothing",
            "/v1/tenants/",
            "/V1/tenants",
            "/v2/tenants",
            "/v1/tenants/ten_01jdjyfyh1fe82gqsfsks1j4x4/nothing",
            "/docs/nothing.js",
            "/docs/..%2fetc%2fpasswd",
            "/metrics",
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let answer = api.send(method.clone(), path, None, &[]).await?;
                if answer.status == 405 {
                    // The documentation's parts have a path of their own.
                    ensure!(path.starts_with("/docs/"), "{method} {path}");
                    continue;
                }
                assert_eq!(
                    answer.problem(404).with_context(|| path.to_owned())?,
                    "not_found",
                    "{path}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn another_method_is_refused_and_those_that_there_are_are_named() -> Result<()> {
    let tenant = "/v1/tenants/ten_01jdjyfyh1fe82gqsfsks1j4x4";
    for api in owner_both_ways().await? {
        for (method, path, allow) in [
            ("PUT", "/v1/tenants", "GET, POST"),
            ("DELETE", "/v1/tenants", "GET, POST"),
            ("OPTIONS", "/v1/tenants", "GET, POST"),
            ("POST", tenant, "DELETE, GET, PATCH"),
            ("PUT", tenant, "DELETE, GET, PATCH"),
            ("GET", "/v1/auth/token", "POST"),
            ("POST", "/v1/me", "GET, PATCH"),
            ("POST", "/healthz", "GET"),
            ("PURGE", "/v1/tenants", "GET, POST"),
        ] {
            let answer = api.send(method.parse()?, path, None, &[]).await?;
            assert_eq!(answer.problem(405)?, "method_not_allowed", "{method} {path}");
            let mut named: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            named.retain(|method| *method != "HEAD");
            assert_eq!(named.join(", "), allow, "{method} {path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() -> Result<()> {
    for (address, host) in addresses() {
        for path in ["/healthz", "/v1/tenants", "/v1/nothing"] {
            let mut wire = Wire::open(address).await?;
            let head = format!("HEAD {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            wire.send(head.as_bytes()).await?;
            let answer = wire.head_answer(Duration::from_secs(10)).await?;
            assert!(answer.status < 500, "{answer:?}");
            // What comes next on the connection is the next answer, and no body.
            wire.send(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
                .await?;
            wire.answer(Duration::from_secs(10)).await?.expect(200)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_text_that_is_no_id_of_this_kind_is_malformed() -> Result<()> {
    for api in owner_both_ways().await? {
        for (path, ids) in [
            (
                "/v1/tenants/ID",
                vec![
                    "1",
                    "ten_",
                    "ten_1",
                    "op_01jdjyfyh1fe82gqsfsks1j4x4",
                    "TEN_01jdjyfyh1fe82gqsfsks1j4x4",
                    "ten_01JDJYFYH1FE82GQSFSKS1J4X4",
                    "ten_81jdjyfyh1fe82gqsfsks1j4x4",
                    "ten_01jdjyfyh1fe82gqsfsks1j4xl",
                    "ten_01jdjyfyh1fe82gqsfsks1j4x44",
                    "01931b4e-7a10-7cc0-8d4e-5f60718293a4",
                    "%00",
                    "%ff",
                    "..%2f..%2fme",
                    "ten_01jdjyfyh1fe82gqsfsks1j4x4%20",
                    "ten_01jdjyfyh1fe82gqsfsks1j4x4'",
                ],
            ),
            (
                "/v1/operations/ID",
                vec![
                    "ten_01jdjyfyh1fe82gqsfsks1j4x4",
                    "op-01jdjyfyh1fe82gqsfsks1j4x4",
                    "x",
                ],
            ),
            (
                "/v1/operations/ID/events",
                vec!["ten_01jdjyfyh1fe82gqsfsks1j4x4", "op_"],
            ),
        ] {
            for id in ids {
                let answer = api.get(&path.replace("ID", id)).await?;
                if id.contains("%2f") && answer.status == 404 {
                    // Decoded on the way, it is another path.
                    continue;
                }
                let code = answer.problem(400).with_context(|| format!("{path} {id}"))?;
                assert!(
                    code == "malformed_id" || (code == "malformed_request" && id == "%00"),
                    "{path} {id}: {code}"
                );
            }
        }
        // Escaped or not, it is the same id.
        let answer = api.get("/v1/tenants/%74en_01jdjyfyh1fe82gqsfsks1j4x4").await?;
        assert_eq!(answer.problem(404)?, "not_found");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused_before_it_has_arrived() -> Result<()> {
    const MOST: usize = 1024 * 1024;
    let token = Api::owner().await?.token().to_owned();
    let head = |host: &str, length: &str| {
        format!(
            "POST /v1/tenants HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{length}\r\n\r\n"
        )
    };
    for (address, host) in addresses() {
        let announced = head(host, &format!("Content-Length: {}", 1024 * MOST));
        let answer = Wire::exchange(address, announced.as_bytes()).await?;
        assert_eq!(answer.problem(413)?, "body_too_large", "announced");

        let mut wire = Wire::open(address).await?;
        wire.send(head(host, "Transfer-Encoding: chunked").as_bytes())
            .await?;
        let chunk = format!("{:x}\r\n{}\r\n", MOST / 4, " ".repeat(MOST / 4));
        // What is read of it may be answered before all of it is sent.
        for _ in 0..5 {
            if wire.send(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        wire.send(b"0\r\n\r\n").await.ok();
        let answer = wire.answer(Duration::from_secs(20)).await?;
        assert_eq!(answer.problem(413)?, "body_too_large", "in chunks");
    }
    // A body of just as much is read.
    for api in owner_both_ways().await? {
        let frame = json!({ "filler": "" }).to_string();
        let filler = "x".repeat(MOST - frame.len());
        let body = json!({ "filler": filler }).to_string();
        assert_eq!(body.len(), MOST);
        let answer = post_text(&api, "/v1/tenants", "application/json", body.clone()).await?;
        assert_eq!(first(&answer).0, "/filler", "{}", answer.text);
        let answer = post_text(&api, "/v1/tenants", "application/json", format!("{body} ")).await?;
        assert_eq!(answer.problem(413)?, "body_too_large");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_keeps_the_id_that_it_comes_with_if_it_is_fit() -> Result<()> {
    let longest = "a".repeat(128);
    for api in owner_both_ways().await? {
        for good in ["a", "ABC.def_1-2", "0193-5c2f", &longest] {
            for path in ["/healthz", "/v1/me", "/v1/nothing", "/v1/tenants?limit=0"] {
                let answer = api
                    .send(Method::GET, path, None, &[("x-request-id", good)])
                    .await?;
                assert_eq!(answer.header("x-request-id"), good, "{path}");
                if answer.status >= 400 {
                    assert_eq!(answer.json()["request_id"], good, "{path}");
                }
            }
        }
        let too_long = "a".repeat(129);
        let mut made = std::collections::BTreeSet::new();
        for bad in ["", " ", "a b", "a/b", "a,b", "ä", "<script>", "a\tb", &too_long] {
            let answer = api
                .send(Method::GET, "/v1/nothing", None, &[("x-request-id", bad)])
                .await?;
            answer.problem(404).with_context(|| format!("{bad:?}"))?;
            let id = answer.header("x-request-id").to_owned();
            assert_ne!(id, bad);
            assert!(made.insert(id.clone()), "{id} was given twice");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_tells_nothing_of_the_inside() -> Result<()> {
    let api = Api::owner().await?;
    let mut seen = Vec::new();
    for path in [
        "/v1/tenants?page_token=AAAA",
        "/v1/tenants/ten_x",
        "/v1/operations?id=;DROP%20TABLE%20tenants",
        "/v1/tenants?slug='%20OR%201=1",
    ] {
        seen.push(api.get(path).await?.text);
    }
    for body in ["{\"slug\":1}", "{\"slug\":{}}", "[1,2]"] {
        seen.push(
            post_text(&api, "/v1/tenants", "application/json", body)
                .await?
                .text,
        );
    }
    for text in seen {
        for inside in [
            "struct ",
            "CreateTenant",
            "src/",
            "postgres",
            "sqlx",
            "SELECT",
            "panicked",
            "::",
        ] {
            assert!(!text.contains(inside), "{inside}: {text}");
        }
    }
    Ok(())
}
