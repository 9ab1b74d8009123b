//! Which process is which: a pid alone may mean another process tomorrow, so it is always paired with the time it
//! started and the boot it belongs to. Nothing is ever signalled by pid alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::interrupt;

/// A process that can be told from any later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Process id.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    start: u64,
    /// `/proc/sys/kernel/random/boot_id`: ticks start anew with each boot.
    boot: String,
}

/// The fields of `/proc/<pid>/stat` that matter here.
struct Stat {
    state: char,
    parent: u32,
    group: i32,
    start: u64,
}

impl Identity {
    /// Identifies a running process; none where it is gone or a zombie.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = stat(pid)?;
        (stat.state != 'Z').then(|| Self {
            pid,
            start: stat.start,
            boot: boot_id(),
        })
    }

    /// Whether this very process still runs. A zombie doesn't: the first process of a container or virtual machine
    /// may be slow to reap.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|present| present == *self)
    }

    /// Signals the process if it is still this one.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may have ended in between, which is what the signal was for.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// The processes of the group this process led, itself included where it lives.
    ///
    /// The kernel gives a number to no new process while a group of that number has members, so members without the
    /// leader are its orphans; a leader with another start time means that the number was taken again.
    pub(crate) fn group(&self) -> Vec<i32> {
        if self.boot != boot_id() {
            return Vec::new();
        }
        if stat(self.pid).is_some_and(|leader| leader.start != self.start) {
            return Vec::new();
        }
        all()
            .into_iter()
            .filter(|pid| stat(*pid).is_some_and(|s| s.group == self.pid && s.state != 'Z'))
            .collect()
    }

    /// Waits until the process is gone; false at the deadline.
    pub(crate) fn wait_gone(&self, deadline: Duration) -> bool {
        wait_until(deadline, || !self.is_alive())
    }
}

/// Polls until the condition holds; false at the deadline or when the user asked to stop.
pub(crate) fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end || interrupt::requested() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills the listed processes and waits a moment for them to be gone.
pub(crate) fn kill_all(pids: &[i32], signal: Signal) {
    let targets: Vec<Identity> = pids.iter().filter_map(|pid| Identity::of(*pid)).collect();
    for target in &targets {
        target.signal(signal);
    }
    wait_until(Duration::from_secs(2), || {
        targets.iter().all(|target| !target.is_alive())
    });
}

/// Processes whose working directory is the given one. Postgres's processes all run in their data directory, whatever
/// session they made for themselves.
pub(crate) fn running_in(directory: &Path) -> Vec<i32> {
    let Ok(directory) = directory.canonicalize() else {
        return Vec::new();
    };
    all()
        .into_iter()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory))
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("postgres")))
        .collect()
}

/// Processes that were started with the given `NAME=value` in their environment.
pub(crate) fn with_environment(entry: &str) -> Vec<i32> {
    all()
        .into_iter()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|item| item == entry.as_bytes())
            })
        })
        .collect()
}

/// Children of a process that ended and were not waited for.
pub(crate) fn zombies_of(parent: u32) -> Vec<i32> {
    all()
        .into_iter()
        .filter(|pid| stat(*pid).is_some_and(|s| s.parent == parent && s.state == 'Z'))
        .collect()
}

/// The command line of a process, for messages.
pub(crate) fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&line).replace('\0', " ");
    if text.trim().is_empty() {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    } else {
        text.trim().chars().take(160).collect()
    }
}

/// All process ids of the machine.
pub(crate) fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_not_that_of_another_process_with_its_pid() {
        let own = i32::try_from(std::process::id()).expect("pids fit");
        let identity = Identity::of(own).expect("this process runs");
        assert!(identity.is_alive());
        assert!(
            !Identity {
                start: identity.start + 1,
                ..identity.clone()
            }
            .is_alive()
        );
        assert!(
            !Identity {
                boot: "another".into(),
                ..identity
            }
            .is_alive()
        );
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().expect("true starts");
        let pid = i32::try_from(child.id()).expect("pids fit");
        assert!(wait_until(Duration::from_secs(5), || Identity::of(pid).is_none()));
        child.wait().expect("reaped");
    }
}
