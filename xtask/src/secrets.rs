//! Secrets of an instance: made once, each in a file of its own that only the process that needs it can read.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::files::{self, Owner};
use crate::instance::Instance;

/// Reads a secret, or makes it: 32 random bytes in base64url, which needs no quoting anywhere.
pub(crate) fn ensure(instance: &Instance, name: &str, owner: Owner<'_>) -> Result<String> {
    let path = path(instance, name);
    if let Ok(present) = fs::read_to_string(&path)
        && !present.trim().is_empty()
    {
        return Ok(present.trim().to_owned());
    }
    let secret = base64(&random()?, true);
    files::write(&path, secret.as_bytes(), 0o400, owner)?;
    Ok(secret)
}

/// Reads a secret that may not be there.
pub(crate) fn read(instance: &Instance, name: &str) -> Option<String> {
    let text = fs::read_to_string(path(instance, name)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Writes a secret's file, readable by its owner only.
pub(crate) fn write(instance: &Instance, name: &str, content: &str, owner: Owner<'_>) -> Result<PathBuf> {
    let path = path(instance, name);
    files::write(&path, content.as_bytes(), 0o400, owner)?;
    Ok(path)
}

/// Where a secret lives.
pub(crate) fn path(instance: &Instance, name: &str) -> PathBuf {
    instance.state.join("secrets").join(name)
}

/// 32 random bytes in standard base64, for keys.
pub(crate) fn key() -> Result<String> {
    Ok(base64(&random()?, false))
}

/// A password for people: 24 characters of base64url.
pub(crate) fn password() -> Result<String> {
    Ok(base64(&random()?, true)
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(24)
        .collect())
}

/// 32 random bytes.
pub(crate) fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read random bytes")?;
    Ok(bytes)
}

fn base64(bytes: &[u8], url: bool) -> String {
    let alphabet: &[u8; 64] = if url {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    } else {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    };
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0_u32, |group, byte| (group << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            let index = (group >> (18 - 6 * position)) & 63;
            text.push(char::from(alphabet[index as usize]));
        }
    }
    while !url && !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    // RFC 4648, section 10.
    #[test]
    fn base64_gives_the_vectors_of_its_rfc() {
        for (bytes, padded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes(), false), padded);
            assert_eq!(base64(bytes.as_bytes(), true), padded.trim_end_matches('='));
        }
    }
}
