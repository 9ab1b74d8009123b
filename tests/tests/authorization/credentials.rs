//! Every kind of credential: those that are none, and people who stand differently to the things that are asked for.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::api::Api;
use tests::forge::{self, Forge};
use tests::people::{Organization, People};

use crate::document::Role;

/// A credential and what follows from it.
#[derive(Debug)]
pub struct Credential {
    /// For messages.
    pub name: String,
    /// The `Authorization` headers.
    pub authorization: Vec<String>,
    /// Who it is now; `None`: nobody.
    pub somebody: Option<Somebody>,
    /// Whose things are asked for.
    pub things_of: Organization,
}

/// Somebody whose credential is good.
#[derive(Debug, Clone, Copy)]
pub struct Somebody {
    /// The effective role.
    pub role: Role,
    /// Whether of the root organization.
    pub root: bool,
    /// Whether the things that are asked for are below its organization.
    pub sees: bool,
    /// The user's row; `None`: it is an API key.
    pub person: Option<uuid::Uuid>,
}

/// An organization with one below it and one beside it.
#[derive(Debug)]
pub struct Family {
    pub people: People,
    pub parent: Organization,
    pub child: Organization,
    pub sibling: Organization,
}

impl Family {
    pub async fn new() -> Result<Self> {
        let mut people = People::new().await?;
        let parent = people.organization().await?;
        Ok(Self {
            child: people.child(&parent).await?,
            sibling: people.organization().await?,
            parent,
            people,
        })
    }

    /// All kinds of credential.
    pub async fn credentials(&mut self) -> Result<Vec<Credential>> {
        let mut all = self.bad().await?;
        all.extend(self.lost().await?);
        all.extend(self.good().await?);
        Ok(all)
    }

