//! Runs other programs: always argv, never a shell, always with a deadline.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{interrupt, process::Identity};

/// What a program wrote and how it ended.
pub(crate) struct Outcome {
    /// Exit status.
    pub(crate) status: ExitStatus,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Runs a program, gives it `input`, and collects what it writes.
pub(crate) fn capture(command: &mut Command, input: &str, deadline: Duration) -> Result<Outcome> {
    let name = name_of(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = interrupt::spawn(command).with_context(|| format!("cannot start {name}"))?;
    let mut stdin = child.stdin.take().context("its input is a pipe")?;
    let mut stdout = child.stdout.take().context("its output is a pipe")?;
    let mut stderr = child.stderr.take().context("its errors are a pipe")?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ends without reading all of its input says why by its status.
            stdin.write_all(input.as_bytes()).ok();
        });
        let out = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).ok();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let err = scope.spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).ok();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status = wait(&mut child, &name, deadline)?;
        Ok(Outcome {
            status,
            stdout: out.join().unwrap_or_default(),
            stderr: err.join().unwrap_or_default(),
        })
    })
}

/// Runs a program whose output goes to the end of a log; an exit other than 0 is an error.
pub(crate) fn logged(command: &mut Command, log: &Path, deadline: Duration) -> Result<()> {
    let name = name_of(command);
    let out = append(log)?;
    let err = out.try_clone()?;
    let mut child = interrupt::spawn(command.stdin(Stdio::null()).stdout(out).stderr(err))
        .with_context(|| format!("cannot start {name}"))?;
    let status = wait(&mut child, &name, deadline)?;
    if !status.success() {
        bail!("{name} {}", ending(status));
    }
    Ok(())
}

/// Runs a program whose input and output were set; an exit other than 0 is an error that tells what it said.
pub(crate) fn piped(command: &mut Command, deadline: Duration) -> Result<()> {
    let name = name_of(command);
    let mut child =
        interrupt::spawn(command.stderr(Stdio::piped())).with_context(|| format!("cannot start {name}"))?;
    let mut stderr = child.stderr.take().context("its errors are a pipe")?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = wait(&mut child, &name, deadline)?;
    let said = reader.join().unwrap_or_default();
    if !status.success() {
        bail!("{name} {}: {}", ending(status), said.trim());
    }
    Ok(())
}

/// The same as [`logged`] in a process group of its own, which a Ctrl-C of the terminal doesn't reach, and waited for in any case:
/// for programs that must not be stopped half-way.
pub(crate) fn logged_to_the_end(command: &mut Command, log: &Path, deadline: Duration) -> Result<()> {
    let name = name_of(command);
    let out = append(log)?;
    let err = out.try_clone()?;
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    let mut child = interrupt::spawn(command).with_context(|| format!("cannot start {name}"))?;
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("{name} {}", ending(status));
        }
        if Instant::now() >= end {
            terminate(&mut child);
            bail!("{name} did not end within {} s", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a child; at the deadline or on an interrupt it is ended.
pub(crate) fn wait(child: &mut Child, name: &str, deadline: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end || interrupt::requested() {
            terminate(child);
            if interrupt::requested() {
                bail!("interrupted");
            }
            bail!("{name} did not end within {} s", deadline.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Asks a child to end, insists after ten seconds, and reaps it.
pub(crate) fn terminate(child: &mut Child) {
    let identity = i32::try_from(child.id()).ok().and_then(Identity::of);
    if let Some(identity) = identity {
        identity.signal(nix::sys::signal::Signal::SIGTERM);
        if !identity.wait_gone(Duration::from_secs(10)) {
            child.kill().ok();
        }
    }
    child.wait().ok();
}

/// Opens a log for appending.
pub(crate) fn append(path: &Path) -> Result<fs::File> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// How a program ended, in words.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Finds a program in PATH and in the system directories that a user's PATH may lack.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into))
        .map(|directory| directory.join(program))
        .find(|candidate| {
            nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok() && candidate.is_file()
        })
}

fn name_of(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
