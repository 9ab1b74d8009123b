//! The model's state: rows, entries on their way, and what each worker believes.

use jobs::{
    entity::job::Ending,
    protocol::{Finish, Room, Row, Standing, Turn, ahead, ahead_in_line, room},
};

/// Ticks that a failed job waits.
pub(crate) const RETRY: u8 = 1;
/// Unread entries of one job that the model tells apart.
pub(crate) const ENTRIES: u8 = 2;

/// What is explored, and how much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) workers: usize,
    pub(crate) jobs: usize,
    /// All jobs have one serial key, but the first so many.
    pub(crate) keyed: bool,
    pub(crate) keyless: usize,
    /// That the jobs belong to, each to the next.
    pub(crate) scopes: usize,
    /// Jobs of a scope that run at a time.
    pub(crate) cap: Option<u16>,
    pub(crate) steps: i32,
    /// From the start of which on a job only goes forward.
    pub(crate) pivot: Option<i32>,
    /// Claims in a row that persist nothing.
    pub(crate) limit: i32,
    /// Ticks that a lease lasts.
    pub(crate) lease: u8,
    /// Crashes, pauses, losses, failures… in all.
    pub(crate) faults: u8,
    pub(crate) cancels: bool,
    /// Of each job.
    pub(crate) revivals: u8,
    pub(crate) flaw: Option<Flaw>,
}

/// A protocol broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Writes of a running job don't look at the epoch.
    WritesUnfenced,
    /// A lease is stolen before it ended.
    StolenEarly,
    /// A thief does not raise the epoch.
    StolenUnderOneEpoch,
    /// A job that waits for its retry lets go of its key.
    KeyFreedAtRetry,
    /// A claim does not look who has the key.
    KeyNotLookedAt,
    /// Claims are not counted.
    ClaimsUncharged,
    /// A claim forgets that the pivot is passed.
    PivotForgotten,
    /// The pivot is passed whether someone cancelled or not.
    PivotOverCancel,
    /// Success is written whether someone cancelled or not.
    SuccessOverCancel,
    /// An entry of a job that is over is worth a claim.
    FinishedClaimed,
    /// Nobody announces again.
    NoSweeper,
    /// Nobody tells who waits for a key that it came free.
    NobodyWoken,
    /// A claim does not look how many of the scope run.
    SlotNotLookedAt,
    /// A job that is over keeps its slot.
    SlotKept,
    /// A thief must find another free slot than the one that the job has.
    TheftNeedsRoom,
    /// Nobody tells who is in line that a slot came free.
    NobodyInLineWoken,
}

impl Flaw {
    pub(crate) const ALL: [Self; 16] = [
        Self::WritesUnfenced,
        Self::StolenEarly,
        Self::StolenUnderOneEpoch,
        Self::KeyFreedAtRetry,
        Self::KeyNotLookedAt,
        Self::ClaimsUncharged,
        Self::PivotForgotten,
        Self::PivotOverCancel,
        Self::SuccessOverCancel,
        Self::FinishedClaimed,
        Self::NoSweeper,
        Self::NobodyWoken,
        Self::SlotNotLookedAt,
        Self::SlotKept,
        Self::TheftNeedsRoom,
        Self::NobodyInLineWoken,
    ];
}

/// A job's row, its entries, and what the model knows of it beyond the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) row: Row,
    /// Ticks until `due_at`.
    pub(crate) due_in: u8,
    /// A row of the outbox.
    pub(crate) outbox: bool,
    /// Entries that no worker has read.
    pub(crate) unread: u8,
    /// An entry that a worker read and never acknowledged, to be taken over.
    pub(crate) abandoned: bool,
    pub(crate) revivals: u8,
    pub(crate) truth: Truth,
}

/// What really happened to a job. Counted apart from its row, so that a broken protocol can't hide it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Truth {
    /// Claims that were granted.
    pub(crate) grants: i64,
    /// The one of them that was neither let go of nor stolen.
    pub(crate) lease: Option<i64>,
    /// Claims in a row after which no step was persisted.
    pub(crate) barren: i32,
    /// Claimed and not over: nobody else may run with its key.
    pub(crate) has_key: bool,
    pub(crate) ended: Option<Finish>,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Worker {
    Idle,
    /// It has read an entry of this job.
    Reading(usize),
    /// It found the job's key taken.
    Blocking(usize),
    /// It found every slot of the job's scope taken.
    Queueing(usize),
    Holding(Hold),
}

