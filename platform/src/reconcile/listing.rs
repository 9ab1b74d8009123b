//! The list of what is not as it should be: a row for each thing, as long as it is there.

use std::{collections::HashSet, time::Duration};

use entity::{id::DriftId, values::DriftKind};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{error::Error, operations::Target};

/// How long something must have been listed before it is removed: whoever is at work by hand sees it coming.
pub const SETTLED: Duration = Duration::from_secs(600);

/// Something that is not as it should be. Persisted between the steps of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How it differs.
    pub kind: DriftKind,
    /// The name of the database, role, folder, host or container. With the kind it names a row.
    pub subject: String,
    /// The id of the tenant, pool or template that it belongs to, where that is known.
    pub target: Option<String>,
    /// For the platform's operator: what is known, and what may be done.
    pub detail: String,
}

/// Writes down what a comparison found, within its transaction, and takes off the list what is not there any more. What
/// could not be looked at (`unseen`) stays on the list as it is, or off it.
///
/// # Errors
/// The database doesn't answer.
pub async fn record(
    transaction: &DatabaseTransaction,
    found: &[Finding],
    unseen: &[(DriftKind, String)],
) -> Result<(), DbErr> {
    let found: Vec<Value> = found.iter().map(row).collect();
    execute(transaction, UPSERT, found.into()).await?;
    let unseen: Vec<Value> = unseen
        .iter()
        .map(|(kind, subject)| json!({ "kind": kind, "subject": subject }))
        .collect();
    execute(transaction, DELETE, unseen.into()).await
}

fn row(finding: &Finding) -> Value {
    let target = finding.target.as_deref().and_then(Target::parse);
    json!({
        "id": DriftId::new().0,
        "kind": finding.kind,
        "subject": finding.subject,
        "target_type": target.map(Target::kind),
        "target_id": target.map(Target::uuid),
        "detail": finding.detail,
    })
}

async fn execute(transaction: &DatabaseTransaction, sql: &str, rows: Value) -> Result<(), DbErr> {
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [rows.into()]);
    transaction.execute_raw(statement).await.map(drop)
}

// A difference may have been found twice: the list has it once.
const UPSERT: &str = "
INSERT INTO drift (id, kind, subject, target_type, target_id, detail)
SELECT DISTINCT ON (kind, subject) id, kind, subject, target_type, target_id, detail
  FROM jsonb_to_recordset($1) AS found
       (id uuid, kind text, subject text, target_type text, target_id uuid, detail text)
    ON CONFLICT (kind, subject) DO UPDATE
   SET target_type = excluded.target_type, target_id = excluded.target_id, detail = excluded.detail,
       last_seen_at = now()";

// The clock stands still within a transaction: what was seen now was written by the statement above.
const DELETE: &str = "
DELETE FROM drift d
 WHERE d.last_seen_at < now()
   AND NOT EXISTS (SELECT FROM jsonb_to_recordset($1) AS unseen (kind text, subject text)
                    WHERE unseen.kind = d.kind AND unseen.subject = d.subject)";

/// What has been on the list for [`SETTLED`], as kind and subject.
///
/// # Errors
/// The database doesn't answer.
pub async fn settled(database: &impl ConnectionTrait) -> Result<HashSet<(String, String)>, Error> {
    const OLD: &str =
        "SELECT kind, subject FROM drift WHERE first_seen_at < now() - make_interval(secs => $1)";
    let values = [SETTLED.as_secs_f64().into()];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, OLD, values);
    let rows = crate::answered(database.query_all_raw(statement)).await?;
    let pairs = rows
        .iter()
        .map(|row| Ok((row.try_get("", "kind")?, row.try_get("", "subject")?)));
    Ok(pairs.collect::<Result<_, DbErr>>()?)
}

/// How many rows of each kind there are.
///
/// # Errors
/// The database doesn't answer.
pub async fn count(database: &impl ConnectionTrait) -> Result<Vec<(String, i64)>, Error> {
    const COUNT: &str = "SELECT kind, count(*) AS rows FROM drift GROUP BY kind";
    let statement = Statement::from_string(DbBackend::Postgres, COUNT);
    let rows = crate::answered(database.query_all_raw(statement)).await?;
    let counts = rows
        .iter()
        .map(|row| Ok((row.try_get("", "kind")?, row.try_get("", "rows")?)));
    Ok(counts.collect::<Result<_, DbErr>>()?)
}
