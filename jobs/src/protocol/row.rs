//! A job's row and what each statement of `store` does to it, without a database: the protocol as a machine that a
//! program can walk through all by itself.
//!
//! Time is left to whoever drives the machine. A method that sets `due_at` says so by answering a [`Due`]; whether a
//! moment has come is an argument. So is what other rows say: whether a job is behind another in the line of its key, and
//! whether its scope has room for it.

use super::{CancelVerdict, ClaimVerdict, Event, Room, cancel, claim};
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
    /// One of its scope's slots is its, while it is leased.
    pub slot: bool,
    /// From when it found no slot to its next claim: those behind it leave it the slots that come free.
    pub in_line: bool,
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

/// What another job of the same key or scope needs to know of a job's turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Its place among all jobs: older ones have lower ones, and scheduled ones count as younger than they are.
    pub id: u128,
    /// Where it stands.
    pub state: JobState,
    /// Whether it holds the key.
    pub holds_key: bool,
    /// Whether it is in line for a slot.
    pub in_line: bool,
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

/// Whether `other`, of the same scope, has the next free slot before the job `id`: it is in line, before it. One that was
/// woken and not claimed yet still is.
#[must_use]
pub const fn ahead_in_line(other: &Turn, id: u128) -> bool {
    other.id < id
        && other.in_line
        && match other.state {
            JobState::Blocked => true,
            JobState::Ready => other.due,
            JobState::Leased | JobState::Finished | JobState::Dead => false,
        }
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
            slot: false,
            in_line: false,
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
    /// [`ClaimVerdict::KeyTaken`] it goes on to [`block`](Self::block), on [`ClaimVerdict::SlotTaken`] to
    /// [`queue`](Self::queue).
    pub const fn claim(&mut self, due: bool, behind: bool, room: Room) -> ClaimVerdict {
        let verdict = claim(self.state, due, behind && !self.holds_key, room);
        if matches!(verdict, ClaimVerdict::Take)
            && let Some(state) = self.state.next(Event::Claim)
        {
            self.state = state;
            self.epoch += 1;
            self.attempts += 1;
            self.holds_key = self.keyed;
            // A stolen one keeps what it has.
            self.slot |= matches!(room, Room::Open);
            self.in_line = false;
        }
        verdict
    }

    /// Puts it to wait for its key, if it is still behind another. False: nothing was done.
    pub const fn block(&mut self, behind: bool) -> bool {
        if !behind || self.holds_key {
            return false;
        }
        let blocked = self.follow(Event::Wait);
        self.in_line &= !blocked;
        blocked
    }

    /// Puts it in line for a slot of its scope, if there is still none for it. It keeps its key if it has begun, and takes
    /// none otherwise. False: nothing was done.
    pub const fn queue(&mut self, room: Room) -> bool {
        let queued = matches!(room, Room::Full) && self.follow(Event::Wait);
        self.in_line |= queued;
        queued
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

    /// Lets go of it until [`Due::Retry`]; the key stays held, and the first in line for its slot is
    /// [woken](Self::wake). False: the epoch is dead.
    pub const fn release(&mut self, epoch: i64) -> bool {
        if !self.is_held_under(epoch) {
            return false;
        }
        self.slot = false;
        self.announced = false;
        self.follow(Event::Release)
    }

    /// Lets go of it, announced and [`Due::Now`], without charging the attempt; the first in line for its slot is
    /// [woken](Self::wake). False: the epoch is dead.
    pub const fn release_uncharged(&mut self, epoch: i64) -> bool {
        if !self.is_held_under(epoch) {
            return false;
        }
        self.slot = false;
        if self.attempts > 0 {
            self.attempts -= 1;
        }
        self.announced = true;
        self.follow(Event::Release)
    }

    /// Ends it, and with the end writes how many steps are done if a last one was just now. Who waits for its key,
    /// and the first in line for its slot, are [woken](Self::wake) then.
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
        self.slot = false;
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

    /// Announces one that waited for its key or for a slot, [`Due::Now`]. False: it did not.
    pub const fn wake(&mut self) -> bool {
        let woken = self.follow(Event::Wake);
        if woken {
            self.announced = true;
        }
        woken
    }

    /// What the sweeper does with it: announces what is due and has no entry on its way. `stale`: it was announced, if it
    /// was, so long ago that its entry must be lost. Whose key or slot came free unseen is ready again, due when it was.
    /// False: nothing.
    pub const fn sweep(&mut self, due: bool, stale: bool, behind: bool, room: Room) -> bool {
        let announces = match self.state {
            JobState::Ready | JobState::Leased => due && (!self.announced || stale),
            // In line, whatever its key: one that must wait for that makes place for those behind it.
            JobState::Blocked if self.in_line => !matches!(room, Room::Full) && self.follow(Event::Wake),
            JobState::Blocked => !behind && self.follow(Event::Wake),
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

    /// Leaves it to workers that know its kind, later, [`Due::Retry`]: those behind it in line need not wait for them.
    /// False: it is not there to be taken.
    pub const fn defer(&mut self, due: bool) -> bool {
        let left = due && matches!(self.state, JobState::Ready | JobState::Leased);
        if left {
            self.announced = false;
            self.in_line = false;
        }
        left
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
