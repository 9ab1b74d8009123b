//! What of the platform's there is on a server, for whoever compares it with what should be.
//!
//! A name alone makes nothing ours: a database must belong to the admin role, and a role must be a member of one of
//! our groups, which the entry tells.

use super::roles::RoleGroup;
use super::session::Session;
use super::{ServerError, within};
use crate::names::DatabaseName;

/// A database of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseEntry {
    /// Its name.
    pub name: DatabaseName,
    /// Whether it was finished; an unfinished one belongs to a running job or to a dead one.
    pub finished: bool,
    /// Whether it is closed to everybody, as a template is.
    pub sealed: bool,
}

/// A role that has one of the platform's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleEntry {
    /// Its name.
    pub name: DatabaseName,
    /// The groups of ours that it is in. None: somebody else made it, or took it out.
    pub groups: Vec<RoleGroup>,
    /// Whether it may log in.
    pub login: bool,
    /// Connections that it may have at once; -1: any number.
    pub connection_limit: i32,
    /// Whether its sessions begin with settings of its own. We give none.
    pub has_settings: bool,
}

impl Session {
    /// Every database on the server that has one of the platform's names and belongs to the admin role; `only` the
    /// one of this name.
    ///
    /// # Errors
    /// The server's errors.
    pub async fn databases(
        &mut self,
        only: Option<&DatabaseName>,
    ) -> Result<Vec<DatabaseEntry>, ServerError> {
        let rows = within(
            "listing databases",
            sqlx::query_as::<_, (String, bool, bool)>(
                "SELECT d.datname::text, shobj_description(d.oid, 'pg_database') IS NOT NULL,
                        d.datistemplate AND NOT d.datallowconn
                 FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
                 WHERE r.rolname = current_user AND ($1::text IS NULL OR d.datname = $1) ORDER BY d.datname",
            )
            .bind(only.map(DatabaseName::as_str))
            .fetch_all(&mut self.connection),
        )
        .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(name, finished, sealed)| {
                Some(DatabaseEntry {
                    name: name.parse().ok()?,
                    finished,
                    sealed,
                })
            })
            .collect())
    }

    /// Every role on the server that has one of the platform's names, whoever made it; `only` the one of this name.
    ///
    /// # Errors
    /// The server's errors.
    pub async fn roles(&mut self, only: Option<&DatabaseName>) -> Result<Vec<RoleEntry>, ServerError> {
        let rows = within(
            "listing roles",
            sqlx::query_as::<_, (String, Vec<String>, bool, i32, bool)>(
                "SELECT r.rolname::text,
                        ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                              WHERE m.member = r.oid ORDER BY g.rolname),
                        r.rolcanlogin, r.rolconnlimit,
                        EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setrole = r.oid)
                 FROM pg_roles r WHERE $1::text IS NULL OR r.rolname = $1 ORDER BY r.rolname",
            )
            .bind(only.map(DatabaseName::as_str))
            .fetch_all(&mut self.connection),
        )
        .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(name, groups, login, connection_limit, has_settings)| {
                let ours = |group: &RoleGroup| groups.iter().any(|name| name == group.as_str());
                Some(RoleEntry {
                    name: name.parse().ok()?,
                    groups: [RoleGroup::Tenants, RoleGroup::Pools]
                        .into_iter()
                        .filter(ours)
                        .collect(),
                    login,
                    connection_limit,
                    has_settings,
                })
            })
            .collect())
    }
}
