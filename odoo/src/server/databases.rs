//! Databases of pools: clones of a template, bus databases, and their end.
//!
//! Every database belongs to the admin role and only its schema to its user, which so can neither drop nor rename
//! it. A finished database carries a [`Marker`] as its comment; one without was left by a job that died half-way
//! and is made anew.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;

use super::roles::{RoleGroup, RoleSpec};
use super::session::{Session, run_on};
use super::{ServerError, within};
use crate::names::{DatabaseKind, DatabaseName, PoolId};
use crate::sql::{quote_identifier, quote_literal};
use crate::template::Template;

/// Connections of one pool's processes to its bus database: one listener a process and short ones that notify.
pub const BUS_CONNECTIONS: u16 = 64;

/// What a clone found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneOutcome {
    /// The database was made now.
    Made,
    /// A finished clone of the same template was there already.
    AlreadyThere,
}

/// The comment of a finished database: what it is and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "platform", rename_all = "snake_case")]
pub(crate) enum Marker {
    Tenant { template: String },
    Template(Template),
    Bus,
}

/// A database as the catalog describes it.
pub(crate) struct Catalogued {
    pub(crate) marker: Option<Marker>,
    pub(crate) sealed: bool,
}

impl Session {
    /// Makes `database` a copy of `template` that belongs to the role of the same name. The role must be there
    /// ([`Session::ensure_role`]) and should not be able to log in yet.
    ///
    /// Done twice, the second finds the first one's; what a killed first one left half-way is made anew.
    ///
    /// # Errors
    /// [`ServerError::TemplateNotReady`], [`ServerError::ForeignDatabase`], [`ServerError::OtherTemplate`], the
    /// server's errors.
    pub async fn clone_database(
        &mut self,
        template: &DatabaseName,
        database: &DatabaseName,
    ) -> Result<CloneOutcome, ServerError> {
        match self.catalogued(database).await? {
            None => {}
            Some(Catalogued {
                marker: Some(Marker::Tenant { template: actual }),
                ..
            }) => {
                return if actual == template.as_str() {
                    Ok(CloneOutcome::AlreadyThere)
                } else {
                    Err(ServerError::OtherTemplate {
                        database: database.clone(),
                        actual,
                        wanted: template.clone(),
                    })
                };
            }
            Some(_) => self.drop_database(database).await?,
        }
        if self.template(template).await?.is_none() {
            return Err(ServerError::TemplateNotReady {
                template: template.clone(),
            });
        }

        let server = self.server.clone();
        let _turn = server
            .shared
            .clones
            .acquire()
            .await
            .expect("the limit of clones is never closed");
        let (name, source) = (
            quote_identifier(database.as_str()),
            quote_identifier(template.as_str()),
        );
        // Copied through the write-ahead log: no checkpoint, which would make clones wait for each other.
        self.run(
            "cloning the template",
            format!("CREATE DATABASE {name} TEMPLATE {source} STRATEGY WAL_LOG ALLOW_CONNECTIONS false"),
        )
        .await?;
        self.admit_only(database).await?;

        let mut clone = server.connect_admin(&self.name, Some(database)).await?;
        run_on(
            &mut clone,
            "giving the clone to its role",
            format!(
                "REASSIGN OWNED BY {source} TO {name};
                 ALTER SCHEMA public OWNER TO {name};
                 REVOKE ALL ON SCHEMA public FROM PUBLIC;"
            ),
        )
        .await?;
        clone.close().await.map_err(|source| ServerError::Statement {
            doing: "closing the clone",
            source,
        })?;
        self.mark(
            database,
            &Marker::Tenant {
                template: template.to_string(),
            },
        )
        .await?;
        Ok(CloneOutcome::Made)
    }

