//! What a person or a program needs to use the instance: `access.json`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::instance::Instance;

/// Addresses and credentials of a running instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// The API's public address.
    pub(crate) api_url: String,
    /// First owner.
    pub(crate) owner_email: String,
    /// The owner's password.
    pub(crate) owner_password: String,
    /// The demo tenant's public address.
    pub(crate) tenant_url: String,
    /// Login of the demo tenant's administrator in Odoo.
    pub(crate) tenant_login: String,
    /// Its password.
    pub(crate) tenant_password: String,
}

impl Access {
    /// Where it lives.
    pub(crate) fn path(instance: &Instance) -> PathBuf {
        instance.state.join("access.json")
    }

    /// Reads it, where `up` has written it.
    pub(crate) fn read(instance: &Instance) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(instance)).ok()?).ok()
    }

    /// Writes it for the present user only.
    pub(crate) fn write(&self, instance: &Instance) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::write(&Self::path(instance), &text, 0o600, None)?;
        Ok(())
    }
}
