//! Every operation × every credential.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use tests::api::Api;
use tests::http::Answer;
use tests::people::Member;
use tests::place::Place;
use tests::rows::{self, Contents};
use tests::{services, wait};

use crate::ALONE;
use crate::credentials::{Credential, Family};
use crate::document::{self, Operation};
use crate::examples::{Things, examples};

/// What an answer must be.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// As somebody who is not known.
    Unauthenticated,
    /// The role does not suffice.
    Forbidden,
    /// It can't be seen.
    NotFound,
    /// As asked.
    Done,
}

fn expected(operation: &Operation, credential: &Credential) -> Expected {
    let Some(demand) = &operation.demand else {
        return Expected::Done;
    };
    let Some(somebody) = credential.somebody else {
        return Expected::Unauthenticated;
    };
    if somebody.role < demand.least || (demand.root_only && !somebody.root) {
        Expected::Forbidden
    } else if operation.has_target() && !somebody.sees {
        Expected::NotFound
    } else {
        Expected::Done
    }
}

/// The worker stands still, so that what is accepted changes no more tables than the request itself did.
struct Standstill(Pid);

impl Standstill {
    fn begin() -> Result<Self> {
        let worker = Pid::from_raw(services::process("worker")?);
        kill(worker, Signal::SIGSTOP)?;
        Ok(Self(worker))
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        // A process that has ended meanwhile needs no signal.
        kill(self.0, Signal::SIGCONT).ok();
    }
}

#[tokio::test]
async fn every_operation_has_an_example_here() -> Result<()> {
    let documented: BTreeSet<String> = document::operations()
        .await?
        .into_iter()
        .map(|one| one.id)
        .collect();
    let known: BTreeSet<String> = examples().into_keys().map(str::to_owned).collect();
    assert_eq!(
        documented, known,
        "tests/authorization/examples.rs needs a request for each operation of the document, and no other"
    );
    Ok(())
}

#[tokio::test]
async fn every_permission_that_is_printed_is_demanded_somewhere() -> Result<()> {
    let demanded: BTreeSet<String> = document::operations()
        .await?
        .into_iter()
        .filter_map(|operation| Some(operation.demand?.permission))
        .collect();
    let printed: BTreeSet<String> = document::permissions().await?.into_keys().collect();
    assert_eq!(demanded, printed);
    Ok(())
}

