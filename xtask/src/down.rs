//! `cargo xtask down`: stops what `up` started and nothing else.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::docker;
use crate::instance::{self, Instance, Name};
use crate::screen::{self, stage};
use crate::supervisor::{self, Manifest};
use crate::{files, firewall};

/// Runs the command.
pub(crate) fn command(instance: &Instance, purge: bool) -> Result<ExitCode> {
    if !instance.exists() {
        screen::say("nothing to stop: `cargo xtask up` never ran here");
        return Ok(ExitCode::SUCCESS);
    }
    take_down(instance, purge)?;
    Ok(ExitCode::SUCCESS)
}

/// Stops an instance; with `purge` its data is forgotten, too. May be run again when it was interrupted.
pub(crate) fn take_down(instance: &Instance, purge: bool) -> Result<()> {
    let lock = instance.lock()?;
    let manifest = Manifest::read(&instance.state);
    stage("services stopped", None, || {
        supervisor::stop(&instance.state, Duration::from_secs(120))
    })?;
    let engine = current_engine(instance)?;
    if let Some(engine) = &engine {
        stage("containers stopped", None, || {
            let containers = engine.containers(&instance.id)?;
            std::thread::scope(|scope| {
                for container in containers.iter().filter(|container| container.state == "running") {
                    // Odoo may take seconds to finish its requests; all at once.
                    scope.spawn(move || engine.stop(&container.id));
                }
            });
            if purge { engine.purge(&instance.id) } else { Ok(()) }
        })?;
    }
    if let Some(rules) = &manifest.firewall {
        firewall::remove(rules);
    }
    docker::release(instance)?;
    if purge {
        stage("data removed", None, || {
            files::remove_tree(&instance.state)?;
            if instance.name == Name::Main {
                let link = instance.checkout.join(".platform");
                if fs::read_link(&link).is_ok_and(|target| target == instance.state) {
                    fs::remove_file(&link)?;
                }
            }
            forget_empty_root()
        })?;
    }
    drop(lock);
    Ok(())
}

/// The Engine that holds the instance's containers: none where none was ever needed or the machine has one.
fn current_engine(instance: &Instance) -> Result<Option<docker::Engine>> {
    match docker::current(instance)? {
        // Containers outlive the private Engine's daemon: it is started again to stop them.
        None if docker::is_user_of_private(instance)? => docker::ensure(instance).map(Some),
        other => Ok(other),
    }
}

/// The folder of all instances goes with the last one, unless the private Docker Engine still has its images there.
fn forget_empty_root() -> Result<()> {
    // Fails where anything is left in it, which is the point.
    fs::remove_dir(instance::state_root()?).ok();
    Ok(())
}
