//! Stored secrets: data keys are replaced while requests run, what was sealed before there were data keys opens, and a
//! process with a wrong master key says so instead of starting.
//!
//! These tests change the keys that they share, so that one runs at a time.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platform::secrets::{
    self, DataKeyRotation, EncryptionContext, KeyEncryption, KeyError, MasterKeys, Secrets, Wrapped,
};
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use secrecy::SecretSlice;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tests::api::Api;
use tests::place::Place;
use tests::second_api::{self, SecondApi};
use tests::tenant::Tenant;
use tests::{forge, services, sql};
use tokio::sync::Mutex;
use uuid::Uuid;

static ALONE: Mutex<()> = Mutex::const_new(());

/// A stored secret: where it is, what it belongs to, and its bytes.
struct Stored {
    table: String,
    belongs_to: String,
    sealed: Vec<u8>,
}

async fn all(control: &mut PgConnection) -> Result<Vec<Stored>> {
    let rows = sqlx::query(
        "SELECT 'signing_keys' AS place, kid AS id, private_key_sealed AS sealed FROM signing_keys UNION ALL \
         SELECT 'pools', id::text, keys_sealed FROM pools UNION ALL \
         SELECT 'platform_secrets', name, sealed FROM platform_secrets",
    )
    .fetch_all(control)
    .await?;
    rows.iter()
        .map(|row| {
            let (table, id): (String, String) = (row.try_get("place")?, row.try_get("id")?);
            let belongs_to = match table.as_str() {
                "pools" => platform::id::PoolId(id.parse()?).to_string(),
                _ => id,
            };
            Ok(Stored {
                table,
                belongs_to,
                sealed: row.try_get("sealed")?,
            })
        })
        .collect()
}

/// Every stored secret, opened by code that is not the platform's.
async fn opened(control: &mut PgConnection) -> Result<Vec<(String, Vec<u8>)>> {
    let mut opened = Vec::new();
    for stored in all(control).await? {
        let secret = forge::unseal(control, &stored.belongs_to, &stored.sealed).await;
        let secret = secret.with_context(|| format!("{} {}", stored.table, stored.belongs_to))?;
        opened.push((stored.belongs_to, secret));
    }
    opened.sort();
    Ok(opened)
}

async fn current(control: &mut PgConnection) -> Result<Uuid> {
    let found = sqlx::query_scalar("SELECT id FROM data_keys WHERE retired_at IS NULL");
    Ok(found.fetch_one(control).await?)
}

async fn ids(control: &mut PgConnection) -> Result<Vec<Uuid>> {
    let found = sqlx::query_scalar("SELECT id FROM data_keys ORDER BY created_at");
    Ok(found.fetch_all(control).await?)
}

async fn set_password(api: &Api, tenant: &Tenant) -> Result<()> {
    let path = format!("/v1/tenants/{}/admin-password", tenant.id);
    let answer = api.post(&path, &json!({}), &[]).await?.expect(202)?;
    let operation = answer["operation"]["id"].as_str().context("an operation")?;
    api.succeeded(operation).await.map(drop)
}

/// Another master key, as settings take it.
fn another_master_key() -> String {
    STANDARD.encode([7; 32])
}

#[tokio::test]
async fn data_keys_are_replaced_while_requests_run() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut control = sql::control().await?;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let second = SecondApi::start(&[]).await?;
    let there = second.anyone()?.with(api.token());
    let page = api.get("/v1/operations?limit=1").await?.expect(200)?;
    let token = page["next_page"].as_str().context("a second page")?.to_owned();
    let processes = (services::process("api")?, services::process("worker")?);
    let (before, old) = (opened(&mut control).await?, current(&mut control).await?);

    let rotations = async {
        for _ in 0..5 {
            second_api::run(&["rotate-data-key"], &[]).await?;
        }
        anyhow::Ok(())
    };
    let requests = async {
        // Sealed by the api, opened by the worker, neither of which was told of a new key.
        for _ in 0..5 {
            set_password(&api, &tenant).await?;
            there.get("/v1/me").await?.expect(200)?;
        }
        anyhow::Ok(())
    };
    let (rotated, asked) = tokio::join!(rotations, requests);
    rotated?;
    asked?;

    let new = current(&mut control).await?;
    assert_ne!(new, old);
    for stored in all(&mut control).await? {
        assert_eq!(forge::data_key_of(&stored.sealed)?, new, "{}", stored.table);
    }
    assert_eq!(opened(&mut control).await?, before);
    set_password(&api, &tenant).await?;
    for one in [&api, &there] {
        let path = format!("/v1/operations?limit=1&page_token={token}");
        one.get(&path).await?.expect(200)?;
    }
    assert_eq!(
        (services::process("api")?, services::process("worker")?),
        processes,
        "a process has ended"
    );
    tenant.delete().await
}

