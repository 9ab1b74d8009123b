//! `cargo xtask api COMMAND`: runs one of `odoo-saas-api`'s commands as the api runs: its program, user and settings.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::instance::Instance;
use crate::screen::Failure;
use crate::supervisor::Manifest;
use crate::{exec, interrupt};

/// Longest time of a command.
const DEADLINE: Duration = Duration::from_secs(600);

/// Runs the command.
pub(crate) fn command(instance: &Instance, words: &[String]) -> Result<ExitCode> {
    interrupt::watch()?;
    let services = Manifest::read(&instance.state).services;
    let api = services.iter().find(|service| service.name == "api");
    let api = api.ok_or_else(|| Failure::new("the api was never started", "run `cargo xtask up`"))?;
    let (program, arguments) = api.argv.split_first().context("a service has a program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args(words)
        .current_dir("/")
        .env_clear()
        .envs(&api.environment);
    let mut child = interrupt::spawn(&mut command).context("cannot start odoo-saas-api")?;
    let status = exec::wait(&mut child, "odoo-saas-api", DEADLINE)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
