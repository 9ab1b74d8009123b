//! Parts of the control plane are away for a while: what is answered meanwhile, and that it ends by itself.
//!
//! These tests break what they share, so that one runs at a time.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;
use tests::api::Api;
use tests::http::Answer;
use tests::people::People;
use tests::place::Place;
use tests::rows::{OperationRow, TenantRow};
use tests::second_api::{self, SecondApi};
use tests::stage::Stage;
use tests::tenant::{new_slug, request};
use tests::wire::Wire;
use tests::{services, sql, wait};
use tokio::process::Command;
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

/// Longest time of a service until it is back.
const BACK: Duration = Duration::from_secs(30);

/// A service that is away: killed, while the supervisor that would start it again stands still.
struct Away(Pid);

impl Away {
    fn take(name: &str) -> Result<Self> {
        let away = Self(supervisor(name)?);
        kill(away.0, Signal::SIGSTOP)?;
        kill(Pid::from_raw(services::process(name)?), Signal::SIGKILL)?;
        Ok(away)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // It starts what has ended meanwhile.
        kill(self.0, Signal::SIGCONT).ok();
    }
}

/// Who started a service.
fn supervisor(name: &str) -> Result<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", services::process(name)?))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(Pid::from_raw(parent.context("no parent")?.trim().parse()?))
}

fn is_unavailable(answer: &Answer) -> Result<()> {
    ensure!(answer.problem(503)? == "unavailable", "{}", answer.text);
    let wait: u64 = answer.header("retry-after").parse().context("Retry-After")?;
    ensure!((1..=60).contains(&wait), "{wait}");
    ensure!(
        ["sqlx", "postgres", "connection", "127.0.0.1", "pool"]
            .iter()
            .all(|inside| !answer.text.contains(inside)),
        "it tells of the inside: {}",
        answer.text
    );
    Ok(())
}

/// A part of the platform as `/readyz` sees it, and the status of that answer.
async fn ready(api: &Api, part: &str) -> Result<(u16, bool)> {
    let answer = api.get("/readyz").await?;
    let components = answer.json()["components"].clone();
    let found = components
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["name"] == part)
        .with_context(|| format!("{part} is not in {}", answer.text))?;
    Ok((answer.status, found["ready"] == true))
}

#[tokio::test]
async fn without_its_database_the_api_says_so_and_comes_back_by_itself() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let before = services::process("api")?;
    let away = Away::take("postgres")?;
    // Its backends notice that it is gone, and end.
    wait::until(BACK, "the database is away", async || {
        ensure!(ready(&api, "database").await? == (503, false), "not yet");
        Ok(())
    })
    .await?;
    let missing = "/v1/tenants/ten_01jdjyfyh1fe82gqsfsks1j4x4";
    for (method, path, body) in [
        (Method::GET, "/v1/me", None),
        (Method::GET, "/v1/tenants", None),
        (Method::GET, missing, None),
        (Method::PATCH, missing, Some(json!({ "name": "x" }))),
        (Method::DELETE, missing, None),
        (
            Method::POST,
            "/v1/tenants",
            Some(request(&new_slug(), &json!({}))),
        ),
        (Method::POST, "/v1/auth/logout", None),
        (
            Method::POST,
            "/v1/auth/refresh",
            Some(json!({ "refresh_token": "rt_x" })),
        ),
        (
            Method::POST,
            "/v1/auth/token",
            Some(json!({ "email": "nobody@example.com", "password": "x" })),
        ),
    ] {
        let begun = Instant::now();
        let answer = api.send(method.clone(), path, body.as_ref(), &[]).await?;
        is_unavailable(&answer).with_context(|| format!("{method} {path}"))?;
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{path} took {:?}",
            begun.elapsed()
        );
    }
    assert_eq!(ready(&api, "database").await?, (503, false));
    // What needs no database is answered.
    for path in ["/healthz", "/openapi.json", "/.well-known/jwks.json"] {
        api.get(path).await?.expect(200)?;
    }
    // A sign-in that could not be checked is no wrong guess.
    let access = &Place::get().access;
    let sign_in = json!({ "email": access.owner_email, "password": access.owner_password });
    let anyone = Api::anyone()?;
    // Each waits for a connection first: two times six at once.
    for _ in 0..2 {
        let attempts = (0..6).map(|_| anyone.post("/v1/auth/token", &sign_in, &[]));
        for answer in futures::future::join_all(attempts).await {
            is_unavailable(&answer?)?;
        }
    }
    let bad = api.with("not.a.token").get("/v1/me").await?;
    assert_eq!(bad.problem(401)?, "unauthenticated");

    drop(away);
    wait::until(BACK, "the api is back", async || {
        api.get("/v1/me").await?.expect(200).map(drop)
    })
    .await?;
    wait::until(BACK, "it says so", async || {
        ensure!(ready(&api, "database").await? == (200, true), "not yet");
        Ok(())
    })
    .await?;
    Api::owner().await?;
    assert_eq!(services::process("api")?, before, "it was started again");
    Ok(())
}

