//! Secrets that are looked up by their hash: refresh tokens, invitations, API keys. Each has 256 random bits, so a plain
//! hash keeps it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// Makes a token that begins with this.
pub(crate) fn token(prefix: &str) -> SecretString {
    let random: [u8; 32] = rand::random();
    SecretString::from(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// What is kept of a secret.
pub(crate) fn hash(secret: &SecretString) -> Vec<u8> {
    hash_of(secret.expose_secret())
}

/// What would be kept of a secret that somebody shows.
pub(crate) fn hash_of(shown: &str) -> Vec<u8> {
    Sha256::digest(shown.as_bytes()).to_vec()
}
