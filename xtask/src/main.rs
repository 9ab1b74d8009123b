//! Developer automation: `cargo xtask up | down | status | logs | hold | release | backup-control | restore-control |
//! test | bench | chaos`.
//!
//! It starts real programs (Postgres, Redis, Nginx, Docker Engine, the platform's own binaries) and watches them; it
//! holds no rule of the product and never speaks to a database but through `psql`. It must compile in seconds, since a
//! fresh machine waits for it: no async runtime, no HTTP library.

mod access;
mod api;
mod bench;
mod build;
mod control;
mod docker;
mod down;
mod exec;
mod files;
mod firewall;
mod http;
mod image;
mod install;
mod instance;
mod interrupt;
mod logs;
mod openapi;
mod ports;
mod postgres;
mod process;
mod redis;
mod screen;
mod secrets;
mod services;
mod status;
mod supervisor;
mod test;
mod tools;
mod up;
mod users;

use clap::{Parser, Subcommand};

use crate::instance::Instance;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Runs, watches and tests the platform on this machine."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings the whole platform up on this machine, with a demo tenant. Run it again at any time
    Up(ports::Overrides),
    /// Stops all that `up` started, and nothing else
    Down {
        /// Forget the data too: databases, files, secrets, containers and volumes (not the image cache)
        #[arg(long)]
        purge: bool,
    },
    /// Tells how each part is; exits 0 only when all is well
    Status,
    /// Shows the log of a service, or of all of them
    Logs {
        /// Name of a service, as `status` lists them
        name: Option<String>,
        /// Go on showing what is added
        #[arg(short, long)]
        follow: bool,
        /// How many lines of each log to show
        #[arg(short = 'n', long, default_value_t = 40)]
        lines: usize,
    },
    /// Keeps a service of `up` down until it is released
    Hold {
        /// Name of a service, as `status` lists them
        name: String,
    },
    /// Lets a held service run again
    Release {
        /// Name of a service, as `status` lists them
        name: String,
    },
    /// Runs a command of `odoo-saas-api`, such as `rotate-data-key`, with the settings of the api that runs
    Api {
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// Backs up the control plane's database and keys into one encrypted file, while everything runs
    BackupControl(control::Target),
    /// Makes the control plane of a backup; tenants' data stays as it is
    RestoreControl {
        #[command(flatten)]
        target: control::Target,
        /// Give up the control plane that is there
        #[arg(long)]
        replace: bool,
    },
    /// Runs every check and test on servers of its own, or only those named: a crate, a test filter, `fmt`, `clippy`,
    /// `deny`, `openapi`, `breaking`, `fuzz`
    Test {
        /// Crates, test filters or checks
        names: Vec<String>,
    },
    /// Runs benchmarks in release mode against an instance of their own
    Bench {
        /// Names and options handed to the benchmark program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        names: Vec<String>,
    },
    /// Lets everything break at random while customers work, and sees that all is well in the end; on an instance of its
    /// own
    Chaos {
        /// How long
        #[arg(long, default_value_t = 20)]
        minutes: u64,
        /// Decides what is done and what breaks
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Writes anew what is printed from the code: the OpenAPI document and the reference pages of errors and settings
    Openapi {
        #[command(subcommand)]
        action: Option<openapi::Action>,
    },
    /// Watches the services of a state folder (started by `up`; not for people)
    #[command(hide = true)]
    Supervise {
        /// The state folder
        state: std::path::PathBuf,
    },
}

fn main() -> std::process::ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up(overrides) => up::command(&overrides),
        Command::Down { purge } => Instance::chosen().and_then(|instance| down::command(&instance, purge)),
        Command::Status => Instance::chosen().and_then(|instance| status::command(&instance)),
        Command::Logs { name, follow, lines } => {
            Instance::chosen().and_then(|instance| logs::command(&instance, name.as_deref(), follow, lines))
        }
        Command::Hold { name } => Instance::chosen().and_then(|instance| status::hold(&instance, &name)),
        Command::Release { name } => {
            Instance::chosen().and_then(|instance| status::release(&instance, &name))
        }
        Command::Api { words } => Instance::chosen().and_then(|instance| api::command(&instance, &words)),
        Command::BackupControl(target) => {
            Instance::chosen().and_then(|instance| control::backup(&instance, &target))
        }
        Command::RestoreControl { target, replace } => {
            Instance::chosen().and_then(|instance| control::restore(&instance, &target, replace))
        }
        Command::Test { names } => test::command(&names),
        Command::Bench { names } => bench::command(&names),
        Command::Chaos { minutes, seed } => bench::chaos(minutes, seed),
        Command::Openapi { action } => openapi::command(action.as_ref()),
        Command::Supervise { state } => supervisor::command(&state),
    };
    match outcome {
        Ok(code) => code,
        // The reader went away (`| head`), having seen enough.
        Err(error) if is_broken_pipe(&error) => std::process::ExitCode::SUCCESS,
        Err(_) if interrupt::requested() => {
            screen::say("interrupted: run it again to go on");
            std::process::ExitCode::from(130)
        }
        Err(error) => {
            screen::failure(&error);
            std::process::ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
