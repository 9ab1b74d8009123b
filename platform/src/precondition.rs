//! Changes that are made only if nobody else changed the thing meanwhile (RFC 9110, section 13).

use crate::error::Error;

/// In which revision a thing must be for a change to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// In whatever revision it is.
    #[default]
    None,
    /// In one of these; an empty list can't be met.
    Revision(Vec<i64>),
}

impl Precondition {
    /// Compares with the present revision, which is to be locked.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`].
    pub fn check(&self, present: i64) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::Revision(fine) if fine.contains(&present) => Ok(()),
            Self::Revision(_) => Err(Error::PreconditionFailed),
        }
    }
}
