//! What may happen next, whoever does it.

use jobs::protocol::{CancelVerdict, Room};

use crate::{
    work::{self, Broken},
    world::{ENTRIES, Flaw, Job, Scenario, Worker, World},
};

/// One thing that happens. Workers are numbered as they stand in the state that it happens in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the fields are read where a trace is printed")]
pub(crate) enum Move {
    Tick,
    /// The relay moves a job's row to the stream.
    Relay {
        job: usize,
    },
    /// The relay dies between the entry and its mark.
    RelayDies {
        job: usize,
    },
    /// Redis forgets every entry.
    Wipe,
    Sweep {
        job: usize,
    },
    Cancel {
        job: usize,
    },
    Revive {
        job: usize,
    },
    Read {
        worker: usize,
        job: usize,
    },
    TakeOver {
        worker: usize,
        job: usize,
    },
    Claim {
        worker: usize,
    },
    Block {
        worker: usize,
    },
    Queue {
        worker: usize,
    },
    Renew {
        worker: usize,
    },
    Work {
        worker: usize,
        step: StepEnds,
    },
    /// The process ends in order.
    Leave {
        worker: usize,
    },
    Die {
        worker: usize,
    },
    /// The write is done, and its answer lost.
    Unheard {
        worker: usize,
        step: StepEnds,
    },
}

/// What becomes of a step, if the worker is at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepEnds {
    Well,
    /// Worth another try.
    Failed,
    FailedForGood,
    /// There is none left, or the last one is done; the kind refuses the end.
    EndRefused,
}

/// Whether a move belongs to a world in which all goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    Fair,
    /// Costs one of the scenario's faults.
    Fault,
    /// Someone outside asks for something.
    Request,
}

/// A move and where it leads.
pub(crate) struct Step {
    pub(crate) what: Move,
    pub(crate) nature: Nature,
    pub(crate) world: World,
    /// The rule that it breaks.
    pub(crate) broken: Option<&'static str>,
}

struct Moves<'a> {
    scenario: &'a Scenario,
    world: &'a World,
    steps: Vec<Step>,
}

/// Every move from a state.
pub(crate) fn moves(scenario: &Scenario, world: &World) -> Vec<Step> {
    let mut moves = Moves {
        scenario,
        world,
        steps: Vec::new(),
    };
    moves.time();
    for job in 0..world.jobs.len() {
        moves.engine(job);
        moves.requests(job);
    }
    moves.add(Move::Wipe, Nature::Fault, |_, world| {
        let there = |job: &Job| job.unread > 0 || job.abandoned;
        let lost = world.jobs.iter().any(there);
        for job in &mut world.jobs {
            (job.unread, job.abandoned) = (0, false);
        }
        Ok(lost)
    });
    // Idle workers are all alike: one of them is enough.
    let idle = world.workers.iter().position(|worker| *worker == Worker::Idle);
    if let Some(worker) = idle {
        moves.read(worker);
    }
    for (worker, doing) in world.workers.iter().enumerate() {
        match doing {
            Worker::Idle => {}
            Worker::Reading(_) => moves.claim(worker),
            Worker::Blocking(_) => moves.add(Move::Block { worker }, Nature::Fair, |_, world| {
                Ok(work::block(world, worker))
            }),
            Worker::Queueing(_) => moves.add(Move::Queue { worker }, Nature::Fair, |scenario, world| {
                Ok(work::queue(scenario, world, worker))
            }),
            Worker::Holding(_) => moves.hold(worker),
        }
    }
    moves.steps
}