#[tokio::test]
async fn every_operation_answers_every_credential_as_the_table_says() -> Result<()> {
    let _alone = ALONE.lock().await;
    let begin = Instant::now();
    let operations = document::operations().await?;
    let mut family = Family::new().await?;
    let person = {
        let sibling = family.sibling.clone();
        family.people.member(&sibling, "viewer").await?
    };
    let credentials = family.credentials().await?;
    rows::rest(&mut family.people.control).await?;
    let standstill = Standstill::begin()?;
    let mut wrong = Vec::new();
    for operation in &operations {
        for credential in &credentials {
            let told = format!("{} ({})", operation.id, credential.name);
            if let Err(error) = case(&mut family, &person, operation, credential).await {
                wrong.push(format!("{told}: {error:#}"));
            }
            family.people.clear().await?;
        }
    }
    drop(standstill);
    let cases = operations.len() * credentials.len();
    println!(
        "{} operations × {} credentials in {:.1?}",
        operations.len(),
        credentials.len(),
        begin.elapsed()
    );
    ensure!(
        wrong.is_empty(),
        "{} of {cases} are not as the table says:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

async fn case(
    family: &mut Family,
    person: &Member,
    operation: &Operation,
    credential: &Credential,
) -> Result<()> {
    let control = &mut family.people.control;
    let things = Things::write(control, &credential.things_of, person).await?;
    let example = examples();
    let make = example.get(operation.id.as_str()).context("it has no example")?;
    let before = Contents::read(control).await?;
    let answer = send(operation, credential, &make(&things)).await?;
    let after = Contents::read(control).await?;
    let changed = after.changed_since(&before);

    let expected = expected(operation, credential);
    match expected {
        Expected::Unauthenticated => {
            ensure!(answer.problem(401)? == "unauthenticated", "{}", answer.text);
            ensure!(
                answer.header("www-authenticate") == "Bearer",
                "no WWW-Authenticate"
            );
        }
        Expected::Forbidden => {
            ensure!(answer.problem(403)? == "forbidden", "{}", answer.text);
            let permission = operation.demand.as_ref().map(|demand| demand.permission.as_str());
            ensure!(
                permission.is_some_and(|permission| answer.text.contains(permission)),
                "the missing permission is not named: {}",
                answer.text
            );
        }
        Expected::NotFound => {
            ensure!(answer.problem(404)? == "not_found", "{}", answer.text);
        }
        Expected::Done => {
            ensure!(
                (200..300).contains(&answer.status) && operation.statuses.contains(&answer.status),
                "{} is none of {:?}: {}",
                answer.status,
                operation.statuses,
                answer.text
            );
        }
    }
    ensure!(
        operation.statuses.contains(&answer.status),
        "{} is not documented",
        answer.status
    );
    match expected {
        Expected::Done if !operation.is_safe() => done(family, operation, &changed).await?,
        Expected::Done => {
            ensure!(changed.is_empty(), "a read changes {changed:?}");
            lists_only_what_is_seen(operation, credential, &things, &answer)?;
        }
        _ => ensure!(changed.is_empty(), "a refused request changes {changed:?}"),
    }
    Ok(())
}

async fn send(
    operation: &Operation,
    credential: &Credential,
    request: &crate::examples::Request,
) -> Result<Answer> {
    let method: Method = operation.method.parse()?;
    // Past the edge, which lets no request with two of these headers pass.
    let mut sending = Api::at(&Place::get().api_directly())?.request(method, &request.path);
    for value in &credential.authorization {
        sending = sending.header("authorization", value);
    }
    for (name, value) in &request.headers {
        sending = sending.header(*name, value);
    }
    if let Some(body) = &request.body {
        sending = sending.json(body);
    }
    Answer::of(sending).await
}

/// Something was done, and nothing else than what this operation is for.
async fn done(family: &mut Family, operation: &Operation, changed: &[&str]) -> Result<()> {
    let fine: &[&str] = match operation.id.as_str() {
        "create_token" => &["sessions", "refresh_tokens"],
        "refresh_token" => &["refresh_tokens", "sessions"],
        "log_out" => &["sessions"],
        "update_tenant" => &["tenants"],
        _ => &[
            "tenants",
            "operations",
            "jobs",
            "outbox",
            "sealed_secrets",
            "idempotency_records",
            "pools",
        ],
    };
    ensure!(!changed.is_empty(), "it was accepted and nothing was done");
    let other: Vec<_> = changed.iter().filter(|table| !fine.contains(*table)).collect();
    ensure!(other.is_empty(), "it also changes {other:?}");
    if operation.id == "log_out" {
        // The credential is used again.
        sqlx::query(
            "UPDATE sessions SET ended_at = NULL WHERE ended_at > now() - interval '1 minute' AND \
                     id = (SELECT id FROM sessions ORDER BY ended_at DESC NULLS LAST LIMIT 1)",
        )
        .execute(&mut family.people.control)
        .await?;
    }
    // What was accepted is announced at once; the next case begins at rest.
    let control = &mut family.people.control;
    wait::until(Duration::from_secs(10), "the outbox is empty", async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&mut *control)
            .await?;
        ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    })
    .await
}

/// A list names what its reader can see, and nothing else.
fn lists_only_what_is_seen(
    operation: &Operation,
    credential: &Credential,
    things: &Things,
    answer: &Answer,
) -> Result<()> {
    let id = match operation.id.as_str() {
        "list_tenants" => &things.tenant.id,
        "list_operations" => &things.queued.id,
        _ => return Ok(()),
    };
    let somebody = credential.somebody.context("nobody lists anything")?;
    ensure!(
        answer.text.contains(id.as_str()) == somebody.sees,
        "{id} is listed: {}, seen: {}",
        !somebody.sees,
        somebody.sees
    );
    Ok(())
}
