//! What makes a clone a tenant of its own: its identity, its administrator, its company, its language.
//!
//! Written by the admin role, and therefore only before anyone could use the database; a later change of the
//! administrator's password is made as the tenant's own role.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Postgres, Transaction};
use uuid::Uuid;

use super::session::Session;
use super::{Server, ServerError, within};
use crate::keys::PoolKeyRing;
use crate::names::DatabaseName;
use crate::password::PasswordHash;

/// The administrator that Odoo itself creates, `base.user_admin`.
const ADMIN_USER: i32 = 2;

/// The company that Odoo itself creates, `base.main_company`.
const MAIN_COMPANY: i32 = 1;

/// Scheduled actions of a new tenant start within this time: clones share their template's times, and all tenants
/// of an hour would be due in the same second.
const CRON_SPREAD: Duration = Duration::from_secs(3600);

/// How an administrator signs in.
#[derive(Debug, Clone)]
pub struct AdminCredentials {
    /// The name that is typed at sign-in.
    pub login: String,
    /// The address that Odoo writes to.
    pub email: String,
    /// The password's stored form.
    pub password: PasswordHash,
}

/// Who a clone becomes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The address that its users see, without a trailing slash: `https://acme.example.com`.
    pub base_url: String,
    /// Its administrator.
    pub admin: AdminCredentials,
    /// The language of its users, as Odoo names it (`fr_FR`); the template's own when absent.
    pub language: Option<String>,
    /// The company's country, two letters (ISO 3166-1); with it comes the currency.
    pub country: Option<String>,
    /// The company's name.
    pub company_name: String,
}

/// Why a clone can't become who it should.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The language is not in the template: its translations would have to be loaded first.
    #[error("language {0} is not installed in the template")]
    LanguageNotInstalled(String),
    /// Odoo knows no such country.
    #[error("Odoo knows no country {0}")]
    UnknownCountry(String),
    /// The database has no row that Odoo always has.
    #[error("the database lacks Odoo's {0}")]
    Missing(&'static str),
    /// The database's role can log in: the database may be in use, and the admin role stays out of it.
    #[error("database {0} is in use")]
    InUse(DatabaseName),
    /// The server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Session {
    /// Gives the clone its identity, in one transaction: new ids and secrets, the administrator, the company. Its
    /// role must not be able to log in yet. Done twice, the second identity stands.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn write_identity(
        &mut self,
        database: &DatabaseName,
        identity: &Identity,
    ) -> Result<(), IdentityError> {
        if self.may_log_in(database).await? {
            return Err(IdentityError::InUse(database.clone()));
        }
        let mut clone = self.server.connect_admin(&self.name, Some(database)).await?;
        let mut transaction = within("beginning", clone.begin()).await?;
        write(&mut transaction, identity).await?;
        within("committing the identity", transaction.commit()).await?;
        if let Err(error) = clone.close().await {
            tracing::debug!(%error, %database, "a connection did not close in order");
        }
        Ok(())
    }

    async fn may_log_in(&mut self, role: &DatabaseName) -> Result<bool, ServerError> {
        within(
            "reading the role",
            sqlx::query_scalar(
                "SELECT coalesce(bool_or(rolcanlogin), false) FROM pg_roles WHERE rolname = $1",
            )
            .bind(role.as_str())
            .fetch_one(&mut self.connection),
        )
        .await
    }
}

impl Server {
    /// Sets the administrator's password in a tenant's database and signs its sessions out. Returns the login.
    ///
    /// Runs as the tenant's own role: nothing in the database can act with more rights than the tenant has.
    ///
    /// # Errors
    /// [`IdentityError::Missing`] when the administrator is gone; [`ServerError::NoKeyFits`]; the server's errors.
    pub async fn set_admin_password(
        &self,
        name: &str,
        database: &DatabaseName,
        keys: &PoolKeyRing,
        password: &PasswordHash,
    ) -> Result<String, IdentityError> {
        let mut connection = self.connect_tenant(name, database, keys).await?;
        let login = change_password(&mut connection, password).await?;
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, %database, "a connection did not close in order");
        }
        Ok(login)
    }
}

async fn change_password(
    connection: &mut PgConnection,
    password: &PasswordHash,
) -> Result<String, IdentityError> {
    let mut transaction = within("beginning", connection.begin()).await?;
    let login = within(
        "setting the administrator's password",
        sqlx::query_scalar::<_, String>(
            "UPDATE public.res_users SET password = $1, write_date = now() AT TIME ZONE 'UTC' WHERE id = $2
             RETURNING left(login, 256)",
        )
        .bind(password.expose())
        .bind(ADMIN_USER)
        .fetch_optional(&mut *transaction),
    )
    .await?
    .ok_or(IdentityError::Missing("administrator"))?;
    // Odoo's processes keep what a session was signed with until a row here tells them to forget it.
    within(
        "signing sessions out",
        sqlx::query("INSERT INTO public.orm_signaling_default DEFAULT VALUES").execute(&mut *transaction),
    )
    .await?;
    within("committing the password", transaction.commit()).await?;
    Ok(login)
}

async fn write(
    transaction: &mut Transaction<'_, Postgres>,
    identity: &Identity,
) -> Result<(), IdentityError> {
    write_parameters(transaction, identity).await?;
    let language = match &identity.language {
        Some(language) => Some(installed_language(transaction, language).await?),
        None => None,
    };
    write_company(transaction, identity, language).await?;
    write_admin(transaction, &identity.admin, language).await?;
    normalize_addresses(transaction).await?;
    within(
        "spreading scheduled actions",
        sqlx::query(
            "UPDATE public.ir_cron SET nextcall = date_trunc('second',
                 (now() AT TIME ZONE 'UTC') + random() * make_interval(secs => $1)) WHERE active",
        )
        .bind(CRON_SPREAD.as_secs_f64())
        .execute(&mut **transaction),
    )
    .await?;
    Ok(())
}

