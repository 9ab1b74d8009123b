//! The worker's process and its commands.

mod edge_config;

use std::process::ExitCode;

use platform::settings::WorkerSettings;
use worker::Outcome;

const USAGE: &str = "usage: odoo-saas-worker [run | edge-config …]\n\n\
  run          carry out operations (the default)\n\
  edge-config  print the edge's configuration for Nginx: see --help\n";

/// Gives back what is not used (`.cargo/config.toml` says how soon).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match (arguments.next().as_deref(), arguments.next()) {
        (None | Some("run"), None) => run().await,
        (Some("edge-config"), _) => edge_config::print().await,
        (Some("help" | "--help" | "-h"), None) => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("odoo-saas-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome {
    worker::run(WorkerSettings::load()?, None).await
}
