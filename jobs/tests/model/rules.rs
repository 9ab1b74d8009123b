//! What must be true of every state and of every move.

use jobs::{
    entity::job::JobState,
    protocol::{Finish, Row},
};

use crate::world::{Job, Scenario, Worker, World};

pub(crate) const DEAD_WRITE: &str = "a dead epoch wrote";
pub(crate) const STOLEN_EARLY: &str = "a lease was stolen before it ended";
pub(crate) const TWO_LIVE: &str = "two workers hold one job under a live epoch";
pub(crate) const KEY_SHARED: &str = "a job was claimed while another one has its key";
pub(crate) const CAP_EXCEEDED: &str = "more jobs of a scope run than may";
pub(crate) const TRIED_TOO_OFTEN: &str = "a step was begun after too many claims that persisted nothing";
pub(crate) const PIVOT_UNDONE: &str = "a job past its pivot undoes";
pub(crate) const CANCEL_LOST: &str = "a cancel that was accepted came to nothing";
pub(crate) const FINISHED_CHANGED: &str = "a job that was over changed";
pub(crate) const STUCK: &str = "a job can't end any more without a fault's help";
const ROW: &str = "a row that Postgres would refuse";
const HALF_DONE: &str = "a job ended half-way";

/// Which rule a state breaks.
pub(crate) fn broken(scenario: &Scenario, world: &World) -> Option<&'static str> {
    let holders = world.jobs.iter().filter(|job| job.row.holds_key).count();
    if scenario.keyed && holders > 1 {
        return Some(KEY_SHARED);
    }
    for (id, job) in world.jobs.iter().enumerate() {
        if let Some(cap) = scenario.cap {
            let running = world
                .scope(scenario, id)
                .filter(|other| world.jobs[*other].truth.lease.is_some());
            if running.count() > usize::from(cap) {
                return Some(CAP_EXCEEDED);
            }
        }
        let live = world.workers.iter().filter(
            |worker| matches!(worker, Worker::Holding(hold) if hold.job == id && job.row.is_held_under(hold.epoch)),
        );
        if live.count() > 1 {
            return Some(TWO_LIVE);
        }
        if let Some(rule) = broken_by(scenario, job) {
            return Some(rule);
        }
    }
    None
}

fn broken_by(scenario: &Scenario, Job { row, truth, .. }: &Job) -> Option<&'static str> {
    let Row {
        state,
        keyed,
        holds_key,
        in_line,
        pivoted,
        ending,
        position,
        cancel_requested,
        ..
    } = *row;
    if pivoted && ending.is_some() {
        return Some(PIVOT_UNDONE);
    }
    // An accepted cancel is undone before the pivot; past it none is accepted.
    if cancel_requested && pivoted {
        return Some(CANCEL_LOST);
    }
    // The table's own checks.
    let may_hold =
        matches!(state, JobState::Ready | JobState::Leased) || state == JobState::Blocked && in_line;
    if holds_key && !(keyed && may_hold) {
        return Some(ROW);
    }
    match truth.ended {
        Some(Finish::Succeeded) if cancel_requested => Some(CANCEL_LOST),
        Some(Finish::Succeeded) if position != scenario.steps => Some(HALF_DONE),
        Some(Finish::Undone(as_what)) if position != 0 || ending != Some(as_what) => Some(HALF_DONE),
        _ => None,
    }
}

/// Which rule a move breaks.
pub(crate) fn broken_on_the_way(before: &World, after: &World) -> Option<&'static str> {
    let mut pairs = before.jobs.iter().zip(&after.jobs);
    pairs
        .any(|(old, new)| old.row.state == JobState::Finished && old.row != new.row)
        .then_some(FINISHED_CHANGED)
}
