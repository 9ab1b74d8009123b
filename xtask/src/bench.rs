//! `cargo xtask bench` and `cargo xtask chaos`: long runs in release mode, against an instance of their own that is removed
//! after.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::build::{self, Selection};
use crate::install::Purpose;
use crate::instance::{Instance, Name};
use crate::up::{self, Extent};
use crate::{down, exec, interrupt, screen, test, tools};

/// Longest time of a run.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// Runs benchmarks.
pub(crate) fn command(names: &[String]) -> Result<ExitCode> {
    on_own_instance("bench", names)
}

/// Runs the platform while everything breaks.
pub(crate) fn chaos(minutes: u64, seed: u64) -> Result<ExitCode> {
    let arguments = [
        "--minutes".to_owned(),
        minutes.to_string(),
        "--seed".to_owned(),
        seed.to_string(),
    ];
    on_own_instance("chaos", &arguments)
}

fn on_own_instance(program: &str, arguments: &[String]) -> Result<ExitCode> {
    interrupt::watch()?;
    let mut instance = Instance::open(Name::Bench)?;
    let _reserved = instance.reserve()?;
    let outcome = run(&mut instance, program, arguments);
    let interrupted = interrupt::requested();
    interrupt::clear();
    if let Err(error) = &outcome
        && !interrupted
    {
        // Before the logs it quotes are removed.
        screen::failure(error);
    }
    if instance.exists() {
        down::take_down(&instance, true)?;
    }
    if interrupted {
        screen::say("interrupted");
        return Ok(ExitCode::from(130));
    }
    Ok(if outcome.is_ok_and(|success| success) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(instance: &mut Instance, program: &str, arguments: &[String]) -> Result<bool> {
    if instance.exists() {
        // A run that was killed left it.
        down::take_down(instance, true)?;
    }
    screen::say("· compiling in release mode");
    let compiled = build::compile(instance, Selection::Benchmarks, None)?;
    let program = compiled
        .iter()
        .find(|artifact| artifact.package == "tests" && artifact.name == program)
        .with_context(|| format!("the crate tests has no program {program}"))?;
    instance.ports.move_taken();
    let facts = up::bring_up(instance, Purpose::Bench, Some(&compiled), Extent::Platform)?;
    let requirements = instance
        .checkout
        .join("tests/src/bin/bench/jobs/requirements.txt");
    let rq = tools::python_environment("rq", &requirements)?;
    let mut command = Command::new(&program.path);
    command.env("BENCH_RQ_PYTHON", rq);
    command.args(arguments).envs(test::variables(instance, &facts)?);
    command.current_dir(&instance.checkout).stdin(Stdio::null());
    let mut child = interrupt::spawn(&mut command).context("cannot start the program")?;
    Ok(exec::wait(&mut child, "the run", DEADLINE)?.success())
}
