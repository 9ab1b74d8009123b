//! The way forward and the way back, step by step.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use uuid::Uuid;

use super::{Engine, Left, Runner, count, gave_up, panic_text};
use crate::{
    Direction, JobContext, Moment, Outcome, StepContext, StepError,
    context::Lease,
    entity::{job::Ending, job_step::StepStatus},
    error::Fault,
    kind::{OperationInput, OperationKind, Step, StepResult},
    protocol::{self, AfterError, Course, Standing},
    store::{Claimed, StepRecord},
};

pub(super) struct Drive<'a, K: OperationKind> {
    pub(super) runner: &'a Runner<K>,
    pub(super) engine: &'a Engine,
    pub(super) job: Arc<JobContext<K>>,
    pub(super) lease: Arc<Lease>,
    /// The scope that it holds a slot of.
    pub(super) slot_of: Option<Uuid>,
    pub(super) standing: Standing,
    /// Steps that are done.
    pub(super) position: usize,
    /// Why it failed, once it did.
    pub(super) fault: Option<Fault>,
}

/// Where a job goes after a part of its way.
pub(super) enum Next {
    Leave(Left),
    /// Undo the first `from` steps; the failure that led here, if one did.
    TurnBack {
        ending: Ending,
        from: usize,
        failure: Option<Failure>,
    },
    /// Write the end, and with it the last step that was done.
    End(Outcome, Option<Done>),
}

/// A try of a step that succeeded and is not written down yet.
pub(super) struct Done {
    pub(super) position: usize,
    pub(super) output: Option<serde_json::Value>,
    pub(super) elapsed: Duration,
}

/// A try of a step that failed.
pub(super) struct Failure {
    pub(super) position: usize,
    pub(super) fault: Fault,
    pub(super) elapsed: Duration,
}

