//! The engine's decisions as pure functions: no I/O, no clock, no randomness.
//!
//! The statements in `store` carry these out atomically; nothing here may be decided anywhere else. [`Row`] is a job's row
//! under those statements: the whole protocol apart from its I/O, which `tests/model` walks through in every order that
//! faults and delays can bring about.

mod row;

pub use self::row::{Due, Finish, Row, Turn, Written, ahead, ahead_in_line};
use crate::entity::job::{Ending, JobState};

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker takes it: due, and its serial key free or its own.
    Claim,
    /// A worker found its serial key held by another job, or every slot of its scope.
    Wait,
    /// What it waited for came free.
    Wake,
    /// Its worker lets go of it: to be tried again later, or because the process ends.
    Release,
    /// Its worker ended it, with nothing left to do or to undo.
    Finish,
    /// Its worker gave it up half-way.
    GiveUp,
    /// A cancel before the first claim.
    CancelUnclaimed,
    /// An operator revives it.
    Revive,
}

impl JobState {
    /// The table of transitions; none where the event can't happen.
    #[must_use]
    pub const fn next(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Ready | Self::Leased, Event::Claim) => Some(Self::Leased),
            (Self::Ready, Event::Wait) => Some(Self::Blocked),
            (Self::Blocked, Event::Wake) | (Self::Leased, Event::Release) | (Self::Dead, Event::Revive) => {
                Some(Self::Ready)
            }
            (Self::Leased, Event::Finish) | (Self::Ready | Self::Blocked, Event::CancelUnclaimed) => {
                Some(Self::Finished)
            }
            (Self::Leased, Event::GiveUp) => Some(Self::Dead),
            _ => None,
        }
    }

    /// Whether a worker will still touch it.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Ready | Self::Leased | Self::Blocked)
    }
}

/// What to do with an entry of the stream, given the job's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Take it under the next epoch.
    Take,
    /// Another worker holds it, or it is not due: this entry is a duplicate; whatever comes later has its own.
    Duplicate,
    /// Its serial key is another job's, or another's turn comes first: wait for that one's end.
    KeyTaken,
    /// As many jobs of its scope run as may: wait in its scope's line.
    SlotTaken,
    /// It is over.
    Over,
}

/// What a scope has for one of its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Room {
    /// No bound on how many of its jobs run at a time.
    Unbounded,
    /// A slot is free, and nobody's whose turn comes first.
    Open,
    /// No such slot.
    Full,
}

/// Whether a scope has room for a job. `held`: its jobs that run, each with a slot; `ahead`: its jobs in line whose turn
/// comes first, each of which has a free slot as good as taken.
#[must_use]
pub const fn room(cap: Option<u16>, held: usize, ahead: usize) -> Room {
    match cap {
        None => Room::Unbounded,
        Some(cap) if held + ahead < cap as usize => Room::Open,
        Some(_) => Room::Full,
    }
}

/// Whether a job may be claimed. `due` is by Postgres's clock: `due_at` of a ready job is when it may run, of a leased
/// one when its lease ends, so one rule serves both the claim and the theft. `key_taken`: another job
/// holds the serial key, or is ahead in its line. The key comes before the slot: who waits for its key keeps no slot
/// from others. A theft needs no room: it goes on with the slot that the job has.
#[must_use]
pub const fn claim(state: JobState, due: bool, key_taken: bool, room: Room) -> ClaimVerdict {
    match state {
        JobState::Finished | JobState::Dead => ClaimVerdict::Over,
        JobState::Blocked => ClaimVerdict::Duplicate,
        JobState::Ready | JobState::Leased if !due => ClaimVerdict::Duplicate,
        JobState::Ready if key_taken => ClaimVerdict::KeyTaken,
        JobState::Ready if matches!(room, Room::Full) => ClaimVerdict::SlotTaken,
        JobState::Ready | JobState::Leased => ClaimVerdict::Take,
    }
}

/// Where a claimed job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Claims in a row that persisted no step, this one included.
    pub attempts: i32,
    /// The kind's bound on them.
    pub limit: i32,
    /// Someone asked for its end.
    pub cancel_requested: bool,
    /// It has passed its pivot.
    pub pivoted: bool,
    /// It undoes already.
    pub ending: Option<Ending>,
}

/// What a worker does with a job that it has just claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Go on with the next step.
    Forward,
    /// Begin to undo.
    TurnBack(Ending),
    /// Go on undoing.
    Back,
    /// Leave it dead.
    GiveUp,
}

/// The course of a claimed job. Claims that persisted nothing are what a job that kills its workers leaves behind:
/// after `limit` of them it is not run again, and its undo gets as many of its own.
#[must_use]
pub const fn course(standing: &Standing) -> Course {
    let exhausted = standing.attempts > standing.limit;
    match standing.ending {
        Some(_) if exhausted => Course::GiveUp,
        Some(_) => Course::Back,
        None if standing.pivoted && exhausted => Course::GiveUp,
        None if standing.pivoted => Course::Forward,
        None if standing.cancel_requested => Course::TurnBack(Ending::Cancelled),
        None if exhausted => Course::TurnBack(Ending::Failed),
        None => Course::Forward,
    }
}

/// What a worker does after a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterError {
    /// Release the job and try again later.
    Retry,
    /// Begin to undo, the failed step first.
    TurnBack(Ending),
    /// Leave it dead.
    GiveUp,
}

