//! What is there, by the name that database, role, files, routes and containers share. Nothing that is not ours is in
//! it, whatever it is called: the lists that it comes from say whose each thing is.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use jobs::{StepContext, StepError};
use odoo::{
    edge::{Hostname, Route},
    names::{DatabaseKind, DatabaseName},
    runtime::ContainerEntry,
    server::{DatabaseEntry, RoleEntry, Session},
};

use super::{
    super::{edge, files, runtime, server},
    Compare,
    wanted::Wanted,
};

/// Passwords that are tried at once.
const LOGINS_AT_ONCE: usize = 4;

/// What has one of the platform's names.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The database, if it belongs to the admin role.
    pub(super) database: Option<DatabaseEntry>,
    /// The role, whoever made it.
    pub(super) role: Option<RoleEntry>,
    /// Whether there are files of the database.
    pub(super) has_files: bool,
    /// Whether they are ours, or the template's are there.
    pub(super) owns_files: bool,
    /// Whether there are files that tenants are cloned from.
    pub(super) has_template_files: bool,
    /// The hosts that lead to the database.
    pub(super) routes: Vec<(Hostname, Route)>,
    /// The pool's containers.
    pub(super) containers: Vec<ContainerEntry>,
    /// Whether the role gets in with the password that its pool would use. `None`: it was not tried, or nobody can tell.
    pub(super) admitted: Option<bool>,
}

/// All that is there.
#[derive(Debug, Default)]
pub(super) struct Actual {
    /// By name.
    pub(super) found: BTreeMap<DatabaseName, Found>,
    /// Containers of this instance that name no pool.
    pub(super) poolless: Vec<ContainerEntry>,
}

impl Actual {
    /// Looks at everything, or at what has one name.
    pub(super) async fn look(
        cx: &StepContext<Compare>,
        session: &mut Session,
        only: Option<&DatabaseName>,
    ) -> Result<Self, StepError> {
        let world = cx.world();
        let wants = |name: &DatabaseName| only.is_none_or(|only| only == name);
        let mut actual = Self::default();
        for database in server(session.databases(only).await)? {
            let found = actual.found.entry(database.name.clone()).or_default();
            found.database = Some(database);
        }
        for role in server(session.roles(only).await)? {
            let found = actual.found.entry(role.name.clone()).or_default();
            found.role = Some(role);
        }
        for tree in files(world.filestore.databases().await)? {
            if wants(&tree.database) {
                let found = actual.found.entry(tree.database).or_default();
                found.has_files = true;
                found.owns_files |= tree.ours;
            }
        }
        for tree in files(world.filestore.templates().await)? {
            if wants(&tree.database) {
                let found = actual.found.entry(tree.database).or_default();
                found.has_template_files = true;
                found.owns_files |= tree.ours;
            }
        }
        if only.is_none_or(|only| only.kind() == DatabaseKind::Tenant) {
            for (host, route) in edge(world.edge.routes().await)?.routes {
                if wants(&route.database) {
                    let found = actual.found.entry(route.database.clone()).or_default();
                    found.routes.push((host, route));
                }
            }
        }
        if only.is_none_or(|only| only.kind() == DatabaseKind::Bus) {
            for container in runtime(world.runtime.containers().await)? {
                match container.pool.map(odoo::names::PoolId::bus_database) {
                    Some(name) if wants(&name) => {
                        actual.found.entry(name).or_default().containers.push(container);
                    }
                    Some(_) => {}
                    None => actual.poolless.push(container),
                }
            }
        }
        Ok(actual)
    }

    /// Tries the password of each role that should get in now.
    pub(super) async fn try_passwords(
        &mut self,
        cx: &StepContext<Compare>,
        wanted: &BTreeMap<DatabaseName, Wanted>,
    ) -> Result<(), StepError> {
        let (world, session_name) = (cx.world(), cx.application_name());
        let asked = self.found.iter().filter_map(|(name, found)| {
            let password = wanted.get(name)?.password(name)?;
            let can_tell = found.database.is_some() && found.role.as_ref().is_some_and(|role| role.login);
            can_tell.then(|| (name.clone(), password))
        });
        let asked: Vec<_> = asked.collect();
        let session_name = session_name.as_str();
        let mut answers = stream::iter(asked)
            .map(async |(name, password)| {
                let answer = world.server.admits(session_name, &name, &password).await;
                (name, answer)
            })
            .buffer_unordered(LOGINS_AT_ONCE);
        while let Some((name, answer)) = answers.next().await {
            cx.check()?;
            match answer {
                Ok(admitted) => self.found.entry(name).or_default().admitted = Some(admitted),
                Err(error) => {
                    tracing::warn!(%error, %name, "whether a role's password is right can't be told");
                }
            }
        }
        Ok(())
    }
}
