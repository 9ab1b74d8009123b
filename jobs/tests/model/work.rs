//! What a worker does, as the engine's own does it: every decision is the protocol's, every write the row's.

use jobs::{
    entity::job::{Ending, JobState},
    protocol::{
        AfterError, ClaimVerdict, Course, Finish, Room, Row, Standing, Written, after_error, course,
        end_again,
    },
};

use crate::{
    moves::StepEnds,
    rules,
    world::{Flaw, Hold, Phase, RETRY, Scenario, Worker, World},
};

/// A rule that a move breaks.
pub(crate) struct Broken(pub(crate) &'static str);

pub(crate) const CANCELLED: Finish = Finish::Undone(Ending::Cancelled);

/// A worker that read an entry tries to claim its job. Whether it got it.
pub(crate) fn claim(scenario: &Scenario, world: &mut World, worker: usize) -> Result<bool, Broken> {
    let Worker::Reading(id) = world.workers[worker] else {
        return Ok(false);
    };
    let behind = world.behind(id) && scenario.flaw != Some(Flaw::KeyNotLookedAt);
    let room = match scenario.flaw {
        Some(Flaw::SlotNotLookedAt) => Room::Open,
        _ => world.room(scenario, id),
    };
    let key_is_free = (0..world.jobs.len()).all(|other| other == id || !world.jobs[other].truth.has_key);
    let job = &mut world.jobs[id];
    let (before, ended) = (job.row, job.due_in == 0);
    if scenario.flaw == Some(Flaw::FinishedClaimed) && before.state == JobState::Finished {
        job.row.state = JobState::Ready;
    }
    let stolen = before.state == JobState::Leased;
    let early = stolen && scenario.flaw == Some(Flaw::StolenEarly);
    if scenario.flaw == Some(Flaw::TheftNeedsRoom) && stolen && room == Room::Full {
        world.workers[worker] = Worker::Idle;
        return Ok(false);
    }
    match job.row.claim(ended || early, behind, room) {
        ClaimVerdict::Over | ClaimVerdict::Duplicate => {
            world.workers[worker] = Worker::Idle;
            return Ok(false);
        }
        ClaimVerdict::KeyTaken => {
            world.workers[worker] = Worker::Blocking(id);
            return Ok(false);
        }
        ClaimVerdict::SlotTaken => {
            world.workers[worker] = Worker::Queueing(id);
            return Ok(false);
        }
        ClaimVerdict::Take => {}
    }
    if stolen && !ended {
        return Err(Broken(rules::STOLEN_EARLY));
    }
    if before.keyed && !key_is_free {
        return Err(Broken(rules::KEY_SHARED));
    }
    match scenario.flaw {
        Some(Flaw::ClaimsUncharged) => job.row.attempts -= 1,
        Some(Flaw::StolenUnderOneEpoch) if stolen => job.row.epoch -= 1,
        _ => {}
    }
    job.due_in = scenario.lease;
    job.truth.grants += 1;
    job.truth.barren += 1;
    job.truth.lease = Some(job.truth.grants);
    job.truth.has_key = before.keyed;
    let standing = Standing {
        attempts: job.row.attempts,
        limit: scenario.limit,
        cancel_requested: job.row.cancel_requested,
        pivoted: job.row.pivoted && scenario.flaw != Some(Flaw::PivotForgotten),
        ending: job.row.ending,
    };
    let phase = match course(&standing) {
        Course::Forward => Phase::Forward,
        Course::Back => Phase::Back,
        Course::TurnBack(ending) => Phase::Turn {
            ending,
            from: job.row.begun(scenario.steps),
        },
        Course::GiveUp => Phase::Dying,
    };
    world.workers[worker] = Worker::Holding(Hold {
        job: id,
        epoch: job.row.epoch,
        grant: job.truth.grants,
        standing,
        position: job.row.position,
        phase,
    });
    Ok(true)
}

/// A worker that found a key taken puts the job to wait for it, or looks again.
pub(crate) fn block(world: &mut World, worker: usize) -> bool {
    let Worker::Blocking(id) = world.workers[worker] else {
        return false;
    };
    let behind = world.behind(id);
    world.workers[worker] = if world.jobs[id].row.block(behind) {
        Worker::Idle
    } else {
        Worker::Reading(id)
    };
    true
}

/// A worker that found no slot puts the job in line for one, or looks again.
pub(crate) fn queue(scenario: &Scenario, world: &mut World, worker: usize) -> bool {
    let Worker::Queueing(id) = world.workers[worker] else {
        return false;
    };
    let room = world.room(scenario, id);
    world.workers[worker] = if world.jobs[id].row.queue(room) {
        Worker::Idle
    } else {
        Worker::Reading(id)
    };
    true
}

/// The heartbeat. False: nothing new.
pub(crate) fn renew(scenario: &Scenario, world: &mut World, worker: usize) -> bool {
    let Worker::Holding(hold) = &mut world.workers[worker] else {
        return false;
    };
    let job = &mut world.jobs[hold.job];
    if !job.row.renew(hold.epoch) {
        return lose(world, worker);
    }
    let cancelled = job.row.cancel_requested && !job.row.pivoted;
    let news = job.due_in < scenario.lease || cancelled && !hold.standing.cancel_requested;
    job.due_in = scenario.lease;
    hold.standing.cancel_requested |= cancelled;
    news
}

/// A worker is no more at its job, for whatever reason: its entry stays where it is.
pub(crate) fn lose(world: &mut World, worker: usize) -> bool {
    let (Worker::Reading(id)
    | Worker::Blocking(id)
    | Worker::Queueing(id)
    | Worker::Holding(Hold { job: id, .. })) = world.workers[worker]
    else {
        return false;
    };
    world.jobs[id].abandoned = true;
    world.workers[worker] = Worker::Idle;
    true
}

/// A job is over: its lease ends, and who waits for its key, or for the slot that it had or was woken for, is told.
pub(crate) fn over(scenario: &Scenario, world: &mut World, id: usize, how: Finish, slot: bool) {
    let truth = &mut world.jobs[id].truth;
    (truth.lease, truth.has_key, truth.ended) = (None, false, Some(how));
    if world.jobs[id].row.keyed && scenario.flaw != Some(Flaw::NobodyWoken) {
        let waiter = (0..world.jobs.len()).find(|other| {
            let row = &world.jobs[*other].row;
            row.keyed && row.state == JobState::Blocked
        });
        wake(world, waiter);
    }
    if slot {
        slot_freed(scenario, world, id);
    }
}

/// The first in line of a job's scope is told that its slot came free.
fn slot_freed(scenario: &Scenario, world: &mut World, id: usize) {
    if scenario.cap.is_none() || scenario.flaw == Some(Flaw::NobodyInLineWoken) {
        return;
    }
    let mut scope = world.scope(scenario, id);
    let first = scope.find(|other| {
        let row = &world.jobs[*other].row;
        row.state == JobState::Blocked && row.in_line
    });
    wake(world, first);
}

fn wake(world: &mut World, waiter: Option<usize>) {
    if let Some(waiter) = waiter
        && world.jobs[waiter].row.wake()
    {
        (world.jobs[waiter].due_in, world.jobs[waiter].outbox) = (0, true);
    }
}

/// The process ends in order while it holds a job.
pub(crate) fn leave(scenario: &Scenario, world: &mut World, worker: usize) -> Result<bool, Broken> {
    let Worker::Holding(hold) = world.workers[worker] else {
        return Ok(false);
    };
    if !matches!(hold.phase, Phase::Forward | Phase::Back) {
        return Ok(false);
    }
    let mut hand = Hand::new(scenario, world, worker, hold);
    let released = hand.write(Row::release_uncharged)?;
    if released {
        let job = &mut hand.world.jobs[hold.job];
        (job.due_in, job.outbox) = (0, true);
        job.truth.lease = None;
        job.truth.barren = (job.truth.barren - 1).max(0);
        slot_freed(scenario, world, hold.job);
    }
    // Its entry is acknowledged either way.
    world.workers[worker] = Worker::Idle;
    Ok(true)
}

/// The next thing that a worker does with its job: one write at most. `heard`: it learns the answer, and goes on.
pub(crate) fn work(
    scenario: &Scenario,
    world: &mut World,
    worker: usize,
    step: StepEnds,
    heard: bool,
) -> Result<bool, Broken> {
    let Worker::Holding(hold) = world.workers[worker] else {
        return Ok(false);
    };
    let mut hand = Hand::new(scenario, world, worker, hold);
    match hold.phase {
        Phase::Forward => hand.forward(step, heard),
        Phase::Back => hand.back(step, heard),
        _ if step != StepEnds::Well => Ok(false),
        Phase::Turn { ending, from } => hand.turn(ending, from),
        Phase::Dying => hand.finish(Finish::Dead, None),
        Phase::Keep { refused } => hand.keep(refused),
        Phase::Refused => hand.refused(),
    }
}

/// A worker at its job.
struct Hand<'a> {
    scenario: &'a Scenario,
    world: &'a mut World,
    worker: usize,
    hold: Hold,
}

