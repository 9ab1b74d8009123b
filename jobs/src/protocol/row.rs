//! A job's row and what each statement of `store` does to it, without a database: the protocol as a machine that a
//! program can walk through all by itself.
//!
//! Time is left to whoever drives the machine. A method that sets `due_at` says so by answering a [`Due`]; whether a
//! moment has come is an argument. So is what other rows say: whether a job is behind another in the line of its key.

use super::{CancelVerdict, ClaimVerdict, Event, cancel, claim};
use crate::entity::job::{Ending, JobState};

/// One job, its operation's flags included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where it stands between its workers.
    pub state: JobState,
    /// Raised by each claim.
    pub epoch: i64,
    /// Claims in a row that persisted no step.
    pub attempts: i32,
    /// Whether it has a serial key.
    pub keyed: bool,
    /// From the first claim to the end.
    pub holds_key: bool,
    /// Steps that are done.
    pub position: i32,
    /// Set once it undoes.
    pub ending: Option<Ending>,
    /// Someone asked for its end.
    pub cancel_requested: bool,
    /// From here on it only goes forward.
    pub pivoted: bool,
    /// An entry for it went to the outbox since it last was let go of.
    pub announced: bool,
}

/// What `due_at` becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// This moment.
    Now,
    /// The end of the lease.
    LeaseEnd,
    /// When it is tried again.
    Retry,
}

/// How a worker ends a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// Every step is done.
    Succeeded,
    /// Failed or cancelled, and undone.
    Undone(Ending),
    /// Given up half-way.
    Dead,
}

/// What came of a write that a live epoch may only do while no cancel came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// A cancel came first, and wins: nothing is written.
    CancelledFirst,
    /// The epoch is dead: nothing is written.
    Lost,
}

/// What another job of the same key needs to know of a job's turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Its place among all jobs: older ones have lower ones.
    pub id: u128,
    /// Where it stands.
    pub state: JobState,
    /// Whether it holds the key.
    pub holds_key: bool,
    /// Whether its time has come.
    pub due: bool,
}

/// Whether `other`, of the same key, has its turn before the job `id`: the one that holds the key, and older ones that
/// wait for it or could run now. Not those whose own time has not come.
#[must_use]
pub const fn ahead(other: &Turn, id: u128) -> bool {
    other.id != id
        && other.state.is_live()
        && (other.holds_key || other.id < id && (matches!(other.state, JobState::Blocked) || other.due))
}

impl Row {
    /// A job as it is enqueued, to run at once.
    #[must_use]
    pub const fn new(keyed: bool) -> Self {
        Self {
            state: JobState::Ready,
            epoch: 0,
            attempts: 0,
            keyed,
            holds_key: false,
            position: 0,
            ending: None,
            cancel_requested: false,
            pivoted: false,
            announced: true,
        }
    }

    /// Whether an epoch is alive: every write of a running job is conditional on it.
    #[must_use]
    pub const fn is_held_under(&self, epoch: i64) -> bool {
        matches!(self.state, JobState::Leased) && self.epoch == epoch
    }

    /// What a worker that read an entry finds; on [`ClaimVerdict::Take`] the job is its, until [`Due::LeaseEnd`]. On
    /// [`ClaimVerdict::KeyTaken`] it goes on to [`block`](Self::block).
    pub const fn claim(&mut self, due: bool, behind: bool) -> ClaimVerdict {
        let verdict = claim(self.state, due, behind && !self.holds_key);
        if matches!(verdict, ClaimVerdict::Take)
            && let Some(state) = self.state.next(Event::Claim)
        {
            self.state = state;
            self.epoch += 1;
            self.attempts += 1;
            self.holds_key = self.keyed;
        }
        verdict
    }

    /// Puts it to wait for its key, if it is still behind another. False: nothing was done.
    pub const fn block(&mut self, behind: bool) -> bool {
        if !behind || self.holds_key {
            return false;
        }
        self.follow(Event::KeyTaken)
    }

    /// Renews the lease to [`Due::LeaseEnd`]. False: the epoch is dead.
    #[must_use]
    pub const fn renew(&self, epoch: i64) -> bool {
        self.is_held_under(epoch)
    }

    /// Persists the end of a step, or that it turns back. False: the epoch is dead.
    pub const fn advance(&mut self, epoch: i64, position: i32, turn: Option<Ending>) -> bool {
        if !self.is_held_under(epoch) {
            return false;
        }
        self.position = position;
        self.attempts = 0;
        if turn.is_some() {
            self.ending = turn;
        }
        true
    }