/// A claimed job as its worker believes it to be, for however long it slept since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(crate) job: usize,
    pub(crate) epoch: i64,
    /// Which claim it truly was.
    pub(crate) grant: i64,
    pub(crate) standing: Standing,
    pub(crate) position: i32,
    pub(crate) phase: Phase,
}

/// Where a worker is with its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Forward,
    Back,
    /// About to write that it undoes the first `from` steps.
    Turn {
        ending: Ending,
        from: i32,
    },
    /// The last step is done, and the end it led to was not written: about to write the step alone. `refused`: by the kind's
    /// own part of the end; otherwise a cancel came first.
    Keep {
        refused: bool,
    },
    /// About to try the end again later, or to give it up.
    Refused,
    /// About to leave it dead.
    Dying,
}

impl Hold {
    /// For an order that is the same whichever worker is which.
    fn rank(&self) -> impl Ord {
        let ending = |ending: Option<Ending>| match ending {
            None => 0,
            Some(Ending::Failed) => 1,
            Some(Ending::Cancelled) => 2,
        };
        let phase = match self.phase {
            Phase::Forward => (0, 0, 0),
            Phase::Back => (1, 0, 0),
            Phase::Turn { ending: to, from } => (2, ending(Some(to)), from),
            Phase::Dying => (3, 0, 0),
            Phase::Keep { refused } => (4, i32::from(refused), 0),
            Phase::Refused => (5, 0, 0),
        };
        let Standing {
            attempts,
            limit: _,
            cancel_requested,
            pivoted,
            ending: undoing,
        } = self.standing;
        (
            (self.job, self.epoch, self.grant, self.position),
            (attempts, cancel_requested, pivoted, ending(undoing)),
            phase,
        )
    }
}

impl PartialOrd for Hold {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hold {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) jobs: Vec<Job>,
    /// Sorted: workers are all alike.
    pub(crate) workers: Vec<Worker>,
    /// That may still come.
    pub(crate) faults: u8,
}

impl World {
    /// All jobs enqueued, nobody at work yet.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let job = |id| Job {
            row: Row::new(scenario.keyed && id >= scenario.keyless),
            due_in: 0,
            outbox: true,
            unread: 0,
            abandoned: false,
            revivals: scenario.revivals,
            truth: Truth::default(),
        };
        Self {
            jobs: (0..scenario.jobs).map(job).collect(),
            workers: vec![Worker::Idle; scenario.workers],
            faults: scenario.faults,
        }
    }

    fn turn(&self, id: usize) -> Turn {
        let Job { row, due_in, .. } = &self.jobs[id];
        Turn {
            id: id as u128,
            state: row.state,
            holds_key: row.holds_key,
            in_line: row.in_line,
            due: *due_in == 0,
        }
    }

    /// Whether another job of the key has its turn before this one.
    pub(crate) fn behind(&self, id: usize) -> bool {
        let keyed = |other: &usize| self.jobs[*other].row.keyed;
        keyed(&id)
            && (0..self.jobs.len())
                .filter(keyed)
                .any(|other| ahead(&self.turn(other), id as u128))
    }

    /// The jobs of a job's scope, itself included.
    pub(crate) fn scope(&self, scenario: &Scenario, id: usize) -> impl Iterator<Item = usize> + use<> {
        let scopes = scenario.scopes;
        (0..self.jobs.len()).filter(move |other| other % scopes == id % scopes)
    }

    /// Whether a job's scope has room for it.
    pub(crate) fn room(&self, scenario: &Scenario, id: usize) -> Room {
        let held = self
            .scope(scenario, id)
            .filter(|other| self.jobs[*other].row.slot);
        let ahead = self
            .scope(scenario, id)
            .filter(|other| ahead_in_line(&self.turn(*other), id as u128));
        room(scenario.cap, held.count(), ahead.count())
    }

    /// The worker that has this lease, if it is still at it.
    pub(crate) fn is_held(&self, id: usize) -> bool {
        let lease = self.jobs[id].truth.lease;
        self.workers.iter().any(
            |worker| matches!(worker, Worker::Holding(hold) if hold.job == id && Some(hold.grant) == lease),
        )
    }

    pub(crate) fn is_over(&self) -> bool {
        self.jobs.iter().all(|job| !job.row.state.is_live())
    }
}
