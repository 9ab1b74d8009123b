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
    /// Whether only a person has it, and no API key.
    const PERSON_ONLY: bool;
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
    /// See [`Permission::PERSON_ONLY`].
    pub person_only: bool,
}

impl Row {
    /// Whether somebody has it.
    #[must_use]
    pub fn permits(&self, role: Role, root: bool, person: bool) -> bool {
        role >= self.least && (root || !self.root_only) && (person || !self.person_only)
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $id:literal: $least:ident $($limit:ident)?;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl Permission for $name {
                const ID: &'static str = $id;
                const LEAST: Role = Role::$least;
                const ROOT_ONLY: bool = permissions!(@root $($limit)?);
                const PERSON_ONLY: bool = permissions!(@person $($limit)?);
            }
        )+

        /// Every permission there is.
        pub const TABLE: &[Row] = &[
            $(Row {
                id: $id,
                least: Role::$least,
                root_only: permissions!(@root $($limit)?),
                person_only: permissions!(@person $($limit)?),
            },)+
        ];
    };
    (@root root) => { true };
    (@root $($other:ident)?) => { false };
    (@person person) => { true };
    (@person $($other:ident)?) => { false };
}

permissions! {
    /// See who one is.
    ActAsSelf = "self": Viewer;
    /// Change one's own name and password, end one's own sessions.
    ManageSelf = "self.manage": Viewer person;
    /// List and read organizations.
    ReadOrganizations = "organizations.read": Viewer;
    /// Create organizations below one's own.
    CreateOrganizations = "organizations.create": Admin;
    /// Rename organizations, and move those below one's own.
    UpdateOrganizations = "organizations.update": Admin;
    /// Delete organizations.
    DeleteOrganizations = "organizations.delete": Owner;
    /// List and read members and invitations.
    ReadMembers = "members.read": Viewer;
    /// Invite, add and remove members, and change their roles.
    ManageMembers = "members.manage": Owner;
    /// List and read API keys.
    ReadApiKeys = "api_keys.read": Admin;
    /// Make, rotate and revoke API keys.
    ManageApiKeys = "api_keys.manage": Owner;
    /// Read, export and verify the audit log.
    ReadAuditEvents = "audit_events.read": Admin;
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

/// The ids of what somebody may do.
#[must_use]
pub fn of(role: Role, root: bool, person: bool) -> Vec<&'static str> {
    TABLE
        .iter()
        .filter(|row| row.permits(role, root, person))
        .map(|row| row.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_role_may_do_all_that_a_lower_one_may() {
        let (viewer, admin, owner) = (
            of(Role::Viewer, false, true),
            of(Role::Admin, false, true),
            of(Role::Owner, false, true),
        );
        assert!(viewer.iter().all(|id| admin.contains(id)));
        assert!(admin.iter().all(|id| owner.contains(id)));
        assert!(!viewer.contains(&"tenants.create"));
        assert!(!admin.contains(&"tenants.delete"));
    }

    #[test]
    fn what_is_the_operators_alone_no_other_organization_may() {
        assert!(!of(Role::Owner, false, true).contains(&"drift.read"));
        assert!(of(Role::Admin, true, true).contains(&"drift.read"));
        assert!(!of(Role::Viewer, true, true).contains(&"drift.read"));
    }

    #[test]
    fn what_is_a_persons_alone_no_key_may() {
        assert!(of(Role::Viewer, false, true).contains(&"self.manage"));
        assert!(!of(Role::Owner, true, false).contains(&"self.manage"));
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = TABLE.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len());
    }
}
