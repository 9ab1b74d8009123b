//! New keys for access tokens: with overlap nobody notices, at once everybody's token is worth nothing.
//!
//! A program of its own, and its tests in one order: the last one ends every token that there is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::api::{Api, Tokens};
use tests::forge;
use tests::people::People;
use tests::second_api::{self, SecondApi};
use tests::wait;

/// A process reads the keys again once a minute.
const A_MINUTE: Duration = Duration::from_secs(75);

async fn keys(api: &Api) -> Result<Vec<Value>> {
    let keys = api.get("/.well-known/jwks.json").await?.expect(200)?;
    Ok(keys["keys"].as_array().context("keys")?.clone())
}

fn kid(token: &str) -> Result<Value> {
    Ok(forge::header_of(token)?["kid"].clone())
}

async fn is_good(api: &Api, access: &str) -> Result<bool> {
    let answer = api.with(access).get("/v1/me").await?;
    if answer.status == 401 {
        answer.problem(401)?;
        return Ok(false);
    }
    answer.expect(200).map(|_| true)
}

#[tokio::test]
async fn keys_are_replaced_with_overlap_and_at_once() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "viewer").await?;
    let anyone = Api::anyone()?;
    let before = keys(&anyone).await?;
    let old = member.tokens().await?;

    second_api::run(&["rotate-signing-key"], &[]).await?;
    // A process that starts later knows both from its first answer.
    let second = SecondApi::start(&[]).await?;
    let elsewhere = second.anyone()?;
    let published = keys(&elsewhere).await?;
    assert_eq!(published.len(), before.len() + 1);
    for key in &before {
        assert!(published.contains(key), "an old key is not published any more");
    }
    // The new one is announced before it signs: tokens of both processes are still the old key's.
    let here = Tokens::of(&anyone.refresh(&old.refresh).await?)?;
    let there = Tokens::of(&elsewhere.refresh(&here.refresh).await?)?;
    for tokens in [&here, &there] {
        assert_eq!(kid(&tokens.access)?, kid(&old.access)?);
    }
    for access in [&old.access, &here.access, &there.access] {
        assert!(is_good(&anyone, access).await? && is_good(&elsewhere, access).await?);
    }

    // Its time of announcement is over: it signs, and what the old one signed is good everywhere.
    sqlx::query("UPDATE signing_keys SET created_at = created_at - interval '11 minutes'")
        .execute(&mut people.control)
        .await?;
    let third = SecondApi::start(&[]).await?;
    let new = Tokens::of(&third.anyone()?.refresh(&there.refresh).await?)?;
    assert_ne!(kid(&new.access)?, kid(&old.access)?);
    for api in [&anyone, &elsewhere, &third.anyone()?] {
        assert!(
            is_good(api, &old.access).await?,
            "rotating has logged somebody out"
        );
        // Also where the new key has not been read yet: an unknown one is looked for.
        assert!(
            is_good(api, &new.access).await?,
            "a token of the new key is not known everywhere"
        );
    }
    let signing = published
        .iter()
        .chain(&before)
        .find(|key| kid(&new.access).ok().as_ref() == Some(&key["kid"]));
    assert!(forge::is_signed_with(
        &new.access,
        signing.context("the new key is published")?
    )?);

    second_api::run(&["rotate-signing-key", "--at-once"], &[]).await?;
    // No restart: within a minute every process refuses what the old keys signed, and signs with the new one.
    wait::until(A_MINUTE, "the old keys' tokens are refused", async || {
        for api in [&anyone, &elsewhere] {
            for access in [&old.access, &new.access] {
                ensure!(
                    !is_good(api, access).await?,
                    "a token of an old key is still taken"
                );
            }
        }
        Ok(())
    })
    .await?;
    let fresh = Tokens::of(&anyone.refresh(&new.refresh).await?)?;
    assert!(is_good(&anyone, &fresh.access).await? && is_good(&elsewhere, &fresh.access).await?);
    let left = keys(&anyone).await?;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["kid"], kid(&fresh.access)?);
    Ok(())
}
