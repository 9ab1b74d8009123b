//! The side of the worker: at each point it looks whether something is planned there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use jobs::{Interference, Moment, Point, StepError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

use super::{Action, Place, Plans};

/// How long a paused step waits for the test.
const PAUSE: Duration = Duration::from_secs(30);

/// Carries out what is planned in a folder.
#[derive(Debug)]
pub struct FromFiles {
    plans: Plans,
    /// Effects of the present try of a step.
    effects: Mutex<HashMap<(Uuid, i64), u32>>,
}

impl FromFiles {
    /// What is planned there.
    #[must_use]
    pub fn new(plans: Plans) -> Self {
        Self {
            plans,
            effects: Mutex::default(),
        }
    }

    fn place(&self, point: &Point<'_>) -> Place {
        let mut effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let count = effects.entry((point.operation_id, point.epoch)).or_default();
        let nth = match point.moment {
            Moment::Begin => {
                *count = 0;
                1
            }
            Moment::Effect => {
                *count += 1;
                *count
            }
            Moment::End => 1,
        };
        Place {
            direction: point.direction.as_str().to_owned(),
            step: point.step.to_owned(),
            moment: point.moment.as_str().to_owned(),
            nth,
        }
    }

    fn planned(&self, request: &str, point: &Point<'_>) -> Result<Option<Action>> {
        let place = self.place(point);
        self.plans.trace(request, &(place.clone(), point.epoch))?;
        for (number, fault) in self.plans.read(request)?.into_iter().enumerate() {
            if fault.place == place && self.plans.take(request, number, fault.times)? {
                return Ok(Some(fault.action));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Interference for FromFiles {
    async fn at(&self, point: Point<'_>) -> Result<(), StepError> {
        let Some(request) = point.request_id else {
            return Ok(());
        };
        let action = match self.planned(request, &point) {
            Ok(None) => return Ok(()),
            Ok(Some(action)) => action,
            Err(error) => panic!("the plan of {request} can't be followed: {error:#}"),
        };
        match action {
            Action::Kill | Action::Stop => {
                let signal = if action == Action::Kill {
                    Signal::SIGKILL
                } else {
                    Signal::SIGSTOP
                };
                kill(Pid::this(), signal).expect("a process can signal itself");
                Ok(())
            }
            Action::Pause => {
                let begun = Instant::now();
                while !self.plans.may_go(request) && begun.elapsed() < PAUSE {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            }
            Action::Retry => {
                Err(StepError::retry("planned", "A fault was planned here.").after(Duration::ZERO))
            }
            Action::Permanent => Err(StepError::permanent("planned", "A fault was planned here.")),
            Action::Panic => panic!("a fault was planned here"),
            Action::Stopped => Err(StepError::Stopped),
        }
    }
}
