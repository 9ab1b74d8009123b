//! `cargo xtask logs`: the end of a service's log, or of all, and what is added.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::files;
use crate::instance::Instance;
use crate::screen::Failure;

/// Runs the command.
pub(crate) fn command(
    instance: &Instance,
    name: Option<&str>,
    follow: bool,
    lines: usize,
) -> Result<ExitCode> {
    let all = found(instance);
    let chosen: BTreeMap<String, PathBuf> = match name {
        None => all,
        Some(name) => match all.get(name) {
            Some(path) => BTreeMap::from([(name.to_owned(), path.clone())]),
            None => {
                let names: Vec<&str> = all.keys().map(String::as_str).collect();
                bail!(Failure::new(
                    format!("there is no log {name}"),
                    if names.is_empty() {
                        "run `cargo xtask up` first".to_owned()
                    } else {
                        format!("there are: {}", names.join(", "))
                    },
                ))
            }
        },
    };
    let several = chosen.len() > 1;
    let mut out = std::io::stdout().lock();
    let mut positions = BTreeMap::new();
    for (name, path) in &chosen {
        if several {
            writeln!(out, "==> {name} <==")?;
        }
        positions.insert(name.clone(), fs::metadata(path).map_or(0, |meta| meta.len()));
        for line in files::tail(path, lines) {
            writeln!(out, "{line}")?;
        }
    }
    let mut last_shown = None;
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        for (name, path) in &chosen {
            let added = added(path, positions.entry(name.clone()).or_default());
            if added.is_empty() {
                continue;
            }
            if several && last_shown.as_ref() != Some(name) {
                writeln!(out, "==> {name} <==")?;
                last_shown = Some(name.clone());
            }
            out.write_all(&added)?;
            out.flush()?;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What was added since a position; a log that got shorter was rotated and starts anew.
fn added(path: &Path, position: &mut u64) -> Vec<u8> {
    let Ok(mut file) = fs::File::open(path) else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    if length < *position {
        *position = 0;
    }
    let mut bytes = Vec::new();
    if length > *position
        && file.seek(SeekFrom::Start(*position)).is_ok()
        && file.read_to_end(&mut bytes).is_ok()
    {
        *position += bytes.len() as u64;
    }
    bytes
}

fn found(instance: &Instance) -> BTreeMap<String, PathBuf> {
    let mut logs = BTreeMap::new();
    for folder in [instance.state.join("logs"), instance.state.join("edge/logs")] {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "log")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                logs.entry(name.to_owned()).or_insert(path.clone());
            }
        }
    }
    logs
}
