//! What differs, and what may be done about it. Looks at nothing and changes nothing.
//!
//! The rule: what can be made again from the tables is made again; what holds nothing of a customer's is removed once
//! it has been listed for a while; everything else is listed. A finished database and a tree of files may be somebody's
//! accounts, whatever the tables say, and are never removed here.

use odoo::{
    edge::{Hostname, Route},
    names::{DatabaseKind, DatabaseName},
    runtime::PoolRole,
    server::{RoleEntry, RoleGroup},
};
use platform::{reconcile::SETTLED, values::DriftKind};

use super::{
    actual::Found,
    wanted::{Wanted, WantedTenant},
};
use crate::world::Pool;

/// What may be done about a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Somebody has to look.
    None,
    /// Give the tenant's role its password, rights and limits again.
    MendRole,
    /// Let the tenant's host lead to it again.
    Publish,
    /// Let this host lead nowhere.
    Withdraw(Hostname),
    /// Make the pool's bus database and role, or what of them is missing.
    MendBus,
    /// Make or start the pool's containers.
    MendContainers,
    /// Remove the role. Only once it has been listed for a while.
    DropRole,
    /// Remove what was never finished: database, role and files. Only once it has been listed for a while.
    DropUnfinished,
}

impl Remedy {
    /// Whether it takes something away for good.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::DropRole | Self::DropUnfinished)
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// How it differs.
    pub(super) kind: DriftKind,
    /// What it is called.
    pub(super) subject: String,
    /// What may be done about it.
    pub(super) remedy: Remedy,
    /// For the operator.
    pub(super) detail: String,
}

impl Difference {
    pub(super) fn new(kind: DriftKind, subject: &impl ToString, remedy: Remedy, detail: &str) -> Self {
        Self {
            kind,
            subject: subject.to_string(),
            detail: if remedy.is_final() {
                let minutes = SETTLED.as_secs() / 60;
                format!("{detail} It is removed once it has been listed for {minutes} minutes.")
            } else {
                detail.to_owned()
            },
            remedy,
        }
    }
}

/// How what has this name differs from what should have it.
pub(super) fn differences(name: &DatabaseName, wanted: Option<&Wanted>, found: &Found) -> Vec<Difference> {
    match wanted {
        Some(Wanted::Tenant(wanted)) => of_tenant(name, wanted, found),
        Some(Wanted::Pool(wanted)) => of_pool(name, wanted, found),
        Some(Wanted::Template(_)) => of_template(name, found),
        Some(Wanted::UnreadyPool(_)) => Vec::new(),
        Some(Wanted::Nothing(_)) => of_nobody(
            name,
            found,
            "Its tenant was never made, or its deletion was given up: deleting the tenant removes all of it.",
        ),
        None => of_nobody(
            name,
            found,
            "No row knows it. Look whose it is; move it away or remove it by hand.",
        ),
    }
}

/// Whether a role is not as we make it.
fn is_changed(role: &RoleEntry, group: RoleGroup, login: Option<bool>, connections: u16) -> bool {
    role.groups != [group]
        || login.is_some_and(|login| login != role.login)
        || role.connection_limit != i32::from(connections)
        || role.has_settings
}

fn of_tenant(name: &DatabaseName, wanted: &WantedTenant, found: &Found) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut add = |kind, remedy, detail| all.push(Difference::new(kind, name, remedy, detail));
    let serves = match &found.database {
        None => {
            add(
                DriftKind::MissingDatabase,
                Remedy::None,
                "The tenant's database is gone, or belongs to another role. Restore it from a backup.",
            );
            false
        }
        Some(database) if !database.finished => {
            add(
                DriftKind::UnfinishedDatabase,
                Remedy::None,
                "The tenant's database has lost its mark (the comment that says what it is). It is left alone; a \
                 restore without comments does this.",
            );
            true
        }
        Some(_) => true,
    };
    if !found.has_files {
        add(
            DriftKind::MissingFilestore,
            Remedy::None,
            "The tenant's files are gone. Restore them from a backup.",
        );
    }
    // What leads to a database and opens it means nothing without the database.
    if !serves {
        return all;
    }
    match &found.role {
        None => add(
            DriftKind::MissingRole,
            Remedy::None,
            "The tenant's role is gone while its database is there: it was renamed, or another role was given what it \
             owned. Only who did so knows which; rename it back, or give its objects to a role of this name.",
        ),
        Some(role) if is_changed(role, RoleGroup::Tenants, wanted.login, wanted.connections) => add(
            DriftKind::ChangedRole,
            Remedy::MendRole,
            "The tenant's role has other rights, limits or settings than it was given.",
        ),
        Some(_) if found.admitted == Some(false) => add(
            DriftKind::ChangedPassword,
            Remedy::MendRole,
            "The tenant's role has another password than its pool uses.",
        ),
        Some(_) => {}
    }
    all.extend(of_routes(wanted, &found.routes));
    all
}

