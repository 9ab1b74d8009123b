//! What a backup holds: a manifest, then the parts in the order in which it names them.

use std::fs;
use std::io::{Cursor, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::screen::Failure;

/// The version of what is inside.
const FORMAT: u32 = 1;
/// The dump's name among the parts.
pub(super) const DUMP: &str = "database.dump";

/// What a backup says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The version of this form.
    pub(super) format: u32,
    /// The version of the product that made it.
    pub(super) product: String,
    /// When, in seconds since 1970.
    pub(super) made_at: u64,
    /// Id of the instance.
    pub(super) instance: String,
    /// What follows.
    pub(super) parts: Vec<Part>,
}

/// A file in a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// Its path below the instance's state folder, but for the dump.
    pub(super) name: String,
    /// Its permissions.
    pub(super) mode: u32,
    /// Bytes.
    pub(super) size: u64,
    /// SHA-256 in hexadecimal.
    pub(super) sha256: String,
}

impl Manifest {
    /// Of files: where each is, its name in the backup, its permissions.
    pub(super) fn of(instance: &str, files: &[(PathBuf, String, u32)]) -> Result<Self> {
        let made_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let parts = files.iter().map(|(path, name, mode)| {
            let (size, sha256) = digest(path)?;
            Ok(Part {
                name: name.clone(),
                mode: *mode,
                size,
                sha256,
            })
        });
        Ok(Self {
            format: FORMAT,
            product: env!("CARGO_PKG_VERSION").to_owned(),
            made_at: made_at.as_secs(),
            instance: instance.to_owned(),
            parts: parts.collect::<Result<_>>()?,
        })
    }

    /// Itself and its parts as one stream.
    pub(super) fn stream(&self, files: &[(PathBuf, String, u32)]) -> Result<Box<dyn Read>> {
        let text = serde_json::to_vec(self)?;
        let length = u32::try_from(text.len())?.to_be_bytes().to_vec();
        let mut stream: Box<dyn Read> = Box::new(Cursor::new([length, text].concat()));
        for (path, _, _) in files {
            stream = Box::new(stream.chain(fs::File::open(path)?));
        }
        Ok(stream)
    }
}

/// Takes a stream apart into a folder, and compares every checksum. Files are named by their position: a name that
/// climbs out of the folder does not get that far.
pub(super) fn unpack(stream: &Path, folder: &Path) -> Result<Manifest> {
    let mut input = std::io::BufReader::new(fs::File::open(stream)?);
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let mut text = Vec::new();
    (&mut input)
        .take(u64::from(u32::from_be_bytes(length)))
        .read_to_end(&mut text)?;
    let version: serde_json::Value = serde_json::from_slice(&text).context("the backup's manifest")?;
    if version["format"]
        .as_u64()
        .is_none_or(|format| format > u64::from(FORMAT))
    {
        bail!(Failure::new(
            "the backup was made by a newer version of this program",
            format!("restore it with the checkout of version {}", version["product"])
        ));
    }
    let manifest: Manifest = serde_json::from_slice(&text).context("the backup's manifest")?;
    for (index, part) in manifest.parts.iter().enumerate() {
        ensure!(
            is_expected(&part.name),
            "the backup holds {}, which it should not",
            part.name
        );
        let path = unpacked(folder, index);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        std::io::copy(&mut (&mut input).take(part.size), &mut file)?;
        file.flush()?;
        ensure!(
            digest(&path)? == (part.size, part.sha256.clone()),
            "the checksum of {} in the backup is not that of its content",
            part.name
        );
    }
    ensure!(
        manifest.parts.iter().any(|part| part.name == DUMP),
        "the backup holds no database"
    );
    Ok(manifest)
}

/// Where a part was unpacked to.
pub(super) fn unpacked(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("part-{index}"))
}

fn is_expected(name: &str) -> bool {
    let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    name == DUMP
        || ["access.json", "ports.json"].contains(&name)
        || name.strip_prefix("secrets/").is_some_and(plain)
}

fn digest(path: &Path) -> Result<(u64, String)> {
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        hash.update(&buffer[..length]);
    }
    let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((size, hex))
}

#[cfg(test)]
mod tests {
    use super::is_expected;

    #[test]
    fn names_of_parts_stay_below_the_state_folder() {
        for good in ["database.dump", "access.json", "secrets/master.key"] {
            assert!(is_expected(good));
        }
        for bad in [
            "",
            "/etc/passwd",
            "secrets/../run/x",
            "secrets/",
            "secrets/..",
            "run/manifest.json",
        ] {
            assert!(!is_expected(bad), "{bad}");
        }
    }
}
