//! The verifier that Postgres stores for a SCRAM-SHA-256 password, computed on our side: a password in
//! `CREATE ROLE … PASSWORD` would appear in the server's log and in `pg_stat_activity`.
//!
//! RFC 5802 section 3, RFC 7677; form as in `src/common/scram-common.c`: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Postgres's default, and the least that RFC 7677 recommends.
const ITERATIONS: u32 = 4096;

/// The verifier of `password` with a salt of its own. The password must be ASCII (ours are base64url): anything
/// else would have to be normalised by SASLprep first.
pub(super) fn verifier(password: &SecretString) -> String {
    verifier_with(password, rand::random(), ITERATIONS)
}

fn verifier_with(password: &SecretString, salt: [u8; 16], iterations: u32) -> String {
    debug_assert!(
        password.expose_secret().is_ascii(),
        "SASLprep is the identity on ASCII only"
    );
    let mut salted = Zeroizing::new([0_u8; 32]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations.try_into().expect("iterations are not zero"),
        &salt,
        password.expose_secret().as_bytes(),
        salted.as_mut_slice(),
    );
    let stored_key = Sha256::digest(hmac(salted.as_slice(), b"Client Key"));
    let server_key = hmac(salted.as_slice(), b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_agrees_with_the_example_of_rfc_7677() {
        // Section 3: user "user", password "pencil", salt W22ZaJ0SNY7soEsUEjb6gQ==, 4096 iterations. The keys
        // follow from the proof and signature given there.
        let salt = STANDARD
            .decode("W22ZaJ0SNY7soEsUEjb6gQ==")
            .unwrap()
            .try_into()
            .unwrap();
        let verifier = verifier_with(&"pencil".into(), salt, 4096);
        assert_eq!(
            verifier,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
