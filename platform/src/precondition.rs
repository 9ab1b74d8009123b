//! Changes that are made only if nobody else changed the thing meanwhile (RFC 9110, section 13).

use crate::error::Error;

/// In which version a thing must be for a change to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// In whatever version it is.
    #[default]
    None,
    /// In one of these; an empty list can't be met.
    Versions(Vec<String>),
}

impl Precondition {
    /// Compares with the present version of what is to be locked.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`].
    pub fn check(&self, present: &impl Versioned) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::Versions(fine) if fine.contains(&present.version()) => Ok(()),
            Self::Versions(_) => Err(Error::PreconditionFailed),
        }
    }
}

/// A thing that has versions.
pub trait Versioned {
    /// What changes with every change that its readers can see. Without quotes: `api` makes an entity tag of it.
    fn version(&self) -> String;
}

/// The version of a row that counts its changes.
#[must_use]
pub fn revision(count: i64) -> String {
    format!("v{count}")
}
