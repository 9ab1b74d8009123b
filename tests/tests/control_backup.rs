//! The control plane is lost, with its keys, and made anew of a backup, while its tenants serve.
//!
//! A program of its own, and its one test in order: it takes away what every other test stands on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::json;
use tests::api::Api;
use tests::forge;
use tests::http::Answer;
use tests::place::Place;
use tests::services::Hold;
use tests::tenant::{Tenant, new_slug, request};
use tokio::process::Command;

/// Longest time of one command: `up` waits for every part.
const DEADLINE: Duration = Duration::from_secs(300);

/// `cargo xtask`, as it was compiled for this run, on this run's instance.
fn xtask(arguments: &[&str]) -> Command {
    let programs = Place::get().state.join("bin");
    let mut command = Command::new(programs.join("xtask"));
    command
        .args(arguments)
        .env("ODOO_SAAS_INSTANCE", "test")
        .env("ODOO_SAAS_PROGRAMS", programs)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a command says, and whether it did what it was asked for.
async fn run(arguments: &[&str]) -> Result<(bool, String)> {
    let output = tokio::time::timeout(DEADLINE, xtask(arguments).output())
        .await
        .with_context(|| format!("{arguments:?} does not end"))??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

async fn succeeds(arguments: &[&str]) -> Result<String> {
    let (well, said) = run(arguments).await?;
    ensure!(well, "{arguments:?}: {said}");
    Ok(said)
}

async fn refuses(arguments: &[&str], why: &str) -> Result<()> {
    let (well, said) = run(arguments).await?;
    ensure!(!well && said.contains(why), "{arguments:?}: {said}");
    Ok(())
}

/// Everything that a refused restore must leave as it is.
fn untouched() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let state = &Place::get().state;
    let mut paths: Vec<PathBuf> = [
        "api.pid",
        "worker.pid",
        "redis.pid",
        "postgres.pid",
        "manifest.json",
    ]
    .map(|name| state.join("run").join(name))
    .into();
    for entry in std::fs::read_dir(state.join("secrets"))? {
        paths.push(entry?.path());
    }
    paths.sort();
    let read = |path: PathBuf| Ok((path.clone(), std::fs::read(&path)?));
    paths.into_iter().map(read).collect()
}

/// Asks a tenant for its page, again and again, and counts when it does not come.
struct Visits {
    ending: Arc<AtomicBool>,
    failed: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<u32>,
}

impl Visits {
    fn of(host: String) -> Self {
        let (ending, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (told, missed) = (ending.clone(), failed.clone());
        let task = tokio::spawn(async move {
            let mut made = 0;
            while !told.load(Ordering::Relaxed) {
                match visit(&host).await {
                    Ok(answer) if answer.status == 200 => {}
                    other => {
                        eprintln!("a visit failed: {:?}", other.map(|answer| answer.status));
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                made += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            made
        });
        Self { ending, failed, task }
    }

    async fn end(self) -> Result<()> {
        self.ending.store(true, Ordering::Relaxed);
        let made = self.task.await?;
        let failed = self.failed.load(Ordering::Relaxed);
        ensure!(made > 10 && failed == 0, "{failed} of {made} visits failed");
        Ok(())
    }
}

async fn visit(host: &str) -> Result<Answer> {
    let url = format!("http://{}/web/login", Place::get().edge());
    Answer::of(tests::http::client()?.get(url).header("host", host)).await
}

async fn set_password(api: &Api, tenant: &Tenant) -> Result<String> {
    let path = format!("/v1/tenants/{}/admin-password", tenant.id);
    let answer = api.post(&path, &json!({}), &[]).await?.expect(202)?;
    let operation = answer["operation"]["id"].as_str().context("an operation")?;
    Ok(operation.to_owned())
}

/// Copies a backup with a change.
fn altered(backup: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<String> {
    let mut content = std::fs::read(backup)?;
    change(&mut content);
    let path = backup.with_file_name(name);
    std::fs::write(&path, content)?;
    Ok(text(&path)?.to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is text")
}

#[tokio::test]
async fn a_lost_control_plane_is_restored_while_its_tenants_serve() -> Result<()> {
    let state = &Place::get().state;
    let folder = std::env::temp_dir().join(format!("control-backup-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (backup, passphrase) = (folder.join("backup"), folder.join("passphrase"));
    std::fs::write(&passphrase, "correct horse battery staple\n")?;
    let (file, with) = (text(&backup)?, ["--passphrase-file", text(&passphrase)?]);

    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let page = api.get("/v1/operations?limit=1").await?.expect(200)?;
    let next = page["next_page"].as_str().context("a second page")?.to_owned();
    // In the backup these have not begun; in the world they then have ended.
    let (unborn, unset) = {
        let _held = Hold::of("worker").await?;
        let unborn = Tenant::accept(&api, &request(&new_slug(), &json!({})), &[]).await?;
        let unset = set_password(&api, &tenant).await?;
        succeeds(&["backup-control", file, with[0], with[1]]).await?;
        (unborn, unset)
    };
    api.succeeded(&unborn.operation).await?;
    api.succeeded(&unset).await?;
    let content = std::fs::read(&backup)?;
    assert_eq!(std::fs::metadata(&backup)?.permissions().mode() & 0o7777, 0o600);
    let master = forge::master_key_text()?;
    for secret in ["PGDMP", master.trim(), "master.key"] {
        assert!(
            !content
                .windows(secret.len())
                .any(|part| part == secret.as_bytes()),
            "it can be read without the passphrase"
        );
    }

    let visits = Visits::of(tenant.host.clone());
    mistakes_change_nothing(&backup, &passphrase).await?;

    let mut lost = Vec::new();
    for service in ["api", "worker", "redis", "postgres"] {
        lost.push(Hold::of(service).await?);
    }
    for part in ["postgres", "redis", "secrets"] {
        std::fs::remove_dir_all(state.join(part))?;
    }
    assert!(api.get("/v1/me").await.is_ok_and(|answer| answer.status >= 500));
    restore_although_it_is_killed(&["restore-control", file, with[0], with[1]]).await?;
    succeeds(&["up"]).await?;
    drop(lost);

    // Tokens and page tokens of before are good, and people sign in.
    api.get("/v1/me").await?.expect(200)?;
    api.get(&format!("/v1/operations?limit=1&page_token={next}"))
        .await?
        .expect(200)?;
    let again = Api::owner().await?;
    // What had not begun, and had ended since, ends once more and to the same effect.
    for operation in [&unborn.operation, &unset] {
        again.succeeded(operation).await?;
    }
    unborn.serves(Duration::from_secs(60)).await?;
    let operation = set_password(&again, &tenant).await?;
    again.succeeded(&operation).await?;
    let events = format!("/v1/operations/{operation}/events");
    let stream = Answer::of(again.request(Method::GET, &events)).await?;
    ensure!(
        stream.status == 200 && stream.text.contains("succeeded"),
        "{}",
        stream.text
    );
    // It may also take the place of one that is there.
    let replace = ["restore-control", file, "--replace", with[0], with[1]];
    succeeds(&replace).await?;
    succeeds(&["up"]).await?;
    let owner = Api::owner().await?;
    owner.succeeded(&unborn.operation).await?;
    tenant.read().await?.expect(200)?;
    visits.end().await?;
    assert_eq!(forge::master_key_text()?, master);
    for tenant in [tenant, unborn] {
        tenant.delete().await?;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn mistakes_change_nothing(backup: &Path, passphrase: &Path) -> Result<()> {
    let (file, right) = (text(backup)?, text(passphrase)?);
    let before = untouched()?;
    let (wrong, short) = (
        passphrase.with_file_name("wrong"),
        passphrase.with_file_name("short"),
    );
    std::fs::write(&wrong, "correct horse battery stable\n")?;
    std::fs::write(&short, "secret\n")?;
    for (backup, passphrase, why) in [
        (
            file.to_owned(),
            text(&wrong)?,
            "the passphrase is not that of this backup",
        ),
        (file.to_owned(), text(&short)?, "fewer than 16 characters"),
        (file.to_owned(), right, "to give it up for the one in the backup"),
        (
            altered(backup, "cut", |bytes| bytes.truncate(bytes.len() - 1))?,
            right,
            "the backup is damaged",
        ),
        (
            altered(backup, "changed", |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            })?,
            right,
            "the backup is damaged",
        ),
        (
            altered(backup, "newer", |bytes| bytes[7] += 1)?,
            right,
            "was made by a newer version",
        ),
        (
            altered(backup, "another", |bytes| bytes[0] ^= 1)?,
            right,
            "is no backup of a control plane",
        ),
    ] {
        refuses(
            &["restore-control", &backup, "--passphrase-file", passphrase],
            why,
        )
        .await?;
        if why != "to give it up for the one in the backup" {
            let forced = [
                "restore-control",
                &backup,
                "--replace",
                "--passphrase-file",
                passphrase,
            ];
            refuses(&forced, why).await?;
        }
    }
    assert!(untouched()? == before, "a refused restore has changed something");
    Ok(())
}

/// Kills a restore again and again, each time a little later, until one comes to its end first. Nothing starts before.
async fn restore_although_it_is_killed(arguments: &[&str]) -> Result<()> {
    let mark = Place::get().state.join("restoring");
    let (mut killed, mut pause) = (0, Duration::from_millis(300));
    loop {
        let mut restore = xtask(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Ok(ended) = tokio::time::timeout(pause, restore.wait()).await {
            ensure!(ended?.success(), "it fails after {killed} that were killed");
            break;
        }
        restore.kill().await?;
        killed += 1;
        if mark.exists() {
            refuses(&["up"], "a restore of the control plane has begun here").await?;
        }
        pause += Duration::from_millis(300);
        ensure!(pause < DEADLINE, "it does not end");
    }
    ensure!(
        killed > 2 && !mark.exists(),
        "{killed} were killed; the mark is {}",
        mark.exists()
    );
    eprintln!("{killed} restores were killed");
    Ok(())
}
