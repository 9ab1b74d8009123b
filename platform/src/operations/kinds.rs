//! What each kind of operation is asked to do. Written by the API in the transaction of the effect, read by the
//! worker; persisted, so a field is added with a default and never changes its meaning within a version.

use entity::{
    id::{PoolId, TemplateId, TenantId},
    values::TenantStatus,
};
use jobs::OperationInput;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl OperationInput for $name {
            const KIND: &'static str = $kind;
        }
    )+

        /// The name of every kind.
        pub const ALL: &[&str] = &[$($kind,)+];
    };
}

kinds! {
    /// Makes a tenant: its database, role, files and route.
    ProvisionTenant = "tenant.provision" {
        /// The tenant.
        tenant: TenantId,
        /// Its host label.
        slug: String,
        /// Its display name: the company's name in Odoo.
        name: String,
        /// The database that it is cloned from.
        template_database: String,
        /// The pool that serves it.
        pool: PoolId,
        /// Login and e-mail address of the Odoo administrator.
        admin_login: String,
        /// Language of the administrator, such as `en_US`.
        language: Option<String>,
        /// Country of the company, such as `BE`.
        country: Option<String>,
    }
    /// Deletes a tenant and all that it owns.
    DeleteTenant = "tenant.delete" {
        /// The tenant.
        tenant: TenantId,
        /// Its host label.
        slug: String,
        /// The pool that serves it.
        pool: PoolId,
        /// What it was before it was to be deleted, and is again if that is stopped in time.
        #[serde(default)]
        previous: Option<TenantStatus>,
    }
    /// Sets the password of a tenant's Odoo administrator.
    SetAdminPassword = "tenant.set_admin_password" {
        /// The tenant.
        tenant: TenantId,
    }
    /// Starts a pool's processes and opens the edge to it.
    StartPool = "pool.start" {
        /// The pool.
        pool: PoolId,
    }
    /// Builds the database and files that tenants are cloned from.
    BuildTemplate = "template.build" {
        /// The template.
        template: TemplateId,
        /// The pool whose image, key and network the build borrows.
        pool: PoolId,
    }
    /// Compares the tables with what is there, repairs what is safe and lists the rest.
    Reconcile = "platform.reconcile" {}
}

/// The serial key of a tenant: one mutating operation at a time.
#[must_use]
pub fn tenant_key(tenant: TenantId) -> String {
    tenant.to_string()
}
