//! Who may do what: one table. A permission is a type, so that a handler's signature says what it demands, and a
//! handler that demands nothing doesn't compile into the route table.

use entity::values::Role;

/// Something that a role may or may not do.
pub trait Permission: 'static {
    /// Stable and machine-readable, such as `tenants.create`.
    const ID: &'static str;
    /// The least role that may do it.
    const LEAST: Role;
    /// Whether it is the platform operator's alone: members of the root organization.
    const ROOT_ONLY: bool;
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// See [`Permission::ID`].
    pub id: &'static str,
    /// See [`Permission::LEAST`].
    pub least: Role,
    /// See [`Permission::ROOT_ONLY`].
    pub root_only: bool,
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $id:literal: $least:ident $($root:ident)?;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl Permission for $name {
                const ID: &'static str = $id;
                const LEAST: Role = Role::$least;
                const ROOT_ONLY: bool = permissions!(@root $($root)?);
            }
        )+

        /// Every permission there is.
        pub const TABLE: &[Row] = &[
            $(Row { id: $id, least: Role::$least, root_only: permissions!(@root $($root)?) },)+
        ];
    };
    (@root root) => { true };
    (@root) => { false };
}

permissions! {
    /// See oneself, end one's own session.
    ActAsSelf = "self": Viewer;
    /// List and read tenants.
    ReadTenants = "tenants.read": Viewer;
    /// Create tenants.
    CreateTenants = "tenants.create": Admin;
    /// Change what is written down about tenants: names, labels, protection.
    UpdateTenants = "tenants.update": Admin;
    /// Delete tenants for good.
    DeleteTenants = "tenants.delete": Owner;
    /// Set the password of a tenant's Odoo administrator.
    SetAdminPassword = "tenants.set_admin_password": Admin;
    /// List, read and watch operations.
    ReadOperations = "operations.read": Viewer;
    /// Cancel operations.
    CancelOperations = "operations.cancel": Admin;
    /// Let operations that were given up half-way go on.
    RetryOperations = "operations.retry": Admin root;
    /// List what is not as the platform's tables say.
    ReadDrift = "drift.read": Admin root;
}

/// The ids of what a role may do.
#[must_use]
pub fn of(role: Role, root: bool) -> Vec<&'static str> {
    TABLE
        .iter()
        .filter(|row| role >= row.least && (root || !row.root_only))
        .map(|row| row.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_role_may_do_all_that_a_lower_one_may() {
        let (viewer, admin, owner) = (
            of(Role::Viewer, false),
            of(Role::Admin, false),
            of(Role::Owner, false),
        );
        assert!(viewer.iter().all(|id| admin.contains(id)));
        assert!(admin.iter().all(|id| owner.contains(id)));
        assert!(!viewer.contains(&"tenants.create"));
        assert!(!admin.contains(&"tenants.delete"));
    }

    #[test]
    fn what_is_the_operators_alone_no_other_organization_may() {
        assert!(!of(Role::Owner, false).contains(&"drift.read"));
        assert!(of(Role::Admin, true).contains(&"drift.read"));
        assert!(!of(Role::Viewer, true).contains(&"drift.read"));
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = TABLE.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len());
    }
}
