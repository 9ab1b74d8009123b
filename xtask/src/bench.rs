//! `cargo xtask bench`: benchmarks in release mode, against an instance of their own that is removed after.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::build::{self, Selection};
use crate::install::Purpose;
use crate::instance::{Instance, Name};
use crate::up::{self, Extent};
use crate::{down, exec, interrupt, screen, test, tools};

/// Longest time of a benchmark.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// Runs the command.
pub(crate) fn command(names: &[String]) -> Result<ExitCode> {
    interrupt::watch()?;
    let mut instance = Instance::open(Name::Bench)?;
    let _reserved = instance.reserve()?;
    let outcome = run(&mut instance, names);
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

fn run(instance: &mut Instance, names: &[String]) -> Result<bool> {
    if instance.exists() {
        // A run that was killed left it.
        down::take_down(instance, true)?;
    }
    screen::say("· compiling in release mode");
    let compiled = build::compile(instance, Selection::Benchmarks, None)?;
    let program = compiled
        .iter()
        .find(|artifact| artifact.package == "tests" && artifact.name == "bench")
        .context("the crate tests has no program bench")?;
    instance.ports.move_taken();
    let facts = up::bring_up(instance, Purpose::Bench, Some(&compiled), Extent::Platform)?;
    let requirements = instance
        .checkout
        .join("tests/src/bin/bench/jobs/requirements.txt");
    let rq = tools::python_environment("rq", &requirements)?;
    let mut command = Command::new(&program.path);
    command.env("BENCH_RQ_PYTHON", rq);
    command.args(names).envs(test::variables(instance, &facts)?);
    command.current_dir(&instance.checkout).stdin(Stdio::null());
    let mut child = interrupt::spawn(&mut command).context("cannot start the benchmark")?;
    Ok(exec::wait(&mut child, "the benchmark", DEADLINE)?.success())
}
