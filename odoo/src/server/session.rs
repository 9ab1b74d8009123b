//! A session: the dedicated connection of one job, with the fence that the outside world needs.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{Server, ServerError, within};

/// How long a session waits for a target that another session holds before it gives up and may be tried again.
const LOCK_DEADLINE: Duration = Duration::from_secs(20);

/// One job's connection to a tenants' server. Dropping it closes the connection and frees its locks.
///
/// The order of a job: open, [`Session::end_lower_epochs`], [`Session::lock`], read the own epoch again, change.
pub struct Session {
    pub(super) server: Server,
    pub(super) connection: PgConnection,
    pub(super) name: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) async fn open(server: Server, name: &str) -> Result<Self, ServerError> {
        let connection = server.connect_admin(name, None).await?;
        Ok(Self {
            server,
            connection,
            name: name.to_owned(),
        })
    }

    /// The server of this session.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The session's `application_name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends every session of the same job with a lower epoch, and says how many there were. Returns when they are
    /// gone, with what they held.
    ///
    /// # Errors
    /// [`ServerError::NoEpoch`] when this session's name has no epoch; otherwise the server's errors.
    pub async fn end_lower_epochs(&mut self) -> Result<u64, ServerError> {
        let (job, epoch) = self
            .name
            .rsplit_once(':')
            .and_then(|(job, epoch)| Some((job, epoch.parse::<i64>().ok()?)))
            .ok_or_else(|| ServerError::NoEpoch {
                name: self.name.clone(),
            })?;
        // Only sessions of our own role: a tenant may give its session any name it likes. CASE, since the planner
        // may cast before it filters.
        let ended = within(
            "ending sessions of lower epochs",
            sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                 WHERE usename = current_user AND pid <> pg_backend_pid()
                   AND CASE WHEN application_name ~ '^.+:[0-9]{1,18}$'
                            THEN regexp_replace(application_name, ':[0-9]+$', '') = $1
                             AND substring(application_name FROM ':([0-9]+)$')::bigint < $2
                            ELSE false END",
            )
            .bind(job)
            .bind(epoch)
            .fetch_one(&mut self.connection),
        )
        .await?;
        Ok(u64::try_from(ended).unwrap_or(0))
    }

    /// Takes the lock on `target` (a database's name) for as long as the session lives, waiting up to 20 s.
    ///
    /// # Errors
    /// [`ServerError::Locked`] when another session holds it all that time.
    pub async fn lock(&mut self, target: &str) -> Result<(), ServerError> {
        self.lock_within(target, LOCK_DEADLINE).await
    }

    /// As [`Session::lock`], waiting up to `patience`.
    ///
    /// # Errors
    /// [`ServerError::Locked`] when another session holds it all that time.
    pub async fn lock_within(&mut self, target: &str, patience: Duration) -> Result<(), ServerError> {
        let give_up = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(20);
        // Tried and not waited for: a statement that waits would hold a snapshot, and that keeps VACUUM and
        // concurrent index builds of the whole server waiting too.
        loop {
            let locked = within(
                "locking the target",
                sqlx::query_scalar::<_, bool>(
                    "SELECT pg_try_advisory_lock(hashtextextended('platform:' || $1, 0))",
                )
                .bind(target)
                .fetch_one(&mut self.connection),
            )
            .await?;
            if locked {
                return Ok(());
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(ServerError::Locked {
                    target: target.to_owned(),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Gives the lock on `target` back before the session ends.
    ///
    /// # Errors
    /// The server's errors.
    pub async fn unlock(&mut self, target: &str) -> Result<(), ServerError> {
        within(
            "unlocking the target",
            sqlx::query("SELECT pg_advisory_unlock(hashtextextended('platform:' || $1, 0))")
                .bind(target)
                .execute(&mut self.connection),
        )
        .await
        .map(drop)
    }

    /// Closes the connection in order. Dropping the session does the same without waiting.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, session = self.name, "a session did not close in order");
        }
    }

    /// Runs statements that take no parameters; several at once are one transaction, except those that Postgres
    /// runs in none.
    pub(super) async fn run(&mut self, doing: &'static str, statements: String) -> Result<(), ServerError> {
        run_on(&mut self.connection, doing, statements).await
    }
}

/// Runs statements whose every name and text has gone through the quoting functions.
pub(super) async fn run_on(
    connection: &mut PgConnection,
    doing: &'static str,
    statements: String,
) -> Result<(), ServerError> {
    within(
        doing,
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection),
    )
    .await
    .map(drop)
}
