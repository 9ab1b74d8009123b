//! Organizations, members, keys and the audit log, as a reseller, its customers and an auditor know them.

mod api_keys;
mod audit;
mod invitations;
mod members;
mod organizations;
mod second_net;
mod sessions;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A text field of an answer.
fn text(value: &Value, field: &str) -> Result<String> {
    value[field]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no {field} in {value}"))
}