    /// Passes the pivot.
    pub const fn pass_pivot(&mut self, epoch: i64) -> Written {
        if !self.is_held_under(epoch) {
            return Written::Lost;
        }
        if self.cancel_requested {
            return Written::CancelledFirst;
        }
        self.pivoted = true;
        Written::Done
    }

    /// Lets go of it until [`Due::Retry`]; the key stays held. False: the epoch is dead.
    pub const fn release(&mut self, epoch: i64) -> bool {
        if !self.is_held_under(epoch) {
            return false;
        }
        self.announced = false;
        self.follow(Event::Release)
    }

    /// Lets go of it, announced and [`Due::Now`], without charging the attempt. False: the epoch is dead.
    pub const fn release_uncharged(&mut self, epoch: i64) -> bool {
        if !self.is_held_under(epoch) {
            return false;
        }
        if self.attempts > 0 {
            self.attempts -= 1;
        }
        self.announced = true;
        self.follow(Event::Release)
    }

    /// Ends it, and with the end writes how many steps are done if a last one was just now. Who waits for its key is
    /// [woken](Self::wake) then.
    pub const fn finish(&mut self, epoch: i64, how: Finish, last: Option<i32>) -> Written {
        if !self.is_held_under(epoch) {
            return Written::Lost;
        }
        if matches!(how, Finish::Succeeded) && self.cancel_requested && !self.pivoted {
            return Written::CancelledFirst;
        }
        if let Some(position) = last {
            self.position = position;
        }
        self.holds_key = false;
        self.announced = false;
        self.follow(match how {
            Finish::Succeeded | Finish::Undone(_) => Event::Finish,
            Finish::Dead => Event::GiveUp,
        });
        Written::Done
    }

    /// Asks for its end. On [`CancelVerdict::End`] it is over, and who waits for its key is [woken](Self::wake); on
    /// [`CancelVerdict::Ask`] it is [nudged](Self::nudge).
    pub const fn cancel(&mut self) -> CancelVerdict {
        let verdict = cancel(self.state, self.epoch > 0, self.pivoted);
        match verdict {
            CancelVerdict::End => {
                self.cancel_requested = true;
                self.ending = Some(Ending::Cancelled);
                self.follow(Event::CancelUnclaimed);
            }
            CancelVerdict::Ask => self.cancel_requested = true,
            CancelVerdict::Pivoted | CancelVerdict::Over => {}
        }
        verdict
    }

    /// Announces one that waits for its next attempt, [`Due::Now`]. False: it does not wait.
    pub const fn nudge(&mut self, due: bool) -> bool {
        let waits = matches!(self.state, JobState::Ready) && !due;
        if waits {
            self.announced = true;
        }
        waits
    }

    /// Brings a dead one back, announced and [`Due::Now`]. False: it is not dead.
    pub const fn revive(&mut self) -> bool {
        if !self.follow(Event::Revive) {
            return false;
        }
        self.attempts = 0;
        self.announced = true;
        true
    }

    /// Announces one that waited for its key, [`Due::Now`]. False: it did not.
    pub const fn wake(&mut self) -> bool {
        let woken = self.follow(Event::KeyFreed);
        if woken {
            self.announced = true;
        }
        woken
    }

    /// What the sweeper does with it: announces what is due and has no entry on its way. `stale`: it was announced, if it
    /// was, so long ago that its entry must be lost. Whose key came free unseen is ready again, due when it was. False:
    /// nothing.
    pub const fn sweep(&mut self, due: bool, stale: bool, behind: bool) -> bool {
        let announces = match self.state {
            JobState::Ready | JobState::Leased => due && (!self.announced || stale),
            JobState::Blocked => !behind && self.follow(Event::KeyFreed),
            JobState::Finished | JobState::Dead => false,
        };
        if announces {
            self.announced = true;
        }
        announces
    }

    /// Steps that may have begun, and are undone when it turns back as it is claimed: those that are done, and one more
    /// that an earlier claim may have left half-way.
    #[must_use]
    pub const fn begun(&self, steps: i32) -> i32 {
        let begun = if self.epoch > 1 {
            self.position + 1
        } else {
            self.position
        };
        if begun < steps { begun } else { steps }
    }

    const fn follow(&mut self, event: Event) -> bool {
        match self.state.next(event) {
            Some(state) => {
                self.state = state;
                true
            }
            None => false,
        }
    }
}
