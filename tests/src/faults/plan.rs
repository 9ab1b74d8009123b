//! What shall go wrong, where and how often; and what did.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::wait;

/// A place in an operation, the same in each of its runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// `apply` or `undo`.
    pub direction: String,
    /// The step.
    pub step: String,
    /// `begin`, `effect` or `end`.
    pub moment: String,
    /// Which of the step's effects, from 1.
    pub nth: u32,
}

impl Place {
    /// Where a step that was done, or undone, is not written down yet.
    #[must_use]
    pub fn end(direction: &str, step: &str) -> Self {
        Self {
            direction: direction.to_owned(),
            step: step.to_owned(),
            moment: "end".to_owned(),
            nth: 1,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.direction, self.step, self.moment)?;
        if self.nth > 1 {
            write!(f, " {}", self.nth)
        } else {
            Ok(())
        }
    }
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The worker is killed.
    Kill,
    /// The worker is stopped where it stands, and goes on when it is told to.
    Stop,
    /// The step waits until the test has done something.
    Pause,
    /// An error that may pass.
    Retry,
    /// An error that won't.
    Permanent,
    /// A bug.
    Panic,
    /// The step ends early though nobody asked it to.
    Stopped,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub action: Action,
    /// How often: the first so many times that the operation comes by.
    pub times: u32,
}

impl Fault {
    /// Once.
    #[must_use]
    pub const fn once(place: Place, action: Action) -> Self {
        Self {
            place,
            action,
            times: 1,
        }
    }
}

/// A place that an operation passed, and the claim under which it did.
pub type Point = (Place, i64);

/// The folder of plans.
#[derive(Clone, Debug)]
pub struct Plans {
    folder: PathBuf,
}

impl Plans {
    /// Plans in a new folder, which any user may write to.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("faults-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(Self { folder })
    }

    /// Those of a folder.
    #[must_use]
    pub const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Plans faults for the operations that a request causes.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, request: &str, faults: &[Fault]) -> Result<()> {
        Ok(fs::write(
            self.file(request, "plan"),
            serde_json::to_vec(faults)?,
        )?)
    }

    /// What is planned for a request's operations.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(&self, request: &str) -> Result<Vec<Fault>> {
        match fs::read(self.file(request, "plan")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes one of a fault's times; false when all are taken.
    ///
    /// # Errors
    /// It can't be written down.
    pub fn take(&self, request: &str, fault: usize, times: u32) -> Result<bool> {
        for time in 0..times {
            let file = self.file(request, &format!("{fault}.{time}"));
            match OpenOptions::new().write(true).create_new(true).open(&file) {
                Ok(mut taken) => {
                    write!(taken, "{}", std::process::id())?;
                    return Ok(true);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Waits until a fault has happened for the first time, and answers the process to which it did.
    ///
    /// # Errors
    /// It does not happen in time.
    pub async fn happened(&self, request: &str, fault: usize, within: Duration) -> Result<i32> {
        let file = self.file(request, &format!("{fault}.0"));
        wait::until(within, "the planned fault happens", async || {
            let text = fs::read_to_string(&file).context("it did not happen yet")?;
            text.parse().context("it happens just now")
        })
        .await
    }

    /// Whether each fault has happened at least once.
    #[must_use]
    pub fn all_happened(&self, request: &str, faults: usize) -> bool {
        (0..faults).all(|fault| self.file(request, &format!("{fault}.0")).exists())
    }

    /// Lets a paused step go on.
    ///
    /// # Errors
    /// It can't be written down.
    pub fn let_go(&self, request: &str) -> Result<()> {
        Ok(fs::write(self.file(request, "go"), b"")?)
    }

    /// Whether a paused step may go on.
    #[must_use]
    pub fn may_go(&self, request: &str) -> bool {
        self.file(request, "go").exists()
    }

    /// Writes down that an operation passed a place.
    ///
    /// # Errors
    /// It can't be written down.
    pub fn trace(&self, request: &str, point: &Point) -> Result<()> {
        let mut line = serde_json::to_vec(point)?;
        line.push(b'\n');
        let file = self.file(request, "trace");
        let mut trace = OpenOptions::new().append(true).create(true).open(file)?;
        Ok(trace.write_all(&line)?)
    }

    /// What the operations of a request have passed, in order.
    ///
    /// # Errors
    /// It can't be read.
    pub fn traced(&self, request: &str) -> Result<Vec<Point>> {
        let text = fs::read_to_string(self.file(request, "trace")).context("nothing was passed")?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn file(&self, request: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{request}.{what}"))
    }
}
