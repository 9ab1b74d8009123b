//! What one tenant, or code that took over its Odoo, can reach of another and of the platform: nothing.
//!
//! Every refusal here is beside a proof that the same attempt succeeds where it may.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::api::Api;
use tests::bait;
use tests::browser::Browser;
use tests::containers::Containers;
use tests::http::{self, Answer};
use tests::place::Place;
use tests::socket::Socket;
use tests::tenant::Tenant;
use tests::{rpc, sql};

/// The code in a refusal of Postgres's.
fn state(error: &sqlx::Error) -> String {
    let database = error.as_database_error();
    database
        .and_then(sqlx::error::DatabaseError::code)
        .map_or_else(|| format!("no refusal: {error}"), std::borrow::Cow::into_owned)
}

async fn pair(api: &Api) -> Result<(Tenant, Tenant)> {
    Ok((Tenant::create(api).await?, Tenant::create(api).await?))
}

async fn end(a: Tenant, b: Tenant) -> Result<()> {
    a.delete().await?;
    b.delete().await
}

/// An API key of a tenant's administrator.
async fn api_key(browser: &Browser) -> Result<String> {
    let code = "key = env['res.users.apikeys']._generate('rpc', 'test', datetime.datetime.now() + datetime.timedelta(days=1))\n\
                action = {'key': key}";
    let key = browser.run(code).await?;
    Ok(key["key"].as_str().context("a key")?.to_owned())
}

#[tokio::test]
async fn a_tenants_role_opens_its_own_database_and_no_other() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = pair(&api).await?;
    let password = containers.password_for(&a.database).await?;
    let bus = containers.bus_database().await?;
    let mut admin = sql::tenants().await?;
    let template = sql::text(
        &mut admin,
        "SELECT datname FROM pg_database WHERE datname LIKE 'tpl\\_%'",
    )
    .await?;
    let template = template.context("there is a template")?;

    sql::open(sql::through_socket(&a.database, &password, &a.database)?)
        .await
        .context("its own database")?;
    for database in [
        b.database.as_str(),
        "postgres",
        "template0",
        "template1",
        &bus,
        &template,
    ] {
        let refusal = sql::open(sql::through_socket(&a.database, &password, database)?).await;
        let code = refusal.map_or_else(|error| state(&error), |_| "connected".to_owned());
        assert_eq!(code, "28000", "{database}: the server's own rules must refuse it");
    }
    for role in [b.database.as_str(), "platform_admin", "postgres", &bus] {
        let refusal = sql::open(sql::through_socket(role, &password, role)?).await;
        let code = refusal.map_or_else(|error| state(&error), |_| "connected".to_owned());
        assert!(["28P01", "28000"].contains(&code.as_str()), "as {role}: {code}");
    }
    // The bus's role serves no tenant, and no tenant's role comes in over the network of the host.
    let bus_password = containers.password_for(&bus).await?;
    sql::open(sql::through_socket(&bus, &bus_password, &bus)?)
        .await
        .context("the bus for its own role")?;
    let refusal = sql::open(sql::through_socket(&bus, &bus_password, &a.database)?).await;
    assert_eq!(
        state(
            &refusal
                .err()
                .context("the bus's role opens a tenant's database")?
        ),
        "28000"
    );
    let over_tcp = sql::through_socket(&a.database, &password, &a.database)?.host("127.0.0.1");
    assert_eq!(
        state(&sql::open(over_tcp).await.err().context("in over TCP")?),
        "28000"
    );
    end(a, b).await
}

#[tokio::test]
async fn a_tenants_role_does_not_exist_in_the_control_plane() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let a = Tenant::create(&api).await?;
    let password = containers.password_for(&a.database).await?;
    let mut control = sql::control().await?;
    let roles = sql::texts(
        &mut control,
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 't\\_%' OR rolname LIKE 'pool\\_%'",
    )
    .await?;
    assert!(roles.is_empty(), "{roles:?}");
    for database in ["platform", "postgres"] {
        let options: sqlx::postgres::PgConnectOptions = Place::get().database_url.parse()?;
        let refusal = sql::open(
            options
                .username(&a.database)
                .password(&password)
                .database(database),
        )
        .await;
        let code = state(&refusal.err().context("the control plane lets a tenant in")?);
        assert!(["28P01", "28000"].contains(&code.as_str()), "{code}");
    }
    a.delete().await
}