#[tokio::test]
async fn what_was_sealed_before_there_were_data_keys_opens_and_is_sealed_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut control = sql::control().await?;
    let api = Api::owner().await?;
    let tenant = Tenant::create(&api).await?;
    let before = opened(&mut control).await?;
    for stored in all(&mut control).await? {
        let secret = forge::unseal(&mut control, &stored.belongs_to, &stored.sealed).await?;
        let old = forge::sealed_in_the_old_form(&stored.belongs_to, &secret)?;
        let (key, id) = match stored.table.as_str() {
            "signing_keys" => ("private_key_sealed", "kid"),
            "pools" => ("keys_sealed", "id"),
            _ => continue,
        };
        let sql = format!(
            "UPDATE {} SET {key} = $1 WHERE {key} = $2 AND {id} IS NOT NULL",
            stored.table
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(old)
            .bind(stored.sealed)
            .execute(&mut control)
            .await?;
    }
    let second = SecondApi::start(&[]).await?;
    second
        .anyone()?
        .with(api.token())
        .get("/v1/me")
        .await?
        .expect(200)?;
    // The worker opens the pool's keys for it.
    set_password(&api, &tenant).await?;
    second_api::run(&["rotate-data-key"], &[]).await?;
    assert_eq!(opened(&mut control).await?, before);
    tenant.delete().await
}

#[tokio::test]
async fn a_rotation_that_is_killed_leaves_every_secret_readable() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut control = sql::control().await?;
    let before = opened(&mut control).await?;
    for pause in [5, 15, 25, 35, 45, 60, 80, 120] {
        let mut rotation = second_api::command(&["rotate-data-key"], &[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        rotation.kill().await?;
        assert_eq!(opened(&mut control).await?, before, "killed after {pause} ms");
        current(&mut control).await?;
    }
    second_api::run(&["rotate-data-key"], &[]).await?;
    assert_eq!(opened(&mut control).await?, before);
    Ok(())
}

#[tokio::test]
async fn an_old_data_key_is_deleted_once_nothing_names_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut control = sql::control().await?;
    second_api::run(&["rotate-data-key"], &[]).await?;
    let old = current(&mut control).await?;
    second_api::run(&["rotate-data-key"], &[]).await?;
    assert!(ids(&mut control).await?.contains(&old), "it is kept for a while");
    // A secret that opens no more is a reason to keep what it names, and is told of.
    let damaged = [b"\xd5SK\x01".as_slice(), old.as_bytes(), &[0; 40]].concat();
    sqlx::query("INSERT INTO platform_secrets (name, sealed) VALUES ('damaged', $1)")
        .bind(damaged)
        .execute(&mut control)
        .await?;
    sql::execute(
        &mut control,
        "UPDATE data_keys SET retired_at = retired_at - interval '25 hours'",
    )
    .await?;
    let refused = second_api::run(&["rotate-data-key"], &[])
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("1 secrets do not open"), "{refused}");
    assert!(
        ids(&mut control).await?.contains(&old),
        "it was named by a secret"
    );
    sql::execute(
        &mut control,
        "DELETE FROM platform_secrets WHERE name = 'damaged'",
    )
    .await?;
    second_api::run(&["rotate-data-key"], &[]).await?;
    assert!(!ids(&mut control).await?.contains(&old), "nothing names it");
    opened(&mut control).await?;
    Ok(())
}

