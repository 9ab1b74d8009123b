//! The kinds that one worker can run, by name and version.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::{
    kind::{OperationInput, OperationKind},
    run::{Runnable, Runner},
};

/// A kind that can't be registered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// This kind and version is there already.
    #[error("the kind `{0}` version {1} is registered twice")]
    Twice(&'static str, i32),
    /// The kind has no steps.
    #[error("the kind `{0}` has no steps")]
    Empty(&'static str),
    /// Two steps of the kind share a name.
    #[error("the kind `{0}` has two steps named `{1}`")]
    TwoSteps(&'static str, &'static str),
    /// The pivot is no step of the kind.
    #[error("the pivot `{1}` of the kind `{0}` is none of its steps")]
    NoPivot(&'static str, &'static str),
}

/// The kinds of one worker and what they share.
pub struct Registry<W> {
    world: Arc<W>,
    kinds: BTreeMap<(&'static str, i32), Arc<dyn Runnable>>,
}

impl<W: Send + Sync + 'static> Registry<W> {
    /// Without kinds yet.
    #[must_use]
    pub fn new(world: Arc<W>) -> Self {
        Self {
            world,
            kinds: BTreeMap::new(),
        }
    }

    /// Adds a kind.
    ///
    /// # Errors
    /// When the kind is there already or its steps make no sense.
    pub fn with<K: OperationKind<World = W>>(mut self) -> Result<Self, RegistryError> {
        let (kind, version) = (K::Input::KIND, K::Input::VERSION);
        let steps = K::steps();
        if steps.is_empty() {
            return Err(RegistryError::Empty(kind));
        }
        let mut names = HashSet::new();
        if let Some(twice) = steps.iter().find(|step| !names.insert(step.name())) {
            return Err(RegistryError::TwoSteps(kind, twice.name()));
        }
        let pivot = match K::PIVOT {
            Some(name) => Some(
                steps
                    .iter()
                    .position(|step| step.name() == name)
                    .ok_or(RegistryError::NoPivot(kind, name))?,
            ),
            None => None,
        };
        let runner = Runner {
            steps,
            pivot,
            world: Arc::clone(&self.world),
        };
        match self.kinds.insert((kind, version), Arc::new(runner)) {
            Some(_) => Err(RegistryError::Twice(kind, version)),
            None => Ok(self),
        }
    }

    /// Every kind with its version and the names of its steps, for tests that walk all of them.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, i32, Vec<&'static str>)> + '_ {
        self.kinds
            .iter()
            .map(|((kind, version), runner)| (*kind, *version, runner.step_names()))
    }

    pub(crate) fn into_kinds(self) -> BTreeMap<(&'static str, i32), Arc<dyn Runnable>> {
        self.kinds
    }
}