#[tokio::test]
async fn a_tenants_role_can_do_nothing_to_its_server() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = pair(&api).await?;
    let mut own = sql::as_tenant(&containers, &a.database).await?;
    assert_eq!(
        sql::execute(&mut own, "CREATE TABLE of_its_own (id int)").await?,
        0,
        "its own tables are its own"
    );
    let (name, other) = (&a.database, &b.database);
    for forbidden in [
        "CREATE DATABASE stolen".to_owned(),
        "CREATE ROLE stolen".to_owned(),
        format!("DROP DATABASE {other}"),
        format!("ALTER DATABASE {name} RENAME TO stolen"),
        format!("ALTER DATABASE {name} CONNECTION LIMIT 1000"),
        format!("ALTER DATABASE {other} ALLOW_CONNECTIONS false"),
        format!("ALTER ROLE {name} CREATEDB"),
        format!("ALTER ROLE {name} SUPERUSER"),
        format!("ALTER ROLE {other} PASSWORD 'stolen'"),
        format!("GRANT {other} TO {name}"),
        format!("SET ROLE {other}"),
        "SET ROLE platform_admin".to_owned(),
        "ALTER SYSTEM SET max_connections = 1".to_owned(),
        "SELECT pg_reload_conf()".to_owned(),
        "SELECT pg_read_file('pg_hba.conf')".to_owned(),
        "SELECT pg_ls_dir('.')".to_owned(),
        "COPY (SELECT 1) TO PROGRAM 'true'".to_owned(),
        "COPY of_its_own FROM '/etc/passwd'".to_owned(),
        "CREATE EXTENSION dblink".to_owned(),
        "SELECT rolpassword FROM pg_authid".to_owned(),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'platform_admin'".to_owned(),
    ] {
        let outcome = sqlx::query(sqlx::AssertSqlSafe(forbidden.clone()))
            .fetch_all(&mut own)
            .await;
        match outcome {
            Ok(rows) => assert!(
                rows.is_empty() && forbidden.contains("pg_terminate_backend"),
                "allowed: {forbidden}"
            ),
            Err(error) => assert!(
                ["42501", "0LP01", "58P01"].contains(&state(&error).as_str()),
                "{forbidden}: {error}"
            ),
        }
    }
    let seen = sql::texts(
        &mut own,
        &format!("SELECT query FROM pg_stat_activity WHERE usename <> '{name}' AND query NOT LIKE '<%'"),
    )
    .await?;
    assert!(
        seen.iter().flatten().all(String::is_empty),
        "it reads others' queries: {seen:?}"
    );
    drop(own);
    end(a, b).await
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

/// Tries to open TCP connections and prints those that succeed.
const PROBE: &str = "
import json, socket
from concurrent.futures import ThreadPoolExecutor
def opens(target):
    host, port = target
    try:
        with socket.create_connection((host, port), 3):
            return True
    except OSError:
        return False
targets = json.loads('TARGETS')
with ThreadPoolExecutor(32) as pool:
    print(json.dumps([t for t, yes in zip(targets, pool.map(opens, targets)) if yes]))
";

async fn reachable(
    containers: &Containers,
    container: &str,
    targets: &[(String, u16)],
) -> Result<Vec<(String, u16)>> {
    let script = PROBE.replace("TARGETS", &serde_json::to_string(targets)?);
    let output = containers.python_in(container, &script).await?;
    serde_json::from_str(&output).with_context(|| output)
}

