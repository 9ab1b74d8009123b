//! Ctrl-C while something runs that has to be cleaned up after: the first one asks, the second one ends at once.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Whether the user asked to stop (only ever true after [`watch`]).
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Forgets a request, so that cleaning up isn't interrupted by the interrupt that caused it.
pub(crate) fn clear() {
    REQUESTED.store(false, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP ask instead of killing. To be called before any other thread is started.
pub(crate) fn watch() -> Result<()> {
    signals().thread_block().context("cannot block signals")?;
    let descriptor =
        SignalFd::with_flags(&signals(), SfdFlags::SFD_CLOEXEC).context("cannot watch signals")?;
    WATCHED.store(true, Ordering::Relaxed);
    std::thread::spawn(move || {
        let mut count = 0;
        while let Ok(Some(_)) = descriptor.read_signal() {
            count += 1;
            REQUESTED.store(true, Ordering::Relaxed);
            if count > 2 {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// Starts a child with its signals unblocked: it would inherit the mask and could not be ended.
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    if !WATCHED.load(Ordering::Relaxed) {
        return command.spawn();
    }
    signals().thread_unblock().ok();
    let child = command.spawn();
    signals().thread_block().ok();
    child
}

fn signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGHUP);
    set
}
