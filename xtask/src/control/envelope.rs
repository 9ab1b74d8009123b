//! A file that only its passphrase opens:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `OSPCTRL` and the version of this form, 1 |
//! | 16 | salt |
//! | 16 | tells a wrong passphrase from a damaged file |
//! | rest | chunks of 64 KiB, each with its tag of 16 bytes; the last one may be shorter |
//!
//! Argon2id (RFC 9106, its first recommendation for less memory: 64 MiB, three passes, four lanes) makes of passphrase and
//! salt 55 bytes: the key, the 16 bytes above, a nonce's beginning. Chunks are AES-256-GCM in the STREAM construction
//! (Hoang, Reyhanitabar, Rogaway, Vizár 2015): one that is missing, moved or cut off is noticed.

use std::io::{Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::Payload;
use anyhow::{Context as _, Result, bail};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::screen::Failure;

const MAGIC: &[u8; 7] = b"OSPCTRL";
const VERSION: u8 = 1;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
const MEMORY_KIB: u32 = 64 * 1024;

/// What stands before the chunks. Each chunk is bound to it.
struct Header([u8; 40]);

impl Header {
    fn salt(&self) -> &[u8] {
        &self.0[8..24]
    }
}

/// What a passphrase is stretched to.
struct Stretched([u8; 55]);

impl Stretched {
    fn of(passphrase: &str, salt: &[u8]) -> Result<Self> {
        let mut output = [0; 55];
        let params = Params::new(MEMORY_KIB, 3, 4, Some(output.len()));
        Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            params.map_err(|error| anyhow::anyhow!("{error}"))?,
        )
        .hash_password_into(passphrase.as_bytes(), salt, &mut output)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self(output))
    }

    fn key(&self) -> &[u8] {
        &self.0[..32]
    }

    fn check(&self) -> &[u8] {
        &self.0[32..48]
    }

    fn nonce(&self) -> &[u8] {
        &self.0[48..]
    }
}

/// Encrypts all of the input.
pub(super) fn seal(passphrase: &str, mut input: impl Read, mut output: impl Write) -> Result<()> {
    let salt = crate::secrets::random()?;
    let stretched = Stretched::of(passphrase, &salt[..16])?;
    let mut header = Header([0; 40]);
    header.0[..7].copy_from_slice(MAGIC);
    header.0[7] = VERSION;
    header.0[8..24].copy_from_slice(&salt[..16]);
    header.0[24..].copy_from_slice(stretched.check());
    output.write_all(&header.0)?;
    let mut stream = EncryptorBE32::<Aes256Gcm>::new(
        stretched.key().try_into().context("a key of 32 bytes")?,
        stretched.nonce().try_into().context("a nonce of 7 bytes")?,
    );
    let failed = |_| anyhow::anyhow!("the backup is too long to be encrypted");
    let mut chunk = fill(&mut input, CHUNK)?;
    loop {
        let next = fill(&mut input, CHUNK)?;
        let payload = Payload {
            msg: &chunk,
            aad: &header.0,
        };
        if next.is_empty() {
            output.write_all(&stream.encrypt_last(payload).map_err(failed)?)?;
            return Ok(());
        }
        output.write_all(&stream.encrypt_next(payload).map_err(failed)?)?;
        chunk = next;
    }
}

/// Decrypts all of the input. What it has written before an error is not to be used.
pub(super) fn open(passphrase: &str, mut input: impl Read, mut output: impl Write) -> Result<()> {
    let damaged = || {
        Failure::new(
            "the backup is damaged: it was cut off, or changed",
            "take another copy of it",
        )
    };
    let mut header = Header([0; 40]);
    if input.read_exact(&mut header.0).is_err() || header.0[..7] != *MAGIC {
        bail!(Failure::new(
            "the file is no backup of a control plane",
            "name one that `cargo xtask backup-control` has made"
        ));
    }
    if header.0[7] > VERSION {
        bail!(Failure::new(
            "the backup was made by a newer version of this program",
            "restore it with that version's checkout"
        ));
    }
    let stretched = Stretched::of(passphrase, header.salt())?;
    if stretched.check() != &header.0[24..] {
        bail!(Failure::new(
            "the passphrase is not that of this backup",
            "name the file that holds the one it was made with"
        ));
    }
    let mut stream = DecryptorBE32::<Aes256Gcm>::new(
        stretched.key().try_into().context("a key of 32 bytes")?,
        stretched.nonce().try_into().context("a nonce of 7 bytes")?,
    );
    let mut chunk = fill(&mut input, CHUNK + TAG)?;
    loop {
        let next = fill(&mut input, CHUNK + TAG)?;
        let payload = Payload {
            msg: &chunk,
            aad: &header.0,
        };
        if next.is_empty() {
            output.write_all(&stream.decrypt_last(payload).map_err(|_| damaged())?)?;
            return Ok(());
        }
        output.write_all(&stream.decrypt_next(payload).map_err(|_| damaged())?)?;
        chunk = next;
    }
}

/// Reads so many bytes; fewer only at the end.
fn fill(input: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    input.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        seal("a passphrase", content, &mut file).expect("it is sealed");
        file
    }

    fn opened(passphrase: &str, file: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut content = Vec::new();
        match open(passphrase, file, &mut content) {
            Ok(()) => Ok(content),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_length_comes_back_as_it_was() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let content: Vec<u8> = (0..=250_u8).cycle().take(length).collect();
            assert_eq!(
                opened("a passphrase", &sealed(&content)).expect("it opens"),
                content
            );
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let file = sealed(&vec![7; 2 * CHUNK]);
        let says = |passphrase: &str, file: &[u8], text: &str| {
            let said = opened(passphrase, file).expect_err("it does not open");
            assert!(said.contains(text), "{said}");
        };
        says("another", &file, "the passphrase is not that of this backup");
        for length in [41, 40 + CHUNK + TAG, file.len() - 1] {
            says("a passphrase", &file[..length], "damaged");
        }
        for position in [40, 100, file.len() - 1] {
            let mut changed = file.clone();
            changed[position] ^= 1;
            says("a passphrase", &changed, "damaged");
        }
        let mut swapped = file.clone();
        swapped[40..].rotate_left(CHUNK + TAG);
        says("a passphrase", &swapped, "damaged");
        let mut newer = file.clone();
        newer[7] = VERSION + 1;
        says("a passphrase", &newer, "newer version");
        says("a passphrase", b"PGDMP", "no backup");
    }
}
