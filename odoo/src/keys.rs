//! The secrets of a pool: the key that its roles' passwords come from, and the secret its edge shows.
//!
//! A role's password is never stored: it is `HMAC-SHA256(pool key, database name)`, which the worker computes when
//! it makes the role and the pool's server-wide module computes when it connects. A ring holds the keys, newest
//! first; during a rotation roles of both are served.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;

use crate::names::DatabaseName;

const KEY_LENGTH: usize = 32;

/// A text that is not a pool's key, ring or edge secret. Says nothing of the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key is 32 bytes in standard base64 (44 characters).
    #[error("a pool key must be 32 bytes in base64")]
    NotAKey,
    /// A ring has a line for each key, and at least one.
    #[error("a key ring must hold at least one key")]
    EmptyRing,
    /// An edge secret goes into a header, so it is 32 to 128 letters, digits, `-` and `_`.
    #[error("an edge secret must be 32 to 128 letters, digits, '-' or '_'")]
    NotAnEdgeSecret,
}

/// One key of a pool: 32 random bytes.
pub struct PoolKey(SecretBox<[u8; KEY_LENGTH]>);

impl PoolKey {
    /// A new key from the system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self(SecretBox::init_with_mut(|bytes: &mut [u8; KEY_LENGTH]| {
            *bytes = rand::random();
        }))
    }

    /// Reads the form that [`PoolKey::to_base64`] writes.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] for everything but 32 bytes in standard base64.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::NotAKey)?);
        let bytes: &[u8; KEY_LENGTH] = bytes.as_slice().try_into().map_err(|_| KeyError::NotAKey)?;
        Ok(Self(SecretBox::init_with_mut(|key: &mut [u8; KEY_LENGTH]| {
            key.copy_from_slice(bytes);
        })))
    }

    /// The key as a line of a ring: standard base64 with padding.
    #[must_use]
    pub fn to_base64(&self) -> SecretString {
        STANDARD.encode(self.0.expose_secret()).into()
    }

    /// The password of the role that uses `database`: 43 characters of base64url.
    #[must_use]
    pub fn password_for(&self, database: &DatabaseName) -> SecretString {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("HMAC takes a key of any length");
        mac.update(database.as_str().as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()).into()
    }
}

impl Clone for PoolKey {
    fn clone(&self) -> Self {
        Self(SecretBox::init_with_mut(|bytes: &mut [u8; KEY_LENGTH]| {
            *bytes = *self.0.expose_secret();
        }))
    }
}

impl std::fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolKey([REDACTED])")
    }
}

/// The keys of a pool, newest first: new passwords come from the first, the others still open what was not yet
/// rotated.
#[derive(Debug, Clone)]
pub struct PoolKeyRing {
    newest: PoolKey,
    previous: Vec<PoolKey>,
}

impl PoolKeyRing {
    /// A ring of one key.
    #[must_use]
    pub const fn new(key: PoolKey) -> Self {
        Self {
            newest: key,
            previous: Vec::new(),
        }
    }

    /// Reads the form that [`PoolKeyRing::to_text`] writes: a key a line, newest first.
    ///
    /// # Errors
    /// [`KeyError::EmptyRing`] when there is no line, [`KeyError::NotAKey`] when one is not a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(PoolKey::from_base64);
        let newest = keys.next().ok_or(KeyError::EmptyRing)??;
        Ok(Self {
            newest,
            previous: keys.collect::<Result<_, _>>()?,
        })
    }

    /// The ring with `key` in front: the first half of a rotation. Existing roles keep their passwords until each
    /// has got one of the new key.
    #[must_use]
    pub fn with_newest(mut self, key: PoolKey) -> Self {
        self.previous.insert(0, std::mem::replace(&mut self.newest, key));
        self
    }

    /// The ring without its old keys: the last step of a rotation.
    #[must_use]
    pub fn without_previous(mut self) -> Self {
        self.previous.clear();
        self
    }

    /// The key that new passwords are made of.
    #[must_use]
    pub const fn newest(&self) -> &PoolKey {
        &self.newest
    }

    /// All keys, newest first.
    pub fn keys(&self) -> impl Iterator<Item = &PoolKey> {
        std::iter::once(&self.newest).chain(&self.previous)
    }

    /// The password that a role gets when it is made now.
    #[must_use]
    pub fn password_for(&self, database: &DatabaseName) -> SecretString {
        self.newest.password_for(database)
    }

    /// The ring as the pool's file `pool.key` holds it.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let lines: Vec<_> = self.keys().map(PoolKey::to_base64).collect();
        let mut text = Zeroizing::new(String::with_capacity(lines.len() * 45));
        for line in &lines {
            text.push_str(line.expose_secret());
            text.push('\n');
        }
        SecretString::from(text.as_str())
    }
}

/// What the edge shows to a pool so that the pool believes its headers.
#[derive(Debug, Clone)]
pub struct EdgeSecret(SecretString);

impl EdgeSecret {
    /// A new secret: 256 random bits, 43 characters that need no quoting in a header or in Nginx.
    #[must_use]
    pub fn generate() -> Self {
        let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
        Self(URL_SAFE_NO_PAD.encode(bytes.as_slice()).into())
    }

    /// Takes a stored secret.
    ///
    /// # Errors
    /// [`KeyError::NotAnEdgeSecret`] when it is not 32 to 128 letters, digits, `-` and `_`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        ((32..=128).contains(&text.len()) && text.bytes().all(harmless))
            .then(|| Self(text.into()))
            .ok_or(KeyError::NotAnEdgeSecret)
    }

    /// The secret, for the header and for the files of pool and edge.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_hmac_of_the_database_name() {
        // Computed with Python: base64.urlsafe_b64encode(hmac.digest(bytes(range(32)), name, "sha256")).rstrip(b"=")
        let key = PoolKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let database: DatabaseName = "t_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        assert_eq!(
            key.password_for(&database).expose_secret(),
            "9DwSuBc9FBo4I9QJRpTThs1S0NzygNpNg-Up2ow44tA"
        );
    }

    #[test]
    fn a_ring_is_read_as_it_was_written_and_rotates_from_the_front() {
        let (old, new) = (PoolKey::generate(), PoolKey::generate());
        let database: DatabaseName = "t_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        let ring = PoolKeyRing::new(old.clone()).with_newest(new.clone());
        let read = PoolKeyRing::parse(ring.to_text().expose_secret()).unwrap();
        assert_eq!(read.keys().count(), 2);
        assert_eq!(
            read.password_for(&database).expose_secret(),
            new.password_for(&database).expose_secret()
        );
        let last = read.keys().last().unwrap();
        assert_eq!(
            last.password_for(&database).expose_secret(),
            old.password_for(&database).expose_secret()
        );
        assert_eq!(read.without_previous().keys().count(), 1);
    }

    #[test]
    fn broken_keys_are_refused_without_being_shown() {
        assert_eq!(PoolKeyRing::parse("\n \n").unwrap_err(), KeyError::EmptyRing);
        assert_eq!(PoolKeyRing::parse("c2hvcnQ=").unwrap_err(), KeyError::NotAKey);
        assert!(EdgeSecret::parse("short").is_err());
        assert!(EdgeSecret::parse(&"a\"".repeat(20)).is_err());
        assert!(EdgeSecret::parse(EdgeSecret::generate().expose()).is_ok());
        assert!(!format!("{:?} {:?}", PoolKey::generate(), EdgeSecret::generate()).contains("AA"));
    }
}