impl<K: OperationKind> Drive<'_, K> {
    pub(super) async fn run(mut self, claimed: &Claimed) -> Left {
        let mut next = match protocol::course(&self.standing) {
            Course::Forward => self.forward().await,
            Course::Back => self.back().await,
            Course::GiveUp => Next::End(Outcome::Dead(gave_up(self.fault.take())), None),
            Course::TurnBack(ending) => {
                if ending == Ending::Failed {
                    self.fault = Some(gave_up(None));
                }
                // An earlier claim may have begun the step that it did not persist.
                let begun = usize::from(claimed.epoch > 1);
                let from = (self.position + begun).min(self.runner.steps.len());
                Next::TurnBack {
                    ending,
                    from,
                    failure: None,
                }
            }
        };
        loop {
            next = match next {
                Next::Leave(left) => return left,
                Next::TurnBack {
                    ending,
                    from,
                    failure,
                } => match self.turn_back(ending, from, failure).await {
                    Some(()) => self.back().await,
                    None => Next::Leave(Left::Lost),
                },
                Next::End(outcome, last) => self.end(claimed, outcome, last).await,
            };
        }
    }

    async fn forward(&mut self) -> Next {
        let steps = &self.runner.steps;
        while let Some(step) = steps.get(self.position) {
            if let Some(next) = self.interrupted(self.position).await {
                return next;
            }
            if self.runner.pivot == Some(self.position) && !self.standing.pivoted {
                match self.pass_pivot().await {
                    Some(true) => {}
                    Some(false) => return cancelled(self.position),
                    None => return Next::Leave(Left::Lost),
                }
            }
            let (result, output, elapsed) = self
                .attempt(step.as_ref(), self.position, Direction::Forward)
                .await;
            if let Err(error) = result {
                return self
                    .failed(error, self.position, Direction::Forward, elapsed)
                    .await;
            }
            if let Some(output) = output.clone() {
                self.job.keep(step.name(), output);
            }
            let done = Done {
                position: self.position,
                output,
                elapsed,
            };
            self.position += 1;
            if self.position == steps.len() {
                // Written together with the end that it leads to.
                return Next::End(Outcome::Succeeded, Some(done));
            }
            if self.persist_done(&done).await.is_none() {
                return Next::Leave(Left::Lost);
            }
        }
        Next::End(Outcome::Succeeded, None)
    }

    async fn back(&mut self) -> Next {
        while self.position > 0 {
            if self.lease.halt.is_cancelled() {
                return self.release_now().await;
            }
            let position = self.position - 1;
            let step = &self.runner.steps[position];
            let (result, _, elapsed) = self.attempt(step.as_ref(), position, Direction::Back).await;
            if let Err(error) = result {
                return self.failed(error, position, Direction::Back, elapsed).await;
            }
            self.position = position;
            let undone = StepRecord {
                position: count(position),
                name: step.name(),
                status: StepStatus::Undone,
                output: None,
                elapsed,
                fault: None,
            };
            let advance = self.advance(None);
            if self.persist(&advance, &undone).await.is_none() {
                return Next::Leave(Left::Lost);
            }
        }
        let outcome = match self.standing.ending {
            Some(Ending::Cancelled) => Outcome::Cancelled,
            Some(Ending::Failed) | None => {
                Outcome::Failed(self.fault.clone().unwrap_or_else(|| gave_up(None)))
            }
        };
        Next::End(outcome, None)
    }

    /// Before each step: has anyone asked for an end of this?
    async fn interrupted(&mut self, from: usize) -> Option<Next> {
        if self.lease.halt.is_cancelled() {
            return Some(self.release_now().await);
        }
        self.standing.cancel_requested |= self.lease.is_cancelled();
        (self.standing.cancel_requested && !self.standing.pivoted).then(|| cancelled(from))
    }

    /// One try of a step, whatever it does: errors, panics, hangs.
    async fn attempt(
        &self,
        step: &dyn Step<K>,
        position: usize,
        direction: Direction,
    ) -> (StepResult, Option<serde_json::Value>, Duration) {
        let free_of_cancel = direction == Direction::Back || self.standing.pivoted;
        let token = if free_of_cancel {
            &self.lease.halt
        } else {
            &self.lease.stop
        };
        let total = count(self.runner.steps.len());
        let cx = StepContext::new(Arc::clone(&self.job), token.clone(), count(position), total);
        let begun = Instant::now();
        self.job.enter(step.name(), direction);
        let call = async {
            self.job.reach(Moment::Begin).await?;
            match direction {
                Direction::Forward => step.apply(&cx).await?,
                Direction::Back => step.undo(&cx).await?,
            }
            self.job.reach(Moment::End).await
        };
        let caught = AssertUnwindSafe(call).catch_unwind();
        let limited = tokio::time::timeout(step.deadline(), caught);
        let result = match self.lease.kill.run_until_cancelled(limited).await {
            None => Err(StepError::Stopped),
            Some(Err(_)) => Err(StepError::retry("timed_out", "A step took too long.")
                .detailed(format_args!("{} after {:?}", step.name(), step.deadline()))),
            Some(Ok(Err(panic))) => Err(
                StepError::retry("internal", "A step ended unexpectedly.").detailed(format_args!(
                    "panic in {}: {}",
                    step.name(),
                    panic_text(panic.as_ref())
                )),
            ),
            Some(Ok(Ok(result))) => result,
        };
        let elapsed = begun.elapsed();
        let labels = [K::Input::KIND, step.name(), direction.as_str()];
        self.engine
            .metrics
            .step_seconds
            .with_label_values(&labels)
            .observe(elapsed.as_secs_f64());
        (result, cx.take_remembered(), elapsed)
    }

    async fn failed(
        &mut self,
        error: StepError,
        position: usize,
        direction: Direction,
        elapsed: Duration,
    ) -> Next {
        if self.lease.is_lost() {
            return Next::Leave(Left::Lost);
        }
        self.standing.cancel_requested |= self.lease.is_cancelled();
        let (fault, after, permanent) = match error {
            StepError::Retry { fault, after } => (fault, after, false),
            StepError::Permanent(fault) => (fault, None, true),
            StepError::Stopped if self.lease.halt.is_cancelled() => return self.release_now().await,
            StepError::Stopped => (Fault::new("stopped", "A step stopped early."), None, false),
        };
        let name = self.runner.steps[position].name();
        tracing::warn!(step = name, %fault, permanent, undoing = direction == Direction::Back, "a step failed");
        let failure = Failure {
            position,
            fault,
            elapsed,
        };
        match protocol::after_error(&self.standing, permanent) {
            AfterError::Retry => self.release_for_retry(&failure, after).await,
            AfterError::TurnBack(ending) => {
                if ending == Ending::Failed {
                    self.fault = Some(failure.fault.clone());
                }
                Next::TurnBack {
                    ending,
                    from: position + 1,
                    failure: Some(failure),
                }
            }
            AfterError::GiveUp => {
                let advance = self.advance(None);
                match self.persist(&advance, &self.failed_record(&failure)).await {
                    Some(()) => Next::End(Outcome::Dead(failure.fault), None),
                    None => Next::Leave(Left::Lost),
                }
            }
        }
    }

    pub(super) fn done_record(&self, done: &Done) -> StepRecord<'static> {
        StepRecord {
            position: count(done.position),
            name: self.runner.steps[done.position].name(),
            status: StepStatus::Done,
            output: done.output.clone(),
            elapsed: done.elapsed,
            fault: None,
        }
    }

    pub(super) fn failed_record<'f>(&self, failure: &'f Failure) -> StepRecord<'f> {
        StepRecord {
            position: count(failure.position),
            name: self.runner.steps[failure.position].name(),
            status: StepStatus::Failed,
            output: None,
            elapsed: failure.elapsed,
            fault: Some(&failure.fault),
        }
    }
}

pub(super) const fn cancelled(from: usize) -> Next {
    Next::TurnBack {
        ending: Ending::Cancelled,
        from,
        failure: None,
    }
}
