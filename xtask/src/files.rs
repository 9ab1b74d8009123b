//! Files as the other parts need them: written whole or not at all, with their mode and owner set before they appear.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::users::Account;

/// Who owns a file or directory: none leaves it with whoever runs this.
pub(crate) type Owner<'a> = Option<&'a Account>;

/// Writes a file through a temporary one and a rename. Returns whether its content changed.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, owner: Owner<'_>) -> Result<bool> {
    let same = fs::read(path).is_ok_and(|present| present == content);
    if same && fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o7777 == mode) {
        give(path, owner)?;
        return Ok(false);
    }
    let staged = staged_name(path);
    fs::remove_file(&staged).ok();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .with_context(|| format!("cannot write {}", staged.display()))?;
    file.write_all(content)?;
    give(&staged, owner)?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(mode))?;
    fs::rename(&staged, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(!same)
}

/// Copies a program into place by a rename, so that the running one keeps its file. Returns whether it changed.
pub(crate) fn install(source: &Path, target: &Path) -> Result<bool> {
    let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    write(target, &content, 0o755, None)
}

/// Makes a directory with its mode and owner, or corrects them.
pub(crate) fn directory(path: &Path, mode: u32, owner: Owner<'_>) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    give(path, owner)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

fn give(path: &Path, owner: Owner<'_>) -> Result<()> {
    // Only root can give files away; without root everything belongs to one user anyway.
    if let Some(account) = owner
        && nix::unistd::geteuid().is_root()
    {
        chown(path, Some(account.uid), Some(account.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), account.name))?;
    }
    Ok(())
}

/// Removes a directory and all below it; one that isn't there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    const ENOUGH: u64 = 256 * 1024;
    let Ok(mut file) = fs::File::open(path) else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut content = Vec::new();
    {
        use std::io::{Read as _, Seek as _, SeekFrom};
        if file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH))).is_err()
            || file.read_to_end(&mut content).is_err()
        {
            return Vec::new();
        }
    }
    let text = String::from_utf8_lossy(&content);
    let all: Vec<&str> = text.lines().collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| (*line).to_owned())
        .collect()
}

/// 64-bit FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>) in hexadecimal: short names and change detection,
/// never security.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts
        .iter()
        .flat_map(|part| part.iter().chain(std::iter::once(&0xff)))
    {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn staged_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".staged-{}", std::process::id()));
    path.with_file_name(name)
}