fn of_routes(wanted: &WantedTenant, routes: &[(Hostname, Route)]) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut leads = false;
    for (host, route) in routes {
        if *host != wanted.host {
            all.push(Difference::new(
                DriftKind::StrayRoute,
                host,
                Remedy::Withdraw(host.clone()),
                "The host leads to a tenant that has another one.",
            ));
            continue;
        }
        leads = true;
        if *route != wanted.route {
            all.push(Difference::new(
                DriftKind::ChangedRoute,
                host,
                Remedy::Publish,
                "The tenant's host leads to another pool or port, or lets visitors through when it should not.",
            ));
        }
    }
    if !leads {
        all.push(Difference::new(
            DriftKind::MissingRoute,
            &wanted.host,
            Remedy::Publish,
            "The tenant's host leads nowhere.",
        ));
    }
    all
}

fn of_pool(name: &DatabaseName, wanted: &Pool, found: &Found) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut add = |kind, detail| all.push(Difference::new(kind, name, Remedy::MendBus, detail));
    match &found.database {
        None => add(DriftKind::MissingDatabase, "The pool's bus database is gone."),
        Some(database) if !database.finished => add(
            DriftKind::UnfinishedDatabase,
            "The pool's bus database was never finished.",
        ),
        Some(_) => {}
    }
    match &found.role {
        None => add(DriftKind::MissingRole, "The pool's role is gone."),
        Some(role) if is_changed(role, RoleGroup::Pools, Some(true), odoo::server::BUS_CONNECTIONS) => add(
            DriftKind::ChangedRole,
            "The pool's role has other rights, limits or settings than it was given.",
        ),
        Some(_) if found.admitted == Some(false) => add(
            DriftKind::ChangedPassword,
            "The pool's role has another password than the pool uses.",
        ),
        Some(_) => {}
    }
    for role in PoolRole::ALL {
        if !found
            .containers
            .iter()
            .any(|container| container.role == Some(role) && container.runs)
        {
            all.push(Difference::new(
                DriftKind::MissingContainer,
                &format!("{}-{}", wanted.id(), role.as_str()),
                Remedy::MendContainers,
                "A process of the pool has no container, or one that does not run.",
            ));
        }
    }
    for container in found
        .containers
        .iter()
        .filter(|container| container.role.is_none())
    {
        all.push(stray_container(&container.name));
    }
    all
}

/// A container of ours that nothing of ours is made of.
pub(super) fn stray_container(name: &str) -> Difference {
    Difference::new(
        DriftKind::StrayContainer,
        &name,
        Remedy::None,
        "The container has this platform's label and is no process of a pool that there is. Look what it does, then \
         remove it.",
    )
}

fn of_template(name: &DatabaseName, found: &Found) -> Vec<Difference> {
    let mut all = Vec::new();
    match &found.database {
        None => all.push(Difference::new(
            DriftKind::MissingDatabase,
            name,
            Remedy::None,
            "The template's database is gone: no tenant can be made from it. Tenants that were stay as they are.",
        )),
        Some(database) if !database.finished || !database.sealed => all.push(Difference::new(
            DriftKind::UnfinishedDatabase,
            name,
            Remedy::None,
            "The template's database is not sealed: it may have been changed, and no tenant should be made from it.",
        )),
        Some(_) => {}
    }
    if !found.has_template_files {
        all.push(Difference::new(
            DriftKind::MissingFilestore,
            name,
            Remedy::None,
            "The template's files are gone: no tenant can be made from it. Tenants that were have links of their own.",
        ));
    }
    all
}

