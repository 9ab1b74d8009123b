//! Who may run when, among the jobs of one scope and of one key.

use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

use super::execute;

/// A job's place among others: the older one first; what a schedule caused comes after what people asked for within
/// twelve hours, which is longer than a night's work takes, and bounded, so that it comes some day. As in the index
/// `jobs_line`, or that serves nobody.
macro_rules! place {
    ($row:literal) => {
        concat!(
            "(",
            $row,
            ".created_at AT TIME ZONE 'UTC' + CASE WHEN ",
            $row,
            ".priority = 'scheduled' THEN interval '12 hours' ELSE interval '0' END)"
        )
    };
}
pub(super) use place;

/// Jobs `h` whose turn with the key of `j` comes first: the one that holds it, and those before it that wait or could
/// run now. Not those whose own time has not come. By Postgres's clock: ids tell the time of the process that made
/// them, and only decide between jobs of one transaction.
macro_rules! ahead {
    () => {
        concat!(
            "h.serial_key = j.serial_key AND h.operation_id <> j.operation_id
             AND h.state IN ('ready', 'leased', 'blocked')
             AND (h.holds_key OR (",
            place!("h"),
            ", h.operation_id) < (",
            place!("j"),
            ", j.operation_id) AND (h.state = 'blocked' OR h.due_at <= clock_timestamp()))"
        )
    };
}
pub(super) use ahead;

/// Jobs `h` in the line of a scope.
macro_rules! in_line {
    () => {
        "h.in_line AND h.state IN ('ready', 'blocked') AND (h.state = 'blocked' OR h.due_at <= clock_timestamp())"
    };
}
pub(super) use in_line;

/// Jobs `h` before `j`, by their places.
macro_rules! before {
    () => {
        concat!(
            "(",
            place!("h"),
            ", h.operation_id) < (",
            place!("j"),
            ", j.operation_id)"
        )
    };
}
pub(super) use before;

/// The limits, one row or none. The planner takes a small table that was never analyzed for a large one, and would compile
/// each claim.
macro_rules! limits {
    () => {
        "(SELECT scope_cap FROM job_limits LIMIT 1) l"
    };
}
pub(super) use limits;

/// How many slots are held in a scope.
macro_rules! held {
    ($scope:literal) => {
        concat!(
            "(SELECT count(*) FROM jobs h WHERE h.scope = ",
            $scope,
            " AND h.state = 'leased' AND h.slot IS NOT NULL)"
        )
    };
}
pub(super) use held;

/// How many slots the scope of `o` has for its job `j`: those that are free, but for those ahead in line. `l`: the limits.
macro_rules! open {
    () => {
        concat!(
            "(l.scope_cap - ",
            held!("o.scope"),
            " - (SELECT count(*) FROM (SELECT FROM jobs h WHERE h.scope = o.scope AND ",
            in_line!(),
            " AND ",
            before!(),
            " LIMIT l.scope_cap) line))"
        )
    };
}
pub(super) use open;

/// Puts a job in line for a slot of its scope. Someone's row is locked first whose end comes after and wakes the first in
/// line, or who is ahead there; when nobody is left, or a slot came free, there is nothing to wait for. False: nothing
/// was done.
pub(super) async fn queue(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    // Any of them: to lock the same one for each of many waiters would keep its lease from being renewed.
    const QUEUE: &str = concat!(
        "WITH holder AS (
            SELECT h.operation_id FROM jobs j JOIN operations o ON o.id = j.operation_id JOIN jobs h ON h.scope = o.scope
            WHERE j.operation_id = $1 AND h.operation_id <> $1
              AND (h.state = 'leased' AND h.slot IS NOT NULL OR h.state = 'ready' AND ",
        in_line!(),
        " AND ",
        before!(),
        ")
            ORDER BY h.state = 'leased' DESC, random() LIMIT 1 FOR SHARE OF h
        )
        UPDATE jobs j SET state = 'blocked', in_line = true, scope = o.scope
        FROM holder, operations o, ",
        limits!(),
        " WHERE j.operation_id = $1 AND o.id = j.operation_id AND j.state = 'ready' AND ",
        open!(),
        " <= 0"
    );
    Ok(execute(db, QUEUE, vec![id.into()]).await? > 0)
}

/// How many jobs of a scope may run at a time, from now on, whichever worker claims them; none: any number.
pub(crate) async fn set_scope_cap(db: &impl ConnectionTrait, cap: Option<i16>) -> Result<(), DbErr> {
    const SET: &str = "
        INSERT INTO job_limits AS l (scope_cap) VALUES ($1)
        ON CONFLICT (singleton) DO UPDATE SET scope_cap = excluded.scope_cap, set_at = now()
        WHERE l.scope_cap IS DISTINCT FROM excluded.scope_cap";
    execute(db, SET, vec![cap.into()]).await.map(drop)
}
