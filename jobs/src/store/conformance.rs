//! Each statement does to a job's row what `protocol::Row` says it does: what the model of the protocol is checked on is
//! what Postgres carries out.

use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, TransactionTrait,
};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use serde_json::json;
use uuid::Uuid;

use super::{Advance, Claim, End, Ended, Pivot, StepRecord, lease, one};
use crate::{
    Outcome,
    entity::{
        job::{Ending, JobState},
        job_step::StepStatus,
    },
    error::Fault,
    protocol::{CancelVerdict, ClaimVerdict, Due, Finish, Room, Row, Written},
};

const LEASE: Duration = Duration::from_secs(1000);
const RETRY: Duration = Duration::from_secs(5000);
/// Ago, if it was.
const ANNOUNCED: Duration = Duration::from_secs(100);
/// Of every row's lease.
const EPOCH: i64 = 3;

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        crate::migrations()
    }
}

/// A row and its surroundings.
#[derive(Clone, Copy, Debug)]
struct Case {
    row: Row,
    due: bool,
    /// Another job holds its key.
    behind: bool,
    /// What its scope has for it.
    room: Room,
}

fn cases() -> Vec<Case> {
    let both = [false, true];
    let mut cases = Vec::new();
    for state in [
        JobState::Ready,
        JobState::Leased,
        JobState::Blocked,
        JobState::Finished,
        JobState::Dead,
    ] {
        for (keyed, holds_key, behind) in [
            (false, false, false),
            (true, false, false),
            (true, true, false),
            (true, false, true),
        ] {
            for (ending, pivoted) in [
                (None, false),
                (None, true),
                (Some(Ending::Failed), false),
                (Some(Ending::Cancelled), false),
            ] {
                for (epoch, attempts) in [(0, 0), (EPOCH, 0), (EPOCH, 2)] {
                    for (cancel_requested, announced) in
                        both.map(|one| both.map(|other| (one, other))).concat()
                    {
                        for (due, (slot, in_line, room)) in both
                            .into_iter()
                            .flat_map(|due| rooms(state).map(move |room| (due, room)))
                        {
                            let row = Row {
                                state,
                                epoch,
                                attempts,
                                keyed,
                                holds_key,
                                slot,
                                in_line,
                                position: 1,
                                ending,
                                cancel_requested,
                                pivoted,
                                announced,
                            };
                            cases.push(Case {
                                row,
                                due,
                                behind,
                                room,
                            });
                        }
                    }
                }
            }
        }
    }
    cases.retain(is_worth_a_look);
    cases
}

/// A slot of its own, whether it is in line, and what its scope has for it.
fn rooms(state: JobState) -> impl Iterator<Item = (bool, bool, Room)> {
    let all: &[_] = match state {
        JobState::Ready | JobState::Blocked => &[
            (false, false, Room::Unbounded),
            (false, false, Room::Open),
            (false, false, Room::Full),
            (false, true, Room::Unbounded),
            (false, true, Room::Open),
            (false, true, Room::Full),
        ],
        JobState::Leased => &[
            (false, false, Room::Unbounded),
            (false, false, Room::Open),
            (false, false, Room::Full),
            (true, false, Room::Open),
            (true, false, Room::Full),
        ],
        JobState::Finished | JobState::Dead => &[(false, false, Room::Unbounded)],
    };
    all.iter().copied()
}

/// Rows that the table and the protocol allow at all; of those in a bounded scope, some.
fn is_worth_a_look(Case { row, room, .. }: &Case) -> bool {
    let plain = row.ending != Some(Ending::Cancelled) && (row.epoch, row.attempts) != (EPOCH, 0);
    is_possible(row) && (*room == Room::Unbounded || plain)
}

fn is_possible(row: &Row) -> bool {
    let may_hold = match row.state {
        JobState::Ready | JobState::Leased => true,
        JobState::Blocked => row.in_line,
        JobState::Finished | JobState::Dead => false,
    };
    let must_hold = row.keyed && row.state == JobState::Leased;
    let claimed = row.epoch > 0;
    (!row.holds_key || may_hold && claimed)
        && (!must_hold || row.holds_key)
        && (claimed || row.state != JobState::Leased && row.ending.is_none() && !row.pivoted)
        && (claimed || !row.cancel_requested)
}

