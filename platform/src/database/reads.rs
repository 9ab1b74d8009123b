//! Connections for requests that read: one statement each. A pool of sqlx asks the server after each use whether the
//! connection is still sound, which takes as long as a small query; here the one who used it knows.

use std::{fmt, time::Duration};

use deadpool::{
    Runtime,
    managed::{self, Metrics, RecycleError, RecycleResult},
};
use sea_orm::{
    DbErr, QueryResult, RuntimeErr, SqlxError, Statement,
    sqlx::{
        self, AssertSqlSafe, Connection as _,
        postgres::{PgConnectOptions, PgConnection},
    },
};
use sea_query_sqlx::SqlxValues;
use secrecy::{ExposeSecret as _, SecretString};

use super::{CONNECT, Sight, answered, bounded};
use crate::error::Error;

/// A connection is replaced after so long: the server's process keeps what it has ever looked up.
const LIFE: Duration = Duration::from_secs(1800);

/// The connections. Opened when they are needed.
pub(crate) struct Reads {
    pool: managed::Pool<Opener>,
}

/// Opens connections.
struct Opener {
    options: PgConnectOptions,
}

/// An open connection.
struct Connection {
    postgres: PgConnection,
    /// Whether nothing is on its way in either direction.
    at_rest: bool,
}

impl managed::Manager for Opener {
    type Type = Connection;
    type Error = SqlxError;

    async fn create(&self) -> Result<Connection, SqlxError> {
        // On the heap, or every read would carry the space for it.
        let connecting = Box::pin(PgConnection::connect_with(&self.options));
        Ok(Connection {
            postgres: connecting.await?,
            at_rest: true,
        })
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<SqlxError> {
        if connection.at_rest && metrics.age() < LIFE {
            Ok(())
        } else {
            Err(RecycleError::message("worn out"))
        }
    }
}

/// A connection that is in use. One that is left in the middle of a statement is brought to rest before another gets it.
struct Loan(Option<managed::Object<Opener>>);

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(mut left) = self.0.take_if(|connection| !connection.at_rest) else {
            return;
        };
        // Without a runtime, at the end of the process, it goes back as it is and is not given out again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let answer = tokio::time::timeout(CONNECT, left.postgres.ping()).await;
                left.at_rest = matches!(answer, Ok(Ok(())));
            });
        }
    }
}

impl Reads {
    /// So many connections at most, of this name.
    ///
    /// # Errors
    /// The URL makes no sense.
    pub(super) fn connect(url: &SecretString, name: &str, connections: usize) -> Result<Self, Error> {
        let options: PgConnectOptions = url.expose_secret().parse().map_err(of_connecting)?;
        let opener = Opener {
            options: bounded(options, name, Sight::Entered),
        };
        let pool = managed::Pool::builder(opener)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(CONNECT))
            .build()
            .map_err(Error::internal)?;
        Ok(Self { pool })
    }

    /// The rows of a statement that only reads. Where the connection turns out to be lost, it is asked once more on a new
    /// one.
    ///
    /// # Errors
    /// The database does not answer or refuses the statement.
    pub(crate) async fn rows(&self, statement: Statement) -> Result<Vec<QueryResult>, Error> {
        answered(async {
            let Statement { sql, values, .. } = statement;
            let values = SqlxValues(values.unwrap_or_else(|| sea_orm::Values(Vec::new())));
            let mut loan = self.lend().await?;
            match loan.rows(&sql, values.clone()).await {
                Err(error) if loan.is_used() && is_lost(&error) => {
                    // Whatever it was that ended this one, the others have hardly survived it. Its place is given up first,
                    // as all places may be taken by such that wait for another.
                    loan.discard();
                    self.pool.retain(|_, _| false);
                    Box::pin(async { self.lend().await?.rows(&sql, values).await.map_err(of_reading) }).await
                }
                outcome => outcome.map_err(of_reading),
            }
        })
        .await
    }

    async fn lend(&self) -> Result<Loan, Error> {
        match self.pool.get().await {
            Ok(connection) => Ok(Loan(Some(connection))),
            Err(managed::PoolError::Backend(error)) => Err(of_connecting(error)),
            Err(error) => Err(Error::database_away(error)),
        }
    }
}

impl Loan {
    /// Whether somebody had the connection before.
    fn is_used(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|connection| managed::Object::metrics(connection).recycle_count > 0)
    }

    /// Gives the connection up, and its place in the pool.
    fn discard(&mut self) {
        self.0.take().map(managed::Object::take);
    }

    async fn rows(&mut self, sql: &str, values: SqlxValues) -> Result<Vec<QueryResult>, SqlxError> {
        let Some(connection) = &mut self.0 else {
            return Err(SqlxError::PoolClosed);
        };
        connection.at_rest = false;
        let query = sqlx::query_with(AssertSqlSafe(sql), values);
        let outcome = query.fetch_all(&mut connection.postgres).await;
        connection.at_rest = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error, SqlxError::Database(_)) && !is_lost(error),
        };
        Ok(outcome?.into_iter().map(QueryResult::from).collect())
    }
}

fn of_reading(error: SqlxError) -> Error {
    DbErr::Query(RuntimeErr::SqlxError(error.into())).into()
}

fn of_connecting(error: SqlxError) -> Error {
    DbErr::Conn(RuntimeErr::SqlxError(error.into())).into()
}

/// Whether the connection is gone, so that another may do better.
fn is_lost(error: &SqlxError) -> bool {
    match error {
        SqlxError::Io(_) | SqlxError::Protocol(_) => true,
        // The server says that it ends the connection (57P01 to 57P05).
        SqlxError::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reads").field(&self.pool.status()).finish()
    }
}