#[tokio::test]
async fn the_master_key_is_replaced_by_wrapping_the_data_keys_anew() -> Result<()> {
    let _alone = ALONE.lock().await;
    let mut control = sql::control().await?;
    let api = Api::owner().await?;
    let present = forge::master_key_text()?.trim().to_owned();
    let settings = |newest: &str, previous: &str| {
        vec![
            ("MASTER_KEY_FILE", String::new()),
            ("MASTER_KEY", newest.to_owned()),
            ("MASTER_KEY_PREVIOUS", previous.to_owned()),
        ]
    };
    let (before, other) = (opened(&mut control).await?, another_master_key());
    let said = second_api::run(&["rotate-data-key"], &settings(&other, &present)).await?;
    assert!(said.contains("MASTER_KEY_PREVIOUS is needed no longer"), "{said}");
    // The old one is worth nothing now, the new one alone is enough, and a running process has noticed nothing.
    let outcome = refusal(second_api::command(&[], &settings(&present, ""))).await?;
    assert!(outcome.contains("MASTER_KEY_PREVIOUS"), "{outcome}");
    let second = SecondApi::start(&settings(&other, "")).await?;
    for one in [api.clone(), second.anyone()?.with(api.token())] {
        one.get("/v1/me").await?.expect(200)?;
    }
    drop(second);
    second_api::run(&["rotate-data-key"], &settings(&present, &other)).await?;
    assert_eq!(opened(&mut control).await?, before);
    Ok(())
}

/// What a program says that does not start.
async fn refusal(mut command: tokio::process::Command) -> Result<String> {
    let output = tokio::time::timeout(Duration::from_secs(30), command.output())
        .await
        .context("it runs on")??;
    ensure!(!output.status.success(), "it ended well");
    Ok(String::from_utf8(output.stderr)?)
}

#[tokio::test]
async fn a_process_with_a_wrong_master_key_does_not_start_and_says_why() -> Result<()> {
    let _alone = ALONE.lock().await;
    let wrong = [
        ("MASTER_KEY_FILE", String::new()),
        ("MASTER_KEY", another_master_key()),
    ];
    let api = refusal(second_api::command(&[], &wrong)).await?;
    let program = &Place::get().worker;
    let mut worker = tokio::process::Command::new(&program.argv[0]);
    worker
        .args(&program.argv[1..])
        .current_dir("/")
        .env_clear()
        .envs(&program.environment)
        .envs(wrong.iter().map(|(name, value)| (*name, value.as_str())))
        .env("METRICS_LISTEN", "127.0.0.1:0")
        .kill_on_drop(true);
    for said in [api, refusal(worker).await?] {
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.contains("MASTER_KEY: a data key is wrapped by the master key local:"),
            "{said}"
        );
        assert!(!said.contains(&another_master_key()), "it tells the key");
    }
    Ok(())
}

#[tokio::test]
async fn every_column_of_sealed_secrets_is_known_to_the_rotation() -> Result<()> {
    let mut control = sql::control().await?;
    let rows = sqlx::query(
        "SELECT table_name::text AS place, column_name::text AS held FROM information_schema.columns \
          WHERE table_schema = 'public' AND column_name LIKE '%sealed%' ORDER BY 1, 2",
    )
    .fetch_all(&mut control)
    .await?;
    let there: Vec<(String, String)> = rows
        .iter()
        .map(|row| (row.get("place"), row.get("held")))
        .collect();
    let mut known: Vec<(String, String)> = secrets::columns()
        .map(|(table, column)| (table.to_owned(), column.to_owned()))
        .collect();
    known.sort();
    assert_eq!(there, known);
    Ok(())
}

/// A database with the platform's tables and nothing in them.
async fn empty_database() -> Result<DatabaseConnection> {
    let name = format!("secrets_{}", Uuid::new_v4().simple());
    sql::execute(&mut sql::control().await?, &format!("CREATE DATABASE {name}")).await?;
    let (server, _) = Place::get().database_url.rsplit_once('/').context("a database")?;
    let url = format!("{server}/{name}");
    platform::database::migrate(&url.clone().into()).await?;
    Ok(Database::connect(
        ConnectOptions::new(url)
            .max_connections(4)
            .sqlx_logging(false)
            .to_owned(),
    )
    .await?)
}

fn master(text: &str) -> Result<MasterKeys> {
    Ok(MasterKeys::from_base64(&text.to_owned().into(), None)?)
}

async fn count(database: &DatabaseConnection) -> Result<i64> {
    use sea_orm::{ConnectionTrait as _, Statement, TryGetable as _};
    let asked = Statement::from_string(
        database.get_database_backend(),
        "SELECT count(*) AS n FROM data_keys",
    );
    let row = database.query_one_raw(asked).await?.context("a row")?;
    i64::try_get_by(&row, "n").map_err(|_| anyhow::anyhow!("a number"))
}