#[tokio::test]
async fn a_container_of_a_pool_reaches_neither_the_host_nor_metadata_nor_another_pool() -> Result<()> {
    let containers = Containers::connect().await?;
    let place = Place::get();
    // A service of the host that certainly listens on all of its addresses.
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    let bait_port = listener.local_addr()?.port();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let bait = bait::Bait::start(&containers).await?;
    let outcome = async {
        // The probe itself: from a container that is no pool's, the host's service and the bait's neighbour open.
        let free = reachable(
            &containers,
            &bait.foreign,
            &[(bait.foreign_gateway.clone(), bait_port)],
        )
        .await?;
        ensure!(
            free.len() == 1,
            "the probe finds nothing where there is something"
        );
        let from_host = tokio::net::TcpStream::connect((bait.neighbour_address.as_str(), bait::PORT)).await;
        from_host.context("the neighbouring pool's service does not listen")?;

        for role in ["web", "gevent", "cron"] {
            let container = containers.of_role(role).await?;
            let id = container.id.context("an id")?;
            let networks = container
                .network_settings
                .and_then(|settings| settings.networks)
                .context("networks")?;
            ensure!(networks.len() == 1, "{role} is in {} networks", networks.len());
            let gateway = networks
                .into_values()
                .next()
                .and_then(|network| network.gateway)
                .context("a gateway")?;
            let mut targets = vec![
                ("169.254.169.254".to_owned(), 80),
                ("169.254.170.2".to_owned(), 80),
                ("100.100.100.200".to_owned(), 80),
                (bait.neighbour_address.clone(), bait::PORT),
                (bait.foreign_address.clone(), bait::PORT),
            ];
            let mut ports = vec![bait_port, 22, 5432, 6379, 2375, 2376];
            for setting in ["EDGE_LISTEN", "EDGE_API", "METRICS_LISTEN"] {
                if let Some(port) = place
                    .worker
                    .get(setting)
                    .and_then(|value| value.rsplit_once(':')?.1.parse().ok())
                {
                    ports.push(port);
                }
            }
            for url in [&place.database_url, &place.tenant_database_url] {
                ports.push(url.parse::<sqlx::postgres::PgConnectOptions>()?.get_port());
            }
            let mut hosts = host_addresses()?;
            hosts.push(gateway);
            for host in hosts {
                targets.extend(ports.iter().map(|port| (host.clone(), *port)));
            }
            for other in ["web", "gevent"] {
                let networks = containers
                    .of_role(other)
                    .await?
                    .network_settings
                    .and_then(|settings| settings.networks);
                let address = networks
                    .context("networks")?
                    .into_values()
                    .next()
                    .and_then(|network| network.ip_address);
                if other != role {
                    targets.push((
                        address.context("an address")?,
                        if other == "web" { 8069 } else { 8072 },
                    ));
                }
            }
            let open = reachable(&containers, &id, &targets).await?;
            ensure!(open.is_empty(), "{role} reaches {open:?}");
        }
        let web = containers.of_role("web").await?.id.context("an id")?;
        let own = reachable(&containers, &web, &[("127.0.0.1".to_owned(), 8069)]).await?;
        ensure!(
            own.len() == 1,
            "the probe does not work inside a pool's container"
        );
        anyhow::Ok(())
    }
    .await;
    bait.remove(&containers).await?;
    outcome
}

/// IPv4 addresses of this machine, loopback too.
fn host_addresses() -> Result<Vec<String>> {
    let mut found: Vec<String> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            interface
                .address
                .and_then(|address| address.as_sockaddr_in().map(|v4| v4.ip().to_string()))
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

#[tokio::test]
async fn odoos_user_can_not_change_a_file_that_tenants_share() -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let (a, b) = pair(&api).await?;
    let mut shared = Vec::new();
    for folder in std::fs::read_dir(Place::get().filestore(&a.database))?.flatten() {
        for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let twin = Place::get()
                .filestore(&b.database)
                .join(folder.file_name())
                .join(file.file_name());
            if file.metadata()?.is_file()
                && twin
                    .metadata()
                    .is_ok_and(|twin| file.metadata().is_ok_and(|own| own.ino() == twin.ino()))
            {
                shared.push(format!(
                    "{}/{}",
                    folder.file_name().display(),
                    file.file_name().display()
                ));
            }
        }
    }
    ensure!(
        !shared.is_empty(),
        "no file is shared: the template has none, or they were copied"
    );
    let script = "