/// What is done to each row.
#[derive(Clone, Copy, Debug)]
enum Write {
    Claim,
    Renew(i64),
    Advance(i64, Option<Ending>),
    PassPivot(i64),
    Release(i64),
    ReleaseUncharged(i64),
    Finish(i64, Finish),
    /// Together with the last step.
    FinishLast(i64),
    Cancel,
    Revive,
    Wake,
    /// Its scope's first in line.
    WakeInLine,
    Defer,
    /// Its entry counts as lost, or not.
    Sweep(bool),
}

const WRITES: [Write; 25] = [
    Write::Claim,
    Write::Renew(EPOCH),
    Write::Renew(EPOCH - 1),
    Write::Advance(EPOCH, None),
    Write::Advance(EPOCH, Some(Ending::Failed)),
    Write::Advance(EPOCH - 1, None),
    Write::PassPivot(EPOCH),
    Write::PassPivot(EPOCH - 1),
    Write::Release(EPOCH),
    Write::Release(EPOCH - 1),
    Write::ReleaseUncharged(EPOCH),
    Write::ReleaseUncharged(EPOCH - 1),
    Write::Finish(EPOCH, Finish::Succeeded),
    Write::Finish(EPOCH, Finish::Undone(Ending::Cancelled)),
    Write::Finish(EPOCH, Finish::Dead),
    Write::Finish(EPOCH - 1, Finish::Dead),
    Write::FinishLast(EPOCH),
    Write::FinishLast(EPOCH - 1),
    Write::Cancel,
    Write::Revive,
    Write::Wake,
    Write::WakeInLine,
    Write::Defer,
    Write::Sweep(false),
    Write::Sweep(true),
];

/// What the machine says: the row afterwards, what became of `due_at`, and whether an entry went to the outbox.
fn expected(case: &Case, write: Write) -> (Row, Option<Due>, bool) {
    let mut row = case.row;
    let (due, entry) = match write {
        Write::Claim => match row.claim(case.due, case.behind, case.room) {
            ClaimVerdict::Take => (Some(Due::LeaseEnd), false),
            ClaimVerdict::KeyTaken => {
                row.block(case.behind);
                (None, false)
            }
            ClaimVerdict::SlotTaken => {
                row.queue(case.room);
                (None, false)
            }
            ClaimVerdict::Duplicate | ClaimVerdict::Over => (None, false),
        },
        Write::Renew(epoch) => (row.renew(epoch).then_some(Due::LeaseEnd), false),
        Write::Advance(epoch, turn) => {
            row.advance(epoch, 2, turn);
            (None, false)
        }
        Write::PassPivot(epoch) => {
            row.pass_pivot(epoch);
            (None, false)
        }
        Write::Release(epoch) => (row.release(epoch).then_some(Due::Retry), false),
        Write::ReleaseUncharged(epoch) => {
            let released = row.release_uncharged(epoch);
            (released.then_some(Due::Now), released)
        }
        Write::Finish(epoch, how) => {
            row.finish(epoch, how, None);
            (None, false)
        }
        Write::FinishLast(epoch) => {
            row.finish(epoch, Finish::Succeeded, Some(2));
            (None, false)
        }
        Write::Cancel => {
            let nudged = row.cancel() == CancelVerdict::Ask && row.nudge(case.due);
            (nudged.then_some(Due::Now), nudged)
        }
        Write::Revive => {
            let revived = row.revive();
            (revived.then_some(Due::Now), revived)
        }
        Write::Wake => {
            let woken = row.keyed && row.wake();
            (woken.then_some(Due::Now), woken)
        }
        Write::WakeInLine => {
            let woken = row.in_line && row.wake();
            (woken.then_some(Due::Now), woken)
        }
        Write::Defer => (row.defer(case.due).then_some(Due::Retry), false),
        Write::Sweep(stale) => (None, row.sweep(case.due, stale, case.behind, case.room)),
    };
    (row, due, entry)
}

