//! Logs rotate by size. Services write to their files themselves (a pipe through the supervisor would break with it),
//! so a log is copied and then cut: they append, hence go on at the new end. A line written in between is lost.

use std::fs;
use std::path::Path;

/// Size at which a log is rotated.
const LARGEST: u64 = 20 * 1024 * 1024;

/// Rotates the large logs of a folder; each keeps one predecessor, `<name>.log.1`.
pub(super) fn folder(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let large = entry
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.len() > LARGEST);
        if large && path.extension().is_some_and(|extension| extension == "log") {
            let mut old = path.clone().into_os_string();
            old.push(".1");
            if fs::copy(&path, &old).is_ok() {
                fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .and_then(|file| file.set_len(0))
                    .ok();
            }
        }
    }
}
