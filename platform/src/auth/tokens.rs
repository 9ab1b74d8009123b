//! Access tokens: EdDSA JWTs of 15 minutes. A token says who signed in, to which organization and with which role at
//! that time; whether that still holds is asked of the database on each request, so a token is never the last word.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use chrono::{DateTime, Utc};
use entity::{
    id::{OrganizationId, SessionId, UserId},
    signing_key,
    values::Role,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{error::Error, secrets::Secrets};

/// How long an access token is good for.
pub const ACCESS_TOKEN_SECONDS: i64 = 900;

/// How long a new key is only announced before it signs: longer than anyone keeps the answer of
/// `/.well-known/jwks.json`, which says five minutes.
pub(super) const ANNOUNCEMENT: chrono::Duration = chrono::Duration::minutes(10);

/// Who the tokens are for, and who makes them.
const ISSUER: &str = "odoo-saas-platform";
const AUDIENCE: &str = "odoo-saas-platform-api";

/// The claims of an access token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The organization that was signed in to.
    pub org: OrganizationId,
    /// The role at that time; the effective one is the lower of this and the present one.
    pub role: Role,
    /// The session.
    pub sid: SessionId,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// An id of its own.
    pub jti: String,
}

/// One public key in JWK form (RFC 8037).
#[derive(Debug, Clone, Serialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: &'static str,
    /// `Ed25519`.
    pub crv: &'static str,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// `EdDSA`.
    pub alg: &'static str,
    /// The key's id.
    pub kid: String,
    /// The public key.
    pub x: String,
}

/// A key that may sign.
struct Signer {
    kid: String,
    key: EncodingKey,
    created_at: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It names a key that this process doesn't know; another process may have made it.
    UnknownKey,
    /// It is not one of ours, or has ended.
    Invalid,
}

/// Tokens that are remembered as verified.
const REMEMBERED: usize = 20_000;

/// The keys that sign and verify access tokens, and the tokens that they verified.
pub struct TokenKeys {
    /// Newest first.
    signers: Vec<Signer>,
    verifying: HashMap<String, (DecodingKey, Jwk)>,
    validation: Validation,
    /// By the token's hash. Checking a signature costs as much as all the rest of a small request.
    verified: Cache<[u8; 32], Arc<Claims>>,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys")
            .field("kids", &self.verifying.keys())
            .finish_non_exhaustive()
    }
}

impl TokenKeys {
    /// Loads the keys from the database.
    ///
    /// # Errors
    /// The database doesn't answer, holds no key, or one doesn't open.
    pub async fn load(
        database: &impl ConnectionTrait,
        secrets: &Secrets,
        now: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let mut rows = signing_key::Entity::find().all(database).await?;
        rows.retain(|row| row.verifies_until.is_none_or(|until| until > now));
        rows.sort_by_key(|row| std::cmp::Reverse(row.created_at));
        let mut signers = Vec::new();
        for row in &rows {
            if row.signs_until.is_none_or(|until| until > now) {
                let private = secrets.open(&row.kid, &row.private_key_sealed).await?;
                signers.push(Signer {
                    kid: row.kid.clone(),
                    key: EncodingKey::from_ed_der(private.expose_secret()),
                    created_at: row.created_at,
                    until: row.signs_until,
                });
            }
        }
        if signers.is_empty() {
            return Err(Error::internal("there is no key that signs access tokens"));
        }
        let verifying = rows
            .into_iter()
            .map(|row| {
                let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&row.public_key);
                let key = DecodingKey::from_ed_components(&x).map_err(Error::internal)?;
                let jwk = Jwk {
                    kty: "OKP",
                    crv: "Ed25519",
                    usage: "sig",
                    alg: "EdDSA",
                    kid: row.kid.clone(),
                    x,
                };
                Ok((row.kid, (key, jwk)))
            })
            .collect::<Result<_, Error>>()?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 0;
        Ok(Self {
            signers,
            verifying,
            validation,
            verified: Cache::new(REMEMBERED),
        })
    }

    /// Whether both hold the same keys.
    pub(crate) fn same_keys(&self, other: &Self) -> bool {
        let signers = |keys: &Self| -> Vec<_> {
            keys.signers
                .iter()
                .map(|signer| (signer.kid.clone(), signer.until))
                .collect()
        };
        signers(self) == signers(other)
            && self.verifying.len() == other.verifying.len()
            && self.verifying.keys().all(|kid| other.verifying.contains_key(kid))
    }

    /// The key that signs now: the newest that has been announced for long enough, so that whoever keeps our public
    /// keys for a while knows it by its first token. The only key there is signs at once.
    fn signer(&self, now: DateTime<Utc>) -> &Signer {
        self.signers
            .iter()
            .filter(|signer| signer.until.is_none_or(|until| until > now))
            .find(|signer| signer.created_at + ANNOUNCEMENT <= now)
            .or_else(|| self.signers.last())
            .expect("a ring without a key that signs is not loaded")
    }

    /// Signs a token.
    ///
    /// # Errors
    /// The key can't sign, which only a damaged one can't.
    pub fn sign(
        &self,
        user: UserId,
        organization: OrganizationId,
        role: Role,
        session: SessionId,
        now: DateTime<Utc>,
    ) -> Result<String, Error> {
        let iat = now.timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            org: organization,
            role,
            sid: session,
            exp: iat + ACCESS_TOKEN_SECONDS,
            iat,
            jti: uuid::Uuid::new_v4().simple().to_string(),
        };
        let signer = self.signer(now);
        let header = Header {
            kid: Some(signer.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &signer.key).map_err(Error::internal)
    }

    /// Checks a token's signature, algorithm, issuer, audience and time.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Arc<Claims>, Refusal> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.verified.get(&hash) {
            return if claims.exp > now.timestamp() {
                Ok(claims)
            } else {
                self.verified.remove(&hash);
                Err(Refusal::Invalid)
            };
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Invalid)?;
        let kid = header.kid.ok_or(Refusal::Invalid)?;
        let (key, _) = self.verifying.get(&kid).ok_or(Refusal::UnknownKey)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map(|token| Arc::new(token.claims))
            .map_err(|_| Refusal::Invalid)?;
        self.verified.insert(hash, claims.clone());
        Ok(claims)
    }

    /// The public keys, for those who check our tokens themselves.
    #[must_use]
    pub fn public_keys(&self) -> Vec<Jwk> {
        let mut keys: Vec<Jwk> = self.verifying.values().map(|(_, jwk)| jwk.clone()).collect();
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        keys
    }
}

/// Makes a key pair and stores it, its private half sealed.
///
/// # Errors
/// The database doesn't answer.
pub async fn create_signing_key(database: &impl ConnectionTrait, secrets: &Secrets) -> Result<(), Error> {
    let pair = Ed25519KeyPair::generate().map_err(Error::internal)?;
    let private: SecretSlice<u8> = pair.to_pkcs8().map_err(Error::internal)?.as_ref().to_vec().into();
    let kid = uuid::Uuid::new_v4().simple().to_string();
    signing_key::Entity::insert(signing_key::ActiveModel {
        private_key_sealed: Set(secrets.seal(database, &kid, private.expose_secret()).await?),
        kid: Set(kid),
        public_key: Set(pair.public_key().as_ref().to_vec()),
        created_at: Set(Utc::now()),
        signs_until: Set(None),
        verifies_until: Set(None),
    })
    .exec(database)
    .await?;
    Ok(())
}
