//! What a tenant's users do with their Odoo works through the edge and on a shared pool.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::api::Api;
use tests::browser::Browser;
use tests::containers::Containers;
use tests::place::Place;
use tests::socket::Socket;
use tests::tenant::Tenant;
use tests::{rpc, sql, wait};

/// Longest time until the cron process has run what is due; its own pace is a minute.
const CRON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_first_sign_in_compiles_no_asset_bundle() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    let tenant = Tenant::create(&api).await?;
    let mut own = sql::as_tenant(&containers, &tenant.database).await?;
    let bundles = "SELECT id || ' ' || url FROM ir_attachment WHERE url LIKE '/web/assets/%' ORDER BY id";
    let before = sql::texts(&mut own, bundles).await?;
    ensure!(!before.is_empty(), "the template holds no bundle");

    let browser = Browser::new(&tenant.url)?;
    let mut pages = vec![browser.get("/web/login").await?];
    ensure!(
        browser.sign_in(&tenant.login, &tenant.password).await?,
        "no sign-in"
    );
    pages.push(browser.get("/odoo").await?);
    let mut linked = BTreeSet::from(["/bus/websocket_worker_bundle?v=19.0-2".to_owned()]);
    for page in &pages {
        page.expect(200)?;
        for part in page
            .text
            .split('"')
            .filter(|part| part.starts_with("/web/assets/"))
        {
            linked.insert(part.replace("&amp;", "&"));
        }
    }
    ensure!(linked.len() > 2, "the pages link no bundle: {linked:?}");
    for path in &linked {
        let file = browser.get(path).await?;
        file.expect(200).with_context(|| path.clone())?;
        ensure!(!file.text.is_empty(), "{path} is empty");
    }
    assert_eq!(
        sql::texts(&mut own, bundles).await?,
        before,
        "bundles were compiled for a first visitor"
    );
    drop(own);
    tenant.delete().await
}

#[tokio::test]
async fn the_websocket_carries_messages_to_signed_in_users() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    let cookie = browser.cookie().context("a session")?;
    let mut socket = Socket::open(&tenant.host, &tenant.url, &[("cookie", &cookie)])
        .await?
        .map_err(|code| anyhow::anyhow!("refused: {code}"))?;
    socket.subscribe(&[]).await?;
    // The subscription is taken up a moment after it is sent; a message is repeated until it is heard.
    for attempt in 1.. {
        browser
            .run(&format!(
                "env.user.partner_id._bus_send('e2e/hello', {{'n': {attempt}}})"
            ))
            .await?;
        match socket.payload("e2e/hello", Duration::from_secs(5)).await {
            Ok(payload) => {
                assert!(payload["n"].is_u64(), "{payload}");
                break;
            }
            Err(error) if attempt == 6 => return Err(error),
            Err(_) => {}
        }
    }
    tenant.delete().await
}

#[tokio::test]
async fn the_websocket_refuses_pages_of_other_hosts() -> Result<()> {
    let api = Api::owner().await?;
    let (tenant, sibling) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let cookie = tenant.signed_in().await?.cookie().context("a session")?;
    let headers = [("cookie", cookie.as_str())];
    let secure = tenant.url.replace("http://", "https://");
    let without_port = format!("http://{}.localhost", tenant.slug);
    for origin in [
        &sibling.url,
        "http://evil.example",
        "null",
        &secure,
        &without_port,
        &format!("{}.evil.example", tenant.url),
    ] {
        let opened = Socket::open(&tenant.host, origin, &headers).await?;
        assert_eq!(opened.err(), Some(403), "opened for {origin}");
    }
    assert!(
        Socket::open(&tenant.host, &tenant.url, &headers).await?.is_ok(),
        "its own page is refused"
    );
    tenant.delete().await?;
    sibling.delete().await
}

/// Makes a job that is due after so many seconds and writes a parameter when it runs.
async fn schedule(browser: &Browser, name: &str, after: i64) -> Result<()> {
    let code = format!(
        "env['ir.cron'].sudo().create({{'name': '{name}', 'model_id': env.ref('base.model_res_partner').id, 'state': 'code', \
         'code': \"env['ir.config_parameter'].sudo().set_param('{name}', 'has run')\", 'interval_number': 1, \
         'interval_type': 'days', 'nextcall': datetime.datetime.now().replace(microsecond=0) + datetime.timedelta(seconds={after})}})"
    );
    browser.run(&code).await.map(drop)
}

