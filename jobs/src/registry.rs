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

/// A kind that is registered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KnownKind {
    /// Its name.
    pub name: &'static str,
    /// Version of its list of steps.
    pub version: i32,
    /// Its steps in order.
    pub steps: Vec<&'static str>,
    /// The first step past which there is no undo.
    pub pivot: Option<usize>,
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

    /// Every kind, for tests that walk all of them.
    pub fn kinds(&self) -> impl Iterator<Item = KnownKind> + '_ {
        self.kinds.iter().map(|((name, version), runner)| KnownKind {
            name,
            version: *version,
            steps: runner.step_names(),
            pivot: runner.pivot(),
        })
    }

    pub(crate) fn into_kinds(self) -> BTreeMap<(&'static str, i32), Arc<dyn Runnable>> {
        self.kinds
    }
}
