//! How each kind of operation is asked for, and what must be true after it.

mod home;
mod pools;
mod reconcile;
mod tenants;

use anyhow::Result;
use async_trait::async_trait;
use tests::api::Api;
use tests::faults::{Place, Plans};

/// Sets the scene for one operation of a kind.
#[async_trait(?Send)]
pub trait Stage {
    /// Cases at a time.
    fn at_a_time(&self) -> usize {
        2
    }

    /// Whether one case takes so much of the machine that not every fault can be tried at every point.
    fn is_costly(&self) -> bool {
        false
    }

    /// Whether every run passes this place; one that only some pass is no place for a planned fault.
    fn always_passes(&self, _: &Place) -> bool {
        true
    }

    /// Makes what the operation needs.
    async fn set(&self, api: &Api) -> Result<Box<dyn Scene>>;
}

/// One operation's surroundings.
#[async_trait(?Send)]
pub trait Scene {
    /// Asks for the operation by a request with this id, and answers the operation's.
    async fn ask(&mut self, api: &Api, request: &str) -> Result<String>;
    /// Whether the world is as it must be after an operation that succeeded, or that did not.
    async fn check(&self, api: &Api, succeeded: bool) -> Result<()>;
    /// Takes away what stands in the way of others, after a case that went wrong.
    async fn abandon(&self) -> Result<()> {
        Ok(())
    }
    /// Takes away what is left.
    async fn clear(self: Box<Self>, api: &Api, plans: &Plans) -> Result<()>;
}

/// The stage of a kind.
pub fn of(kind: &str) -> Option<&'static dyn Stage> {
    Some(match kind {
        "tenant.provision" => &tenants::Provision,
        "tenant.delete" => &tenants::Delete,
        "tenant.set_admin_password" => &tenants::SetPassword,
        "platform.reconcile" => &reconcile::Compare,
        "pool.start" => &pools::Start,
        "template.build" => &pools::Build,
        _ => return None,
    })
}