/// A service that does not answer and does not close its connections either: all its processes stand still.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn freeze(name: &str) -> Result<Self> {
        let first = services::process(name)?;
        let mut frozen = Self(vec![Pid::from_raw(first)]);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            if parent.and_then(|parent| parent.trim().parse().ok()) == Some(first) {
                frozen.0.push(Pid::from_raw(pid));
            }
        }
        for pid in &frozen.0 {
            // One that has ended meanwhile stands still as well.
            kill(*pid, Signal::SIGSTOP).ok();
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            kill(*pid, Signal::SIGCONT).ok();
        }
    }
}

#[tokio::test]
async fn a_database_that_hangs_does_not_hang_its_clients() -> Result<()> {
    let _alone = ALONE.lock().await;
    let api = Api::owner().await?;
    let frozen = Frozen::freeze("postgres")?;
    let begun = Instant::now();
    let missing = "/v1/tenants/ten_01jdjyfyh1fe82gqsfsks1j4x4";
    let asked = (0..20).map(|number| match number % 4 {
        0 => api.send(Method::GET, "/v1/me", None, &[]),
        1 => api.send(Method::GET, missing, None, &[]),
        2 => api.send(Method::DELETE, missing, None, &[]),
        _ => api.send(Method::POST, "/v1/auth/logout", None, &[]),
    });
    let answers = tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(asked)).await;
    let took = begun.elapsed();
    drop(frozen);
    wait::until(BACK, "the api is back", async || {
        api.get("/v1/me").await?.expect(200).map(drop)
    })
    .await?;
    for answer in answers.with_context(|| format!("requests hang for {took:?}"))? {
        is_unavailable(&answer?)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "owner").await?;
    let api = member.api().await?;
    let frozen = Frozen::freeze("redis")?;
    for _ in 0..5 {
        let begun = Instant::now();
        api.get("/v1/tenants").await?.expect(200)?;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    member.tokens().await?;
    assert_eq!(ready(&api, "redis").await?, (200, false));
    drop(frozen);
    wait::until(BACK, "redis is back", async || {
        ensure!(ready(&api, "redis").await? == (200, true), "not yet");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_redis_requests_go_on() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Stage {
        people: _people,
        member,
        api,
        tenant,
        operation,
    } = Stage::new("owner").await?;
    let metrics = Place::get().api_metrics();
    let alone = second_api::metric(&metrics, "rate_limit_without_redis_total").await?;
    let away = Away::take("redis")?;
    let path = format!("/v1/tenants/{}", tenant.id);
    api.get("/v1/me").await?.expect(200)?;
    api.get(&path).await?.expect(200)?;
    api.get(&format!("/v1/operations/{}?wait=1", operation.id))
        .await?
        .expect(200)?;
    api.post(
        &format!("/v1/operations/{}/cancel", operation.id),
        &json!({}),
        &[],
    )
    .await?
    .expect(202)?;
    api.patch(&path, &json!({ "name": "Changed" }), &[])
        .await?
        .expect(200)?;
    member.tokens().await?;
    assert_eq!(ready(&api, "redis").await?, (200, false));
    second_api::metric_until(&metrics, "rate_limit_without_redis_total", |value| value > alone).await?;
    // The limit holds without it.
    let mut limited = 0;
    let directly = Api::at(&Place::get().api_directly())?.with(api.token());
    for _ in 0..12 {
        let burst = (0..40).map(|_| Answer::at_once(directly.request(Method::GET, "/v1/me")));
        for answer in futures::future::join_all(burst).await {
            let answer = answer?;
            if answer.status == 429 {
                assert_eq!(answer.problem(429)?, "rate_limited");
                limited += 1;
            } else {
                answer.expect(200)?;
            }
        }
    }
    assert!(limited > 0, "nobody is limited without redis");
    drop(away);
    wait::until(BACK, "redis is back", async || {
        ensure!(ready(&api, "redis").await? == (200, true), "not yet");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stream_outlives_redis_and_hears_of_changes_without_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let api = people.member(&organization, "viewer").await?.api().await?;
    let tenant = TenantRow::write(&mut people.control, &organization).await?;
    let operation = OperationRow::queued(&mut people.control, &organization, &tenant).await?;
    let mut stream = tests::events::Events::open(&api, &operation.id, None).await?;
    stream.next(BACK).await?.context("the first event")?;
    let away = Away::take("redis")?;
    operation.advance(&mut people.control, 50).await?;
    assert_eq!(
        stream.next(BACK).await?.context("an event")?.data["progress"]["percent"],
        50
    );
    drop(away);
    operation.advance(&mut people.control, 100).await?;
    let rest = stream.rest(BACK).await?;
    assert_eq!(rest.last().context("an event")?.data["status"], "succeeded");
    wait::until(BACK, "redis is back", async || {
        ensure!(ready(&api, "redis").await? == (200, true), "not yet");
        Ok(())
    })
    .await
}

/// A database server of one test, whose whole disk is a small file system in memory.
struct SmallDisk {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
}

impl SmallDisk {
    const MEBIBYTES: usize = 200;

    async fn start() -> Result<Self> {
        let server = services::process("postgres")?;
        let program = std::fs::read_link(format!("/proc/{server}/exe"))?;
        let folder = std::env::temp_dir().join(new_slug());
        std::fs::create_dir(&folder)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let disk = Self {
            programs: program.parent().context("a folder")?.to_owned(),
            folder,
            port,
        };
        let size = format!("size={}m,mode=1777", Self::MEBIBYTES);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&disk.folder))
        .await?;
        let data = disk.data();
        run(disk
            .program("initdb")?
            .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
            .arg(&data))
        .await?;
        std::fs::write(
            data.join("postgresql.auto.conf"),
            format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
                 max_wal_size = 64MB\nmin_wal_size = 32MB\nwal_keep_size = 0\n"
            ),
        )?;
        disk.control("start").await?;
        Ok(disk)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of Postgres as a user that may run it, which root may not.
    fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(self.programs.join(name))
            .current_dir("/")
            .stdin(Stdio::null());
        Ok(command)
    }

    async fn control(&self, action: &str) -> Result<()> {
        let log = self.folder.join("log");
        let mut command = self.program("pg_ctl")?;
        command
            .arg("-D")
            .arg(self.data())
            .arg("-l")
            .arg(log)
            .args(["-w", "-t", "60"]);
        run(command.arg(action)).await
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("platform")
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/platform", self.port)
    }

    /// Fills all that is left of the disk.
    fn fill(&self) -> Result<PathBuf> {
        use std::io::Write as _;

        let path = self.folder.join("filler");
        let mut file = std::fs::File::create(&path)?;
        for size in [1024 * 1024, 4096, 1] {
            let bytes = vec![0; size];
            while file.write_all(&bytes).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let stop = std::process::Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(self.programs.join("pg_ctl"))
            .args(["-m", "immediate", "-D"])
            .arg(self.data())
            .arg("stop")
            .current_dir("/")
            .output();
        let unmount = std::process::Command::new("umount").arg(&self.folder).output();
        if stop.is_err() || unmount.is_err() || std::fs::remove_dir(&self.folder).is_err() {
            eprintln!("{} stays behind", self.folder.display());
        }
    }
}

async fn run(command: &mut Command) -> Result<()> {
    let output = tokio::time::timeout(Duration::from_secs(90), command.stdout(Stdio::null()).output())
        .await
        .context("it does not end")??;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A secret's file for the API's user.
fn secret(folder: &Path, name: &str, text: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;

    let path = folder.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    Ok(path.display().to_string())
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_whole_and_reads_go_on() -> Result<()> {
    let _alone = ALONE.lock().await;
    if !nix::unistd::geteuid().is_root() {
        println!("only root can mount the small disk that this takes: not tested");
        return Ok(());
    }
    let disk = SmallDisk::start().await?;
    let mut server = sql::open(disk.options().database("postgres")).await?;
    sql::execute(&mut server, "CREATE DATABASE platform").await?;
    let folder = std::env::temp_dir();
    let name = new_slug();
    let settings = [("DATABASE_URL_FILE", secret(&folder, &name, &disk.url())?)];
    second_api::run(&["migrate"], &settings).await?;
    let second = SecondApi::start(&settings).await?;
    std::fs::remove_file(folder.join(&name))?;
    let access = &Place::get().access;
    let anyone = second.anyone()?;
    let tokens = anyone
        .sign_in(&access.owner_email, &access.owner_password)
        .await?;
    let api = anyone.with(&tokens.access);
    // As a worker leaves them: ready for tenants.
    let mut control = sql::open(disk.options()).await?;
    for statement in [
        "UPDATE templates SET status = 'ready', database_name = 'template'",
        "UPDATE pools SET status = 'ready'",
    ] {
        sql::execute(&mut control, statement).await?;
    }
    let create = async || -> Result<Answer> {
        let slug = new_slug();
        let labels: serde_json::Map<String, Value> = (0..60)
            .map(|number| (format!("label-{number}"), json!("x".repeat(250))))
            .collect();
        api.post("/v1/tenants", &request(&slug, &json!({ "labels": labels })), &[])
            .await
    };
    let first = create().await?.expect(202)?;
    let path = format!("/v1/tenants/{}", first["tenant"]["id"].as_str().context("an id")?);

    let filler = disk.fill()?;
    // What was set aside before is written first.
    let mut accepted = 1;
    let refused = loop {
        let answer = create().await?;
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
        ensure!(accepted < 3000, "the disk is never full");
    };
    is_unavailable(&refused)?;
    for _ in 0..3 {
        let answer = create().await?;
        if answer.status == 202 {
            accepted += 1;
        } else {
            is_unavailable(&answer)?;
        }
    }
    let counted = async |control: &mut sqlx::PgConnection| -> Result<Vec<Option<String>>> {
        sql::texts(
            control,
            "SELECT count(*) FROM tenants UNION ALL SELECT count(*) FROM operations WHERE kind = 'tenant.provision' \
             UNION ALL SELECT count(*) FROM jobs WHERE kind = 'tenant.provision' UNION ALL SELECT count(*) FROM sealed_secrets \
             UNION ALL SELECT sum(tenants) FROM pools",
        )
        .await
    };
    let whole = |accepted: u32| vec![Some(accepted.to_string()); 5];
    // Reads may have to wait for a server that has given up a write and starts anew.
    let listed = wait::until(BACK, "reads are answered", async || {
        api.get("/v1/tenants?limit=1").await?.expect(200)
    })
    .await?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    api.get(&path).await?.expect(200)?;
    api.get("/v1/me").await?.expect(200)?;
    let mut control = wait::until(BACK, "the server answers", async || {
        Ok(sql::open(disk.options()).await?)
    })
    .await?;
    assert_eq!(
        counted(&mut control).await?,
        whole(accepted),
        "something was half done"
    );

    std::fs::remove_file(filler)?;
    let made = wait::until(BACK, "writes are taken again", async || {
        create().await?.expect(202)
    })
    .await?;
    assert_eq!(made["tenant"]["status"], "provisioning");
    let mut control = sql::open(disk.options()).await?;
    assert_eq!(counted(&mut control).await?, whole(accepted + 1));
    println!("{accepted} tenants were accepted before the disk was full");
    Ok(())
}

#[tokio::test]
async fn a_read_does_not_notice_that_the_connections_were_ended() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = Stage::new("viewer").await?;
    let mut control = sql::control().await?;
    let since = sql::text(&mut control, "SELECT now()")
        .await?
        .context("the time")?;
    let second = SecondApi::start(&[]).await?;
    let api = second
        .anyone()?
        .with(stage.member.tokens().await?.access.as_str());
    for _ in 0..3 {
        let reads = || join_all((0..20).map(|_| api.get("/v1/tenants")));
        for answer in reads().await {
            answer?.expect(200)?;
        }
        let ended = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
              WHERE application_name = 'odoo-saas-api' AND datname = 'platform' AND backend_start > $1::timestamptz",
        )
        .bind(&since)
        .execute(&mut control)
        .await?;
        ensure!(ended.rows_affected() > 1, "it has connections");
        for answer in reads().await {
            answer?.expect(200)?;
        }
    }
    // In the middle of their work, all there are at once: each is given up before another is asked for.
    let mut holding = sql::control().await?;
    let mut transaction = holding.begin().await?;
    sqlx::query("LOCK TABLE users").execute(&mut *transaction).await?;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let request = api.request(Method::GET, "/v1/me");
            tokio::spawn(async move { Answer::of(request).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
          WHERE application_name = 'odoo-saas-api' AND datname = 'platform' AND backend_start > $1::timestamptz \
            AND wait_event_type = 'Lock'",
    )
    .bind(&since)
    .execute(&mut control)
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    transaction.rollback().await?;
    for answer in waiting {
        answer.await??.expect(200)?;
    }
    Ok(())
}

/// Whoever comes next gets the connection that another's request was using, and must not get that one's answer.
#[tokio::test]
async fn what_a_client_did_not_wait_for_reaches_nobody_else() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut stage = Stage::new("viewer").await?;
    let organization = stage.people.organization().await?;
    let other = stage.people.member(&organization, "viewer").await?;
    let second = SecondApi::start(&[]).await?;
    let (left, next) = (stage.member.tokens().await?, other.tokens().await?);
    let next = second.anyone()?.with(&next.access);
    let request = format!(
        "GET /v1/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        left.access
    );
    for _ in 0..5 {
        let mut holding = sql::control().await?;
        let mut transaction = holding.begin().await?;
        sqlx::query("LOCK TABLE users").execute(&mut *transaction).await?;
        // More than there are connections.
        let mut wires = Vec::new();
        for _ in 0..12 {
            let mut wire = Wire::open(second.address().parse()?).await?;
            wire.send(request.as_bytes()).await?;
            wires.push(wire);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(wires);
        tokio::time::sleep(Duration::from_millis(100)).await;
        transaction.rollback().await?;
        for answer in join_all((0..12).map(|_| next.get("/v1/me"))).await {
            assert_eq!(answer?.expect(200)?["email"], other.email);
        }
    }
    Ok(())
}
