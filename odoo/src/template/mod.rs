//! Templates: a database and a filestore that tenants are cloned from, made once for each image and set of modules.
//!
//! A build can be killed anywhere and run again: until the template is sealed, nothing of it counts, and the next
//! run begins by removing it. The steps are separate, so that a job can persist each:
//! [`TemplateBuild::begin`], [`TemplateBuild::install`], [`TemplateBuild::finish`].

mod build;

use serde::{Deserialize, Serialize};

pub use build::{TemplateBuild, TemplateError};

use crate::names::DatabaseName;
use crate::runtime::{ImageId, control_version};
use crate::server::{Marker, ServerError, Session};

/// Raised when the work after the installation changes: a template that an older version finished is another one.
const FINISH_VERSION: u32 = 3;

/// What a template is made of. Equal specifications name the same template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    image: ImageId,
    modules: Vec<String>,
}

impl TemplateSpec {
    /// A template of `image` with these modules; order and repetition mean nothing.
    #[must_use]
    pub fn new(image: ImageId, modules: impl IntoIterator<Item = String>) -> Self {
        let mut modules: Vec<String> = modules.into_iter().collect();
        modules.sort();
        modules.dedup();
        Self { image, modules }
    }

    /// The image whose Odoo makes it.
    #[must_use]
    pub fn image(&self) -> &ImageId {
        &self.image
    }

    /// Its modules, sorted.
    #[must_use]
    pub fn modules(&self) -> &[String] {
        &self.modules
    }

    /// The name of its database, and of the role that owns what is in it.
    #[must_use]
    pub fn database(&self) -> DatabaseName {
        let modules = self.modules.join(",");
        let fingerprint = format!(
            "{}\n{modules}\n{}\n{FINISH_VERSION}",
            self.image,
            control_version()
        );
        DatabaseName::template(&fingerprint)
    }
}

/// A finished template, as its database's comment describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its database.
    pub database: DatabaseName,
    /// The image that made it.
    pub image: String,
    /// The modules that were asked for.
    pub modules: Vec<String>,
    /// Languages that a clone may speak, as Odoo names them.
    pub languages: Vec<String>,
    /// Files in its filestore.
    pub files: u64,
}

impl Session {
    /// The template, if it was finished.
    ///
    /// # Errors
    /// The server's errors.
    pub async fn template(&mut self, database: &DatabaseName) -> Result<Option<Template>, ServerError> {
        Ok(self
            .catalogued(database)
            .await?
            .and_then(|found| match found.marker {
                Some(Marker::Template(template)) if found.sealed => Some(template),
                _ => None,
            }))
    }
}