    /// What is no credential at all, made up around a session that is good.
    async fn bad(&mut self) -> Result<Vec<Credential>> {
        let parent = self.parent.clone();
        let owner = self.people.member(&parent, "owner").await?;
        let good = owner.tokens().await?.access;
        let key = Forge::open().await?;
        let claims = forge::claims_of(&good)?;
        let with = |field: &str, value: Value| {
            let mut claims = claims.clone();
            claims[field] = value;
            claims
        };
        let issued = claims["iat"].as_i64().context("iat")?;
        let mut expired = with("exp", json!(issued - 1));
        expired["iat"] = json!(issued - 901);
        let stranger = Forge::stranger("nobody-knows-this-key")?;
        let impostor = Forge::stranger(&key.kid)?;
        let x = URL_SAFE_NO_PAD.encode(&key.public_key);
        let one = |token: String| vec![format!("Bearer {token}")];
        let (text, _) = good.rsplit_once('.').context("a token has three parts")?;
        let kinds: Vec<(&str, Vec<String>)> = vec![
            ("no token", vec![]),
            ("two headers", vec![format!("Bearer {good}"), format!("Bearer {good}")]),
            ("another scheme", vec![format!("Basic {good}")]),
            ("an empty token", vec!["Bearer ".to_owned()]),
            ("garbage", one("not.a.token".to_owned())),
            ("escapes", one("%00%ff".to_owned())),
            ("expired", one(key.sign(&expired))),
            ("alg none", one(forge::unsigned(&key.kid, &claims))),
            ("no signature", one(format!("{text}."))),
            (
                "HS256 with the public key",
                one(forge::signed_with_secret(&key.kid, &key.public_key, &claims)),
            ),
            (
                "HS256 with the public key's text",
                one(forge::signed_with_secret(&key.kid, x.as_bytes(), &claims)),
            ),
            ("another key of an unknown id", one(stranger.sign(&claims))),
            ("another key of the right id", one(impostor.sign(&claims))),
            (
                "a key of its own in the header",
                one(impostor.sign_as(
                    &json!({
                        "typ": "JWT", "alg": "EdDSA", "kid": key.kid,
                        "jwk": { "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&impostor.public_key) },
                    }),
                    &claims,
                )),
            ),
            ("no key id", one(key.sign_as(&json!({ "typ": "JWT", "alg": "EdDSA" }), &claims))),
            ("another audience", one(key.sign(&with("aud", json!("another-api"))))),
            ("another issuer", one(key.sign(&with("iss", json!("another-platform"))))),
            ("an unknown role", one(key.sign(&with("role", json!("root"))))),
            (
                "a session that never was",
                one(key.sign(&with("sid", json!("ses_01jdjyfyh1fe82gqsfsks1j4x4")))),
            ),
            (
                "an altered organization",
                one(forge::altered(&good, |claims| claims["org"] = json!(self.sibling.id))?),
            ),
        ];
        Ok(kinds
            .into_iter()
            .map(|(name, authorization)| Credential {
                name: name.to_owned(),
                authorization,
                somebody: None,
                things_of: self.parent.clone(),
            })
            .collect())
    }

    /// What was a credential.
    async fn lost(&mut self) -> Result<Vec<Credential>> {
        let parent = self.parent.clone();
        let owner = self.people.member(&parent, "owner").await?;
        let logged_out = owner.tokens().await?.access;
        Api::anyone()?
            .with(&logged_out)
            .post("/v1/auth/logout", &json!({}), &[])
            .await?
            .expect(204)?;
        let aged_out = owner.tokens().await?.access;
        let sid = forge::claims_of(&aged_out)?["sid"]
            .as_str()
            .context("sid")?
            .to_owned();
        sqlx::query("UPDATE sessions SET expires_at = now() - interval '1 second' WHERE id = $1")
            .bind(tests::ids::row_of(&sid)?)
            .execute(&mut self.people.control)
            .await?;
        let member = self.people.member(&parent, "owner").await?;
        let removed = member.tokens().await?.access;
        self.people.remove(&member).await?;
        let (revoked_id, revoked) = self.people.api_key(&parent, "owner").await?;
        Api::owner()
            .await?
            .delete(&format!("/v1/api-keys/{revoked_id}"))
            .await?
            .expect(204)?;
        let (expired_id, expired) = self.people.api_key(&parent, "owner").await?;
        sqlx::query("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = $1")
            .bind(tests::ids::row_of(&expired_id)?)
            .execute(&mut self.people.control)
            .await?;
        let (rotated_id, replaced) = self.people.api_key(&parent, "owner").await?;
        Api::owner()
            .await?
            .post(
                &format!("/v1/api-keys/{rotated_id}/rotate"),
                &json!({ "overlap_seconds": 0 }),
                &[],
            )
            .await?
            .expect(200)?;
        let mut mistyped = replaced.clone();
        mistyped.replace_range(10..11, if mistyped[10..11] == *"a" { "b" } else { "a" });
        let kinds = [
            ("logged out", logged_out),
            ("a session that has ended", aged_out),
            ("a removed member", removed),
            ("a revoked key", revoked),
            ("an expired key", expired),
            ("a key's secret before its rotation", replaced),
            ("a mistyped key", mistyped),
            ("a key that never was", format!("osk_{}", "0".repeat(49))),
        ];
        Ok(kinds
            .into_iter()
            .map(|(name, token)| Credential {
                name: name.to_owned(),
                authorization: vec![format!("Bearer {token}")],
                somebody: None,
                things_of: parent.clone(),
            })
            .collect())
    }

    /// People, near and far.
    async fn good(&mut self) -> Result<Vec<Credential>> {
        use Role::{Admin, Owner, Viewer};

        let (parent, child, sibling) = (self.parent.clone(), self.child.clone(), self.sibling.clone());
        let mut all = Vec::new();
        for (name, home, role, things_of, sees) in [
            ("viewer", &parent, Viewer, &parent, true),
            ("admin", &parent, Admin, &parent, true),
            ("owner", &parent, Owner, &parent, true),
            (
                "owner of the parent, for the child's things",
                &parent,
                Owner,
                &child,
                true,
            ),
            (
                "admin of the parent, for the child's things",
                &parent,
                Admin,
                &child,
                true,
            ),
            (
                "viewer of the parent, for the child's things",
                &parent,
                Viewer,
                &child,
                true,
            ),
            (
                "owner of the child, for the parent's things",
                &child,
                Owner,
                &parent,
                false,
            ),
            ("owner of the sibling", &sibling, Owner, &parent, false),
            (
                "owner of the sibling, for the child's things",
                &sibling,
                Owner,
                &child,
                false,
            ),
        ] {
            let member = self.people.member(home, role.name()).await?;
            let token = member.tokens().await?.access;
            all.push((
                name.to_owned(),
                token,
                role,
                false,
                things_of.clone(),
                sees,
                Some(member.row),
            ));
            let (_, secret) = self.people.api_key(home, role.name()).await?;
            let name = format!("key of a {name}");
            all.push((name, secret, role, false, things_of.clone(), sees, None));
        }
        // The token says one role and the membership another: the lower one counts.
        for (was, is) in [(Owner, Viewer), (Owner, Admin), (Admin, Viewer), (Viewer, Owner)] {
            let member = self.people.member(&parent, was.name()).await?;
            let token = member.tokens().await?.access;
            self.people.change_role(&member, is.name()).await?;
            let name = format!("{} who became {}", was.name(), is.name());
            all.push((
                name,
                token,
                was.min(is),
                false,
                parent.clone(),
                true,
                Some(member.row),
            ));
        }
        // A sign-in to one of several organizations is a sign-in to no other.
        let member = self.people.member(&sibling, "owner").await?;
        let token = member.tokens().await?.access;
        self.people.join(&member, &parent, "owner").await?;
        all.push((
            "owner of both, signed in to the sibling".to_owned(),
            token,
            Owner,
            false,
            parent.clone(),
            false,
            Some(member.row),
        ));
        // Both secrets of a key are good while they overlap.
        let (id, before) = self.people.api_key(&parent, "admin").await?;
        let rotated = Api::owner()
            .await?
            .post(&format!("/v1/api-keys/{id}/rotate"), &json!({}), &[])
            .await?
            .expect(200)?;
        let after = rotated["secret"].as_str().context("a secret")?.to_owned();
        for (name, secret) in [("a key's old secret", before), ("a key's new secret", after)] {
            all.push((name.to_owned(), secret, Admin, false, parent.clone(), true, None));
        }
        let root = Api::owner().await?.token().to_owned();
        let owner: uuid::Uuid = sqlx::query_scalar("SELECT id FROM users WHERE lower(email) = lower($1)")
            .bind(&tests::place::Place::get().access.owner_email)
            .fetch_one(&mut self.people.control)
            .await?;
        all.push((
            "owner of the root".to_owned(),
            root,
            Owner,
            true,
            parent,
            true,
            Some(owner),
        ));
        Ok(all
            .into_iter()
            .map(|(name, token, role, root, things_of, sees, person)| Credential {
                name,
                authorization: vec![format!("Bearer {token}")],
                somebody: Some(Somebody {
                    role,
                    root,
                    sees,
                    person,
                }),
                things_of,
            })
            .collect())
    }
}
