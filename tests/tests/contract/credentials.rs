//! Sessions: signing in, refreshing, logging out, and guessing.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Api, Tokens};
use tests::forge;
use tests::http::Answer;
use tests::people::{Member, People};
use tests::place::Place;
use tests::tenant::new_slug;

async fn person() -> Result<(People, Member)> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "admin").await?;
    Ok((people, member))
}

async fn is_good(access: &str) -> Result<bool> {
    let answer = Api::anyone()?.with(access).get("/v1/me").await?;
    if answer.status == 401 {
        assert_eq!(answer.problem(401)?, "unauthenticated");
        return Ok(false);
    }
    answer.expect(200).map(|_| true)
}

#[tokio::test]
async fn a_token_says_who_it_is_for_and_ends_in_a_quarter_of_an_hour() -> Result<()> {
    let (_people, member) = person().await?;
    let body = json!({ "email": member.email, "password": Place::get().access.owner_password });
    let answer = Api::anyone()?.post("/v1/auth/token", &body, &[]).await?;
    let session = answer.expect(200)?;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        (&session["token_type"], &session["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    let claims = forge::claims_of(session["access_token"].as_str().context("a token")?)?;
    assert_eq!(
        claims["exp"].as_i64(),
        claims["iat"].as_i64().map(|issued| issued + 900)
    );
    assert_eq!(
        (&claims["org"], &claims["role"]),
        (&json!(member.organization.id), &json!("admin"))
    );
    let fields: Vec<&String> = claims.as_object().context("claims")?.keys().collect();
    assert_eq!(
        fields,
        ["aud", "exp", "iat", "iss", "jti", "org", "role", "sid", "sub"]
    );
    let me = Api::anyone()?
        .with(session["access_token"].as_str().unwrap_or_default())
        .get("/v1/me")
        .await?
        .expect(200)?;
    assert_eq!(
        (&me["id"], &me["kind"], &me["role"]),
        (&claims["sub"], &json!("user"), &json!("admin"))
    );
    assert_eq!(me["organization"]["id"], claims["org"]);
    Ok(())
}

#[tokio::test]
async fn the_published_keys_verify_a_token() -> Result<()> {
    let (_people, member) = person().await?;
    let token = member.tokens().await?.access;
    let answer = Api::anyone()?.get("/.well-known/jwks.json").await?;
    let keys = answer.expect(200)?;
    let keys = keys["keys"].as_array().context("keys")?;
    let kid = forge::header_of(&token)?["kid"].clone();
    let key = keys
        .iter()
        .find(|key| key["kid"] == kid)
        .context("the token's key is published")?;
    assert_eq!(
        (&key["kty"], &key["crv"], &key["use"], &key["alg"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("sig"), &json!("EdDSA"))
    );
    assert!(forge::is_signed_with(&token, key)?);
    let altered = forge::altered(&token, |claims| claims["role"] = json!("owner"))?;
    assert!(!forge::is_signed_with(&altered, key)?);
    assert!(key.get("d").is_none(), "a private key is published");
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_goes_on_with_the_session() -> Result<()> {
    let (_people, member) = person().await?;
    let anyone = Api::anyone()?;
    let first = member.tokens().await?;
    let mut tokens = first.clone();
    for _ in 0..3 {
        let answer = anyone.refresh(&tokens.refresh).await?;
        let next = Tokens::of(&answer)?;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_ne!((&next.access, &next.refresh), (&tokens.access, &tokens.refresh));
        let session = |token: &str| anyhow::Ok(forge::claims_of(token)?["sid"].clone());
        assert_eq!(session(&next.access)?, session(&first.access)?);
        tokens = next;
    }
    // Access tokens live as long as the session, whichever refresh they came of.
    assert!(is_good(&first.access).await? && is_good(&tokens.access).await?);
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_that_comes_twice_ends_its_session_and_no_other() -> Result<()> {
    let (_people, member) = person().await?;
    let anyone = Api::anyone()?;
    let (first, other) = (member.tokens().await?, member.tokens().await?);
    let second = Tokens::of(&anyone.refresh(&first.refresh).await?)?;
    let reused = anyone.refresh(&first.refresh).await?;
    assert_eq!(reused.problem(401)?, "refresh_token_reused");
    assert_eq!(reused.header("www-authenticate"), "Bearer");
    // Whoever holds the successor loses it too: either of both may be the thief.
    for access in [&first.access, &second.access] {
        assert!(!is_good(access).await?);
    }
    assert_eq!(
        anyone.refresh(&second.refresh).await?.problem(401)?,
        "unauthenticated"
    );
    assert_eq!(
        anyone.refresh(&first.refresh).await?.problem(401)?,
        "refresh_token_reused"
    );
    assert!(is_good(&other.access).await?);
    Tokens::of(&anyone.refresh(&other.refresh).await?)?;
    Ok(())
}

#[tokio::test]
async fn of_racing_refreshes_with_one_token_one_is_answered() -> Result<()> {
    let (_people, member) = person().await?;
    let anyone = Api::anyone()?;
    let tokens = member.tokens().await?;
    let race = (0..8).map(|_| anyone.refresh(&tokens.refresh));
    let mut pairs = Vec::new();
    for answer in futures::future::join_all(race).await {
        let answer = answer?;
        if answer.status == 200 {
            pairs.push(Tokens::of(&answer)?);
        } else {
            assert_eq!(answer.problem(401)?, "refresh_token_reused");
        }
    }
    assert_eq!(pairs.len(), 1);
    assert!(
        !is_good(&pairs[0].access).await?,
        "a reuse was seen and the session goes on"
    );
    Ok(())
}

#[tokio::test]
async fn logging_out_ends_all_tokens_of_the_session_at_once() -> Result<()> {
    let (_people, member) = person().await?;
    let anyone = Api::anyone()?;
    let (first, other) = (member.tokens().await?, member.tokens().await?);
    let second = Tokens::of(&anyone.refresh(&first.refresh).await?)?;
    let out = anyone
        .with(&second.access)
        .send(Method::POST, "/v1/auth/logout", None, &[])
        .await?;
    assert_eq!((out.status, out.text.as_str()), (204, ""));
    for access in [&first.access, &second.access] {
        assert!(!is_good(access).await?);
    }
    assert_eq!(
        anyone.refresh(&second.refresh).await?.problem(401)?,
        "unauthenticated"
    );
    let again = anyone
        .with(&second.access)
        .send(Method::POST, "/v1/auth/logout", None, &[])
        .await?;
    assert_eq!(again.problem(401)?, "unauthenticated");
    assert!(is_good(&other.access).await?, "another session was ended");
    Ok(())
}

#[tokio::test]
async fn a_refresh_takes_over_a_new_role_and_a_removed_member_gets_none() -> Result<()> {
    let (mut people, member) = person().await?;
    let anyone = Api::anyone()?;
    let tokens = member.tokens().await?;
    people.change_role(&member, "owner").await?;
    let role = async |access: &str| -> Result<Value> {
        Ok(anyone.with(access).get("/v1/me").await?.expect(200)?["role"].clone())
    };
    // A higher role comes with the next token, a lower one at once.
    assert_eq!(role(&tokens.access).await?, "admin");
    let tokens = Tokens::of(&anyone.refresh(&tokens.refresh).await?)?;
    assert_eq!(role(&tokens.access).await?, "owner");
    people.change_role(&member, "viewer").await?;
    assert_eq!(role(&tokens.access).await?, "viewer");
    people.remove(&member).await?;
    assert!(!is_good(&tokens.access).await?);
    assert_eq!(
        anyone.refresh(&tokens.refresh).await?.problem(401)?,
        "unauthenticated"
    );
    let body = json!({ "email": member.email, "password": Place::get().access.owner_password });
    let signed_in = anyone.post("/v1/auth/token", &body, &[]).await?;
    assert_eq!(signed_in.problem(401)?, "wrong_password");
    Ok(())
}

#[tokio::test]
async fn an_account_of_several_organizations_names_one() -> Result<()> {
    let (mut people, member) = person().await?;
    let second = people.organization().await?;
    people.join(&member, &second, "viewer").await?;
    let anyone = Api::anyone()?;
    let password = &Place::get().access.owner_password;
    let mut body = json!({ "email": member.email.to_uppercase(), "password": password });
    let asked = anyone.post("/v1/auth/token", &body, &[]).await?;
    assert_eq!(asked.problem(422)?, "organization_required");
    let organizations = asked.json()["organizations"].clone();
    let ids: Vec<&str> = organizations
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!(ids, [member.organization.id.as_str(), second.id.as_str()]);
    for (organization, role) in [(&member.organization.id, "admin"), (&second.id, "viewer")] {
        body["organization_id"] = json!(organization);
        let tokens = Tokens::of(&anyone.post("/v1/auth/token", &body, &[]).await?)?;
        let me = anyone.with(&tokens.access).get("/v1/me").await?.expect(200)?;
        assert_eq!(
            (&me["organization"]["id"], &me["role"]),
            (&json!(organization), &json!(role))
        );
    }
    body["password"] = json!("wrong");
    let refused = anyone.post("/v1/auth/token", &body, &[]).await?;
    assert_eq!(refused.problem(401)?, "wrong_password");
    assert!(refused.json().get("organizations").is_none());
    Ok(())
}

/// Signs in at the API's own port, as a proxy that is trusted says from where.
async fn sign_in_from(address: &str, email: &str, password: &str) -> Result<Answer> {
    let body = json!({ "email": email, "password": password });
    Api::at(&Place::get().api_directly())?
        .post("/v1/auth/token", &body, &[("x-forwarded-for", address)])
        .await
}

/// An address for documentation (RFC 3849) that no other test comes from.
fn new_network() -> String {
    let random = uuid::Uuid::new_v4().as_u128();
    format!("2001:db8:{:x}:{:x}", random & 0xffff, (random >> 16) & 0xffff)
}

#[tokio::test]
async fn guessing_is_slowed_down_for_one_account_from_one_network() -> Result<()> {
    let (mut people, member) = person().await?;
    let neighbour = people.member(&member.organization, "viewer").await?;
    let password = Place::get().access.owner_password.clone();
    let unknown = format!("{}@nobody.example", new_slug());
    for email in [member.email.as_str(), unknown.as_str()] {
        let network = new_network();
        // A customer has the whole network: each guess from another address of it.
        for number in 1..=10 {
            let answer = sign_in_from(&format!("{network}::{number}"), email, "a guess").await?;
            assert_eq!(answer.problem(401)?, "wrong_password", "{email}: {number}");
        }
        for password in ["a guess", password.as_str()] {
            let answer = sign_in_from(&format!("{network}::b"), &email.to_uppercase(), password).await?;
            assert_eq!(answer.problem(429)?, "too_many_sign_ins", "{email}");
            let wait: u64 = answer.header("retry-after").parse()?;
            assert!((1..=60).contains(&wait), "{wait}");
        }
        // Neither another account there nor the account elsewhere is in the way.
        let from_there = sign_in_from(&format!("{network}::1"), &neighbour.email, &password).await?;
        from_there.expect(200)?;
        let elsewhere = sign_in_from(&format!("{}::1", new_network()), email, "a guess").await?;
        assert_eq!(elsewhere.problem(401)?, "wrong_password");
    }
    sign_in_from(&format!("{}::1", new_network()), &member.email, &password)
        .await?
        .expect(200)?;
    Ok(())
}

#[tokio::test]
async fn sign_ins_that_succeed_are_not_counted() -> Result<()> {
    let (_people, member) = person().await?;
    let network = new_network();
    for _ in 0..12 {
        sign_in_from(
            &format!("{network}::1"),
            &member.email,
            &Place::get().access.owner_password,
        )
        .await?
        .expect(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_edge_believes_nobody_about_where_they_come_from() -> Result<()> {
    let (_people, member) = person().await?;
    let anyone = Api::anyone()?;
    let body = json!({ "email": member.email, "password": "a guess" });
    for number in 0..12 {
        let address = format!("198.51.100.{number}");
        let headers = [
            ("x-forwarded-for", address.as_str()),
            ("forwarded", &format!("for={address}")),
            ("x-real-ip", &address),
        ];
        let answer = anyone.post("/v1/auth/token", &body, &headers).await?;
        if number < 10 {
            assert_eq!(answer.problem(401)?, "wrong_password", "{number}");
        } else {
            assert_eq!(answer.problem(429)?, "too_many_sign_ins", "{number}");
        }
    }
    Ok(())
}