/// The statement itself.
async fn carry_out(tx: &DatabaseTransaction, id: Uuid, case: &Case, write: Write) {
    let key = case.row.keyed.then(|| format!("key:{id}"));
    match write {
        Write::Claim => {
            let known = json!({ "trip:1": "a" });
            let taken = lease::claim(tx, id, "me", LEASE, &known).await.unwrap();
            let is_taken = matches!(taken, Claim::Taken(_));
            let mut row = case.row;
            assert_eq!(
                is_taken,
                row.claim(case.due, case.behind, case.room) == ClaimVerdict::Take,
                "{case:?}"
            );
        }
        Write::Renew(epoch) => {
            let renewed = lease::renew(tx, &[(id, epoch)], LEASE).await.unwrap();
            assert_eq!(renewed.len() == 1, case.row.renew(epoch), "{case:?}");
        }
        Write::Advance(epoch, turn) => {
            let to = Advance {
                position: 2,
                turn: turn.map(|ending| (ending, None)),
                step: Some("b"),
                percent: 50,
            };
            super::advance(tx, id, epoch, None, &to).await.unwrap();
        }
        Write::PassPivot(epoch) => {
            let passed = match super::pass_pivot(tx, id, epoch).await.unwrap() {
                Pivot::Passed { .. } => Written::Done,
                Pivot::Cancelled => Written::CancelledFirst,
                Pivot::Lost => Written::Lost,
            };
            let mut row = case.row;
            assert_eq!(passed, row.pass_pivot(epoch), "{case:?}");
        }
        Write::Release(epoch) => {
            super::release(tx, id, epoch, None, RETRY).await.unwrap();
        }
        Write::ReleaseUncharged(epoch) => super::release_uncharged(tx, id, epoch).await.unwrap(),
        Write::Finish(epoch, how) => finish(tx, id, case, epoch, how, None).await,
        Write::FinishLast(epoch) => finish(tx, id, case, epoch, Finish::Succeeded, Some(2)).await,
        Write::Cancel => {
            // What `cancel` does.
            let job = super::lock_job(tx, id).await.unwrap().unwrap();
            match crate::protocol::cancel(job.state, job.lease_epoch > 0, job.pivoted) {
                CancelVerdict::End => drop(super::cancel_unclaimed(tx, id, &job).await.unwrap()),
                CancelVerdict::Ask => drop(super::request_cancel(tx, id).await.unwrap()),
                CancelVerdict::Pivoted | CancelVerdict::Over => {}
            }
        }
        Write::Revive => {
            if case.row.state == JobState::Dead {
                super::revive(tx, id).await.unwrap();
            }
        }
        Write::Wake => {
            super::wake(tx, key.as_deref(), None).await.unwrap();
        }
        Write::WakeInLine => super::wake(tx, None, Some(id)).await.unwrap(),
        Write::Defer => lease::defer(tx, id, RETRY).await.unwrap(),
        Write::Sweep(stale) => {
            let bound = ANNOUNCED / 2;
            let (expired, lost) = if stale {
                (bound, Some(bound))
            } else {
                (ANNOUNCED * 2, None)
            };
            super::sweep(tx, expired, |_| lost, 10).await.unwrap();
        }
    }
}

async fn finish(tx: &DatabaseTransaction, id: Uuid, case: &Case, epoch: i64, how: Finish, last: Option<i32>) {
    let key = case.row.keyed.then(|| format!("key:{id}"));
    let fault = Fault::new("given_up", "Given up.");
    let done = StepRecord {
        position: 1,
        name: "b",
        status: StepStatus::Done,
        output: None,
        elapsed: Duration::ZERO,
        fault: None,
    };
    let outcome = match how {
        Finish::Succeeded => Outcome::Succeeded,
        Finish::Undone(Ending::Cancelled) => Outcome::Cancelled,
        Finish::Undone(Ending::Failed) => Outcome::Failed(fault),
        Finish::Dead => Outcome::Dead(fault),
    };
    let end = End {
        operation_id: id,
        epoch,
        serial_key: key.as_deref(),
        slot_of: case.row.slot.then_some(id),
        outcome: &outcome,
        last: last.map(|position| (done, position)),
    };
    // As its caller does: anything but an end is rolled back.
    let inner = tx.begin().await.unwrap();
    let written = match super::finish(&inner, &end).await.unwrap() {
        Ended::Done { .. } => Written::Done,
        Ended::CancelledFirst => Written::CancelledFirst,
        Ended::Lost => Written::Lost,
    };
    if written == Written::Done {
        inner.commit().await.unwrap();
    } else {
        inner.rollback().await.unwrap();
    }
    let mut row = case.row;
    assert_eq!(written, row.finish(epoch, how, last), "{case:?}");
}

const fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Ready => "ready",
        JobState::Leased => "leased",
        JobState::Blocked => "blocked",
        JobState::Finished => "finished",
        JobState::Dead => "dead",
    }
}

fn text(ending: Option<Ending>) -> String {
    ending.map_or_else(
        || "NULL".to_owned(),
        |ending| format!("'{}'", super::ending_name(ending)),
    )
}

/// Writes the row, and the one that holds its key.
async fn insert(tx: &DatabaseTransaction, id: Uuid, case: &Case) {
    let Row {
        state,
        epoch,
        attempts,
        keyed,
        holds_key,
        slot,
        in_line,
        position,
        ending,
        cancel_requested,
        pivoted,
        announced,
    } = case.row;
    let over = !state.is_live();
    let moment = |is: bool| if is { "now()" } else { "NULL" };
    let status = if over { "failed" } else { "running" };
    let due = if case.due { "-" } else { "+" };
    let key = if keyed {
        format!("'key:{id}'")
    } else {
        "NULL".to_owned()
    };
    let mut sql = format!(
        "INSERT INTO operations (id, kind, scope, target_type, target_id, status, cancel_requested_at, pivoted_at,
                                 created_at, updated_at, finished_at)
         VALUES ('{id}', 'trip', '{id}', 'tenant', '{id}', '{status}', {}, {}, now(), now(), {});
         INSERT INTO jobs (operation_id, kind, version, input, serial_key, holds_key, state, due_at, announced_at,
                           lease_epoch, attempts, position, ending, created_at, scope, slot, in_line)
         VALUES ('{id}', 'trip', 1, '{{}}', {key}, {holds_key}, '{}', now() {due} interval '60 s', {}, {epoch}, {attempts},
                 {position}, {}, now(), {}, {}, {in_line});",
        moment(cancel_requested),
        moment(pivoted),
        moment(over),
        state_name(state),
        if announced {
            format!("now() - interval '{} s'", ANNOUNCED.as_secs())
        } else {
            "NULL".to_owned()
        },
        text(ending),
        // Written by an old binary, if it may be.
        if slot || in_line { format!("'{id}'") } else { "NULL".to_owned() },
        if slot { "2" } else { "NULL" },
    );
    if case.behind {
        let other = Uuid::now_v7();
        sql += &format!(
            "INSERT INTO operations (id, kind, scope, target_type, target_id, status, created_at, updated_at)
             VALUES ('{other}', 'trip', '{id}', 'tenant', '{id}', 'running', now(), now());
             INSERT INTO jobs (operation_id, kind, version, input, serial_key, holds_key, state, due_at, lease_epoch,
                               created_at)
             VALUES ('{other}', 'trip', 1, '{{}}', {key}, true, 'leased', now() + interval '60 s', 1, now());"
        );
    }
    let cap = match case.room {
        Room::Unbounded => None,
        Room::Open => Some(2 + i16::from(slot)),
        Room::Full => Some(1 + i16::from(slot)),
    };
    if cap.is_some() {
        let other = Uuid::now_v7();
        sql += &format!(
            "INSERT INTO operations (id, kind, scope, target_type, target_id, status, created_at, updated_at)
             VALUES ('{other}', 'trip', '{id}', 'tenant', '{id}', 'running', now(), now());
             INSERT INTO jobs (operation_id, kind, version, input, state, due_at, lease_epoch, created_at, scope, slot)
             VALUES ('{other}', 'trip', 1, '{{}}', 'leased', now() + interval '60 s', 1, now(), '{id}', 1);"
        );
    }
    tx.execute_unprepared(&sql).await.unwrap();
    super::set_scope_cap(tx, cap).await.unwrap();
}

