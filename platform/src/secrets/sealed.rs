//! The form of a sealed secret, which says by itself what opens it:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | `d5 53 4b 01`: a sealed secret, version 1 |
//! | 16 | the data key's id |
//! | 12 | the nonce |
//! | rest | AES-256-GCM's ciphertext with its tag; what the secret belongs to is authenticated with it |

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret as _, SecretSlice};
use uuid::Uuid;

/// How a sealed secret begins.
const MAGIC: [u8; 4] = [0xd5, b'S', b'K', 1];
const NONCE_LEN: usize = 12;
/// Length of a key.
pub(super) const KEY_LEN: usize = 32;

/// A sealed secret, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sealed<'s> {
    /// What it is sealed under.
    pub(super) data_key: Uuid,
    /// Nonce and ciphertext.
    body: &'s [u8],
}

impl<'s> Sealed<'s> {
    /// `None` for what was sealed before there were data keys. Such a value begins with a random nonce, so that one of
    /// four thousand million looks like one of these: the id that it then names is unknown.
    pub(super) fn parse(bytes: &'s [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (id, body) = rest.split_first_chunk::<16>()?;
        Some(Self {
            data_key: Uuid::from_bytes(*id),
            body,
        })
    }

    /// Opens it; `None` where the key is another, it belongs to something else, or it was changed.
    pub(super) fn open(&self, key: &SecretSlice<u8>, belongs_to: &str) -> Option<SecretSlice<u8>> {
        decrypt(key.expose_secret(), belongs_to.as_bytes(), self.body)
    }
}

/// Seals a secret under a data key.
pub(super) fn seal(id: Uuid, key: &SecretSlice<u8>, belongs_to: &str, secret: &[u8]) -> Vec<u8> {
    let body = encrypt(key.expose_secret(), belongs_to.as_bytes(), secret);
    [beginning(id).as_slice(), &body].concat()
}

/// How everything begins that is sealed under a data key.
pub(super) fn beginning(id: Uuid) -> Vec<u8> {
    [MAGIC.as_slice(), id.as_bytes()].concat()
}

/// AES-256-GCM under a random nonce, which comes first.
pub(super) fn encrypt(key: &[u8], authenticated: &[u8], secret: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let ciphertext = cipher(key)
        .encrypt(
            &nonce.into(),
            Payload {
                msg: secret,
                aad: authenticated,
            },
        )
        .expect("AES-GCM seals everything shorter than 64 GiB");
    [nonce.as_slice(), &ciphertext].concat()
}

/// The reverse of [`encrypt`].
pub(super) fn decrypt(key: &[u8], authenticated: &[u8], body: &[u8]) -> Option<SecretSlice<u8>> {
    let (nonce, ciphertext) = body.split_first_chunk::<NONCE_LEN>()?;
    cipher(key)
        .decrypt(
            &(*nonce).into(),
            Payload {
                msg: ciphertext,
                aad: authenticated,
            },
        )
        .ok()
        .map(SecretSlice::from)
}

fn cipher(key: &[u8]) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(key).expect("a key of another length is taken up nowhere")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretSlice<u8> {
        vec![byte; KEY_LEN].into()
    }

    #[test]
    fn what_was_sealed_opens_only_with_its_key_and_row() {
        let id = Uuid::now_v7();
        let bytes = seal(id, &key(1), "op_1", b"secret");
        let sealed = Sealed::parse(&bytes).unwrap();
        assert_eq!(sealed.data_key, id);
        assert_eq!(sealed.open(&key(1), "op_1").unwrap().expose_secret(), b"secret");
        assert!(sealed.open(&key(2), "op_1").is_none());
        assert!(sealed.open(&key(1), "op_2").is_none());
        for length in 0..bytes.len() {
            let cut = Sealed::parse(&bytes[..length]);
            assert!(
                cut.is_none_or(|cut| cut.open(&key(1), "op_1").is_none()),
                "{length}"
            );
        }
        for position in 20..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(Sealed::parse(&changed).unwrap().open(&key(1), "op_1").is_none());
        }
    }

    #[test]
    fn the_form_stays_as_it_is_written_down() {
        let id = Uuid::from_u128(0x0193_5c2f_7a10_7cc0_8d4e_5f60_7182_93a4);
        let bytes = seal(id, &key(1), "op_1", b"secret");
        assert_eq!(bytes[..4], [0xd5, 0x53, 0x4b, 0x01]);
        assert_eq!(bytes[4..20], *id.as_bytes());
        assert_eq!(bytes.len(), 4 + 16 + 12 + 6 + 16);
    }
}