/// Of what should not be there at all.
fn of_nobody(name: &DatabaseName, found: &Found, whose: &str) -> Vec<Difference> {
    let mut all = Vec::new();
    let group = match name.kind() {
        DatabaseKind::Tenant | DatabaseKind::Template => RoleGroup::Tenants,
        DatabaseKind::Bus => RoleGroup::Pools,
    };
    let role = found.role.as_ref().filter(|role| role.groups.contains(&group));
    // Nobody can have worked in a tenant's database before its role may log in, which comes last when it is made.
    let in_use = name.kind() == DatabaseKind::Tenant && role.is_some_and(|role| role.login);
    let mut goes_whole = false;
    match &found.database {
        Some(database) if database.finished => all.push(Difference::new(
            DriftKind::StrayDatabase,
            name,
            Remedy::None,
            &format!("A finished database, which may be somebody's accounts. {whose}"),
        )),
        Some(_) if in_use => all.push(Difference::new(
            DriftKind::UnfinishedDatabase,
            name,
            Remedy::None,
            &format!("A database that bears no mark, but whose role may log in. {whose}"),
        )),
        Some(_) => {
            goes_whole = true;
            all.push(Difference::new(
                DriftKind::UnfinishedDatabase,
                name,
                Remedy::DropUnfinished,
                "A database that was never finished, left by an operation that is over.",
            ));
        }
        // The role of a database goes, or stays, with the database.
        None if role.is_some() => all.push(Difference::new(
            DriftKind::StrayRole,
            name,
            Remedy::DropRole,
            "A role without a database, left by an operation that is over.",
        )),
        None => {}
    }
    if found.owns_files && !goes_whole {
        all.push(Difference::new(
            DriftKind::StrayFilestore,
            name,
            Remedy::None,
            &format!("Files without a tenant or template, which may be somebody's documents. {whose}"),
        ));
    }
    for (host, _) in &found.routes {
        all.push(Difference::new(
            DriftKind::StrayRoute,
            host,
            Remedy::Withdraw(host.clone()),
            "The host leads to a tenant that is gone.",
        ));
    }
    for container in &found.containers {
        all.push(stray_container(&container.name));
    }
    all
}

#[cfg(test)]
mod tests {
    use odoo::server::DatabaseEntry;
    use platform::id::TenantId;

    use super::*;

    fn name() -> DatabaseName {
        "t_01h455vb4pex5vsknk084sn02q".parse().unwrap()
    }

    fn role(groups: &[RoleGroup], login: bool) -> RoleEntry {
        RoleEntry {
            name: name(),
            groups: groups.to_vec(),
            login,
            connection_limit: 10,
            has_settings: false,
        }
    }

    fn database(finished: bool) -> DatabaseEntry {
        DatabaseEntry {
            name: name(),
            finished,
            sealed: false,
        }
    }

    fn seen(wanted: Option<&Wanted>, found: &Found) -> Vec<(DriftKind, Remedy)> {
        differences(&name(), wanted, found)
            .into_iter()
            .map(|difference| (difference.kind, difference.remedy))
            .collect()
    }

    #[test]
    fn a_finished_database_and_files_are_never_removed_whatever_else_is_there() {
        let nothing = Wanted::Nothing(TenantId::new());
        for wanted in [None, Some(&nothing)] {
            for role in [
                None,
                Some(role(&[], true)),
                Some(role(&[RoleGroup::Tenants], false)),
                Some(role(&[RoleGroup::Tenants], true)),
            ] {
                let found = Found {
                    database: Some(database(true)),
                    role,
                    has_files: true,
                    owns_files: true,
                    ..Found::default()
                };
                assert_eq!(
                    seen(wanted, &found),
                    [
                        (DriftKind::StrayDatabase, Remedy::None),
                        (DriftKind::StrayFilestore, Remedy::None),
                    ]
                );
            }
        }
    }

    #[test]
    fn what_was_never_finished_goes_unless_somebody_may_have_used_it() {
        let mut found = Found {
            database: Some(database(false)),
            role: Some(role(&[RoleGroup::Tenants], false)),
            has_files: true,
            owns_files: true,
            ..Found::default()
        };
        assert_eq!(
            seen(None, &found),
            [(DriftKind::UnfinishedDatabase, Remedy::DropUnfinished)]
        );
        found.role = Some(role(&[RoleGroup::Tenants], true));
        assert_eq!(
            seen(None, &found),
            [
                (DriftKind::UnfinishedDatabase, Remedy::None),
                (DriftKind::StrayFilestore, Remedy::None),
            ]
        );
    }

    #[test]
    fn a_role_that_is_in_no_group_of_ours_is_none_of_ours() {
        let mut found = Found {
            role: Some(role(&[], true)),
            ..Found::default()
        };
        assert_eq!(seen(None, &found), []);
        found.role = Some(role(&[RoleGroup::Pools], true));
        assert_eq!(seen(None, &found), []);
        found.role = Some(role(&[RoleGroup::Tenants], true));
        assert_eq!(seen(None, &found), [(DriftKind::StrayRole, Remedy::DropRole)]);
    }

    #[test]
    fn files_that_another_put_there_are_none_of_ours() {
        let found = Found {
            has_files: true,
            ..Found::default()
        };
        assert_eq!(seen(None, &found), []);
    }

    #[test]
    fn what_goes_for_good_says_when() {
        let found = Found {
            role: Some(role(&[RoleGroup::Tenants], false)),
            ..Found::default()
        };
        let all = differences(&name(), None, &found);
        assert!(all[0].detail.ends_with("listed for 10 minutes."), "{all:?}");
    }
}
