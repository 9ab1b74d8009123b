//! The steps of a template's build.

use std::time::Duration;

use super::{Template, TemplateSpec};
use crate::filestore::{Filestore, FilestoreError};
use crate::keys::PoolKeyRing;
use crate::names::PoolId;
use crate::runtime::{PoolSpec, Runtime, RuntimeError, TaskCommand, TaskSpec};
use crate::server::{RoleGroup, RoleSpec, ServerError, Session};

/// Installing a handful of modules takes seconds; ninety-four take minutes.
const INSTALL_DEADLINE: Duration = Duration::from_secs(1800);

/// Why a template could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The filestore failed.
    #[error(transparent)]
    Filestore(#[from] FilestoreError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Odoo ended with an error; the end of its log is here.
    #[error("installing the template's modules ended with code {exit}")]
    Install {
        /// The exit code.
        exit: i64,
        /// The last lines of its log.
        log: String,
    },
    /// The database names files that the filestore lacks: a clone would show a blank page.
    #[error("{missing} files of the template are missing, {example} among them")]
    Files {
        /// How many.
        missing: usize,
        /// One of them.
        example: String,
    },
}

/// A template that is being built. All steps belong to one job, whose session holds the lock on the template's name.
#[derive(Debug, Clone, Copy)]
pub struct TemplateBuild<'a> {
    /// What to build.
    pub spec: &'a TemplateSpec,
    /// Where its files go.
    pub filestore: &'a Filestore,
    /// The keys of the pool whose containers build it.
    pub keys: &'a PoolKeyRing,
}

impl TemplateBuild<'_> {
    /// Ends the container of an earlier build that was cut off: it would go on installing into the database that the
    /// next one makes under the same name. To be called before [`TemplateBuild::begin`] and
    /// [`TemplateBuild::remove`].
    ///
    /// # Errors
    /// [`TemplateError::Runtime`].
    pub async fn end_install(&self, runtime: &dyn Runtime, pool: PoolId) -> Result<(), TemplateError> {
        Ok(runtime.end_task(pool, self.spec.database().as_str()).await?)
    }

    /// Removes what an earlier build left and makes an empty database, its role and a directory for its files.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub async fn begin(&self, session: &mut Session) -> Result<(), TemplateError> {
        let database = self.spec.database();
        session.drop_database(&database).await?;
        self.filestore.delete(&database).await?;
        self.filestore.delete_template(&database).await?;
        let password = self.keys.password_for(&database);
        session
            .ensure_role(&RoleSpec {
                name: &database,
                group: RoleGroup::Tenants,
                password: &password,
                connection_limit: 16,
                login: true,
            })
            .await?;
        session.create_for_install(&database).await?;
        self.filestore.make_empty(&database).await?;
        Ok(())
    }

    /// Has Odoo install the modules and make its asset bundles, in a container of the pool that goes afterwards.
    /// Needs [`TemplateBuild::begin`] before each try.
    ///
    /// # Errors
    /// [`TemplateError::Install`] with the end of Odoo's log.
    pub async fn install(&self, runtime: &dyn Runtime, pool: &PoolSpec) -> Result<(), TemplateError> {
        let database = self.spec.database();
        let outcome = runtime
            .run_task(
                pool,
                &TaskSpec {
                    name: database.to_string(),
                    command: TaskCommand::BuildTemplate {
                        database,
                        modules: self.spec.modules().to_vec(),
                    },
                    deadline: INSTALL_DEADLINE,
                },
            )
            .await?;
        if outcome.exit == 0 {
            Ok(())
        } else {
            Err(TemplateError::Install {
                exit: outcome.exit,
                log: outcome.log,
            })
        }
    }

    /// Seals what Odoo made: files that nobody may write, a database that nobody may enter and that is frozen, so
    /// that its clones need no work of their own. `tag` names the job and its epoch.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub async fn finish(&self, session: &mut Session, tag: &str) -> Result<Template, TemplateError> {
        let database = self.spec.database();
        if let Some(template) = session.template(&database).await? {
            self.filestore.delete(&database).await?;
            return Ok(template);
        }
        session.set_login(&database, false).await?;
        session.terminate_backends(&database).await?;
        let files = self.filestore.seal_template(&database, tag).await?;
        let content = session.freeze_template(&database).await?;
        let missing = self
            .filestore
            .missing_from_template(&database, content.files)
            .await?;
        if let Some(example) = missing.first() {
            return Err(TemplateError::Files {
                missing: missing.len(),
                example: example.clone(),
            });
        }
        let template = Template {
            database: database.clone(),
            image: self.spec.image().to_string(),
            modules: self.spec.modules().to_vec(),
            languages: content.languages,
            files,
        };
        session.seal_template(&template).await?;
        // Odoo's own tree: the published one has copies.
        self.filestore.delete(&database).await?;
        Ok(template)
    }

    /// Removes the template, finished or not, and its role. Clones are whole without it.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub async fn remove(&self, session: &mut Session) -> Result<(), TemplateError> {
        let database = self.spec.database();
        session.drop_database(&database).await?;
        session.drop_role(&database).await?;
        self.filestore.delete(&database).await?;
        self.filestore.delete_template(&database).await?;
        Ok(())
    }
}
