//! What a running job writes on its way. None and [`Left::Lost`]: the epoch is dead or Postgres is away; stop.

use std::time::Duration;

use super::{
    Left, count,
    drive::{Done, Drive, Failure, Next},
    patiently,
};
use crate::{
    entity::job::Ending,
    error::{Fault, chain},
    kind::{OperationInput, OperationKind},
    store::{self, Advance, Pivot, StepRecord, Visible},
};

impl<K: OperationKind> Drive<'_, K> {
    pub(super) async fn release_for_retry(&mut self, failure: &Failure, after: Option<Duration>) -> Next {
        let wait = after.unwrap_or_else(|| K::RETRY.wait(self.standing.attempts, rand::random()));
        let (id, epoch) = (self.lease.operation_id, self.lease.epoch);
        let record = self.failed_record(failure);
        self.lease.part();
        let released = patiently(&self.lease, || {
            store::release(&self.engine.db, id, epoch, Some(&record), wait)
        });
        let Some(Some(visible)) = released.await else {
            return Next::Leave(Left::Lost);
        };
        self.job.changed(visible.revision);
        self.engine
            .metrics
            .retried
            .with_label_values(&[K::Input::KIND])
            .inc();
        if visible.cancel_requested && self.standing.ending.is_none() && !self.standing.pivoted {
            // The cancel came while the step failed: it wins, and shall not wait for the retry's time.
            if let Err(error) = store::nudge(&self.engine.db, id).await {
                tracing::warn!(
                    error = chain(&error),
                    "a cancelled job waits for its retry's time"
                );
            }
        }
        self.pass_slot_on().await;
        Next::Leave(Left::Released)
    }

    pub(super) async fn release_now(&self) -> Next {
        if self.lease.is_lost() {
            return Next::Leave(Left::Lost);
        }
        self.lease.part();
        match store::release_uncharged(&self.engine.db, self.lease.operation_id, self.lease.epoch).await {
            Ok(()) => {
                self.pass_slot_on().await;
                Next::Leave(Left::Released)
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "a lease could not be released; it will expire"
                );
                Next::Leave(Left::Lost)
            }
        }
    }

    /// After a release: a statement of its own, so that it sees who got in line until then.
    pub(super) async fn pass_slot_on(&self) {
        if let Err(error) = store::wake(&self.engine.db, None, self.slot_of).await {
            tracing::warn!(
                error = chain(&error),
                "who is in line for a free slot waits for the sweeper"
            );
        }
    }

    pub(super) async fn pass_pivot(&mut self) -> Option<bool> {
        let (id, epoch) = (self.lease.operation_id, self.lease.epoch);
        match patiently(&self.lease, || store::pass_pivot(&self.engine.db, id, epoch)).await? {
            Pivot::Passed { revision } => {
                self.standing.pivoted = true;
                self.job.changed(revision);
                Some(true)
            }
            Pivot::Cancelled => {
                self.standing.cancel_requested = true;
                Some(false)
            }
            Pivot::Lost => None,
        }
    }

    /// Persists a step's end and where the job stands now.
    pub(super) async fn persist(&mut self, advance: &Advance<'_>, record: &StepRecord<'_>) -> Option<()> {
        let (id, epoch) = (self.lease.operation_id, self.lease.epoch);
        let written = patiently(&self.lease, || {
            store::advance(&self.engine.db, id, epoch, Some(record), advance)
        });
        let visible = written.await??;
        self.standing.attempts = 0;
        self.seen(visible);
        Some(())
    }

    /// Persists a step that was done.
    pub(super) async fn persist_done(&mut self, done: &Done) -> Option<()> {
        let advance = self.advance(None);
        self.persist(&advance, &self.done_record(done)).await
    }

    /// Persists that the job undoes from now on, together with the failure that led to it.
    pub(super) async fn turn_back(
        &mut self,
        ending: Ending,
        from: usize,
        failure: Option<Failure>,
    ) -> Option<()> {
        self.position = from;
        let fault = self.fault.clone();
        let advance = self.advance(Some((ending, fault.as_ref())));
        let record = failure.as_ref().map(|failure| self.failed_record(failure));
        let (id, epoch) = (self.lease.operation_id, self.lease.epoch);
        let written = patiently(&self.lease, || {
            store::advance(&self.engine.db, id, epoch, record.as_ref(), &advance)
        });
        let visible = written.await??;
        self.standing.ending = Some(ending);
        self.standing.attempts = 0;
        self.seen(visible);
        Some(())
    }

    pub(super) fn advance<'f>(&self, turn: Option<(Ending, Option<&'f Fault>)>) -> Advance<'f> {
        let steps = &self.runner.steps;
        let undoing = turn.is_some() || self.standing.ending.is_some();
        let next = if undoing {
            self.position.checked_sub(1)
        } else {
            Some(self.position)
        };
        let step = next.and_then(|next| steps.get(next)).map(|step| step.name());
        let percent = i16::try_from(self.position * 100 / steps.len().max(1)).unwrap_or(100);
        Advance {
            position: count(self.position),
            turn,
            step,
            percent,
        }
    }

    pub(super) fn seen(&mut self, visible: Visible) {
        self.standing.cancel_requested |= visible.cancel_requested;
        self.job.changed(visible.revision);
    }
}