impl<'a> Hand<'a> {
    const fn new(scenario: &'a Scenario, world: &'a mut World, worker: usize, hold: Hold) -> Self {
        Self {
            scenario,
            world,
            worker,
            hold,
        }
    }

    /// A conditional write; whether it was accepted.
    fn write(&mut self, write: impl FnOnce(&mut Row, i64) -> bool) -> Result<bool, Broken> {
        let job = &mut self.world.jobs[self.hold.job];
        let epoch = match self.scenario.flaw {
            Some(Flaw::WritesUnfenced) => job.row.epoch,
            _ => self.hold.epoch,
        };
        let accepted = write(&mut job.row, epoch);
        if accepted && job.truth.lease != Some(self.hold.grant) {
            return Err(Broken(rules::DEAD_WRITE));
        }
        Ok(accepted)
    }

    /// One that a cancel may forestall.
    fn write_first(&mut self, write: impl FnOnce(&mut Row, i64) -> Written) -> Result<Written, Broken> {
        let mut written = Written::Lost;
        self.write(|row, epoch| {
            written = write(row, epoch);
            written == Written::Done
        })?;
        Ok(written)
    }

    fn phase(&mut self, phase: Phase) -> Result<bool, Broken> {
        self.hold.phase = phase;
        self.world.workers[self.worker] = Worker::Holding(self.hold);
        Ok(true)
    }

