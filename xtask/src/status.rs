//! `cargo xtask status`: how each part is. Exits 0 only when all is well. Beside it `hold` and `release`, for parts that
//! somebody wants down for a while.

use std::process::ExitCode;

use anyhow::Result;

use crate::access::Access;
use crate::instance::Instance;
use crate::process::Identity;
use crate::screen;
use crate::supervisor::{self, Manifest, Record};
use crate::{docker, redis, up};

/// Runs the command.
pub(crate) fn command(instance: &Instance) -> Result<ExitCode> {
    if !instance.exists() {
        screen::say("down: run `cargo xtask up`");
        return Ok(ExitCode::FAILURE);
    }
    let mut report = Report { well: true };
    report.line("supervisor", supervised(instance));
    let manifest = Manifest::read(&instance.state);
    let status = supervisor::status(&instance.state);
    for service in &manifest.services {
        let restarts = status.get(&service.name).map_or(0, |status| status.restarts);
        report.line(&service.name, running(instance, &service.name, restarts));
    }
    for expected in ["api", "worker", "nginx"] {
        if !manifest.services.iter().any(|service| service.name == expected) {
            report.line(expected, Err("was never started: run `cargo xtask up`".into()));
        }
    }
    if manifest
        .services
        .iter()
        .any(|service| service.name == redis::NAME)
    {
        report.line("redis answers", outcome(redis::ping(instance)));
    }
    report.line("api ready", outcome(up::readiness(instance)));
    report.containers(instance);
    report.line("tenant demo", outcome(up::probe_demo(instance)));
    if let Some(access) = Access::read(instance) {
        screen::say(&format!(
            "\nAPI {}   tenant {}",
            access.api_url, access.tenant_url
        ));
    }
    screen::say(&format!("State {}", instance.state.display()));
    Ok(if report.well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `cargo xtask hold`: keeps a service down.
pub(crate) fn hold(instance: &Instance, name: &str) -> Result<ExitCode> {
    known(instance, name)?;
    supervisor::hold(&instance.state, name)?;
    screen::say(&format!(
        "{name} is held; `cargo xtask release {name}` lets it run again"
    ));
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask release`: lets it run again.
pub(crate) fn release(instance: &Instance, name: &str) -> Result<ExitCode> {
    known(instance, name)?;
    supervisor::release(&instance.state, name)?;
    screen::say(&format!("{name} runs again"));
    Ok(ExitCode::SUCCESS)
}

fn known(instance: &Instance, name: &str) -> Result<()> {
    let services = Manifest::read(&instance.state).services;
    if services.iter().any(|service| service.name == name) {
        return Ok(());
    }
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    anyhow::bail!("there is no service {name}; there are: {}", names.join(", "))
}

struct Report {
    well: bool,
}

impl Report {
    fn line(&mut self, name: &str, state: std::result::Result<String, String>) {
        match state {
            Ok(text) => screen::say(&format!("✓ {name:<24} {text}")),
            Err(text) => {
                self.well = false;
                screen::say(&format!("✗ {name:<24} {text}"));
            }
        }
    }

    fn containers(&mut self, instance: &Instance) {
        let engine = match docker::current(instance) {
            Ok(Some(engine)) => engine,
            Ok(None) => return self.line("docker engine", Err("none answers".into())),
            Err(error) => return self.line("docker engine", Err(format!("{error:#}"))),
        };
        self.line(
            "docker engine",
            outcome(engine.ping()).map(|_| engine.host.clone()),
        );
        let mut serving = 0;
        for container in engine.containers(&instance.id).unwrap_or_default() {
            if matches!(container.role.as_str(), "web" | "gevent" | "cron") {
                serving += 1;
                let sound = container.state == "running" && !container.status.contains("unhealthy");
                let text = format!("{} ({})", container.status, container.role);
                self.line(&container.name, if sound { Ok(text) } else { Err(text) });
            }
        }
        if serving == 0 {
            self.line("pool", Err("has no containers".into()));
        }
    }
}

fn supervised(instance: &Instance) -> std::result::Result<String, String> {
    match supervisor::running(&instance.state) {
        Some(identity) => Ok(format!("process {}", identity.pid)),
        None => Err("does not run: `cargo xtask up` starts it again".into()),
    }
}

fn running(instance: &Instance, name: &str, restarts: u32) -> std::result::Result<String, String> {
    let again = if restarts == 0 {
        String::new()
    } else {
        format!(", started again {restarts} time(s)")
    };
    match Record::read(&instance.state, name)
        .map(|record| record.identity)
        .filter(Identity::is_alive)
    {
        Some(identity) => Ok(format!("process {}{again}", identity.pid)),
        None if supervisor::is_held(&instance.state, name) => {
            Err(format!("is held: `cargo xtask release {name}` lets it run"))
        }
        None => Err(format!("does not run{again}: see `cargo xtask logs {name}`")),
    }
}

fn outcome(result: Result<()>) -> std::result::Result<String, String> {
    result
        .map(|()| "yes".to_owned())
        .map_err(|error| format!("{error:#}"))
}
