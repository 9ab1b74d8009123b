//! What requests to one tenant's host reach of another tenant: by headers, parameters, cookies and remote calls.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::api::Api;
use tests::browser::Browser;
use tests::http::{self, Answer};
use tests::place::Place;
use tests::rpc;

use crate::{end, pair};

/// An API key of a tenant's administrator.
async fn api_key(browser: &Browser) -> Result<String> {
    let code = "key = env['res.users.apikeys']._generate('rpc', 'test', datetime.datetime.now() + datetime.timedelta(days=1))\n\
                action = {'key': key}";
    let key = browser.run(code).await?;
    Ok(key["key"].as_str().context("a key")?.to_owned())
}

/// Names under which a request could try to choose its database.
const HEADERS: [&str; 8] = [
    "x-platform-database",
    "x-platform-edge",
    "x-odoo-database",
    "x-openerp-database",
    "x-odoo-dbfilter",
    "x-openerp-dbfilter",
    "x-forwarded-host",
    "x-original-host",
];

#[tokio::test]
async fn no_header_parameter_or_cookie_chooses_another_database() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = pair(&api).await?;
    let (at_a, at_b) = (a.signed_in().await?, b.signed_in().await?);
    let (cookie_a, cookie_b) = (
        at_a.cookie().context("A's cookie")?,
        at_b.cookie().context("B's cookie")?,
    );
    let client = http::client()?;
    let info = json!({ "jsonrpc": "2.0", "method": "call", "id": 1, "params": { "db": b.database } });
    let who = async |path: &str, cookie: &str, headers: &[(&str, &str)]| -> Result<Answer> {
        let mut request = client
            .post(format!("{}{path}", a.url))
            .header("cookie", cookie)
            .json(&info);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    };
    let path = "/web/session/get_session_info";
    let own = who(path, &cookie_a, &[]).await?.expect(200)?;
    assert_eq!(
        (&own["result"]["db"], &own["result"]["uid"]),
        (&json!(a.database), &json!(2))
    );

    for header in HEADERS {
        for value in [&b.database, &b.host] {
            let answer = who(path, &cookie_a, &[(header, value)]).await?.expect(200)?;
            assert_eq!(answer["result"]["db"], json!(a.database), "{header}: {value}");
            let stranger = who(path, &cookie_b, &[(header, value)]).await?;
            assert!(
                stranger.json()["result"]["uid"].is_null(),
                "{header}: {value} with B's cookie: {}",
                stranger.text
            );
        }
    }
    // Underscores are the same name to a server that speaks CGI's language.
    let answer = who(
        path,
        &cookie_a,
        &[("x_platform_database", &b.database), ("x_platform_edge", "guess")],
    )
    .await?;
    assert_eq!(answer.expect(200)?["result"]["db"], json!(a.database));
    for query in [format!("?db={}", b.database), format!("?db={}&debug=1", b.host)] {
        let answer = who(&format!("{path}{query}"), &cookie_a, &[]).await?;
        assert_eq!(answer.expect(200)?["result"]["db"], json!(a.database), "{query}");
        for page in ["/web/login", "/odoo", "/web", "/"] {
            let answer = Answer::of(
                client
                    .get(format!("{}{page}{query}", a.url))
                    .header("cookie", &cookie_b),
            )
            .await?;
            // The page may well repeat its own address; the company's name is B's alone.
            assert!(
                !answer.text.contains(&format!("Company {}", b.slug)),
                "B shows through {page}{query}"
            );
            assert!(
                !answer.header("location").contains(&b.host),
                "{page}{query} leads to B"
            );
        }
    }
    // B's session is nobody's at A, and as good as before at B.
    let answer = who(path, &cookie_b, &[]).await?;
    assert!(
        answer.json()["result"]["uid"].is_null(),
        "B's cookie is worth something at A: {}",
        answer.text
    );
    assert!(
        at_b.is_signed_in().await?,
        "showing B's cookie at A has ended B's session"
    );
    assert!(at_a.is_signed_in().await?);
    end(a, b).await
}

