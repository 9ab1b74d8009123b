//! The audit log: complete, readable by those whom it concerns, and proof against changes.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::api::Api;
use tests::people::{Organization, People};
use tests::wait;
use uuid::Uuid;

use crate::text;

/// An organization with some events in its log, all of them sealed; and somebody who reads it.
async fn log(people: &mut People, events: usize) -> Result<(Organization, Api)> {
    let organization = people.organization().await?;
    let api = people.member(&organization, "owner").await?.api().await?;
    for number in 1..events {
        api.patch(
            &format!("/v1/organizations/{}", organization.id),
            &json!({ "name": format!("Name {number}") }),
            &[],
        )
        .await?
        .expect(200)?;
    }
    sealed(&api, events).await?;
    Ok((organization, api))
}

/// Waits until so many events are sealed.
async fn sealed(api: &Api, events: usize) -> Result<()> {
    wait::until(Duration::from_secs(15), "the log is sealed", async || {
        let verdict = verify(api).await?;
        ensure!(
            verdict["unsealed"] == 0 && verdict["checked"].as_u64() >= Some(events as u64),
            "{verdict}"
        );
        Ok(())
    })
    .await
}

async fn verify(api: &Api) -> Result<Value> {
    api.get("/v1/audit-events/verify").await?.expect(200)
}

#[tokio::test]
async fn what_is_done_is_told_with_before_and_after() -> Result<()> {
    let mut people = People::new().await?;
    let organization = people.organization().await?;
    let member = people.member(&organization, "owner").await?;
    let api = member.api().await?;
    let path = format!("/v1/organizations/{}", organization.id);
    let asked = [("x-request-id", "an-id-of-the-test")];
    api.patch(&path, &json!({ "name": "New name" }), &asked)
        .await?
        .expect(200)?;
    let page = api
        .get(&format!(
            "/v1/audit-events?action=update_organization&target_id={}&outcome=succeeded",
            organization.id
        ))
        .await?
        .expect(200)?;
    let event = &page["items"][0];
    assert_eq!(event["actor"]["type"], "user");
    assert_eq!(event["actor"]["id"], json!(tests::ids::id_of("usr", member.row)));
    assert_eq!(event["actor"]["name"], json!(member.email));
    assert_eq!(event["actor"]["organization_id"], json!(organization.id));
    assert_eq!(
        event["target"],
        json!({ "type": "organization", "id": organization.id })
    );
    assert_eq!(
        (&event["before"]["name"], &event["after"]["name"]),
        (&json!("Test"), &json!("New name"))
    );
    assert_eq!(event["request_id"], "an-id-of-the-test");
    assert!(event["address"].is_string());
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_in_the_log_of_whom_they_concern() -> Result<()> {
    let mut people = People::new().await?;
    let parent = people.organization().await?;
    let child = people.child(&parent).await?;
    let viewer = people.member(&parent, "viewer").await?.api().await?;
    let auditor = people.member(&child, "admin").await?;
    let refused = viewer.delete(&format!("/v1/organizations/{}", child.id)).await?;
    refused.problem(403)?;
    let reads = auditor.api().await?;
    let page = reads.get("/v1/audit-events?outcome=refused").await?.expect(200)?;
    let event = &page["items"][0];
    assert_eq!(
        (&event["action"], &event["reason"]),
        (&json!("delete_organization"), &json!("forbidden"))
    );
    assert_eq!(event["actor"]["organization_id"], json!(parent.id));

    // A failed sign-in stands there too; one to an account that is none is only counted.
    let wrong = |email: &str| json!({ "email": email, "password": "wrong" });
    let anyone = Api::anyone()?;
    anyone
        .post("/v1/auth/token", &wrong(&auditor.email), &[])
        .await?
        .problem(401)?;
    let page = reads
        .get("/v1/audit-events?action=create_token&outcome=refused")
        .await?
        .expect(200)?;
    assert_eq!(page["items"][0]["reason"], "wrong_password");
    assert_eq!(
        page["items"][0]["target"]["id"],
        json!(tests::ids::id_of("usr", auditor.row))
    );
    let counted = async |control: &mut sqlx::PgConnection| -> Result<i64> {
        Ok(sqlx::query_scalar(
            "SELECT COALESCE((SELECT sum(attempts) FROM unknown_sign_ins), 0)::bigint \
                  + COALESCE((SELECT sum((after ->> 'unknown_accounts')::bigint) FROM audit_events \
                               WHERE action = 'create_token' AND actor_type = 'nobody'), 0)::bigint",
        )
        .fetch_one(control)
        .await?)
    };
    let before = counted(&mut people.control).await?;
    anyone
        .post("/v1/auth/token", &wrong("nobody@nowhere.example"), &[])
        .await?
        .problem(401)?;
    assert!(counted(&mut people.control).await? > before);
    Ok(())
}

#[tokio::test]
async fn an_export_is_the_whole_log_and_its_chain_can_be_checked_by_anybody() -> Result<()> {
    let mut people = People::new().await?;
    let (organization, api) = log(&mut people, 12).await?;
    let export = api
        .get(&format!(
            "/v1/audit-events/export?organization_id={}",
            organization.id
        ))
        .await?;
    assert!(export.header("content-type").starts_with("application/x-ndjson"));
    let mut events = Vec::new();
    for line in export.text.lines() {
        events.push(serde_json::from_str::<Value>(line)?);
    }
    assert_eq!(events.len(), 12);
    events.sort_by_key(|event| event["sequence"].as_i64());
    let mut hash = vec![0_u8; 32];
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["sequence"].as_u64(), Some(index as u64 + 1));
        let mut plain = event.clone();
        let claimed = text(event, "hash")?;
        let fields = plain.as_object_mut().expect("an event is an object");
        fields.remove("sequence");
        fields.remove("hash");
        let mut next = Sha256::new();
        next.update(&hash);
        next.update(sorted(&plain).as_bytes());
        hash = next.finalize().to_vec();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, claimed, "{event}");
    }
    let verdict = verify(&api).await?;
    assert_eq!(verdict["valid"], true);
    assert_eq!(verdict["head"], events[11]["hash"]);
    Ok(())
}

