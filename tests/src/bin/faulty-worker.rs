//! The platform's worker with its own settings, and with the faults that a test planned in the folder `FAULTS_FOLDER`. Leases
//! last `FAULTS_LEASE_MS`, so that the tests need not wait long for a dead worker's. With the argument `kinds` it tells what
//! it can carry out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use platform::settings::WorkerSettings;
use tests::faults::{FromFiles, Plans};
use tests::place::variable;
use worker::Mischief;

#[tokio::main]
async fn main() -> worker::Outcome {
    let settings = WorkerSettings::load()?;
    if std::env::args().nth(1).as_deref() == Some("kinds") {
        println!("{}", serde_json::to_string(&worker::kinds(&settings)?)?);
        return Ok(());
    }
    // A test that is killed takes its workers along, stopped ones too.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let plans = Plans::at(PathBuf::from(variable("FAULTS_FOLDER")));
    let mischief = Mischief {
        interference: Arc::new(FromFiles::new(plans)),
        lease: Duration::from_millis(variable("FAULTS_LEASE_MS").parse()?),
    };
    worker::run(settings, Some(mischief)).await
}