    /// Makes a pool's bus database and role, or finds them: where the pool's processes listen and notify.
    ///
    /// # Errors
    /// [`ServerError::ForeignDatabase`], [`ServerError::ForeignRole`], the server's errors.
    pub async fn ensure_bus_database(
        &mut self,
        pool: PoolId,
        password: &SecretString,
    ) -> Result<(), ServerError> {
        let database = pool.bus_database();
        self.ensure_role(&RoleSpec {
            name: &database,
            group: RoleGroup::Pools,
            password,
            connection_limit: BUS_CONNECTIONS,
            login: true,
        })
        .await?;
        match self.catalogued(&database).await? {
            Some(Catalogued {
                marker: Some(Marker::Bus),
                ..
                // Once more, since the role may have been made anew: the old one took its rights with it.
            }) => return self.admit_only(&database).await,
            Some(_) => self.drop_database(&database).await?,
            None => {}
        }
        self.create_empty(&database).await?;
        self.admit_only(&database).await?;
        self.mark(&database, &Marker::Bus).await
    }

    /// Ends every session on the database and drops it, if it is there.
    ///
    /// # Errors
    /// [`ServerError::ForeignDatabase`], the server's errors.
    pub async fn drop_database(&mut self, database: &DatabaseName) -> Result<(), ServerError> {
        let Some(_ours) = self.catalogued(database).await? else {
            return Ok(());
        };
        let name = quote_identifier(database.as_str());
        if database.kind() == DatabaseKind::Template {
            self.run(
                "opening the template",
                format!("ALTER DATABASE {name} IS_TEMPLATE false"),
            )
            .await?;
        }
        self.run(
            "dropping the database",
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        )
        .await
    }

    /// Ends the sessions of the database's own role and says how many there were.
    ///
    /// # Errors
    /// The server's errors.
    pub async fn terminate_backends(&mut self, database: &DatabaseName) -> Result<u64, ServerError> {
        let ended = within(
            "ending the database's sessions",
            sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
                 WHERE datname = $1 AND usename = $1",
            )
            .bind(database.as_str())
            .fetch_one(&mut self.connection),
        )
        .await?;
        Ok(u64::try_from(ended).unwrap_or(0))
    }

    /// What the catalog says of a database that is ours; an error when it is somebody else's.
    pub(crate) async fn catalogued(
        &mut self,
        database: &DatabaseName,
    ) -> Result<Option<Catalogued>, ServerError> {
        let row = within(
            "reading the catalog",
            sqlx::query_as::<_, (String, Option<String>, bool)>(
                "SELECT r.rolname::text, shobj_description(d.oid, 'pg_database'), d.datistemplate AND NOT d.datallowconn
                 FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1",
            )
            .bind(database.as_str())
            .fetch_optional(&mut self.connection),
        )
        .await?;
        let Some((owner, comment, sealed)) = row else {
            return Ok(None);
        };
        if owner != self.server.admin_role() {
            return Err(ServerError::ForeignDatabase {
                database: database.clone(),
                owner,
            });
        }
        let marker = comment.and_then(|comment| serde_json::from_str(&comment).ok());
        Ok(Some(Catalogued { marker, sealed }))
    }

    /// An empty database of ours in which nobody may connect yet.
    pub(crate) async fn create_empty(&mut self, database: &DatabaseName) -> Result<(), ServerError> {
        let name = quote_identifier(database.as_str());
        // As Odoo makes its own: any language, sorted by bytes, so that an index never depends on the C library.
        self.run(
            "making the database",
            format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' STRATEGY WAL_LOG
                 ALLOW_CONNECTIONS false"
            ),
        )
        .await
    }

    /// Opens a new database to the role of its name, and to nobody else.
    pub(crate) async fn admit_only(&mut self, database: &DatabaseName) -> Result<(), ServerError> {
        let name = quote_identifier(database.as_str());
        self.run(
            "admitting the database's role",
            format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC;
                 GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {name};
                 ALTER DATABASE {name} ALLOW_CONNECTIONS true;"
            ),
        )
        .await
    }

    /// Records that the database is finished, and as what.
    pub(crate) async fn mark(&mut self, database: &DatabaseName, marker: &Marker) -> Result<(), ServerError> {
        self.run("marking the database", marking(database, marker)).await
    }
}

/// The statement that records that the database is finished.
pub(super) fn marking(database: &DatabaseName, marker: &Marker) -> String {
    let text = serde_json::to_string(marker).expect("a marker is plain data");
    format!(
        "COMMENT ON DATABASE {} IS {}",
        quote_identifier(database.as_str()),
        quote_literal(&text)
    )
}
