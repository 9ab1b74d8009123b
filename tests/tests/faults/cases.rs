//! Which cases there are: points × faults.

use std::fmt;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tests::faults::{Action, Fault, Place};

use crate::run::{self, Rig};
use crate::stages::Stage;

/// A kind of operation as the worker knows it.
#[derive(Deserialize)]
pub struct Kind {
    pub name: String,
    pub steps: Vec<String>,
    pub pivot: Option<usize>,
}

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Succeeded,
    Failed,
    Cancelled,
    /// Given up half-way; then retried by the operator, and this is how it ends then.
    Dead(bool),
}

/// What the test does beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Nothing,
    /// Cancels while the step waits; true: too late.
    Cancel {
        refused: bool,
    },
    /// Wakes the stopped worker after another one has ended the operation.
    Wake,
}

/// One case.
pub struct Case {
    pub kind: String,
    pub stage: &'static dyn Stage,
    pub faults: Vec<Fault>,
    pub deed: Deed,
    pub ending: Ending,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        for fault in &self.faults {
            write!(f, " {:?} at {}", fault.action, fault.place)?;
            if fault.times > 1 {
                write!(f, " ({} times)", fault.times)?;
            }
        }
        if self.deed == Deed::Nothing {
            Ok(())
        } else {
            write!(f, " and {:?}", self.deed)
        }
    }
}

/// Every kind that the worker carries out.
pub fn kinds(program: &str) -> Result<Vec<Kind>> {
    let own = &tests::place::Place::get().worker.environment;
    let told = Command::new(program)
        .arg("kinds")
        .env_clear()
        .envs(own)
        .output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let kinds: Vec<Kind> = serde_json::from_slice(&told.stdout)?;
    ensure!(!kinds.is_empty(), "the worker knows no kind");
    Ok(kinds)
}

/// All cases of a kind.
pub async fn of(rig: &Rig, kind: &Kind, stage: &'static dyn Stage) -> Result<Vec<Case>> {
    let case = |faults, deed, ending| Case {
        kind: kind.name.clone(),
        stage,
        faults,
        deed,
        ending,
    };
    let forward = run::case(rig, &case(Vec::new(), Deed::Nothing, Ending::Succeeded)).await?;
    let mut cases = Vec::new();
    for (number, place) in places(&forward, "apply").into_iter().enumerate() {
        let position = kind
            .steps
            .iter()
            .position(|step| *step == place.step)
            .context("an unknown step")?;
        let pivoted = kind.pivot.is_some_and(|pivot| position >= pivot);
        let once = |action| vec![Fault::once(place.clone(), action)];
        let hopeless = if pivoted {
            Ending::Dead(true)
        } else {
            Ending::Failed
        };
        let cancelled = if pivoted {
            Ending::Succeeded
        } else {
            Ending::Cancelled
        };
        let cancel = Deed::Cancel { refused: pivoted };
        let all = vec![
            case(once(Action::Kill), Deed::Nothing, Ending::Succeeded),
            case(once(Action::Stop), Deed::Wake, Ending::Succeeded),
            case(once(Action::Pause), cancel, cancelled),
            case(once(Action::Permanent), Deed::Nothing, hopeless),
            case(once(Action::Retry), Deed::Nothing, Ending::Succeeded),
            case(once(Action::Panic), Deed::Nothing, Ending::Succeeded),
            case(once(Action::Stopped), Deed::Nothing, Ending::Succeeded),
        ];
        cases.extend(affordable(all, number, stage));
    }
    // The last step that can be undone, once it is done.
    let last = kind.pivot.unwrap_or(kind.steps.len());
    let Some(turn) = last.checked_sub(1) else {
        return Ok(cases);
    };
    let turn = Fault::once(Place::end("apply", &kind.steps[turn]), Action::Permanent);
    let back = run::case(rig, &case(vec![turn.clone()], Deed::Nothing, Ending::Failed)).await?;
    let undone = places(&back, "undo");
    for (number, place) in undone.iter().enumerate() {
        let then = |action| vec![turn.clone(), Fault::once(place.clone(), action)];
        let all = vec![
            case(then(Action::Kill), Deed::Nothing, Ending::Failed),
            case(then(Action::Stop), Deed::Wake, Ending::Failed),
            // At its end: an undo that is done twice.
            case(then(Action::Retry), Deed::Nothing, Ending::Failed),
            case(then(Action::Permanent), Deed::Nothing, Ending::Failed),
            case(then(Action::Panic), Deed::Nothing, Ending::Failed),
        ];
        cases.extend(affordable(all, number, stage));
    }
    // An undo that fails as often as it is tried.
    let always = Fault {
        place: undone.into_iter().next().context("nothing is undone")?,
        action: Action::Retry,
        times: ATTEMPTS,
    };
    cases.push(case(vec![turn, always], Deed::Nothing, Ending::Dead(false)));
    Ok(cases)
}

/// Where a case costs much: at every point one fault, by turns. `FAULTS=all` runs them all.
fn affordable(all: Vec<Case>, number: usize, stage: &dyn Stage) -> Vec<Case> {
    if !stage.is_costly() || std::env::var("FAULTS").is_ok_and(|wish| wish == "all") {
        return all;
    }
    let turn = number % all.len();
    all.into_iter().skip(turn).take(1).collect()
}

/// Tries after which an undo is given up: one under the claim that began to undo, and five claims that got no further.
const ATTEMPTS: u32 = 6;

fn places(passed: &[Place], direction: &str) -> Vec<Place> {
    let mut places: Vec<Place> = passed
        .iter()
        .filter(|place| place.direction == direction)
        .cloned()
        .collect();
    places.dedup();
    places
}
