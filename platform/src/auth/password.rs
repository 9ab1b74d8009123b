//! Passwords of the platform's own users: Argon2id with the crate's recommended cost, always off the async threads.

use std::{
    num::NonZero,
    sync::{LazyLock, OnceLock},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::phc::{Output, PasswordHash, Salt},
};
use secrecy::{ExposeSecret as _, SecretString};

use tokio::sync::Semaphore;

use crate::error::Error;

/// Letters and digits that can't be mistaken for each other.
const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

/// Bytes of a hash.
const DIGEST_LEN: usize = Params::DEFAULT_OUTPUT_LEN;

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

/// The hash of a password with these parameters and this salt.
fn digest(argon2: &Argon2<'_>, password: &SecretString, salt: &[u8]) -> Result<Output, Error> {
    let mut out = [0; DIGEST_LEN];
    argon2
        .hash_password_into(password.expose_secret().as_bytes(), salt, &mut out)
        .map_err(Error::internal)?;
    Output::new(&out).map_err(Error::internal)
}

/// Hashes a password, in PHC string format.
///
/// # Errors
/// The thread that hashes was stopped.
pub async fn hash(password: SecretString) -> Result<String, Error> {
    off_the_async_threads(move || hash_now(&password)).await
}

fn hash_now(password: &SecretString) -> Result<String, Error> {
    let argon2 = Argon2::default();
    let salt: [u8; 16] = rand::random();
    let hash = PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::default().into()),
        params: argon2.params().try_into().map_err(Error::internal)?,
        hash: Some(digest(&argon2, password, &salt)?),
        salt: Some(Salt::new(&salt).map_err(Error::internal)?),
    };
    Ok(hash.to_string())
}

/// Whether a password is the one that was hashed. Without a hash it takes as long, so that the time tells nobody
/// whether an account exists.
///
/// # Errors
/// The thread that hashes was stopped, or the hash is not one of ours.
pub async fn verify(password: SecretString, hash: Option<String>) -> Result<bool, Error> {
    off_the_async_threads(move || {
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => decoy()?,
        };
        let not_ours = || Error::internal("a stored password hash is not one of ours");
        let parsed = PasswordHash::new(&hash).map_err(Error::internal)?;
        if parsed.algorithm != argon2::ARGON2ID_IDENT {
            return Err(not_ours());
        }
        let params = Params::try_from(&parsed).map_err(Error::internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::default(), params);
        let (salt, wanted) = parsed.salt.zip(parsed.hash).ok_or_else(not_ours)?;
        // `Output` compares in constant time.
        Ok(digest(&argon2, &password, &salt)? == wanted && known)
    })
    .await
}

/// Hashing takes 19 MiB and a core; more of it at once than there are cores would only take memory.
async fn off_the_async_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    static TURNS: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, NonZero::get)));
    let turn = TURNS.acquire().await.map_err(Error::internal)?;
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
    .map_err(Error::internal)?
}

/// A hash that no password has, of the same cost as all others. Made once.
fn decoy() -> Result<String, Error> {
    static DECOY: OnceLock<String> = OnceLock::new();
    if let Some(hash) = DECOY.get() {
        return Ok(hash.clone());
    }
    let hash = hash_now(&generate())?;
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

    #[tokio::test]
    async fn a_hash_of_the_library_itself_is_understood() {
        use argon2::password_hash::PasswordHasher as _;
        let theirs = Argon2::default()
            .hash_password_with_salt(b"correct horse", b"sixteen bytes ok")
            .unwrap();
        assert!(
            verify("correct horse".to_owned().into(), Some(theirs.to_string()))
                .await
                .unwrap()
        );
    }

    #[test]
    fn generated_passwords_differ_and_are_long() {
        let (one, two) = (generate(), generate());
        assert_eq!(one.expose_secret().len(), GENERATED_LEN);
        assert_ne!(one.expose_secret(), two.expose_secret());
    }
}