/// JSON with sorted keys and no blanks.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            let fields: Vec<String> = keys
                .into_iter()
                .map(|key| format!("{}:{}", json!(key), sorted(&fields[key])))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// The row of the event in this place.
async fn event_at(people: &mut People, organization: &Organization, sequence: i64) -> Result<Uuid> {
    let row =
        sqlx::query_scalar("SELECT event_id FROM audit_seals WHERE organization_id = $1 AND sequence = $2")
            .bind(organization.row)
            .bind(sequence)
            .fetch_one(&mut people.control)
            .await?;
    Ok(row)
}

#[tokio::test]
async fn a_row_that_a_superuser_changes_removes_moves_or_adds_is_named() -> Result<()> {
    let mut people = People::new().await?;
    for (what, statements, place, reason) in [
        (
            "changed",
            vec![
                "UPDATE audit_events SET actor_name = 'nobody@example.com' WHERE id = $1 AND organization_id = $2",
            ],
            Some(3),
            "changed",
        ),
        (
            "its details changed",
            vec![
                "UPDATE audit_events SET after = '{\"name\": \"Innocent\"}' WHERE id = $1 AND organization_id = $2",
            ],
            Some(3),
            "changed",
        ),
        (
            "removed",
            vec!["DELETE FROM audit_events WHERE id = $1 AND organization_id = $2"],
            Some(3),
            "removed",
        ),
        (
            "removed with its seal",
            vec![
                "DELETE FROM audit_events WHERE id = $1 AND organization_id = $2",
                "DELETE FROM audit_seals WHERE event_id = $1 AND organization_id = $2",
            ],
            Some(4),
            "gap",
        ),
        (
            "changed places",
            vec![
                "UPDATE audit_seals SET sequence = 1000 WHERE event_id = $1 AND organization_id = $2",
                "UPDATE audit_seals SET sequence = 3 WHERE sequence = 4 AND organization_id = $2 AND $1::uuid IS NOT NULL",
                "UPDATE audit_seals SET sequence = 4 WHERE event_id = $1 AND organization_id = $2",
            ],
            Some(4),
            "changed",
        ),
        (
            "the end removed",
            vec![
                "DELETE FROM audit_events WHERE id >= $1 AND organization_id = $2",
                "DELETE FROM audit_seals WHERE sequence >= 3 AND organization_id = $2 AND $1::uuid IS NOT NULL",
            ],
            None,
            "end_missing",
        ),
        (
            "added",
            vec![
                "INSERT INTO audit_events SELECT gen_random_uuid(), organization_id, occurred_at, action, outcome, reason, \
                        actor_type, actor_id, actor_name, actor_organization_id, target_type, target_id, before, after, \
                        address, request_id FROM audit_events WHERE id = $1 AND organization_id = $2",
            ],
            None,
            "inserted",
        ),
    ] {
        let (organization, api) = log(&mut people, 6).await?;
        assert_eq!(verify(&api).await?["valid"], true, "{what}");
        let third = event_at(&mut people, &organization, 3).await?;
        let named = match place {
            Some(place) => Some(event_at(&mut people, &organization, place).await?),
            None => None,
        };
        for statement in statements {
            sqlx::query(statement)
                .bind(third)
                .bind(organization.row)
                .execute(&mut people.control)
                .await?;
        }
        let verdict = verify(&api).await?;
        assert_eq!(verdict["valid"], false, "{what}: {verdict}");
        assert_eq!(verdict["first_bad_reason"], reason, "{what}: {verdict}");
        assert_eq!(verdict["first_bad_organization_id"], json!(organization.id));
        if let Some(named) = named {
            assert_eq!(
                verdict["first_bad"],
                json!(tests::ids::id_of("evt", named)),
                "{what}"
            );
        }
        // It does not spoil anybody else's.
        let (_, other) = log(&mut people, 2).await?;
        assert_eq!(verify(&other).await?["valid"], true);
    }
    Ok(())
}

