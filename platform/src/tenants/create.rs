//! Creating a tenant: its row, its operation and its sealed password, in one transaction.

use std::collections::BTreeMap;

use entity::{
    id::{OperationId, OrganizationId, TenantId},
    sealed_secret, tenant,
    values::{Isolation, TenantStatus},
};
use jobs::{NewOperation, WhenBusy};
use odoo::password::GeneratedPassword;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ConnectionTrait, DatabaseTransaction, EntityTrait as _,
    sea_query::OnConflict,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{TenantOperation, TenantRow, Tenants, password, placement};
use crate::{
    audit::{self, Entry, Subject},
    error::{Error, Violation},
    operations::{
        Target,
        kinds::{ProvisionTenant, tenant_key},
    },
    organizations,
    text::{self, Slug},
};

/// The Odoo version that tenants get when none is asked for.
pub const DEFAULT_ODOO_VERSION: &str = "19.0";

/// The Odoo administrator of a new tenant.
#[derive(Debug)]
pub struct AdminAccount {
    /// Login and e-mail address.
    pub email: String,
    /// Its password; one is generated where none is given.
    pub password: Option<SecretString>,
}

/// A tenant to be.
#[derive(Debug)]
pub struct NewTenant {
    /// Host label.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// Odoo version.
    pub odoo_version: Option<String>,
    /// Language, such as `en_US`.
    pub language: Option<String>,
    /// ISO 3166 country, such as `BE`.
    pub country: Option<String>,
    /// Odoo administrator.
    pub admin: AdminAccount,
    /// Whose it is; the caller's own organization where none is given.
    pub organization_id: Option<OrganizationId>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is protected against deletion.
    pub protected: bool,
}

/// A tenant that is being made.
#[derive(Debug)]
pub struct Created {
    /// The tenant and its operation.
    pub accepted: TenantOperation,
    /// The administrator's password, where it was generated: answered once, kept nowhere in clear.
    pub generated_password: Option<SecretString>,
}

/// What is asked for, checked.
struct Checked {
    slug: Slug,
    name: String,
    admin_login: String,
    password: Option<SecretString>,
}

impl NewTenant {
    /// Checks all fields and answers every violation at once.
    fn check(&self) -> Result<Checked, Error> {
        let mut violations = Vec::new();
        let slug = Slug::parse(&self.slug).map_err(|violation| violations.push(violation));
        let name = text::display_name(&self.name).map_err(|violation| violations.push(violation));
        let admin_login = text::email(&self.admin.email)
            .map_err(|detail| violations.push(Violation::at("/admin/email", "invalid_email", detail)));
        let password = match &self.admin.password {
            None => Ok(None),
            Some(password) => password::chosen_password("/admin/password", password)
                .map(Some)
                .map_err(|violation| violations.push(violation)),
        };
        if let Err(wrong) = text::labels(&self.labels) {
            violations.extend(wrong);
        }
        if let Some(country) = &self.country
            && !(country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            violations.push(Violation::at(
                "/country",
                "invalid_country",
                "must be a country's two capital letters of ISO 3166, such as BE",
            ));
        }
        match (slug, name, admin_login, password) {
            (Ok(slug), Ok(name), Ok(admin_login), Ok(password)) if violations.is_empty() => Ok(Checked {
                slug,
                name,
                admin_login,
                password,
            }),
            _ => Err(Error::Invalid(violations)),
        }
    }
}