#[tokio::test]
async fn processes_that_start_at_once_make_one_data_key_and_derive_the_same() -> Result<()> {
    let database = empty_database().await?;
    let keys = master(&another_master_key())?;
    let starts = (0..8).map(|_| Secrets::prepare(database.clone(), keys.clone()));
    let mut derived = Vec::new();
    for started in futures::future::join_all(starts).await {
        derived.push(started?.derive("page-token").await?);
    }
    assert_eq!(count(&database).await?, 1);
    assert!(
        derived.iter().all(|one| *one == derived[0]),
        "they derive different keys"
    );
    let again = Secrets::prepare(database.clone(), keys).await?;
    again.tend(DataKeyRotation::Now).await?;
    let later = Secrets::new(database, master(&another_master_key())?);
    assert_eq!(
        later.derive("page-token").await?,
        derived[0],
        "a rotation has changed it"
    );
    assert!(later.derive("another").await? != derived[0]);
    Ok(())
}

#[tokio::test]
async fn an_older_installation_gets_no_data_key_by_a_wrong_master_key() -> Result<()> {
    use sea_orm::ConnectionTrait as _;
    let database = empty_database().await?;
    let sealed: String = forge::sealed_in_the_old_form("k1", b"private")?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let row = format!(
        "INSERT INTO signing_keys (kid, public_key, private_key_sealed) VALUES ('k1', '', '\\x{sealed}')"
    );
    database.execute_unprepared(&row).await?;
    let wrong = Secrets::prepare(database.clone(), master(&another_master_key())?).await;
    let said = wrong.err().context("it was taken")?.to_string();
    assert!(
        said.contains("MASTER_KEY: it does not open the secret of k1"),
        "{said}"
    );
    assert_eq!(count(&database).await?, 0);
    let right = Secrets::prepare(database.clone(), master(forge::master_key_text()?.trim())?).await?;
    let done = right
        .tend(DataKeyRotation::IfOlder(chrono::Duration::days(90)))
        .await?;
    assert_eq!((done.resealed, done.stuck, done.rotated), (1, 0, false));
    Ok(())
}

/// A provider that can be away.
#[derive(Debug)]
struct Moody {
    keys: MasterKeys,
    away: std::sync::atomic::AtomicBool,
}

impl Moody {
    fn mood(&self) -> Result<(), KeyError> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(KeyError::Unavailable("away".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl KeyEncryption for Moody {
    fn key_id(&self) -> &str {
        self.keys.key_id()
    }

    async fn wrap(
        &self,
        data_key: &SecretSlice<u8>,
        context: &EncryptionContext,
    ) -> Result<Wrapped, KeyError> {
        self.mood()?;
        self.keys.wrap(data_key, context).await
    }

    async fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &EncryptionContext,
    ) -> Result<SecretSlice<u8>, KeyError> {
        self.mood()?;
        self.keys.unwrap(wrapped, context).await
    }
}

#[tokio::test]
async fn while_the_provider_is_away_known_secrets_open_and_nothing_is_lost() -> Result<()> {
    let database = empty_database().await?;
    let keys = master(&another_master_key())?;
    Secrets::prepare(database.clone(), keys.clone()).await?;
    let moody = std::sync::Arc::new(Moody {
        keys: keys.clone(),
        away: false.into(),
    });
    let secrets = Secrets::with_provider(database.clone(), moody.clone(), keys.clone());
    let sealed = secrets.seal(&database, "row", b"secret").await?;
    moody.away.store(true, std::sync::atomic::Ordering::Relaxed);
    secrets.read_again().await?;
    secrets.open("row", &sealed).await?;
    secrets.seal(&database, "row", b"another").await?;
    let rotation = secrets.tend(DataKeyRotation::Now).await;
    assert!(
        matches!(rotation, Err(platform::error::Error::Unavailable { .. })),
        "{rotation:?}"
    );
    assert_eq!(count(&database).await?, 1);
    // One that never knew the key can't work yet, and can as soon as the provider is back.
    let late = Secrets::with_provider(database.clone(), moody.clone(), keys);
    let waits = late.open("row", &sealed).await;
    assert!(
        matches!(waits, Err(platform::error::Error::Unavailable { .. })),
        "{waits:?}"
    );
    moody.away.store(false, std::sync::atomic::Ordering::Relaxed);
    late.open("row", &sealed).await?;
    Ok(())
}