    fn lost(&mut self) -> Result<bool, Broken> {
        Ok(lose(self.world, self.worker))
    }

    /// The entry is acknowledged.
    fn left(&mut self) -> Result<bool, Broken> {
        self.world.workers[self.worker] = Worker::Idle;
        Ok(true)
    }

    fn cancelled(&mut self) -> Result<bool, Broken> {
        self.hold.standing.cancel_requested = true;
        self.phase(Phase::Turn {
            ending: Ending::Cancelled,
            from: self.hold.position,
        })
    }

    /// A step is begun: not after more claims than the kind allows.
    fn begin(&self) -> Result<(), Broken> {
        let truth = &self.world.jobs[self.hold.job].truth;
        if truth.lease == Some(self.hold.grant) && truth.barren > self.scenario.limit {
            return Err(Broken(rules::TRIED_TOO_OFTEN));
        }
        Ok(())
    }

    fn forward(&mut self, step: StepEnds, heard: bool) -> Result<bool, Broken> {
        let Hold {
            standing, position, ..
        } = self.hold;
        let at_step = position < self.scenario.steps;
        if standing.cancel_requested && !standing.pivoted {
            if step == StepEnds::Well {
                return self.cancelled();
            }
            // A step that runs is stopped by the cancel, and fails.
            let in_step = at_step
                && self.scenario.pivot != Some(position)
                && matches!(step, StepEnds::Failed | StepEnds::FailedForGood);
            return if in_step {
                self.failed(step, position + 1, heard)
            } else {
                Ok(false)
            };
        }
        if self.scenario.pivot == Some(position) && !standing.pivoted {
            if step != StepEnds::Well {
                return Ok(false);
            }
            let over_cancel = self.scenario.flaw == Some(Flaw::PivotOverCancel);
            return match self
                .write_first(|row, epoch| despite_cancel(row, over_cancel, |row| row.pass_pivot(epoch)))?
            {
                Written::Done => {
                    self.hold.standing.pivoted = true;
                    self.phase(Phase::Forward)
                }
                Written::CancelledFirst => self.cancelled(),
                Written::Lost => self.lost(),
            };
        }
        if !at_step {
            return match step {
                StepEnds::Well => self.finish(Finish::Succeeded, None),
                StepEnds::EndRefused => self.phase(Phase::Refused),
                StepEnds::Failed | StepEnds::FailedForGood => Ok(false),
            };
        }
        let last = position + 1 == self.scenario.steps;
        if step == StepEnds::EndRefused && !last {
            return Ok(false);
        }
        self.begin()?;
        match step {
            // Written together with the end that it leads to.
            StepEnds::Well if last => self.finish(Finish::Succeeded, Some(position + 1)),
            StepEnds::Well => self.advance(position + 1, None, Phase::Forward),
            StepEnds::EndRefused => self.phase(Phase::Keep { refused: true }),
            failed => self.failed(failed, position + 1, heard),
        }
    }