async fn write_parameters(
    transaction: &mut Transaction<'_, Postgres>,
    identity: &Identity,
) -> Result<(), IdentityError> {
    // As Odoo's ir.config_parameter makes them in a new database; a frozen base URL is not overwritten by the
    // address of the administrator's next request.
    let secret = Uuid::new_v4().to_string();
    let uuid = Uuid::new_v4().to_string();
    let created = chrono::Utc::now().format("%Y-%m-%d %H:%M:%S").to_string();
    // Reports fetch their styles and images from inside the container, without the edge.
    let parameters = [
        ("database.secret", secret.as_str()),
        ("database.uuid", &uuid),
        ("database.create_date", &created),
        ("web.base.url", &identity.base_url),
        ("web.base.url.freeze", "True"),
        ("report.url", "http://127.0.0.1:8069"),
    ];
    let (keys, values): (Vec<&str>, Vec<&str>) = parameters.into_iter().unzip();
    within(
        "writing the database's parameters",
        sqlx::query(
            "INSERT INTO public.ir_config_parameter (key, value, create_uid, write_uid, create_date, write_date)
             SELECT key, value, 1, 1, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
             FROM unnest($1::text[], $2::text[]) AS wanted (key, value)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, write_date = excluded.write_date",
        )
        .bind(&keys)
        .bind(&values)
        .execute(&mut **transaction),
    )
    .await?;
    Ok(())
}

async fn installed_language<'a>(
    transaction: &mut Transaction<'_, Postgres>,
    language: &'a str,
) -> Result<&'a str, IdentityError> {
    let installed = within(
        "reading languages",
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM public.res_lang WHERE code = $1 AND active)",
        )
        .bind(language)
        .fetch_one(&mut **transaction),
    )
    .await?;
    if installed {
        Ok(language)
    } else {
        Err(IdentityError::LanguageNotInstalled(language.to_owned()))
    }
}

async fn write_admin(
    transaction: &mut Transaction<'_, Postgres>,
    admin: &AdminCredentials,
    language: Option<&str>,
) -> Result<(), IdentityError> {
    let partner = within(
        "writing the administrator",
        sqlx::query_scalar::<_, i32>(
            "UPDATE public.res_users SET login = $1, password = $2 WHERE id = $3 RETURNING partner_id",
        )
        .bind(&admin.login)
        .bind(admin.password.expose())
        .bind(ADMIN_USER)
        .fetch_optional(&mut **transaction),
    )
    .await?
    .ok_or(IdentityError::Missing("administrator"))?;
    within(
        "writing the administrator's address",
        sqlx::query("UPDATE public.res_partner SET email = $1, lang = coalesce($2, lang) WHERE id = $3")
            .bind(&admin.email)
            .bind(language)
            .bind(partner)
            .execute(&mut **transaction),
    )
    .await?;
    Ok(())
}

/// Fills the column that Odoo's module `mail` computes from an address, where the template has that module.
async fn normalize_addresses(transaction: &mut Transaction<'_, Postgres>) -> Result<(), IdentityError> {
    let has_mail = within(
        "reading the partners' columns",
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.res_partner'::regclass
                            AND attname = 'email_normalized' AND NOT attisdropped)",
        )
        .fetch_one(&mut **transaction),
    )
    .await?;
    if has_mail {
        within(
            "writing normalized addresses",
            sqlx::query(
                "UPDATE public.res_partner SET email_normalized = lower(trim(email)) WHERE email IS NOT NULL",
            )
            .execute(&mut **transaction),
        )
        .await?;
    }
    Ok(())
}

async fn write_company(
    transaction: &mut Transaction<'_, Postgres>,
    identity: &Identity,
    language: Option<&str>,
) -> Result<(), IdentityError> {
    let partner = within(
        "writing the company",
        sqlx::query_scalar::<_, i32>(
            "UPDATE public.res_company SET name = $1, email = $2 WHERE id = $3 RETURNING partner_id",
        )
        .bind(&identity.company_name)
        .bind(&identity.admin.email)
        .bind(MAIN_COMPANY)
        .fetch_optional(&mut **transaction),
    )
    .await?
    .ok_or(IdentityError::Missing("company"))?;
    within(
        "writing the company's partner",
        sqlx::query(
            "UPDATE public.res_partner SET name = $1, complete_name = $1, commercial_company_name = $1,
                 email = $2, lang = coalesce($3, lang) WHERE id = $4",
        )
        .bind(&identity.company_name)
        .bind(&identity.admin.email)
        .bind(language)
        .bind(partner)
        .execute(&mut **transaction),
    )
    .await?;
    let Some(country) = &identity.country else {
        return Ok(());
    };
    let currency = within(
        "writing the country",
        sqlx::query_scalar::<_, Option<i32>>(
            "WITH country AS (SELECT id, currency_id FROM public.res_country WHERE code = upper($1)),
                  partner AS (UPDATE public.res_partner SET country_id = country.id FROM country
                              WHERE res_partner.id = $2)
             SELECT currency_id FROM country",
        )
        .bind(country)
        .bind(partner)
        .fetch_optional(&mut **transaction),
    )
    .await?
    .ok_or_else(|| IdentityError::UnknownCountry(country.clone()))?;
    within(
        "writing the currency",
        sqlx::query(
            "WITH currency AS (UPDATE public.res_currency SET active = true WHERE id = $1 RETURNING id)
             UPDATE public.res_company SET currency_id = currency.id FROM currency WHERE res_company.id = $2",
        )
        .bind(currency)
        .bind(MAIN_COMPANY)
        .execute(&mut **transaction),
    )
    .await?;
    Ok(())
}
