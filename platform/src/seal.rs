//! Seals secrets at rest: AES-256-GCM under a key derived from the master key for one purpose, bound to the row it
//! belongs to. A sealed value is the 12-byte nonce, then the ciphertext with its tag.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use base64::Engine as _;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

use crate::error::Error;

const NONCE_LEN: usize = 12;

/// The installation's master key. Never used as it is: each purpose has a key derived from it.
#[derive(Debug, Clone)]
pub struct MasterKey(SecretSlice<u8>);

impl MasterKey {
    /// Takes the base64 form that settings have checked.
    ///
    /// # Errors
    /// The text is not 32 bytes in base64.
    pub fn from_base64(text: &SecretString) -> Result<Self, Error> {
        base64::engine::general_purpose::STANDARD
            .decode(text.expose_secret().trim())
            .ok()
            .filter(|bytes| bytes.len() == 32)
            .map(|bytes| Self(bytes.into()))
            .ok_or_else(|| Error::internal("the master key is not 32 bytes in base64"))
    }

    /// A key of 32 bytes for one purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(self.0.expose_secret())
            .expect("HMAC takes keys of every length");
        mac.update(b"odoo-saas-platform/");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Seals a secret. `belongs_to` names its row: a value moved to another row doesn't open.
    #[must_use]
    pub fn seal(&self, belongs_to: &str, secret: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let ciphertext = self
            .cipher()
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: secret,
                    aad: belongs_to.as_bytes(),
                },
            )
            .expect("AES-GCM seals everything shorter than 64 GiB");
        [nonce.as_slice(), &ciphertext].concat()
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// It was sealed with another key, for another row, or has been changed.
    pub fn open(&self, belongs_to: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, Error> {
        let refuse = || {
            Error::internal(format!(
                "the sealed secret of {belongs_to} does not open with this master key"
            ))
        };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(refuse)?;
        self.cipher()
            .decrypt(
                &(*nonce).into(),
                Payload {
                    msg: ciphertext,
                    aad: belongs_to.as_bytes(),
                },
            )
            .map(SecretSlice::from)
            .map_err(|_| refuse())
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.derive("seal").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey(vec![byte; 32].into())
    }

    #[test]
    fn what_was_sealed_opens_only_with_its_key_and_row() {
        let sealed = key(1).seal("op_1", b"secret");
        assert_eq!(key(1).open("op_1", &sealed).unwrap().expose_secret(), b"secret");
        assert!(key(2).open("op_1", &sealed).is_err());
        assert!(key(1).open("op_2", &sealed).is_err());
        assert!(key(1).open("op_1", &sealed[..10]).is_err());
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert!(key(1).open("op_1", &changed).is_err());
    }

    #[test]
    fn purposes_have_different_keys() {
        assert_ne!(key(1).derive("seal"), key(1).derive("page-token"));
    }
}
