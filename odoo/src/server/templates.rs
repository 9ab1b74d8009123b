//! The database half of a template: made empty for Odoo, frozen and sealed afterwards.

use sqlx::Connection as _;

use super::databases::{Marker, marking};
use super::roles::RoleGroup;
use super::session::{Session, run_on};
use super::{ServerError, within};
use crate::names::DatabaseName;
use crate::sql::quote_identifier;
use crate::template::Template;

/// Extensions that Odoo uses where they are there; its role may not make them, since it owns no database.
const EXTENSIONS: [&str; 2] = ["unaccent", "pg_trgm"];

/// What is in a template that is about to be sealed.
pub(crate) struct TemplateContent {
    pub(crate) languages: Vec<String>,
    pub(crate) files: Vec<String>,
}

const SETTLE_SEQUENCES: &str = "
DO $settle$
DECLARE sequence regclass;
BEGIN
    FOR sequence IN SELECT seqrelid FROM pg_sequence LOOP
        EXECUTE format('SELECT setval(%L, last_value, is_called) FROM %s', sequence::text, sequence);
    END LOOP;
END
$settle$";

impl Session {
    /// An empty database in which the role of its name may install Odoo.
    pub(crate) async fn create_for_install(&mut self, database: &DatabaseName) -> Result<(), ServerError> {
        self.create_empty(database).await?;
        self.admit_only(database).await?;
        let role = quote_identifier(database.as_str());
        let mut connection = self.server.connect_admin(&self.name, Some(database)).await?;
        let available = within(
            "reading which extensions there are",
            sqlx::query_scalar::<_, String>(
                "SELECT name::text FROM pg_available_extensions WHERE name = ANY ($1)",
            )
            .bind(&EXTENSIONS[..])
            .fetch_all(&mut connection),
        )
        .await?;
        let extensions: String = available
            .iter()
            .map(|name| format!("CREATE EXTENSION IF NOT EXISTS {};", quote_identifier(name)))
            .collect();
        run_on(
            &mut connection,
            "preparing the template's schema",
            format!(
                "{extensions} ALTER SCHEMA public OWNER TO {role}; REVOKE ALL ON SCHEMA public FROM PUBLIC;"
            ),
        )
        .await?;
        close(connection).await
    }

    /// Reads what the template holds, then writes it anew: without the holes that installing left, frozen and analysed. A
    /// clone copies all of it, so what is not there costs nothing each time.
    pub(crate) async fn freeze_template(
        &mut self,
        database: &DatabaseName,
    ) -> Result<TemplateContent, ServerError> {
        let mut connection = self.server.connect_admin(&self.name, Some(database)).await?;
        let languages = within(
            "reading the template's languages",
            sqlx::query_scalar("SELECT code::text FROM public.res_lang WHERE active ORDER BY code")
                .fetch_all(&mut connection),
        )
        .await?;
        let files = within(
            "reading the template's attachments",
            sqlx::query_scalar(
                "SELECT DISTINCT store_fname::text FROM public.ir_attachment WHERE store_fname <> ''",
            )
            .fetch_all(&mut connection),
        )
        .await?;
        // A sequence's page tells how many values it may still give out without a word in the log. A clone takes the
        // page over, but not the log that covers it: after a crash its sequence would go back and number rows twice.
        // Setting a sequence to its own value makes the next one be logged.
        run_on(
            &mut connection,
            "settling the template's sequences",
            SETTLE_SEQUENCES.to_owned(),
        )
        .await?;
        // Each by name: those that all databases share are not ours, and each would be a warning in the server's log.
        let tables = within(
            "reading the template's tables",
            sqlx::query_scalar::<_, String>(
                "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
                 WHERE relkind IN ('r', 'm') AND NOT relisshared",
            )
            .fetch_one(&mut connection),
        )
        .await?;
        run_on(
            &mut connection,
            "freezing the template",
            format!("VACUUM (FULL, FREEZE, ANALYZE) {tables}"),
        )
        .await?;
        close(connection).await?;
        Ok(TemplateContent { languages, files })
    }

    /// Closes the template to everybody and records it as finished, in one transaction.
    pub(crate) async fn seal_template(&mut self, template: &Template) -> Result<(), ServerError> {
        let name = quote_identifier(template.database.as_str());
        let tenants = RoleGroup::Tenants.as_str();
        let mark = marking(&template.database, &Marker::Template(template.clone()));
        self.run(
            "sealing the template",
            format!(
                "REVOKE ALL ON DATABASE {name} FROM {name};
                 REVOKE {tenants} FROM {name};
                 ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false;
                 {mark}"
            ),
        )
        .await
    }

    /// Every finished template on the server.
    ///
    /// # Errors
    /// The server's errors.
    pub async fn templates(&mut self) -> Result<Vec<Template>, ServerError> {
        let mut templates = Vec::new();
        for database in self.databases(None).await? {
            if database.finished
                && let Some(template) = self.template(&database.name).await?
            {
                templates.push(template);
            }
        }
        Ok(templates)
    }
}

async fn close(connection: sqlx::PgConnection) -> Result<(), ServerError> {
    // An open session on a template makes clones wait and fail, so the end is waited for.
    within("closing a connection to the template", connection.close()).await
}