impl Tenants<'_> {
    /// Creates a tenant within the caller's transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::SlugTaken`] or [`Error::NoCapacity`].
    pub async fn create(&self, transaction: &DatabaseTransaction, new: &NewTenant) -> Result<Created, Error> {
        let checked = new.check()?;
        let version = new.odoo_version.as_deref().unwrap_or(DEFAULT_ODOO_VERSION);
        if version != DEFAULT_ODOO_VERSION {
            return Err(Error::invalid(
                "/odoo_version",
                "not_supported",
                format!("is not offered; this platform offers {DEFAULT_ODOO_VERSION}"),
            ));
        }
        let organization = organizations::named(
            transaction,
            self.identity,
            "/organization_id",
            new.organization_id,
        )
        .await?
        .id;
        let place = placement::take(transaction, version, Isolation::Shared).await?;
        if let Some(language) = &new.language {
            let offered: Vec<String> = serde_json::from_value(place.languages).unwrap_or_default();
            if !offered.contains(language) {
                return Err(Error::invalid(
                    "/language",
                    "not_supported",
                    format!("is not offered; this platform offers {}", offered.join(", ")),
                ));
            }
        }

        let id = TenantId::new();
        let now = chrono::Utc::now();
        let inserted = tenant::Entity::insert(tenant::ActiveModel {
            id: Set(id),
            organization_id: Set(organization),
            slug: Set(checked.slug.as_str().to_owned()),
            name: Set(checked.name.clone()),
            status: Set(TenantStatus::Provisioning),
            status_reason: Set(None),
            odoo_version: Set(version.to_owned()),
            isolation: Set(Isolation::Shared),
            pool_id: Set(place.pool_id),
            database_server_id: Set(place.database_server_id),
            template_id: Set(place.template_id),
            admin_login: Set(checked.admin_login.clone()),
            language: Set(new.language.clone()),
            country: Set(new.country.clone()),
            labels: Set(serde_json::to_value(&new.labels).map_err(Error::internal)?),
            protected: Set(new.protected),
            revision: NotSet,
            created_at: Set(now),
            updated_at: Set(now),
        })
        .on_conflict(OnConflict::column(tenant::Column::Slug).do_nothing().to_owned())
        .exec_with_returning_many(transaction)
        .await?;
        let tenant: TenantRow = inserted.into_iter().next().ok_or(Error::SlugTaken)?;

        let operation_id = OperationId::new();
        let (password, generated_password) = match checked.password {
            Some(chosen) => (password::Sealed::chosen(&chosen), None),
            None => {
                let generated = GeneratedPassword::generate().secret().clone();
                (password::Sealed::generated(&generated), Some(generated))
            }
        };
        password::store(self.platform, transaction, operation_id, &password).await?;
        let operation = jobs::enqueue(
            transaction,
            NewOperation::new(
                ProvisionTenant {
                    tenant: id,
                    slug: checked.slug.as_str().to_owned(),
                    name: checked.name,
                    template_database: place.template_database,
                    pool: place.pool_id,
                    admin_login: checked.admin_login,
                    language: new.language.clone(),
                    country: new.country.clone(),
                },
                organization.0,
                "tenant",
                id.0,
            )
            .id(operation_id.0)
            .serial(tenant_key(id), WhenBusy::Refuse)
            .request_id(self.identity.request_id()),
        )
        .await
        .map_err(super::enqueue_error)?;
        let entry = Entry {
            organization,
            subject: Some(Subject::Of(Target::Tenant(id))),
            before: None,
            after: Some(super::snapshot(&tenant)),
        };
        audit::record(transaction, self.identity, entry).await?;
        Ok(Created {
            accepted: TenantOperation { tenant, operation },
            generated_password,
        })
    }
}

impl crate::Platform {
    /// Opens the password that an operation was given. `None` once it has been erased.
    ///
    /// # Errors
    /// The database doesn't answer, or it doesn't open.
    pub async fn operation_password(
        database: &impl ConnectionTrait,
        secrets: &crate::secrets::Secrets,
        operation: OperationId,
    ) -> Result<Option<password::Sealed>, Error> {
        let Some(row) = sealed_secret::Entity::find_by_id(operation).one(database).await? else {
            return Ok(None);
        };
        let opened = secrets.open(&operation.to_string(), &row.sealed).await?;
        password::Sealed::from_bytes(opened.expose_secret()).map(Some)
    }
}
