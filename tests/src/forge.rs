//! Access tokens as an intruder would make them, and some that only the platform itself could: its signing key is opened
//! with its master key. Nothing here is the platform's own code, so that both must agree on what is written down.

use anyhow::{Context as _, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::place::Place;
use crate::sql;

/// The key that signs the platform's access tokens.
#[derive(Debug)]
pub struct Forge {
    /// Its id.
    pub kid: String,
    /// Its public half.
    pub public_key: Vec<u8>,
    pair: Ed25519KeyPair,
}

impl Forge {
    /// Opens the oldest key that still signs: a younger one may only be announced.
    ///
    /// # Errors
    /// It does not open.
    pub async fn open() -> Result<Self> {
        let mut control = sql::control().await?;
        let row = sqlx::query(
            "SELECT kid, public_key, private_key_sealed FROM signing_keys \
              WHERE signs_until IS NULL OR signs_until > now() ORDER BY created_at LIMIT 1",
        )
        .fetch_one(&mut control)
        .await?;
        let kid: String = row.try_get("kid")?;
        let private = unseal(&kid, row.try_get("private_key_sealed")?)?;
        Ok(Self {
            public_key: row.try_get("public_key")?,
            pair: Ed25519KeyPair::from_pkcs8(&private).context("the key is in PKCS #8")?,
            kid,
        })
    }

    /// A key that the platform does not know, under an id.
    ///
    /// # Errors
    /// None that a test could mend.
    pub fn stranger(kid: &str) -> Result<Self> {
        let pair = Ed25519KeyPair::generate().context("a key pair")?;
        Ok(Self {
            kid: kid.to_owned(),
            public_key: pair.public_key().as_ref().to_vec(),
            pair,
        })
    }

    /// Signs claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "typ": "JWT", "alg": "EdDSA", "kid": self.kid }), claims)
    }

    /// Signs claims under a header of one's own.
    #[must_use]
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let text = signing_input(header, claims);
        let signature = self.pair.sign(text.as_bytes());
        format!("{text}.{}", encode(signature.as_ref()))
    }
}

/// A token that says that it needs no signature.
#[must_use]
pub fn unsigned(kid: &str, claims: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "none", "kid": kid });
    format!("{}.", signing_input(&header, claims))
}

/// A token whose HMAC has what everybody knows for its secret.
#[must_use]
pub fn signed_with_secret(kid: &str, secret: &[u8], claims: &Value) -> String {
    let text = signing_input(&json!({ "typ": "JWT", "alg": "HS256", "kid": kid }), claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", encode(tag.as_ref()))
}

/// The same token with other claims, under the old signature.
///
/// # Errors
/// It is no token.
pub fn altered(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    let mut claims = claims_of(token)?;
    change(&mut claims);
    let parts: Vec<&str> = token.split('.').collect();
    Ok(format!(
        "{}.{}.{}",
        parts[0],
        encode(claims.to_string().as_bytes()),
        parts[2]
    ))
}

/// What a token says.
///
/// # Errors
/// It is no token.
pub fn claims_of(token: &str) -> Result<Value> {
    part(token, 1)
}

/// The header of a token.
///
/// # Errors
/// It is no token.
pub fn header_of(token: &str) -> Result<Value> {
    part(token, 0)
}

fn part(token: &str, index: usize) -> Result<Value> {
    let part = token.split('.').nth(index).context("a token has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// Whether a token was signed with a public key in JWK form (RFC 8037).
///
/// # Errors
/// It is no token, or no key.
pub fn is_signed_with(token: &str, jwk: &Value) -> Result<bool> {
    let (text, signature) = token.rsplit_once('.').context("a token has three parts")?;
    let key = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().context("no x")?)?;
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    Ok(UnparsedPublicKey::new(&ED25519, key)
        .verify(text.as_bytes(), &signature)
        .is_ok())
}

fn signing_input(header: &Value, claims: &Value) -> String {
    let header = encode(header.to_string().as_bytes());
    format!("{header}.{}", encode(claims.to_string().as_bytes()))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The platform's master key, in base64.
///
/// # Errors
/// It can't be read.
pub fn master_key_text() -> Result<String> {
    let file = &Place::get().api.environment["MASTER_KEY_FILE"];
    std::fs::read_to_string(file).with_context(|| format!("{file} can't be read"))
}

/// The key that is derived from the master key for one purpose.
///
/// # Errors
/// The master key can't be read.
pub fn derived_key(purpose: &str) -> Result<Vec<u8>> {
    let master = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(master_key_text()?.trim())?);
    let derived = hmac::sign(&master, format!("odoo-saas-platform/{purpose}").as_bytes());
    Ok(derived.as_ref().to_vec())
}

/// Opens what the platform has sealed for a row.
fn unseal(belongs_to: &str, mut sealed: Vec<u8>) -> Result<Vec<u8>> {
    let key = UnboundKey::new(&AES_256_GCM, &derived_key("seal")?).context("a key")?;
    let mut ciphertext = sealed.split_off(12);
    let nonce = Nonce::try_assume_unique_for_key(&sealed).context("a nonce")?;
    let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(belongs_to), &mut ciphertext);
    Ok(opened.context("the master key does not open it")?.to_vec())
}