import json, os
tree = '/var/lib/odoo/filestore/DATABASE'
done = []
def attempt(name, work):
    try:
        work()
        done.append(name)
    except OSError:
        pass
for name in json.loads('FILES'):
    path = os.path.join(tree, name)
    assert open(path, 'rb').read(1)
    attempt(f'write {name}', lambda: open(path, 'r+b'))
    attempt(f'append {name}', lambda: open(path, 'ab'))
    attempt(f'truncate {name}', lambda: os.truncate(path, 0))
    attempt(f'chmod {name}', lambda: os.chmod(path, 0o666))
    attempt(f'chown {name}', lambda: os.chown(path, os.getuid(), -1))
    attempt(f'utime {name}', lambda: os.utime(path, (0, 0)))
own = os.path.join(tree, 'checklist-e2e')
open(own, 'w').write('x'); os.chmod(own, 0o600); os.unlink(own)
for name in os.listdir('/var/lib/odoo/filestore'):
    if name.startswith('tpl_'): done.append(f'sees {name}')
print(json.dumps(done))
";
    let script = script
        .replace("DATABASE", &a.database)
        .replace("FILES", &serde_json::to_string(&shared)?);
    for role in ["web", "cron", "gevent"] {
        let done = containers.python(role, &script).await?;
        assert_eq!(done, "[]", "{role} can {done}");
    }
    end(a, b).await
}

#[tokio::test]
async fn containers_may_do_nothing_that_odoo_does_not_need() -> Result<()> {
    let containers = Containers::connect().await?;
    let info = containers.docker.info().await?;
    for role in ["web", "gevent", "cron"] {
        let container = containers.of_role(role).await?;
        let (config, host) = (
            container.config.context("a configuration")?,
            container.host_config.context("a host's part")?,
        );
        let user = config.user.unwrap_or_default();
        assert!(
            user.contains(':') && !user.starts_with("0:") && !user.starts_with("root"),
            "{role} runs as {user:?}"
        );
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]), "{role}");
        assert!(
            host.cap_add.unwrap_or_default().is_empty() && host.privileged != Some(true),
            "{role}"
        );
        let options = host.security_opt.unwrap_or_default();
        assert!(
            options
                .iter()
                .any(|option| option.starts_with("no-new-privileges")),
            "{role}: {options:?}"
        );
        assert_eq!(host.readonly_rootfs, Some(true), "{role}");
        if info.pids_limit == Some(true) {
            assert!(
                host.pids_limit.is_some_and(|limit| limit > 0),
                "{role} may start any number of processes"
            );
        }
        if info.memory_limit == Some(true) {
            assert!(
                host.memory.is_some_and(|limit| limit > 0),
                "{role} may take all memory"
            );
        }
        assert!(
            host.network_mode
                .is_some_and(|mode| mode != "host" && mode != "default" && mode != "bridge"),
            "{role}"
        );
        assert!(
            [&host.pid_mode, &host.ipc_mode]
                .iter()
                .all(|mode| mode.as_deref() != Some("host")),
            "{role}"
        );
        assert!(host.devices.unwrap_or_default().is_empty(), "{role}");
        for bindings in host.port_bindings.unwrap_or_default().into_values().flatten() {
            for binding in bindings {
                assert_eq!(
                    binding.host_ip.as_deref(),
                    Some("127.0.0.1"),
                    "{role} is published to the network"
                );
            }
        }
        assert!(
            container.image.is_some_and(|image| image.starts_with("sha256:")),
            "{role}: an image that is not pinned"
        );
        for variable in config.env.unwrap_or_default() {
            let name = variable.split('=').next().unwrap_or_default().to_uppercase();
            let secret = ["PASS", "SECRET", "KEY", "TOKEN", "PGPASSWORD"]
                .iter()
                .any(|word| name.contains(word));
            assert!(!secret, "{role} has {name} in its environment");
        }
        for mount in container.mounts.unwrap_or_default() {
            let (source, target) = (
                mount.source.unwrap_or_default(),
                mount.destination.unwrap_or_default(),
            );
            assert!(!source.contains("docker.sock"), "{role} sees the engine");
            let writable = mount.rw == Some(true);
            let may_write = ["/var/lib/odoo/sessions", "/var/lib/odoo/filestore"].contains(&target.as_str());
            assert!(!writable || may_write, "{role} can write {target}");
        }
        let script = "
