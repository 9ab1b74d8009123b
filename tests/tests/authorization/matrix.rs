//! Every operation × every credential.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use tests::api::Api;
use tests::http::Answer;
use tests::people::{Member, Organization};
use tests::place::Place;
use tests::rows::{self, Contents};
use tests::{services, sql, wait};

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
    let other_kind = demand.person_only && somebody.person.is_none();
    if somebody.role < demand.least || (demand.root_only && !somebody.root) || other_kind {
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
    // Nor does the clock ask for anything, and there is nothing that a process of the api would still write down.
    sql::execute(&mut family.people.control, "UPDATE schedules SET enabled = false").await?;
    sql::execute(&mut family.people.control, "DELETE FROM unknown_sign_ins").await?;
    let mut wrong = Vec::new();
    for operation in &operations {
        let mut standing = None;
        for credential in &credentials {
            let told = format!("{} ({})", operation.id, credential.name);
            let fits = standing
                .take()
                .filter(|scene: &Scene| scene.fits(operation, credential));
            let scene = match fits {
                Some(scene) => scene,
                None => {
                    family.people.clear().await?;
                    Scene::set(&mut family, &person, credential).await?
                }
            };
            match case(&mut family, scene, operation, credential).await {
                Ok(untouched) => standing = untouched,
                Err(error) => wrong.push(format!("{told}: {error:#}")),
            }
        }
        family.people.clear().await?;
    }
    sql::execute(&mut family.people.control, "UPDATE schedules SET enabled = true").await?;
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

/// What requests are about, and what all tables hold. It stands until a request has done something.
struct Scene {
    owner: Organization,
    things: Things,
    contents: Contents,
}

impl Scene {
    async fn set(family: &mut Family, person: &Member, credential: &Credential) -> Result<Self> {
        let asks = credential.somebody.and_then(|somebody| somebody.person);
        let things = Things::write(&mut family.people, &credential.things_of, person, asks).await?;
        Ok(Self {
            owner: credential.things_of.clone(),
            things,
            contents: Contents::read(&mut family.people.control).await?,
        })
    }

    /// Whether the next request can be about it too. One's own things are another's in each case.
    fn fits(&self, operation: &Operation, credential: &Credential) -> bool {
        self.owner.row == credential.things_of.row && !operation.path.starts_with("/v1/me/")
    }
}

/// One case. Answers the scene, if it stands as it was.
async fn case(
    family: &mut Family,
    scene: Scene,
    operation: &Operation,
    credential: &Credential,
) -> Result<Option<Scene>> {
    let Scene {
        owner,
        things,
        contents: before,
    } = scene;
    let control = &mut family.people.control;
    let example = examples();
    let make = example.get(operation.id.as_str()).context("it has no example")?;
    let answer = send(operation, credential, &make(&things)).await?;
    let after = Contents::read(control).await?;
    let changed = after.changed_since(&before);
    let logged = logged(control, &answer).await?;

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
    let refused = |reason: &str| {
        vec![(
            operation.id.clone(),
            "refused".to_owned(),
            Some(reason.to_owned()),
        )]
    };
    match expected {
        Expected::Done if !operation.is_safe() => {
            ensure!(
                logged == [(operation.id.clone(), "succeeded".to_owned(), None)],
                "the audit log says {logged:?}"
            );
            done(family, operation, &changed).await?;
        }
        Expected::Done => {
            ensure!(changed.is_empty(), "a read changes {changed:?}");
            lists_only_what_is_seen(operation, credential, &things, &answer)?;
        }
        _ => {
            ensure!(
                changed.is_empty() || (changed == ["audit_events"] && !operation.is_safe()),
                "a refused request changes {changed:?}"
            );
            let fine = match expected {
                _ if operation.is_safe() => logged.is_empty(),
                Expected::Forbidden => logged == refused("forbidden"),
                Expected::NotFound => logged == refused("not_found"),
                // Somebody who was known once is named; what nobody can be known by is not written down.
                _ => logged.is_empty() || logged == refused("unauthenticated"),
            };
            ensure!(fine, "the audit log says {logged:?}");
        }
    }
    let stands = expected != Expected::Done || operation.is_safe();
    Ok(stands.then_some(Scene {
        owner,
        things,
        contents: after,
    }))
}

/// What the audit log says of a request: action, outcome and reason.
async fn logged(
    control: &mut sqlx::postgres::PgConnection,
    answer: &Answer,
) -> Result<Vec<(String, String, Option<String>)>> {
    let rows = sqlx::query_as("SELECT action, outcome, reason FROM audit_events WHERE request_id = $1")
        .bind(answer.header("x-request-id"))
        .fetch_all(control)
        .await?;
    Ok(rows)
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
        "create_token" | "refresh_token" => &["sessions", "refresh_tokens"],
        "log_out" | "end_my_session" => &["sessions"],
        "update_me" => &["users"],
        "create_organization" => &["organizations", "organization_ancestors", "idempotency_records"],
        "update_organization" => &["organizations"],
        "delete_organization" => &["organizations"],
        "add_member" | "accept_invitation" => &["users", "memberships", "invitations", "idempotency_records"],
        "update_member" => &["memberships"],
        "remove_member" => &["memberships", "sessions"],
        "create_invitation" | "update_invitation" | "delete_invitation" => {
            &["invitations", "idempotency_records"]
        }
        "create_api_key" | "rotate_api_key" | "delete_api_key" => &["api_keys", "idempotency_records"],
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
    let changed: Vec<&str> = changed
        .iter()
        .copied()
        .filter(|table| *table != "audit_events")
        .collect();
    ensure!(!changed.is_empty(), "it was accepted and nothing was done");
    let other: Vec<_> = changed.iter().filter(|table| !fine.contains(*table)).collect();
    ensure!(other.is_empty(), "it also changes {other:?}");
    if operation.id == "log_out" {
        // The credential is used again.
        sqlx::query(
            "UPDATE sessions SET ended_at = NULL, role = m.role FROM memberships m \
              WHERE m.user_id = sessions.user_id AND m.organization_id = sessions.organization_id \
                AND ended_at > now() - interval '1 minute' \
                AND sessions.id = (SELECT id FROM sessions ORDER BY ended_at DESC NULLS LAST LIMIT 1)",
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
        "list_organizations" => &things.below,
        "list_members" => &things.member,
        "list_invitations" => &things.invitation.id,
        "list_api_keys" => &things.api_key.id,
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