impl Moves<'_> {
    /// Adds a move unless nothing comes of it.
    fn add(
        &mut self,
        what: Move,
        nature: Nature,
        change: impl FnOnce(&Scenario, &mut World) -> Result<bool, Broken>,
    ) {
        let mut world = self.world.clone();
        if nature == Nature::Fault {
            match world.faults.checked_sub(1) {
                Some(left) => world.faults = left,
                None => return,
            }
        }
        let broken = match change(self.scenario, &mut world) {
            Ok(false) => return,
            Ok(true) => None,
            Err(Broken(rule)) => Some(rule),
        };
        world.workers.sort_unstable();
        self.steps.push(Step {
            what,
            nature,
            world,
            broken,
        });
    }

    /// A lease that ends under a worker that is still at it is a fault: it slept, or was cut off.
    fn time(&mut self) {
        let world = self.world;
        let ends = |id: usize| world.jobs[id].due_in == 1 && world.is_held(id);
        let nature = if (0..world.jobs.len()).any(ends) {
            Nature::Fault
        } else {
            Nature::Fair
        };
        self.add(Move::Tick, nature, |_, world| {
            let waits = world.jobs.iter().any(|job| job.due_in > 0);
            for job in &mut world.jobs {
                job.due_in = job.due_in.saturating_sub(1);
            }
            Ok(waits)
        });
    }

    /// The relay and the sweeper.
    fn engine(&mut self, job: usize) {
        self.add(Move::Relay { job }, Nature::Fair, |_, world| {
            let relayed = relay(&mut world.jobs[job]);
            world.jobs[job].outbox &= !relayed;
            Ok(relayed)
        });
        self.add(Move::RelayDies { job }, Nature::Fault, |_, world| {
            Ok(relay(&mut world.jobs[job]))
        });
        self.add(Move::Sweep { job }, Nature::Fair, |scenario, world| {
            if scenario.flaw == Some(Flaw::NoSweeper) {
                return Ok(false);
            }
            // While entries wait that nobody read, none counts as lost; that of a lease may be at any time.
            let stale = world.jobs[job].row.state == jobs::entity::job::JobState::Leased
                || world.jobs.iter().all(|job| job.unread == 0);
            let behind = world.behind(job) || scenario.flaw == Some(Flaw::NobodyWoken);
            let room = match scenario.flaw {
                Some(Flaw::NobodyInLineWoken) => Room::Full,
                _ => world.room(scenario, job),
            };
            let job = &mut world.jobs[job];
            let swept = !job.outbox && job.row.sweep(job.due_in == 0, stale, behind, room);
            job.outbox |= swept;
            Ok(swept)
        });
    }

    fn requests(&mut self, job: usize) {
        self.add(Move::Cancel { job }, Nature::Request, |scenario, world| {
            let Job {
                row, due_in, outbox, ..
            } = &mut world.jobs[job];
            if !scenario.cancels || row.cancel_requested {
                return Ok(false);
            }
            let ready = row.state == jobs::entity::job::JobState::Ready;
            match row.cancel() {
                CancelVerdict::End => work::over(scenario, world, job, work::CANCELLED, ready),
                CancelVerdict::Ask => {
                    if row.nudge(*due_in == 0) {
                        (*due_in, *outbox) = (0, true);
                    }
                }
                CancelVerdict::Pivoted | CancelVerdict::Over => return Ok(false),
            }
            Ok(true)
        });
        self.add(Move::Revive { job }, Nature::Request, |_, world| {
            let job = &mut world.jobs[job];
            let revived = job.revivals > 0 && job.row.revive();
            if revived {
                job.revivals -= 1;
                (job.due_in, job.outbox) = (0, true);
                (job.truth.ended, job.truth.barren) = (None, 0);
            }
            Ok(revived)
        });
    }

    fn read(&mut self, worker: usize) {
        for job in 0..self.world.jobs.len() {
            self.add(Move::Read { worker, job }, Nature::Fair, |_, world| {
                let unread = world.jobs[job].unread.checked_sub(1);
                world.workers[worker] = Worker::Reading(job);
                world.jobs[job].unread = unread.unwrap_or(0);
                Ok(unread.is_some())
            });
            self.add(Move::TakeOver { worker, job }, Nature::Fair, |_, world| {
                world.workers[worker] = Worker::Reading(job);
                Ok(std::mem::take(&mut world.jobs[job].abandoned))
            });
        }
    }

    fn claim(&mut self, worker: usize) {
        self.add(Move::Claim { worker }, Nature::Fair, |scenario, world| {
            work::claim(scenario, world, worker).map(|_| true)
        });
        let step = StepEnds::Well;
        self.add(
            Move::Unheard { worker, step },
            Nature::Fault,
            |scenario, world| {
                let before = world.workers[worker];
                let taken = work::claim(scenario, world, worker)?;
                world.workers[worker] = before;
                Ok(taken)
            },
        );
        self.add(Move::Die { worker }, Nature::Fault, |_, world| {
            Ok(work::lose(world, worker))
        });
    }

    fn hold(&mut self, worker: usize) {
        self.add(Move::Renew { worker }, Nature::Fair, |scenario, world| {
            Ok(work::renew(scenario, world, worker))
        });
        for step in [
            StepEnds::Well,
            StepEnds::Failed,
            StepEnds::FailedForGood,
            StepEnds::EndRefused,
        ] {
            let nature = if step == StepEnds::Well {
                Nature::Fair
            } else {
                Nature::Fault
            };
            self.add(Move::Work { worker, step }, nature, |scenario, world| {
                work::work(scenario, world, worker, step, true)
            });
        }
        let step = StepEnds::Well;
        self.add(
            Move::Unheard { worker, step },
            Nature::Fault,
            |scenario, world| {
                let (before, rows) = (world.workers[worker], world.jobs.clone());
                work::work(scenario, world, worker, step, false)?;
                world.workers[worker] = before;
                // What changed the worker alone has no answer to lose, nor has what was refused.
                let written = world.jobs.iter().zip(rows).any(|(new, old)| new.row != old.row);
                Ok(written)
            },
        );
        self.add(Move::Leave { worker }, Nature::Fault, |scenario, world| {
            work::leave(scenario, world, worker)
        });
        self.add(Move::Die { worker }, Nature::Fault, |_, world| {
            Ok(work::lose(world, worker))
        });
    }
}

/// False: the model has no room for another entry.
fn relay(job: &mut Job) -> bool {
    let room = job.outbox && job.unread < ENTRIES;
    job.unread += u8::from(room);
    room
}
