//! Credentials: signing in, refreshing, logging out, and the keys that tokens are checked with.

use actix_web::{HttpResponse, http::Method};
use platform::{auth::SignIn, id::OrganizationId, permissions::ManageSelf};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    problem::{ApiError, ErrorCode},
    route::{Authz, Body, Describe, Endpoint, NoContent, Public, Reply, Sketch, UserAgent, endpoint},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::POST, "/v1/auth/token", "create_token")
            .tag("auth")
            .about(
                "Sign in",
                "Opens a session with an e-mail address and a password, and answers an access token of 15 minutes and a \
                 refresh token that is good once. An account of several organizations names one. Public, since it is \
                 where a credential comes from.",
            )
            .errors(&[ErrorCode::WrongPassword, ErrorCode::OrganizationRequired, ErrorCode::TooManySignIns])
            .to(token),
        endpoint(Method::POST, "/v1/auth/refresh", "refresh_token")
            .tag("auth")
            .about(
                "Refresh a session",
                "Trades a refresh token for a new pair. A token that was used before ends its session, since someone \
                 else may hold it. Public: the refresh token is the credential.",
            )
            .errors(&[ErrorCode::Unauthenticated, ErrorCode::RefreshTokenReused])
            .to(refresh),
        endpoint(Method::POST, "/v1/auth/logout", "log_out")
            .tag("auth")
            .about("Log out", "Ends the session at once, with all tokens that came of it, on every process.")
            .to(logout),
        endpoint(Method::GET, "/.well-known/jwks.json", "get_jwks")
            .tag("auth")
            .about(
                "Public keys",
                "The keys that access tokens are signed with (RFC 7517), for those who check them themselves. Public, \
                 as public keys are.",
            )
            .to(jwks),
    ]
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// The account's e-mail address.
    #[schema(example = "owner@example.com", pattern = "^[^\\x00]*$")]
    email: String,
    /// Its password.
    #[schema(value_type = String, format = Password, pattern = "^[^\\x00]*$")]
    password: SecretString,
    /// Which of the account's organizations; needed when it has several.
    organization_id: Option<OrganizationId>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshRequest {
    /// The refresh token of the last answer.
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
struct TokenPair {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token ends.
    #[schema(example = 900)]
    expires_in: i64,
    /// Good once, for `POST /v1/auth/refresh`.
    refresh_token: String,
}

impl From<platform::auth::TokenPair> for TokenPair {
    fn from(pair: platform::auth::TokenPair) -> Self {
        Self {
            access_token: pair.access_token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: pair.expires_in,
            refresh_token: pair.refresh_token.expose_secret().to_owned(),
        }
    }
}

/// Tokens, not to be kept by caches (RFC 6749, section 5.1).
struct Tokens(TokenPair);

impl Describe for Tokens {
    fn describe(sketch: &mut Sketch) {
        Reply::<TokenPair>::describe(sketch);
        sketch.errors(&[ErrorCode::Unavailable]);
    }
}

impl actix_web::Responder for Tokens {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &actix_web::HttpRequest) -> HttpResponse {
        HttpResponse::Ok()
            .insert_header(("Cache-Control", "no-store"))
            .json(self.0)
    }
}

async fn token(public: Public, agent: UserAgent, body: Body<TokenRequest>) -> Result<Tokens, ApiError> {
    let TokenRequest {
        email,
        password,
        organization_id,
    } = body.into_inner();
    let sign_in = SignIn {
        email,
        password,
        organization: organization_id,
        origin: public.origin().clone(),
        user_agent: agent.0,
    };
    Ok(Tokens(public.platform().sign_in(sign_in).await?.into()))
}

async fn refresh(public: Public, body: Body<RefreshRequest>) -> Result<Tokens, ApiError> {
    let pair = public
        .platform()
        .refresh(&body.refresh_token, public.origin())
        .await?;
    Ok(Tokens(pair.into()))
}

async fn logout(caller: Authz<ManageSelf>) -> Result<NoContent, ApiError> {
    caller.myself().log_out().await?;
    Ok(NoContent)
}

/// The public keys (RFC 7517, section 5).
#[derive(Serialize, ToSchema)]
struct KeySet {
    /// Those that may have signed a token that is still good, and the one that will sign next.
    keys: Vec<PublicKey>,
}

/// A public key (RFC 8037).
#[derive(Serialize, ToSchema)]
struct PublicKey {
    /// Always `OKP`.
    #[schema(example = "OKP")]
    kty: &'static str,
    /// Always `Ed25519`.
    #[schema(example = "Ed25519")]
    crv: &'static str,
    /// Always `sig`.
    #[schema(example = "sig")]
    r#use: &'static str,
    /// Always `EdDSA`.
    #[schema(example = "EdDSA")]
    alg: &'static str,
    /// The key's id, as in a token's header.
    kid: String,
    /// The key, in base64url.
    x: String,
}

/// Keys, to be kept by caches for no longer than a key is announced before it signs.
struct CachedKeys(KeySet);

impl Describe for CachedKeys {
    fn describe(sketch: &mut Sketch) {
        Reply::<KeySet>::describe(sketch);
    }
}

impl actix_web::Responder for CachedKeys {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &actix_web::HttpRequest) -> HttpResponse {
        HttpResponse::Ok()
            .insert_header(("Cache-Control", "public, max-age=300"))
            .json(self.0)
    }
}

async fn jwks(public: Public) -> Result<CachedKeys, ApiError> {
    let keys = public.platform().token_keys().public_keys();
    Ok(CachedKeys(KeySet {
        keys: keys
            .into_iter()
            .map(|key| PublicKey {
                kty: key.kty,
                crv: key.crv,
                r#use: key.usage,
                alg: key.alg,
                kid: key.kid,
                x: key.x,
            })
            .collect(),
    }))
}