/// The row as it is now, seconds until it is due, and whether the outbox has an entry for it.
async fn read(tx: &DatabaseTransaction, id: Uuid) -> (Row, f64, bool) {
    const READ: &str = "
        SELECT j.*, o.cancel_requested_at IS NOT NULL AS cancelled, o.pivoted_at IS NOT NULL AS pivoted,
               EXTRACT(EPOCH FROM j.due_at - now())::float8 AS due_in,
               EXISTS (SELECT FROM outbox WHERE operation_id = j.operation_id) AS entry
        FROM jobs j JOIN operations o ON o.id = j.operation_id WHERE j.operation_id = $1";
    let row = one(tx, READ, vec![id.into()]).await.unwrap().unwrap();
    let announced: Option<chrono::DateTime<chrono::Utc>> = row.try_get("", "announced_at").unwrap();
    let key: Option<String> = row.try_get("", "serial_key").unwrap();
    let found = Row {
        state: row.try_get("", "state").unwrap(),
        epoch: row.try_get("", "lease_epoch").unwrap(),
        attempts: row.try_get("", "attempts").unwrap(),
        keyed: key.is_some(),
        holds_key: row.try_get("", "holds_key").unwrap(),
        slot: row.try_get::<Option<i16>>("", "slot").unwrap().is_some(),
        in_line: row.try_get("", "in_line").unwrap(),
        position: row.try_get("", "position").unwrap(),
        ending: row.try_get("", "ending").unwrap(),
        cancel_requested: row.try_get("", "cancelled").unwrap(),
        pivoted: row.try_get("", "pivoted").unwrap(),
        announced: announced.is_some(),
    };
    (
        found,
        row.try_get("", "due_in").unwrap(),
        row.try_get("", "entry").unwrap(),
    )
}

fn is_about(due_in: f64, seconds: f64) -> bool {
    // Statements of the transaction run later than it began.
    (seconds - 1.0..seconds + 30.0).contains(&due_in)
}

async fn database() -> (DatabaseConnection, DatabaseConnection, String) {
    let base = std::env::var("TEST_DATABASE_URL").expect("run through `cargo xtask test`");
    let admin = Database::connect(&base).await.unwrap();
    let name = format!("jobs_{}", Uuid::now_v7().simple());
    admin
        .execute_unprepared(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    let mut url = url_of(&base, &name);
    url.max_connections(2).sqlx_logging(false);
    let db = Database::connect(url).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    (admin, db, name)
}

fn url_of(base: &str, name: &str) -> ConnectOptions {
    let (server, query) = base.split_once('?').unwrap_or((base, ""));
    let (server, _) = server.rsplit_once('/').expect("a database in the URL");
    ConnectOptions::new(format!("{server}/{name}?{query}"))
}

#[tokio::test]
async fn every_statement_does_to_every_row_what_the_protocol_says() {
    let (admin, db, name) = database().await;
    let cases = cases();
    println!("{} rows, {} writes", cases.len(), WRITES.len());
    for case in &cases {
        let tx = db.begin().await.unwrap();
        let id = Uuid::now_v7();
        insert(&tx, id, case).await;
        for write in WRITES {
            let each = tx.begin().await.unwrap();
            carry_out(&each, id, case, write).await;
            let (row, due_in, entry) = read(&each, id).await;
            let (expected_row, due, expected_entry) = expected(case, write);
            assert_eq!(
                (row, entry),
                (expected_row, expected_entry),
                "{write:?} of {case:?}"
            );
            let seconds = match due {
                Some(Due::Now) => 0.0,
                Some(Due::LeaseEnd) => LEASE.as_secs_f64(),
                Some(Due::Retry) => RETRY.as_secs_f64(),
                None if case.due => -60.0,
                None => 60.0,
            };
            assert!(
                is_about(due_in, seconds),
                "{write:?} of {case:?}: due in {due_in}"
            );
            each.rollback().await.unwrap();
        }
        tx.rollback().await.unwrap();
    }
    db.close().await.unwrap();
    admin
        .execute_unprepared(&format!("DROP DATABASE {name}"))
        .await
        .unwrap();
}