    fn back(&mut self, step: StepEnds, heard: bool) -> Result<bool, Broken> {
        let position = self.hold.position;
        if position > 0 {
            self.begin()?;
        }
        match step {
            StepEnds::Well if position == 0 => {
                let ending = self.hold.standing.ending.unwrap_or(Ending::Failed);
                self.finish(Finish::Undone(ending), None)
            }
            StepEnds::EndRefused if position == 0 => self.phase(Phase::Refused),
            StepEnds::Well => self.advance(position - 1, None, Phase::Back),
            StepEnds::EndRefused => Ok(false),
            StepEnds::Failed | StepEnds::FailedForGood if position == 0 => Ok(false),
            failed => self.failed(failed, position, heard),
        }
    }

    /// A step failed; `from`: the steps to undo if it leads to that.
    fn failed(&mut self, step: StepEnds, from: i32, heard: bool) -> Result<bool, Broken> {
        match after_error(&self.hold.standing, step == StepEnds::FailedForGood) {
            AfterError::Retry => self.release(heard),
            AfterError::TurnBack(ending) => self.phase(Phase::Turn { ending, from }),
            AfterError::GiveUp => self.advance(self.hold.position, None, Phase::Dying),
        }
    }

    fn turn(&mut self, ending: Ending, from: i32) -> Result<bool, Broken> {
        self.hold.standing.ending = Some(ending);
        self.advance(from, Some(ending), Phase::Back)
    }

    fn advance(&mut self, position: i32, turn: Option<Ending>, then: Phase) -> Result<bool, Broken> {
        if !self.write(|row, epoch| row.advance(epoch, position, turn))? {
            return self.lost();
        }
        let job = &mut self.world.jobs[self.hold.job];
        job.truth.barren = 0;
        self.hold.position = position;
        self.hold.standing.attempts = 0;
        self.hold.standing.cancel_requested |= job.row.cancel_requested;
        self.phase(then)
    }

    fn release(&mut self, heard: bool) -> Result<bool, Broken> {
        let key_freed = self.scenario.flaw == Some(Flaw::KeyFreedAtRetry);
        if !self.write(Row::release)? {
            return self.lost();
        }
        let Hold { job, standing, .. } = self.hold;
        let job = &mut self.world.jobs[job];
        job.due_in = RETRY;
        job.truth.lease = None;
        job.row.holds_key &= !key_freed;
        // A cancel that came while the step failed shall not wait for the retry's time.
        let cancelled = job.row.cancel_requested && standing.ending.is_none() && !standing.pivoted;
        if heard && cancelled && job.row.nudge(false) {
            (job.due_in, job.outbox) = (0, true);
        }
        // A statement of its own: one whose answer is lost leaves it to the sweeper.
        if heard {
            slot_freed(self.scenario, self.world, self.hold.job);
        }
        self.left()
    }

    /// The last step is done, whatever becomes of the end.
    fn keep(&mut self, refused: bool) -> Result<bool, Broken> {
        let position = self.hold.position + 1;
        let then = if refused {
            Phase::Refused
        } else {
            Phase::Turn {
                ending: Ending::Cancelled,
                from: position,
            }
        };
        self.advance(position, None, then)
    }

    /// The kind refused the end.
    fn refused(&mut self) -> Result<bool, Broken> {
        if end_again(&self.hold.standing) {
            // Nobody is nudged then: a cancel waits for the retry's time.
            self.release(false)
        } else {
            self.finish(Finish::Dead, None)
        }
    }

    fn finish(&mut self, how: Finish, last: Option<i32>) -> Result<bool, Broken> {
        let over_cancel = self.scenario.flaw == Some(Flaw::SuccessOverCancel);
        match self
            .write_first(|row, epoch| despite_cancel(row, over_cancel, |row| row.finish(epoch, how, last)))?
        {
            Written::Done => {
                self.world.jobs[self.hold.job].row.slot |= self.scenario.flaw == Some(Flaw::SlotKept);
                over(self.scenario, self.world, self.hold.job, how, true);
                self.left()
            }
            Written::CancelledFirst if last.is_some() => {
                self.hold.standing.cancel_requested = true;
                self.phase(Phase::Keep { refused: false })
            }
            Written::CancelledFirst => self.cancelled(),
            Written::Lost => self.lost(),
        }
    }
}

/// Broken on purpose: writes as if nobody had cancelled.
fn despite_cancel(row: &mut Row, despite: bool, write: impl FnOnce(&mut Row) -> Written) -> Written {
    let requested = row.cancel_requested;
    row.cancel_requested &= !despite;
    let written = write(row);
    row.cancel_requested = requested;
    written
}