async fn has_run(browser: &Browser, name: &str) -> Result<()> {
    wait::until(CRON, &format!("the job {name} has run"), async || {
        let value = browser
            .call("ir.config_parameter", "get_param", json!([name]))
            .await?;
        ensure!(value == "has run", "{value}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn due_jobs_are_run() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    schedule(&browser, "e2e.due", 0).await?;
    has_run(&browser, "e2e.due").await?;
    // One that becomes due while nobody changes anything.
    schedule(&browser, "e2e.later", 20).await?;
    has_run(&browser, "e2e.later").await?;
    // And one that Odoo itself triggers.
    browser.run("env.ref('base.autovacuum_job')._trigger()").await?;
    wait::until(CRON, "a triggered job has run", async || {
        let vacuum = json!([
            [["lastcall", "!=", false], ["name", "ilike", "vacuum"]],
            ["lastcall"]
        ]);
        let ran = browser.call("ir.cron", "search_read", vacuum).await?;
        ensure!(ran.as_array().is_some_and(|rows| !rows.is_empty()), "{ran}");
        Ok(())
    })
    .await?;
    tenant.delete().await
}

#[tokio::test]
async fn a_broken_tenant_stops_nobody_elses_jobs() -> Result<()> {
    let api = Api::owner().await?;
    let containers = Containers::connect().await?;
    // Databases are visited in the order of their names, which is that of their making.
    let (broken, closed) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let healthy = Tenant::create(&api).await?;
    let (at_broken, at_closed, at_healthy) = (
        broken.signed_in().await?,
        closed.signed_in().await?,
        healthy.signed_in().await?,
    );
    schedule(&at_broken, "e2e.broken", 3).await?;
    schedule(&at_closed, "e2e.closed", 3).await?;
    let mut own = sql::as_tenant(&containers, &broken.database).await?;
    // A job that is running holds the table and may want to read it once more: never wait for it at the table's door.
    wait::until(CRON, "no job runs", async || {
        sql::execute(&mut own, "ALTER TABLE ir_cron RENAME TO ir_cron_away").await
    })
    .await?;
    let mut admin = sql::tenants().await?;
    sql::execute(&mut admin, &format!("ALTER ROLE {} NOLOGIN", closed.database)).await?;
    sql::execute(
        &mut admin,
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            closed.database
        ),
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(6)).await;

    schedule(&at_healthy, "e2e.first", 0).await?;
    has_run(&at_healthy, "e2e.first").await?;
    schedule(&at_healthy, "e2e.second", 5).await?;
    has_run(&at_healthy, "e2e.second").await?;

    sql::execute(&mut own, "ALTER TABLE ir_cron_away RENAME TO ir_cron").await?;
    sql::execute(&mut admin, &format!("ALTER ROLE {} LOGIN", closed.database)).await?;
    has_run(&at_broken, "e2e.broken").await?;
    has_run(&at_closed, "e2e.closed").await?;
    drop(own);
    for tenant in [broken, closed, healthy] {
        tenant.delete().await?;
    }
    Ok(())
}

#[tokio::test]
async fn programs_reach_their_own_database() -> Result<()> {
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let browser = tenant.signed_in().await?;
    let (db, url) = (tenant.database.as_str(), tenant.url.as_str());

    let login = json!([db, tenant.login, tenant.password, {}]);
    let uid = rpc::xml_rpc(url, "/xmlrpc/2/common", "authenticate", &login).await?;
    assert!(
        uid.expect(200).is_ok() && uid.text.contains("<int>2</int>"),
        "{}",
        uid.text
    );
    let version = rpc::xml_rpc(url, "/xmlrpc/2/common", "version", &json!([])).await?;
    assert!(version.text.contains("19.0"), "{}", version.text);
    let count = json!([
        db,
        2,
        tenant.password,
        "res.users",
        "search_count",
        [[["login", "=", tenant.login]]]
    ]);
    let counted = rpc::xml_rpc(url, "/xmlrpc/2/object", "execute_kw", &count).await?;
    assert!(counted.text.contains("<int>1</int>"), "{}", counted.text);
    let counted = rpc::json_rpc(url, "object", "execute_kw", count)
        .await?
        .expect(200)?;
    assert_eq!(counted["result"], 1, "{counted}");
    let wrong = rpc::json_rpc(url, "common", "login", json!([db, tenant.login, "wrong"]))
        .await?
        .expect(200)?;
    assert!(wrong["result"] == false || wrong["error"].is_object(), "{wrong}");

    let code = "key = env['res.users.apikeys']._generate('rpc', 'test', datetime.datetime.now() + datetime.timedelta(days=1))\n\
                action = {'key': key}";
    let key = browser.run(code).await?;
    let key = key["key"].as_str().context("a key")?;
    let fields = json!({ "domain": [["login", "=", tenant.login]], "fields": ["login"] });
    let found = rpc::json_2(url, "res.users/search_read", key, &[], &fields)
        .await?
        .expect(200)?;
    assert_eq!(found[0]["login"], tenant.login, "{found}");
    let refused = rpc::json_2(
        url,
        "res.users/search_read",
        "0000000000000000000000000000000000000000",
        &[],
        &fields,
    )
    .await?;
    assert_eq!(refused.status, 401, "{}", refused.text);
    tenant.delete().await
}

#[tokio::test]
async fn a_file_is_stored_with_its_tenant_and_read_back() -> Result<()> {
    let api = Api::owner().await?;
    let (tenant, sibling) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let browser = tenant.signed_in().await?;
    // "content of a file", in base64.
    let file =
        json!([[{ "name": "note.txt", "datas": "Y29udGVudCBvZiBhIGZpbGU=", "mimetype": "text/plain" }]]);
    let id = browser.call("ir.attachment", "create", file).await?;
    let id = id
        .as_array()
        .and_then(|ids| ids.first())
        .unwrap_or(&id)
        .as_u64()
        .context("an id")?;
    let read = browser.get(&format!("/web/content/{id}?download=1")).await?;
    read.expect(200)?;
    assert_eq!(read.text, "content of a file");
    let stored = browser
        .call(
            "ir.attachment",
            "search_read",
            json!([[["id", "=", id]], ["store_fname"]]),
        )
        .await?;
    let name = stored[0]["store_fname"].as_str().context("a file")?;
    assert!(
        Place::get().filestore(&tenant.database).join(name).is_file(),
        "not in its own folder"
    );
    assert!(
        !Place::get().filestore(&sibling.database).join(name).exists(),
        "in a sibling's folder"
    );
    let stranger = sibling
        .signed_in()
        .await?
        .get(&format!("/web/content/{id}?download=1"))
        .await?;
    assert!(
        stranger.status != 200 || stranger.text != "content of a file",
        "a sibling reads it"
    );
    tenant.delete().await?;
    sibling.delete().await
}

#[tokio::test]
async fn an_administrator_installs_an_app_while_others_work() -> Result<()> {
    let api = Api::owner().await?;
    let (tenant, sibling) = (Tenant::create(&api).await?, Tenant::create(&api).await?);
    let (browser, other) = (tenant.signed_in().await?, sibling.signed_in().await?);
    let module = browser
        .call("ir.module.module", "search", json!([[["name", "=", "contacts"]]]))
        .await?;
    let install = browser.call("ir.module.module", "button_immediate_install", json!([module]));
    let watch = async {
        loop {
            other.get("/odoo").await?.expect(200)?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        installed = install => installed.map(drop)?,
        failed = watch => { let failed: Result<()> = failed; failed.context("a sibling is disturbed")? }
    }
    let read = json!([
        [["name", "in", ["contacts", "mail"]], ["state", "=", "installed"]],
        ["name"]
    ]);
    let installed = browser
        .call("ir.module.module", "search_read", read.clone())
        .await?;
    assert_eq!(installed.as_array().map(Vec::len), Some(2), "{installed}");
    let others = other.call("ir.module.module", "search_read", read).await?;
    assert_eq!(others, json!([]), "installed at a sibling too");
    browser.get("/odoo").await?.expect(200)?;
    assert!(browser.is_signed_in().await?);
    tenant.delete().await?;
    sibling.delete().await
}
