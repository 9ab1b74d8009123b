//! The lock of the routes: a file that is locked for the few system calls of a change.
//!
//! A process that is stopped in the middle of them would hold up all others for as long as it stands still. So who has
//! waited for one holder for longer than any change takes removes the file, and locks another one of its name. The one
//! that stood still asks, before it makes anything visible, whether its lock is still the one of that name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::EdgeError;
use super::error::at;

/// Longer than any change takes.
const STANDS_STILL: Duration = Duration::from_secs(3);

/// Holders that are waited for, one after another.
const HOLDERS: u32 = 4;

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a directory of routes.
    pub(super) fn take(directory: &Path) -> Result<Self, EdgeError> {
        let path = directory.join("lock");
        for _ in 0..HOLDERS {
            let lock = Self {
                file: open(&path)?,
                path: path.clone(),
            };
            let begun = Instant::now();
            let taken = loop {
                match lock.file.try_lock() {
                    Ok(()) => break true,
                    Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
                    Err(TryLockError::WouldBlock) if begun.elapsed() > STANDS_STILL => break false,
                    Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
                }
            };
            if !taken {
                lock.remove(directory)?;
            } else if lock.is_the_one()? {
                return Ok(lock);
            }
        }
        Err(EdgeError::Locked {
            path,
            waited: STANDS_STILL * HOLDERS,
        })
    }

    /// Before a change becomes visible.
    pub(super) fn ensure_held(&self) -> Result<(), EdgeError> {
        if self.is_the_one()? {
            Ok(())
        } else {
            Err(EdgeError::Overtaken)
        }
    }

    /// Whether the file of this name is the one that is locked here.
    fn is_the_one(&self) -> Result<bool, EdgeError> {
        let own = self.file.metadata().map_err(at(&self.path))?;
        match fs::metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&self.path)(error)),
        }
    }

    /// Removes the file that was waited for, if no one else has done so.
    fn remove(&self, directory: &Path) -> Result<(), EdgeError> {
        let path = directory.join("lock.takeover");
        let referee = open(&path)?;
        // Held by another one: that one removes it.
        if referee.try_lock().is_ok() && self.is_the_one()? {
            tracing::warn!("a process stands still with the lock of the routes; it is taken over");
            fs::remove_file(&self.path).map_err(at(&self.path))?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, EdgeError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        .map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_overtaken_and_changes_nothing_afterwards() {
        let directory = std::env::temp_dir().join(format!("edge-lock-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&directory).unwrap();
        let stopped = Lock::take(&directory).unwrap();
        stopped.ensure_held().unwrap();
        let next = Lock::take(&directory).unwrap();
        next.ensure_held().unwrap();
        assert!(matches!(stopped.ensure_held(), Err(EdgeError::Overtaken)));
        drop(stopped);
        drop(next);
        Lock::take(&directory).unwrap().ensure_held().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}