#[tokio::test]
async fn right_credentials_of_another_tenant_open_nothing() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = pair(&api).await?;
    let at_b = b.signed_in().await?;
    let key = api_key(&at_b).await?;
    let (db, login, password) = (b.database.as_str(), b.login.as_str(), b.password.as_str());
    let companies = json!([db, 2, password, "res.company", "search_read", [[]], { "fields": ["name"] }]);
    let companies_by_execute = json!([db, 2, password, "res.company", "search_read", []]);
    let fields = json!({ "fields": ["name"] });

    // The same calls where they belong.
    let own = rpc::json_rpc(&b.url, "object", "execute_kw", companies.clone()).await?;
    assert!(
        own.text.contains(&b.slug),
        "the attempt itself works: {}",
        own.text
    );
    let own = rpc::xml_rpc(&b.url, "/xmlrpc/2/object", "execute_kw", &companies).await?;
    assert!(own.text.contains(&b.slug), "{}", own.text);
    let own = rpc::json_2(&b.url, "res.company/search_read", &key, &[], &fields).await?;
    assert!(own.text.contains(&b.slug), "{}", own.text);

    let mut attempts: Vec<(String, Answer)> = Vec::new();
    for method in ["login", "authenticate"] {
        let args = if method == "login" {
            json!([db, login, password])
        } else {
            json!([db, login, password, {}])
        };
        attempts.push((
            format!("/jsonrpc {method}"),
            rpc::json_rpc(&a.url, "common", method, args.clone()).await?,
        ));
        for path in ["/xmlrpc/2/common", "/xmlrpc/common"] {
            attempts.push((
                format!("{path} {method}"),
                rpc::xml_rpc(&a.url, path, method, &args).await?,
            ));
        }
    }
    for (method, args) in [("execute_kw", &companies), ("execute", &companies_by_execute)] {
        attempts.push((
            format!("/jsonrpc {method}"),
            rpc::json_rpc(&a.url, "object", method, args.clone()).await?,
        ));
        for path in ["/xmlrpc/2/object", "/xmlrpc/object"] {
            attempts.push((
                format!("{path} {method}"),
                rpc::xml_rpc(&a.url, path, method, args).await?,
            ));
        }
    }
    for header in HEADERS {
        let answer = rpc::json_2(&a.url, "res.company/search_read", &key, &[(header, db)], &fields).await?;
        assert!(
            [401, 403].contains(&answer.status),
            "/json/2 with {header}: {answer:?}"
        );
        attempts.push((format!("/json/2 with {header}"), answer));
    }
    let browser = Browser::new(&a.url)?;
    let params = json!({ "db": db, "login": login, "password": password });
    attempts.push((
        "authenticate".into(),
        browser.rpc("/web/session/authenticate", &params).await?,
    ));
    for (what, answer) in &attempts {
        let refused =
            answer.status >= 400 || answer.text.contains("\"error\"") || answer.text.contains("<fault>");
        assert!(
            refused && !answer.text.contains(&b.slug),
            "{what}: {} {}",
            answer.status,
            answer.text
        );
    }
    assert!(!browser.is_signed_in().await?, "authenticated at A as B's");
    assert!(
        !Browser::new(&a.url)?.sign_in(login, password).await?,
        "B's administrator signs in at A"
    );
    end(a, b).await
}

#[tokio::test]
async fn a_refused_call_does_not_tell_whether_the_database_exists() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = pair(&api).await?;
    let absent = format!("t_{}", "0".repeat(26));
    for (method, secret) in [("login", "wrong"), ("login", b.password.as_str())] {
        let mut answers = Vec::new();
        for database in [b.database.as_str(), &absent, "postgres"] {
            let answer = rpc::json_rpc(&a.url, "common", method, json!([database, b.login, secret])).await?;
            let mut error = answer.json()["error"].take();
            // A traceback's line numbers are the same; its memory addresses are not compared.
            error["data"]["debug"] = Value::Null;
            answers.push(error);
        }
        assert!(
            answers[0].is_object() && answers.windows(2).all(|two| two[0] == two[1]),
            "{answers:?}"
        );
    }
    end(a, b).await
}

#[tokio::test]
async fn the_service_db_and_the_database_manager_are_closed() -> Result<()> {
    let api = Api::owner().await?;
    let (a, b) = pair(&api).await?;
    let calls = [
        ("list", json!([])),
        ("list", json!([true])),
        ("db_exist", json!([b.database])),
        ("db_exist", json!([a.database])),
        ("server_version", json!([])),
        ("list_lang", json!([])),
        ("dump", json!(["admin", a.database, "zip"])),
        ("drop", json!(["admin", b.database])),
        ("duplicate_database", json!(["admin", b.database, "copy"])),
        ("create_database", json!(["admin", "stolen", false, "en_US"])),
        ("change_admin_password", json!(["admin", "stolen"])),
    ];
    for (method, args) in calls {
        let answer = rpc::json_rpc(&a.url, "db", method, args.clone()).await?;
        assert!(
            answer.json()["error"].is_object() && answer.json()["result"].is_null(),
            "/jsonrpc {method}: {}",
            answer.text
        );
        for path in ["/xmlrpc/2/db", "/xmlrpc/db"] {
            let answer = rpc::xml_rpc(&a.url, path, method, &args).await?;
            assert!(
                answer.status >= 400 || answer.text.contains("<fault>"),
                "{path} {method}: {}",
                answer.text
            );
        }
    }
    for path in [
        "/web/database/manager",
        "/web/database/selector",
        "/web/database/list",
        "/web/database",
        "/web/database/create",
        "/web/database/backup",
        "/web/database/drop",
        "/web/database/restore",
        "/web/database/duplicate",
        "/web/database/change_password",
        "/web/Database/manager",
        "/en/web/database/manager",
        "/fr_FR/web/database/manager",
        "//web//database//manager",
        "/web/./database/manager",
        "/web/x/../database/manager",
        "/web%2Fdatabase%2Fmanager",
        "/web/%64atabase/manager",
        "/web/database/manager/",
        "/web/database;x/manager",
    ] {
        for answer in [
            raw(&a.host, "GET", path).await?,
            raw(&a.host, "POST", path).await?,
        ] {
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            assert_eq!(status, "404", "{path}: {answer}");
            assert!(
                !answer.contains("master_pwd") && !answer.contains(&b.database),
                "{path}"
            );
        }
    }
    end(a, b).await
}

/// Sends a request whose path no client would send so, and answers head and body.
async fn raw(host: &str, method: &str, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let talk = async {
        let mut stream = tokio::net::TcpStream::connect(Place::get().edge()).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(Duration::from_secs(60), talk)
        .await
        .context("no answer")?
}
