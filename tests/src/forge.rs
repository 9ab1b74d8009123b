//! Access tokens as an intruder would make them, and some that only the platform itself could: its signing key is opened
//! with its data key, and that with its master key. Nothing here is the platform's own code, so that both must agree on what is written down.

use anyhow::{Context as _, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

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
        let sealed: Vec<u8> = row.try_get("private_key_sealed")?;
        let private = unseal(&mut control, &kid, &sealed).await?;
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

/// A key that is derived from another one for one purpose.
fn derived(from: &[u8], purpose: &str) -> Vec<u8> {
    let from = hmac::Key::new(hmac::HMAC_SHA256, from);
    hmac::sign(&from, format!("odoo-saas-platform/{purpose}").as_bytes())
        .as_ref()
        .to_vec()
}

fn master_key() -> Result<Vec<u8>> {
    Ok(STANDARD.decode(master_key_text()?.trim())?)
}

/// The name of the data key that a sealed secret names: `docs/decisions/0010`.
///
/// # Errors
/// It names none.
pub fn data_key_of(sealed: &[u8]) -> Result<Uuid> {
    let rest = sealed.strip_prefix(b"\xd5SK\x01").context("no data key")?;
    Ok(Uuid::from_slice(rest.get(..16).context("too short")?)?)
}

/// Opens what the platform has sealed for a row.
///
/// # Errors
/// It does not open.
pub async fn unseal(control: &mut PgConnection, belongs_to: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let id = data_key_of(sealed)?;
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM data_keys WHERE id = $1")
        .bind(id)
        .fetch_one(control)
        .await?;
    let mut context = Vec::new();
    for text in [
        "data_key",
        &id.to_string(),
        "purpose",
        "odoo-saas-platform/data-key",
    ] {
        context.extend((text.len() as u64).to_be_bytes());
        context.extend(text.as_bytes());
    }
    let data_key = decrypted(&derived(&master_key()?, "wrap-data-key"), &context, &wrapped)?;
    decrypted(&data_key, belongs_to.as_bytes(), &sealed[20..])
}

/// Seals for a row as the platform did before it had data keys: under a key of the master key's.
///
/// # Errors
/// The master key can't be read.
pub fn sealed_in_the_old_form(belongs_to: &str, secret: &[u8]) -> Result<Vec<u8>> {
    let nonce: [u8; 12] = rand::random();
    let key = UnboundKey::new(&AES_256_GCM, &derived(&master_key()?, "seal")).context("a key")?;
    let mut text = secret.to_vec();
    LessSafeKey::new(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(belongs_to),
            &mut text,
        )
        .context("a short text")?;
    Ok([nonce.as_slice(), &text].concat())
}

fn decrypted(key: &[u8], authenticated: &[u8], body: &[u8]) -> Result<Vec<u8>> {
    let key = UnboundKey::new(&AES_256_GCM, key).context("a key")?;
    let (nonce, ciphertext) = body.split_at_checked(12).context("too short")?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).context("a nonce")?;
    let mut ciphertext = ciphertext.to_vec();
    let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(authenticated), &mut ciphertext);
    Ok(opened.context("the key does not open it")?.to_vec())
}