#[tokio::test]
async fn a_forged_chain_is_known_by_its_seals() -> Result<()> {
    let mut people = People::new().await?;
    let (organization, api) = log(&mut people, 2).await?;
    // As if somebody had made up an event and a seal whose hash is right.
    let made_up = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO audit_events (id, organization_id, occurred_at, action, outcome, actor_type) \
         VALUES ($1, $2, date_trunc('second', now()), 'create_tenant', 'succeeded', 'nobody')",
    )
    .bind(made_up)
    .bind(organization.row)
    .execute(&mut people.control)
    .await?;
    let event = api
        .get("/v1/audit-events?limit=1&action=create_tenant")
        .await?
        .expect(200)?["items"][0]
        .clone();
    let mut plain = event.clone();
    if let Some(fields) = plain.as_object_mut() {
        fields.remove("sequence");
        fields.remove("hash");
    }
    let head: Vec<u8> = sqlx::query_scalar("SELECT hash FROM audit_heads WHERE organization_id = $1")
        .bind(organization.row)
        .fetch_one(&mut people.control)
        .await?;
    let mut hash = Sha256::new();
    hash.update(&head);
    hash.update(sorted(&plain).as_bytes());
    sqlx::query(
        "INSERT INTO audit_seals (organization_id, sequence, event_id, hash, mac) VALUES ($1, 3, $2, $3, $3)",
    )
    .bind(organization.row)
    .bind(made_up)
    .bind(hash.finalize().to_vec())
    .execute(&mut people.control)
    .await?;
    let verdict = verify(&api).await?;
    assert_eq!(
        (&verdict["valid"], &verdict["first_bad_reason"]),
        (&json!(false), &json!("forged")),
        "{verdict}"
    );
    assert_eq!(verdict["first_bad"], event["id"]);
    Ok(())
}
