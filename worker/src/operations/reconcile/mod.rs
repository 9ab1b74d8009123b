//! Compares the tables with databases, roles, files, routes, containers and the pools' passwords; repairs what is safe
//! and writes down the rest, for `GET /v1/drift`. It takes no input and may run at any time, any number of times.
//!
//! It never touches what is not the platform's, nor what an operation that has not ended works on.

mod actual;
mod compare;
mod repair;
mod wanted;

use std::time::Duration;

use async_trait::async_trait;
use jobs::{OperationKind, Step, StepContext, StepError, StepResult};
use odoo::{names::DatabaseName, server::Session};
use platform::{
    operations::kinds::Reconcile,
    reconcile::{self, Finding},
    values::DriftKind,
};
use serde::{Deserialize, Serialize};

use self::{
    actual::{Actual, Found},
    compare::{differences, stray_container},
    repair::{Outcome, is_a_running_tasks},
    wanted::Plan,
};
use super::{database, files, server};
use crate::world::World;

/// The kind.
pub struct Compare;

#[async_trait]
impl OperationKind for Compare {
    type Input = Reconcile;
    type World = World;

    fn steps() -> Vec<Box<dyn Step<Self>>> {
        vec![Box::new(Look), Box::new(Repair), Box::new(WriteDown)]
    }
}

/// What a comparison suspects.
#[derive(Serialize, Deserialize)]
struct Suspicions {
    /// Each name with what is not as it should be about it.
    names: Vec<(DatabaseName, Vec<(DriftKind, String)>)>,
    /// What belongs to no name, and is only listed.
    listed: Vec<Finding>,
    /// What an operation is at work on.
    held: Vec<(DriftKind, String)>,
}

/// What is left of the suspicions.
#[derive(Serialize, Deserialize)]
struct Left {
    findings: Vec<Finding>,
    /// What could not be looked at.
    unseen: Vec<(DriftKind, String)>,
}

/// The session of a comparison: earlier claims of the same one are ended.
async fn session(cx: &StepContext<Compare>) -> Result<Session, StepError> {
    let mut session = server(cx.world().server.session(&cx.application_name()).await)?;
    server(session.end_lower_epochs().await)?;
    cx.ensure_leased().await?;
    Ok(session)
}

/// Looks at what is there, then at what should be, in this order: what is made after the look is in no list of what is
/// there, and what was there has its row already.
struct Look;

#[async_trait]
impl Step<Compare> for Look {
    fn name(&self) -> &'static str {
        "compare"
    }

    async fn apply(&self, cx: &StepContext<Compare>) -> StepResult {
        let world = cx.world();
        let mut session = session(cx).await?;
        let under_way = files(world.filestore.under_way().await)?;
        let mut actual = Actual::look(cx, &mut session, None).await?;
        session.close().await;
        let plan = Plan::new(world, database(reconcile::all(&world.database).await)?).await?;
        actual.try_passwords(cx, &plan.wanted).await?;

        // Trees on their way that no operation knows hold copies alone: they were never published, or are discarded.
        let left_behind = under_way
            .into_iter()
            .filter(|tree| plan.is_left_behind(tree))
            .collect();
        cx.ensure_leased().await?;
        match files(world.filestore.remove_left_behind(left_behind).await)? {
            0 => {}
            removed => tracing::info!(removed, "removed files that operations left on their way"),
        }
        cx.remember(&suspicions(&plan, &mut actual))
    }

    async fn undo(&self, _: &StepContext<Compare>) -> StepResult {
        Ok(())
    }
}

fn suspicions(plan: &Plan, actual: &mut Actual) -> Suspicions {
    let mut suspicions = Suspicions {
        names: Vec::new(),
        listed: Vec::new(),
        held: Vec::new(),
    };
    for name in plan.wanted.keys() {
        actual.found.entry(name.clone()).or_default();
    }
    for (name, found) in &actual.found {
        let of_name = of_name(plan, name, found);
        if of_name.is_empty() {
            continue;
        }
        if plan.is_worked_on(name) {
            suspicions.held.extend(of_name);
        } else {
            suspicions.names.push((name.clone(), of_name));
        }
    }
    // What nobody knows comes first: its host may be another's by now.
    suspicions
        .names
        .sort_by_key(|(name, _)| plan.wanted.contains_key(name));
    for container in &actual.poolless {
        let stray = stray_container(&container.name);
        suspicions.listed.push(Finding {
            kind: stray.kind,
            subject: stray.subject,
            target: None,
            detail: stray.detail,
        });
    }
    suspicions
}

fn of_name(plan: &Plan, name: &DatabaseName, found: &Found) -> Vec<(DriftKind, String)> {
    differences(name, plan.wanted.get(name), found)
        .into_iter()
        .filter(|difference| !is_a_running_tasks(plan, difference))
        .map(|difference| (difference.kind, difference.subject))
        .collect()
}

/// Looks again at each suspicion while nothing else can work on it, and does what may be done.
struct Repair;

#[async_trait]
impl Step<Compare> for Repair {
    fn name(&self) -> &'static str {
        "repair"
    }

    // Containers that are made anew are given a minute each to end what they do.
    fn deadline(&self) -> Duration {
        Duration::from_secs(900)
    }

    async fn apply(&self, cx: &StepContext<Compare>) -> StepResult {
        let suspicions = recalled::<Suspicions>(cx, Look.name())?;
        let settled = database(reconcile::settled(&cx.world().database).await)?;
        let mut session = session(cx).await?;
        let mut left = Left {
            findings: suspicions.listed,
            unseen: suspicions.held,
        };
        let (mut repaired_in_all, suspects) = (0, suspicions.names.len());
        for (done, (name, suspected)) in suspicions.names.into_iter().enumerate() {
            cx.check()?;
            let percent = u8::try_from(done * 100 / suspects).unwrap_or(100);
            cx.progress(percent, &format!("{done} of {suspects} differences looked at"))
                .await?;
            match repair::repair(cx, &mut session, &name, &settled).await? {
                Outcome::Held => left.unseen.extend(suspected),
                Outcome::Seen {
                    left: found,
                    repaired,
                } => {
                    left.findings.extend(found);
                    repaired_in_all += repaired;
                }
            }
        }
        session.close().await;
        let (listed, unseen) = (left.findings.len(), left.unseen.len());
        tracing::info!(
            repaired = repaired_in_all,
            listed,
            unseen,
            "compared the tables with what is there"
        );
        cx.remember(&left)
    }

    async fn undo(&self, _: &StepContext<Compare>) -> StepResult {
        Ok(())
    }
}

/// Brings the list up to date, all of it at once.
struct WriteDown;

#[async_trait]
impl Step<Compare> for WriteDown {
    fn name(&self) -> &'static str {
        "write_down"
    }

    async fn apply(&self, cx: &StepContext<Compare>) -> StepResult {
        let left = recalled::<Left>(cx, Repair.name())?;
        let transaction = cx.begin().await?;
        reconcile::record(&transaction, &left.findings, &left.unseen).await?;
        transaction.commit().await
    }

    async fn undo(&self, _: &StepContext<Compare>) -> StepResult {
        Ok(())
    }
}

/// What an earlier step remembered.
fn recalled<T: serde::de::DeserializeOwned>(cx: &StepContext<Compare>, step: &str) -> Result<T, StepError> {
    cx.recall(step)?.ok_or_else(|| {
        StepError::permanent("internal", "A step left nothing for the next one.").detailed(step)
    })
}
