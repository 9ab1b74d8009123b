//! The end: the terminal state and what it means for the target, in one transaction.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::FutureExt;
use sea_orm::{DbErr, TransactionTrait};

use super::{
    Left, WRITE_PATIENCE, count,
    drive::{Done, Drive, Next, cancelled},
    panic_text, patiently,
};
use crate::{
    Outcome, StepError,
    error::{Fault, chain},
    kind::{OperationInput, OperationKind},
    protocol,
    store::{self, Claimed, End, Ended},
};

/// The last word of a kind, inside the ending transaction.
const FINISH_DEADLINE: Duration = Duration::from_secs(30);

impl<K: OperationKind> Drive<'_, K> {
    /// Writes the terminal state with what it means for the target, in one transaction, and with it the last step.
    pub(super) async fn end(&mut self, claimed: &Claimed, outcome: Outcome, last: Option<Done>) -> Next {
        let begun = Instant::now();
        loop {
            match self.try_end(claimed, &outcome, true, last.as_ref()).await {
                Ok(Ended::Done { revision }) => return self.ended(revision, &outcome),
                Ok(Ended::Lost) => return Next::Leave(Left::Lost),
                Ok(Ended::CancelledFirst) => {
                    return match self.keep_last(last.as_ref()).await {
                        Some(()) => cancelled(self.position),
                        None => Next::Leave(Left::Lost),
                    };
                }
                Err(EndError::Database(error)) => {
                    tracing::warn!(error = chain(&error), "an operation's end could not be written");
                    if begun.elapsed() > WRITE_PATIENCE {
                        return Next::Leave(Left::Lost);
                    }
                    let pause = tokio::time::sleep(Duration::from_millis(200));
                    if self.lease.kill.run_until_cancelled(pause).await.is_none() {
                        return self.release_now().await;
                    }
                }
                Err(EndError::Hook(fault)) => {
                    if self.keep_last(last.as_ref()).await.is_none() {
                        return Next::Leave(Left::Lost);
                    }
                    return self.hook_failed(claimed, outcome, fault).await;
                }
            }
        }
    }

    /// The last step is done, whatever becomes of the end.
    async fn keep_last(&mut self, last: Option<&Done>) -> Option<()> {
        match last {
            Some(done) => self.persist_done(done).await,
            None => Some(()),
        }
    }

    async fn try_end(
        &self,
        claimed: &Claimed,
        outcome: &Outcome,
        hook: bool,
        last: Option<&Done>,
    ) -> Result<Ended, EndError> {
        let tx = store::bounded(self.engine.db.begin()).await?;
        if hook {
            let call = AssertUnwindSafe(K::on_finish(&tx, &self.job, outcome)).catch_unwind();
            let called = tokio::time::timeout(FINISH_DEADLINE, call).await;
            let fault = match called {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(StepError::Retry { fault, .. } | StepError::Permanent(fault)))) => Some(fault),
                Ok(Ok(Err(StepError::Stopped))) => Some(Fault::new("stopped", "The end stopped early.")),
                Ok(Err(panic)) => Some(
                    Fault::new("internal", "The operation's end failed.")
                        .detailed(panic_text(panic.as_ref())),
                ),
                Err(_) => Some(Fault::new("timed_out", "The operation's end took too long.")),
            };
            if let Some(fault) = fault {
                store::bounded(tx.rollback()).await?;
                return Err(EndError::Hook(fault));
            }
        }
        let end = End {
            operation_id: claimed.operation_id,
            epoch: claimed.epoch,
            serial_key: claimed.serial_key.as_deref(),
            slot_of: claimed.slot_of,
            outcome,
            last: last.map(|done| (self.done_record(done), count(self.position))),
        };
        self.lease.part();
        let ended = store::finish(&tx, &end).await?;
        match ended {
            Ended::Done { .. } => store::bounded(tx.commit()).await?,
            Ended::CancelledFirst | Ended::Lost => {
                // It goes on, undoing: a heartbeat that misses it has news again.
                self.lease.stay();
                store::bounded(tx.rollback()).await?;
            }
        }
        Ok(ended)
    }

    /// The kind's own part of the end failed: tried again like a step. When attempts run out the job is dead without it.
    async fn hook_failed(&mut self, claimed: &Claimed, outcome: Outcome, fault: Fault) -> Next {
        tracing::warn!(%fault, "the end of an operation failed");
        let dying = matches!(outcome, Outcome::Dead(_));
        if !dying && protocol::end_again(&self.standing) {
            let wait = K::RETRY.wait(self.standing.attempts, rand::random());
            let (id, epoch) = (self.lease.operation_id, self.lease.epoch);
            self.lease.part();
            let released = patiently(&self.lease, || {
                store::release(&self.engine.db, id, epoch, None, wait)
            });
            let Some(Some(visible)) = released.await else {
                return Next::Leave(Left::Lost);
            };
            self.job.changed(visible.revision);
            self.pass_slot_on().await;
            return Next::Leave(Left::Released);
        }
        let outcome = if dying { outcome } else { Outcome::Dead(fault) };
        match self.try_end(claimed, &outcome, false, None).await {
            Ok(Ended::Done { revision }) => self.ended(revision, &outcome),
            Ok(Ended::CancelledFirst | Ended::Lost) | Err(_) => Next::Leave(Left::Lost),
        }
    }

    fn ended(&self, revision: i64, outcome: &Outcome) -> Next {
        let status = match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed(_) => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Dead(_) => "dead",
        };
        self.engine
            .metrics
            .finished
            .with_label_values(&[K::Input::KIND, status])
            .inc();
        self.job.changed(revision);
        if let Outcome::Dead(fault) = outcome {
            tracing::error!(%fault, "the operation is dead; something may be left behind");
        } else {
            tracing::info!(status, "the operation ended");
        }
        Next::Leave(Left::Ended)
    }
}

#[derive(Debug)]
enum EndError {
    Database(DbErr),
    Hook(Fault),
}

impl From<DbErr> for EndError {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}