import json, os
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
wrong = [k for k in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb') if int(status[k], 16)]
if status['NoNewPrivs'].strip() != '1': wrong.append('NoNewPrivs')
for path in ('/etc', '/usr', '/etc/platform-pool', '/run/platform-sql', '/'):
    if os.access(path, os.W_OK): wrong.append(path)
for path in ('pool.key', 'edge.secret'):
    if os.stat(f'/etc/platform-pool/{path}').st_mode & 0o377: wrong.append(path)
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if os.stat(f'/proc/{pid}').st_uid == 0: wrong.append(f'process {pid}')
    except FileNotFoundError: pass
print(json.dumps(wrong))
";
        let wrong = containers.python(role, script).await?;
        assert_eq!(wrong, "[]", "{role}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_of_another_owner_is_touched() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let foreign = bait::Foreign::make(&containers).await?;
    let outcome = async {
        let before = foreign.look(&containers).await?;
        let tenant = Tenant::create(&api).await?;
        let another = Tenant::create(&api).await?;
        tenant.delete().await?;
        let accepted = Tenant::accept(
            &api,
            &tests::tenant::request(&tests::tenant::new_slug(), &json!({})),
            &[],
        )
        .await?;
        accepted.delete().await?;
        another.delete().await?;
        let after = foreign.look(&containers).await?;
        ensure!(before == after, "before {before:#?}\nafter {after:#?}");
        anyhow::Ok(())
    }
    .await;
    foreign.remove(&containers).await?;
    outcome
}

#[tokio::test]
async fn the_platforms_processes_are_different_users_and_only_the_worker_speaks_to_the_engine() -> Result<()>
{
    use std::os::unix::fs::MetadataExt as _;
    let owner = |name: &str| -> Result<u32> {
        Ok(std::fs::metadata(format!("/proc/{}", tests::services::process(name)?))?.uid())
    };
    let uids: Vec<u32> = ["api", "worker", "postgres", "redis"]
        .iter()
        .map(|name| owner(name))
        .collect::<Result<_>>()?;
    if nix::unistd::geteuid().is_root() {
        let mut unique = uids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert!(
            unique.len() == uids.len() && !uids.contains(&0),
            "api, worker, postgres, redis run as {uids:?}"
        );
    }
    let socket = Place::get().docker_host.trim_start_matches("unix://").to_owned();
    let group = std::fs::metadata(&socket)?.gid();
    let groups = |name: &str| -> Result<Vec<u32>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", tests::services::process(name)?))?;
        let fields = status
            .lines()
            .filter(|line| line.starts_with("Groups:") || line.starts_with("Gid:"));
        Ok(fields
            .flat_map(str::split_whitespace)
            .filter_map(|word| word.parse().ok())
            .collect())
    };
    assert!(
        groups("worker")?.contains(&group),
        "the worker can't reach the engine"
    );
    for name in ["api", "nginx", "postgres", "postgres-tenants", "redis"] {
        let privileged = name == "nginx" && owner(name)? == 0;
        assert!(
            privileged || !groups(name)?.contains(&group),
            "{name} can reach the engine"
        );
    }
    // Neither argument nor environment of a process holds a secret of the platform.
    let secrets = std::fs::read_dir(Place::get().state.join("secrets"))?;
    let secrets: Vec<String> = secrets
        .flatten()
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    ensure!(
        secrets.iter().any(|secret| secret.len() >= 16),
        "there are no secrets to look for"
    );
    for name in ["api", "worker", "nginx", "postgres", "postgres-tenants", "redis"] {
        let pid = tests::services::process(name)?;
        for file in ["cmdline", "environ"] {
            let text = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}"))?).into_owned();
            let told = secrets
                .iter()
                .any(|secret| secret.len() >= 12 && text.contains(secret.as_str()));
            assert!(!told, "{name} has a secret in its {file}");
        }
    }
    Ok(())
}