/// What follows a failed step, in the direction that `standing.ending` tells. An undo is never given up for a permanent
/// error alone: leaving things behind is the last resort.
#[must_use]
pub const fn after_error(standing: &Standing, permanent: bool) -> AfterError {
    let last = standing.attempts >= standing.limit;
    if standing.ending.is_some() {
        return if last {
            AfterError::GiveUp
        } else {
            AfterError::Retry
        };
    }
    if standing.cancel_requested && !standing.pivoted {
        return AfterError::TurnBack(Ending::Cancelled);
    }
    match (permanent || last, standing.pivoted) {
        (false, _) => AfterError::Retry,
        (true, true) => AfterError::GiveUp,
        (true, false) => AfterError::TurnBack(Ending::Failed),
    }
}

/// Whether an end that the kind's own part of it refused is tried again; otherwise the job is dead without that part.
#[must_use]
pub const fn end_again(standing: &Standing) -> bool {
    standing.attempts < standing.limit
}

/// What a cancel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelVerdict {
    /// Nothing was ever done: ends at once.
    End,
    /// Sets the flag; a worker undoes.
    Ask,
    /// Too late: past the pivot.
    Pivoted,
    /// Too late: over.
    Over,
}

/// Whether and how a job can be cancelled. `claimed`: a worker held it at least once.
#[must_use]
pub const fn cancel(state: JobState, claimed: bool, pivoted: bool) -> CancelVerdict {
    match state {
        JobState::Finished | JobState::Dead => CancelVerdict::Over,
        _ if pivoted => CancelVerdict::Pivoted,
        JobState::Ready | JobState::Blocked if !claimed => CancelVerdict::End,
        JobState::Ready | JobState::Blocked | JobState::Leased => CancelVerdict::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [JobState; 5] = [
        JobState::Ready,
        JobState::Leased,
        JobState::Blocked,
        JobState::Finished,
        JobState::Dead,
    ];
    const EVENTS: [Event; 8] = [
        Event::Claim,
        Event::Wait,
        Event::Wake,
        Event::Release,
        Event::Finish,
        Event::GiveUp,
        Event::CancelUnclaimed,
        Event::Revive,
    ];

    fn standings() -> impl Iterator<Item = Standing> {
        let endings = [None, Some(Ending::Failed), Some(Ending::Cancelled)];
        (0..=7).flat_map(move |attempts| {
            endings.into_iter().flat_map(move |ending| {
                [(false, false), (false, true), (true, false), (true, true)].map(
                    |(cancel_requested, pivoted)| Standing {
                        attempts,
                        limit: 5,
                        cancel_requested,
                        pivoted,
                        ending,
                    },
                )
            })
        })
    }

    #[test]
    fn what_is_finished_never_moves_again() {
        for event in EVENTS {
            assert_eq!(JobState::Finished.next(event), None, "{event:?}");
        }
    }

    #[test]
    fn a_claim_is_taken_exactly_where_the_table_allows_it() {
        for state in STATES {
            for due in [false, true] {
                for (taken, room) in [
                    (false, Room::Unbounded),
                    (false, Room::Open),
                    (false, Room::Full),
                    (true, Room::Open),
                    (true, Room::Full),
                ] {
                    match claim(state, due, taken, room) {
                        ClaimVerdict::Take => assert!(due && state.next(Event::Claim).is_some(), "{state:?}"),
                        ClaimVerdict::KeyTaken => assert!(taken && state.next(Event::Wait).is_some()),
                        ClaimVerdict::SlotTaken => {
                            assert!(!taken && room == Room::Full && state.next(Event::Wait).is_some());
                        }
                        ClaimVerdict::Over => assert!(!state.is_live()),
                        ClaimVerdict::Duplicate => assert!(state.is_live()),
                    }
                }
            }
        }
    }

    #[test]
    fn a_free_slot_is_for_the_first_in_line() {
        assert_eq!(room(None, 100, 100), Room::Unbounded);
        assert_eq!(room(Some(2), 1, 0), Room::Open);
        assert_eq!(room(Some(2), 1, 1), Room::Full);
        assert_eq!(room(Some(2), 2, 0), Room::Full);
        // After the cap was lowered.
        assert_eq!(room(Some(2), 5, 0), Room::Full);
    }

    #[test]
    fn a_pivoted_job_never_turns_back_and_no_failure_loops_for_ever() {
        for standing in standings() {
            let turns = matches!(course(&standing), Course::TurnBack(_));
            assert!(!(turns && standing.pivoted), "{standing:?}");
            for permanent in [false, true] {
                let after = after_error(&standing, permanent);
                assert!(
                    !(matches!(after, AfterError::TurnBack(_)) && standing.pivoted),
                    "{standing:?}"
                );
                if standing.attempts >= standing.limit {
                    assert_ne!(after, AfterError::Retry, "{standing:?}");
                }
            }
        }
    }

    #[test]
    fn a_cancel_before_the_pivot_wins_over_everything_but_a_failure_that_undoes_already() {
        for standing in standings().filter(|it| it.cancel_requested && !it.pivoted && it.ending.is_none()) {
            assert_eq!(course(&standing), Course::TurnBack(Ending::Cancelled));
            for permanent in [false, true] {
                assert_eq!(
                    after_error(&standing, permanent),
                    AfterError::TurnBack(Ending::Cancelled)
                );
            }
        }
    }

    #[test]
    fn what_no_worker_ever_held_is_cancelled_at_once_and_nothing_else_is() {
        for state in STATES {
            for claimed in [false, true] {
                for pivoted in [false, true] {
                    if cancel(state, claimed, pivoted) == CancelVerdict::End {
                        assert!(!claimed && !pivoted && state.next(Event::CancelUnclaimed).is_some());
                    }
                }
            }
        }
    }
}
