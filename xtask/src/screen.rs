//! What a person sees: one line a stage with its time, what a long stage is doing, and on a failure what failed, the
//! end of its log and what to do.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::files;

static LINE: Mutex<()> = Mutex::new(());

/// Facts about a failure that its message lacks.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed, in a sentence.
    pub(crate) what: String,
    /// Its log.
    pub(crate) log: Option<PathBuf>,
    /// What a person can do about it.
    pub(crate) hint: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A failure without a log.
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            log: None,
            hint: hint.into(),
        }
    }

    /// The same with its log.
    pub(crate) fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }
}

/// Prints one whole line; lines of parallel stages never mix. A reader that went away (`| head`) stops nothing.
pub(crate) fn say(text: &str) {
    let _line = LINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// Runs a stage and prints its line. While it lasts, says from time to time what the end of its log says.
pub(crate) fn stage<T>(name: &str, log: Option<&Path>, work: impl FnOnce() -> Result<T> + Send) -> Result<T>
where
    T: Send,
{
    let begin = Instant::now();
    let done = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Duration::from_secs(10);
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                if begin.elapsed() >= next && !done.load(Ordering::Relaxed) {
                    let last = log
                        .and_then(|path| files::tail(path, 1).pop())
                        .unwrap_or_default();
                    say(&format!(
                        "· {name} {} {}",
                        seconds(begin.elapsed()),
                        shortened(&last)
                    ));
                    next += Duration::from_secs(20);
                }
            }
        });
        // The watcher must be told to end even when the work panics, or the scope would wait for it for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        outcome
    });
    match outcome {
        Ok(Ok(value)) => {
            say(&format!("✓ {name} {}", seconds(begin.elapsed())));
            Ok(value)
        }
        Ok(Err(error)) => {
            say(&format!("✗ {name} {}", seconds(begin.elapsed())));
            Err(error)
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Prints why a command failed.
pub(crate) fn failure(error: &Error) {
    eprintln!();
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    let Some(facts) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) else {
        return;
    };
    if let Some(log) = &facts.log {
        let lines = files::tail(log, 20);
        if !lines.is_empty() {
            eprintln!("last lines of {}:", log.display());
            for line in lines {
                eprintln!("  │ {line}");
            }
        }
    }
    if !facts.hint.is_empty() {
        eprintln!("what to do: {}", facts.hint);
    }
}

/// `1.2 s`, `105 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(20) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} s", duration.as_secs())
    }
}

fn shortened(text: &str) -> String {
    let plain: String = text
        .trim()
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    plain.chars().take(100).collect()
}
