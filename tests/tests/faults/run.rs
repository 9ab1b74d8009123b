//! Runs one case.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::api::Api;
use tests::faults::{Place, Plans};
use uuid::Uuid;

use crate::cases::{Case, Deed, Ending};
use crate::stages::Scene;

/// Longest time until an operation comes to a planned fault.
const COMES_BY: Duration = Duration::from_secs(120);

/// What all cases share.
pub struct Rig {
    pub api: Api,
    pub plans: Plans,
    pub lease: Duration,
}

/// Runs a case and answers the places that the operation passed.
pub async fn case(rig: &Rig, case: &Case) -> Result<Vec<Place>> {
    let request = format!("fault-{}", Uuid::new_v4().simple());
    rig.plans.write(&request, &case.faults)?;
    let mut scene = case.stage.set(&rig.api).await.context("setting the stage")?;
    match played(rig, case, &request, scene.as_mut()).await {
        Ok(()) => scene
            .clear(&rig.api, &rig.plans)
            .await
            .context("clearing the stage")?,
        Err(error) => {
            scene.abandon().await.context("abandoning the stage")?;
            return Err(error);
        }
    }
    Ok(rig
        .plans
        .traced(&request)?
        .into_iter()
        .map(|(place, _)| place)
        .filter(|place| case.stage.always_passes(place))
        .collect())
}

async fn played(rig: &Rig, case: &Case, request: &str, scene: &mut dyn Scene) -> Result<()> {
    let operation = scene
        .ask(&rig.api, request)
        .await
        .context("asking for the operation")?;
    let ended = watch(rig, case, request, &operation).await?;
    ensure!(
        rig.plans.all_happened(request, case.faults.len()),
        "a planned fault did not happen: {ended}"
    );
    let outcome = match case.ending {
        Ending::Succeeded => expect(&ended, "succeeded", false)?,
        Ending::Failed => expect(&ended, "failed", false)?,
        Ending::Cancelled => expect(&ended, "cancelled", false)?,
        Ending::Dead(succeeds) => {
            expect(&ended, "failed", true)?;
            let path = format!("/v1/operations/{operation}/retry");
            rig.api.post(&path, &json!({}), &[]).await?.expect(202)?;
            let revived = rig.api.ended(&operation).await?;
            let status = if succeeds { "succeeded" } else { "failed" };
            expect(&revived, status, false)?
        }
    };
    scene
        .check(&rig.api, outcome)
        .await
        .context("the world is not as the tables say")?;
    if let Deed::Wake = case.deed {
        let stopped = stopped_fault(case).context("nobody was stopped")?;
        let pid = rig.plans.happened(request, stopped, COMES_BY).await?;
        kill(Pid::from_raw(pid), Signal::SIGCONT).context("waking the stopped worker")?;
        // Time for it to do its worst.
        tokio::time::sleep(rig.lease / 2).await;
        scene
            .check(&rig.api, outcome)
            .await
            .context("the world, after the stopped worker woke")?;
        let after = rig.api.ended(&operation).await?;
        ensure!(after["status"] == ended["status"], "a dead epoch wrote: {after}");
    }
    Ok(())
}

/// Waits for the end, doing meanwhile what the case wants done.
async fn watch(rig: &Rig, case: &Case, request: &str, operation: &str) -> Result<Value> {
    match case.deed {
        Deed::Nothing => rig.api.ended(operation).await,
        Deed::Cancel { refused } => {
            rig.plans.happened(request, 0, COMES_BY).await?;
            let path = format!("/v1/operations/{operation}/cancel");
            let answer = rig.api.post(&path, &json!({}), &[]).await?;
            rig.plans.let_go(request)?;
            if refused {
                let problem = answer.expect(409)?;
                ensure!(problem["code"] == "not_cancellable", "{problem}");
            } else {
                answer.expect(202)?;
            }
            rig.api.ended(operation).await
        }
        Deed::Wake => {
            let stopped = stopped_fault(case).context("nobody is to be stopped")?;
            let pid = rig.plans.happened(request, stopped, COMES_BY).await?;
            let ended = rig.api.ended(operation).await;
            if ended.is_err() {
                kill(Pid::from_raw(pid), Signal::SIGCONT).ok();
            }
            ended
        }
    }
}

fn stopped_fault(case: &Case) -> Option<usize> {
    case.faults
        .iter()
        .position(|fault| fault.action == tests::faults::Action::Stop)
}

fn expect(operation: &Value, status: &str, retryable: bool) -> Result<bool> {
    ensure!(
        operation["status"] == status && operation["retryable"] == retryable,
        "expected {status}, {}retryable: {operation}",
        if retryable { "" } else { "not " }
    );
    Ok(status == "succeeded")
}
