//! Passwords of the platform's own users: Argon2id with the crate's recommended cost, always off the async threads.

use std::{num::NonZero, sync::LazyLock};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use secrecy::{ExposeSecret as _, SecretString};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;

/// Letters and digits that can't be mistaken for each other.
const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

/// Length of a generated password: 24 of 57 characters are 139 bits, beyond any guessing.
const GENERATED_LEN: usize = 24;

/// Makes a password that no one can guess.
#[must_use]
pub fn generate() -> SecretString {
    use rand::RngExt as _;
    let mut rng = rand::rng();
    let text: String = (0..GENERATED_LEN)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect();
    SecretString::from(text)
}

/// Hashing takes 19 MiB and a core for each; more at once than there are cores would only take memory.
async fn turn() -> Result<SemaphorePermit<'static>, Error> {
    static TURNS: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, NonZero::get)));
    TURNS.acquire().await.map_err(Error::internal)
}

/// Hashes a password, in PHC string format.
///
/// # Errors
/// The thread that hashes was stopped.
pub async fn hash(password: SecretString) -> Result<String, Error> {
    let turn = turn().await?;
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        Argon2::default()
            .hash_password(password.expose_secret().as_bytes())
            .map(|hash| hash.to_string())
            .map_err(Error::internal)
    })
    .await
    .map_err(Error::internal)?
}

/// Whether a password is the one that was hashed. Without a hash it takes as long, so that the time tells nobody
/// whether an account exists.
///
/// # Errors
/// The thread that hashes was stopped.
pub async fn verify(password: SecretString, hash: Option<String>) -> Result<bool, Error> {
    let turn = turn().await?;
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => decoy()?,
        };
        let parsed = PasswordHash::new(&hash).map_err(Error::internal)?;
        let matches = Argon2::default()
            .verify_password(password.expose_secret().as_bytes(), &parsed)
            .is_ok();
        Ok(matches && known)
    })
    .await
    .map_err(Error::internal)?
}

/// A hash that no password has, of the same cost as all others. Made once.
fn decoy() -> Result<String, Error> {
    static DECOY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    if let Some(hash) = DECOY.get() {
        return Ok(hash.clone());
    }
    let hash = Argon2::default()
        .hash_password(generate().expose_secret().as_bytes())
        .map_err(Error::internal)?
        .to_string();
    Ok(DECOY.get_or_init(|| hash).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_account_is_accepted() {
        let hashed = hash("correct horse".to_owned().into()).await.unwrap();
        assert!(hashed.starts_with("$argon2id$"));
        assert!(
            verify("correct horse".to_owned().into(), Some(hashed.clone()))
                .await
                .unwrap()
        );
        assert!(
            !verify("wrong horse".to_owned().into(), Some(hashed))
                .await
                .unwrap()
        );
        assert!(!verify("correct horse".to_owned().into(), None).await.unwrap());
    }

    #[test]
    fn generated_passwords_differ_and_are_long() {
        let (one, two) = (generate(), generate());
        assert_eq!(one.expose_secret().len(), GENERATED_LEN);
        assert_ne!(one.expose_secret(), two.expose_secret());
    }
}
