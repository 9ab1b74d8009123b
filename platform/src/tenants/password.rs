//! The password of a tenant's Odoo administrator, on its way from the request to the job: sealed, and erased by it.

use entity::{
    id::{OperationId, TenantId},
    sealed_secret,
};
use jobs::{NewOperation, WhenBusy};
use odoo::password::GeneratedPassword;
use sea_orm::{ActiveValue::Set, DatabaseTransaction, EntityTrait as _};
use secrecy::{ExposeSecret as _, SecretString};

use super::{TenantOperation, Tenants, lifecycle};
use crate::{
    Platform,
    audit::{self, Entry, Subject},
    error::{Error, Violation},
    operations::{
        Target,
        kinds::{SetAdminPassword, tenant_key},
    },
};

/// A password as it travels. Whether it was generated decides how often Odoo's hash is iterated.
#[derive(Debug)]
pub struct Sealed {
    /// The password.
    pub password: SecretString,
    /// Whether the platform made it: then no one can guess it, and few rounds of hashing keep it.
    pub generated: bool,
}

impl Sealed {
    pub(super) fn chosen(password: &SecretString) -> Self {
        Self {
            password: password.clone(),
            generated: false,
        }
    }

    pub(super) fn generated(password: &SecretString) -> Self {
        Self {
            password: password.clone(),
            generated: true,
        }
    }

    /// One byte that says where it comes from, then the password.
    fn to_bytes(&self) -> zeroize::Zeroizing<Vec<u8>> {
        [
            &[u8::from(self.generated)],
            self.password.expose_secret().as_bytes(),
        ]
        .concat()
        .into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (generated, password) = bytes
            .split_first()
            .ok_or_else(|| Error::internal("a sealed password is empty"))?;
        let password = std::str::from_utf8(password).map_err(Error::internal)?;
        Ok(Self {
            password: SecretString::from(password.to_owned()),
            generated: *generated == 1,
        })
    }
}

/// A new administrator's password that is being set.
#[derive(Debug)]
pub struct PasswordChange {
    /// The tenant and its operation.
    pub accepted: TenantOperation,
    /// The password, where it was generated.
    pub generated_password: Option<SecretString>,
}

/// Checks a password that someone chose: 8 to 128 characters, none of them a control character.
///
/// # Errors
/// A violation at `pointer`.
pub fn chosen_password(pointer: &str, password: &SecretString) -> Result<SecretString, Violation> {
    let text = password.expose_secret();
    let count = text.chars().count();
    if !(8..=128).contains(&count) || text.chars().any(char::is_control) {
        return Err(Violation::at(
            pointer,
            "invalid_password",
            "must have 8 to 128 characters, none of them a control character",
        ));
    }
    Ok(password.clone())
}

/// Seals a password for an operation, in the operation's transaction.
pub(super) async fn store(
    platform: &Platform,
    transaction: &DatabaseTransaction,
    operation: OperationId,
    password: &Sealed,
) -> Result<(), Error> {
    sealed_secret::Entity::insert(sealed_secret::ActiveModel {
        operation_id: Set(operation),
        sealed: Set(platform
            .secrets()
            .seal(transaction, &operation.to_string(), &password.to_bytes())
            .await?),
        created_at: Set(chrono::Utc::now()),
    })
    .exec(transaction)
    .await?;
    Ok(())
}

impl Tenants<'_> {
    /// Sets the password of a tenant's Odoo administrator, within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::TenantBusy`], or [`Error::TenantStatus`] for a tenant that has
    /// no Odoo to set it in.
    pub async fn set_admin_password(
        &self,
        transaction: &DatabaseTransaction,
        id: TenantId,
        password: Option<&SecretString>,
    ) -> Result<PasswordChange, Error> {
        let chosen = password
            .map(|password| chosen_password("/password", password))
            .transpose()
            .map_err(|violation| Error::Invalid(vec![violation]))?;
        let tenant = self.lock(transaction, id).await?;
        let operation_id = OperationId::new();
        let operation = jobs::enqueue(
            transaction,
            NewOperation::new(
                SetAdminPassword { tenant: id },
                tenant.organization_id.0,
                "tenant",
                id.0,
            )
            .id(operation_id.0)
            .serial(tenant_key(id), WhenBusy::Refuse)
            .request_id(self.identity.request_id()),
        )
        .await
        .map_err(super::enqueue_error)?;
        if !lifecycle::accepts_changes(tenant.status) {
            return Err(Error::TenantStatus(tenant.status));
        }
        let (sealed, generated_password) = match chosen {
            Some(chosen) => (Sealed::chosen(&chosen), None),
            None => {
                let generated = GeneratedPassword::generate().secret().clone();
                (Sealed::generated(&generated), Some(generated))
            }
        };
        store(self.platform, transaction, operation_id, &sealed).await?;
        let entry = Entry {
            organization: tenant.organization_id,
            subject: Some(Subject::Of(Target::Tenant(id))),
            before: None,
            after: Some(
                serde_json::json!({ "operation_id": operation_id, "generated": generated_password.is_some() }),
            ),
        };
        audit::record(transaction, self.identity, entry).await?;
        Ok(PasswordChange {
            accepted: TenantOperation { tenant, operation },
            generated_password,
        })
    }
}
