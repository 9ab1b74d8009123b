//! Sends the running API what its document allows and what it forbids, and holds each answer against the document, by
//! schemathesis: as an owner of an organization of its own, and as a viewer who sees all and may change nothing.
//!
//! It never touches what it has not made: the owner's organization is new and empty, so the tenants of others are out of
//! its reach, and its accounts are its own. Its tenants are deleted through the API at the end, however it went.
//!
//! `FUZZ_SEED` chooses other requests than the usual ones; `FUZZ_INSTANCE=main` sends them to the platform that
//! `cargo xtask up` has brought up.

mod people;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use self::people::People;
use super::{Outcome, Summary};
use crate::instance::{Instance, Name};
use crate::up::{self, Client};
use crate::users::Account;
use crate::{exec, files, interrupt, process, screen, tools};

/// Files of this check, below the checkout.
const FOLDER: &str = "xtask/src/test/fuzz";

/// Decides which requests are made, where `FUZZ_SEED` names no other.
const SEED: u64 = 20_260_101;

/// Longest time of one role; the number of requests and the rate in `schemathesis.toml` keep it well below.
const DEADLINE: Duration = Duration::from_secs(300);

/// Longest time of deleting one tenant, on a busy machine.
const DELETION: Duration = Duration::from_secs(120);

/// The platform to fuzz where it is not the one that the tests bring up.
pub(super) fn elsewhere() -> Result<Option<Instance>> {
    match std::env::var("FUZZ_INSTANCE").as_deref() {
        Err(_) | Ok("" | "test") => Ok(None),
        Ok("main") => Ok(Some(Instance::open(Name::Main)?)),
        Ok(other) => bail!("FUZZ_INSTANCE is {other}; it can be `test` or `main`"),
    }
}

/// Runs the check and counts each role.
pub(super) fn run(instance: &Instance, postgres: &Account, summary: &mut Summary) -> Result<()> {
    let seed = match std::env::var("FUZZ_SEED") {
        Ok(text) => text.parse().context("FUZZ_SEED is no whole number")?,
        Err(_) => SEED,
    };
    let python = match tools::python_environment(
        "schemathesis",
        &instance.checkout.join(FOLDER).join("requirements.txt"),
    ) {
        Ok(python) => python,
        Err(error) => {
            let why = format!("schemathesis cannot be had: {error:#}");
            summary.count("fuzz", Ok(Outcome::NotChecked(why)));
            return Ok(());
        }
    };
    if !process::wait_until(Duration::from_secs(30), || up::readiness(instance).is_ok()) {
        bail!("fuzz: the API at {} is not ready", instance.public_url());
    }
    let people = People::make(instance, postgres)?;
    let begin = Instant::now();
    for (role, email) in [("owner", &people.owner), ("viewer", &people.viewer)] {
        super::interrupted()?;
        screen::say(&format!("\n──── fuzz as {role}, seed {seed}"));
        let outcome = fuzz(instance, &python, &people, email, seed);
        summary.check(&format!("fuzz as {role}, seed {seed}"), outcome);
    }
    let took = screen::seconds(begin.elapsed());
    screen::say(&format!("· fuzzed for {took}; deleting what was made"));
    summary.check("fuzz: cleaning up", clean_up(instance, &people, postgres));
    Ok(())
}

/// Runs schemathesis with a caller's token; its own report goes to the screen.
fn fuzz(instance: &Instance, python: &Path, people: &People, email: &str, seed: u64) -> Result<()> {
    let mut client = Client::sign_in_as(instance, email, &people.password)?;
    let me = client.get("/v1/me")?;
    let organization = me["organization"]["id"].as_str().context("no organization")?;
    let permissions: Vec<&str> = me["permissions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let files = instance.checkout.join(FOLDER);
    // Hypothesis keeps a folder where it is started.
    let folder = instance.state.join("fuzz");
    files::directory(&folder, 0o700, None)?;
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(files.join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", instance.public_url())])
        .args(["--seed", &seed.to_string()])
        .env("FUZZ_API", instance.public_url())
        .env("FUZZ_HOOKS", files.join("hooks.py"))
        .env("FUZZ_EMAIL", email)
        .env("FUZZ_PASSWORD", &people.password)
        .env("FUZZ_ORGANIZATION", organization)
        .env("FUZZ_PERMISSIONS", permissions.join(","))
        .env("FUZZ_TOKEN", client.token())
        // Sets of strings have another order in each process, and the order decides what is drawn.
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .env_remove("PYTHONPATH")
        .current_dir(&folder)
        .stdin(Stdio::null());
    let mut child = interrupt::spawn(&mut command).context("cannot start schemathesis")?;
    let status = exec::wait(&mut child, "schemathesis", DEADLINE)?;
    ensure!(
        status.success(),
        "schemathesis {}; its report stands above",
        exec::ending(status)
    );
    Ok(())
}

/// Deletes the tenants through the API, waits for their end, and removes the accounts.
fn clean_up(instance: &Instance, people: &People, postgres: &Account) -> Result<()> {
    let mut owner = Client::sign_in_as(instance, &people.owner, &people.password)?;
    let mut deletions = Vec::new();
    loop {
        let page = owner.get("/v1/tenants?limit=200")?;
        let tenants: Vec<&Value> = page["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|tenant| tenant["status"] != "deleting")
            .collect();
        if tenants.is_empty() {
            break;
        }
        for tenant in tenants {
            deletions.extend(delete(&mut owner, tenant)?);
        }
    }
    let count = deletions.len();
    for operation in deletions {
        owner.finish(&operation, DELETION)?;
    }
    screen::say(&format!("· {count} tenants deleted"));
    people.remove(instance, postgres)
}

/// Asks for a tenant's deletion; the operation, unless it was gone already.
fn delete(owner: &mut Client, tenant: &Value) -> Result<Option<String>> {
    let target = format!("/v1/tenants/{}", tenant["id"].as_str().context("no id")?);
    if tenant["protected"] == true {
        let answer = owner.call("PATCH", &target, Some(&json!({ "protected": false })), &[])?;
        ensure!(
            answer.is_success() || answer.status == 404,
            "PATCH {target} answered {}: {}",
            answer.status,
            answer.text()
        );
    }
    let answer = owner.call("DELETE", &target, None, &[])?;
    match answer.status {
        202 => Ok(answer.json()?["operation"]["id"].as_str().map(str::to_owned)),
        404 => Ok(None),
        status => bail!("DELETE {target} answered {status}: {}", answer.text()),
    }
}
