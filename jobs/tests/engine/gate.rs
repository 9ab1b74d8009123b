//! Holds a statement of the engine where a test wants it, so that its connection can be broken in just that moment.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::support::{PATIENCE, Stage};

const GATE: &str = "
    CREATE TABLE gate (closed boolean);
    INSERT INTO gate VALUES (true);
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(9) FROM gate WHERE closed; RETURN NULL; END $$;";
const HELD: &str = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

impl Stage {
    /// Holds whoever comes to this moment: the beginning of a trigger's definition, up to its table, and its condition.
    pub(crate) async fn close_gate(&self, moment: &str, condition: &str) {
        // Those at the commit are of another sort.
        let (sort, deferred) = if moment.contains("COMMIT") {
            ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED")
        } else {
            ("TRIGGER", "")
        };
        let moment = moment.replace("COMMIT ", "");
        let trigger = format!(
            "{GATE} CREATE {sort} hold {moment} {deferred} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION hold()"
        );
        self.db.execute_unprepared(&trigger).await.unwrap();
    }

    /// Waits until someone is held.
    pub(crate) async fn until_held(&self) {
        let statement = || Statement::from_string(DbBackend::Postgres, format!("SELECT 1 AS held {HELD}"));
        let held = async {
            while self.db.query_one_raw(statement()).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, held).await;
        assert!(waited.is_ok(), "nobody came to the gate");
    }

    /// Ends the connection of whoever is held, and holds nobody any more.
    pub(crate) async fn break_at_gate(&self) {
        self.db
            .execute_unprepared("UPDATE gate SET closed = false")
            .await
            .unwrap();
        // Once more for whoever found it closed a moment ago.
        for _ in 0..2 {
            let end = format!("SELECT pg_terminate_backend(pid) {HELD}");
            self.db.execute_unprepared(&end).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
