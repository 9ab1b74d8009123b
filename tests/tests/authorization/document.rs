//! The platform's own tables: the operations of the document that it serves, and the permissions that it prints.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::api::Api;
use tests::second_api;

/// Roles, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Admin,
    Owner,
}

impl Role {
    /// As SQL and tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "viewer" => Self::Viewer,
            "admin" => Self::Admin,
            "owner" => Self::Owner,
            other => bail!("an unknown role: {other}"),
        })
    }
}

/// What a permission takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Its name.
    pub permission: String,
    /// The least role.
    pub least: Role,
    /// Whether it is the root organization's alone.
    pub root_only: bool,
    /// Whether no API key has it.
    pub person_only: bool,
}

/// One operation of the document.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its `operationId`.
    pub id: String,
    /// `GET` and so on.
    pub method: String,
    /// Its path, with parameters in braces.
    pub path: String,
    /// What it demands; `None`: nothing.
    pub demand: Option<Demand>,
    /// The documented statuses.
    pub statuses: BTreeSet<u16>,
}

impl Operation {
    /// Whether it works on one thing that somebody may not see. What is one's own everybody sees.
    pub fn has_target(&self) -> bool {
        // One names an organization in its query.
        let in_query = self.id == "verify_audit_events";
        self.demand.is_some() && (self.path.contains('{') || in_query) && !self.path.starts_with("/v1/me/")
    }

    /// Whether it must change nothing.
    pub fn is_safe(&self) -> bool {
        self.method == "GET"
    }
}

/// All operations.
pub async fn operations() -> Result<Vec<Operation>> {
    let permissions = permissions().await?;
    let document = Api::anyone()?.get("/openapi.json").await?.expect(200)?;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("paths")? {
        for (method, operation) in item.as_object().context("methods")? {
            let id = operation["operationId"].as_str().context("an operationId")?;
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                demand: demand(operation, &permissions).with_context(|| id.to_owned())?,
                statuses: operation["responses"]
                    .as_object()
                    .context("responses")?
                    .keys()
                    .filter_map(|status| status.parse().ok())
                    .collect(),
                id: id.to_owned(),
            });
        }
    }
    ensure!(
        operations.len() > 10,
        "the document names {} operations",
        operations.len()
    );
    Ok(operations)
}

fn demand(operation: &Value, permissions: &BTreeMap<String, Demand>) -> Result<Option<Demand>> {
    let Some(permission) = operation["x-required-permission"].as_str() else {
        // Only what says that it is public is.
        ensure!(
            operation["security"].as_array().is_some_and(Vec::is_empty),
            "neither a permission nor `security: []`"
        );
        return Ok(None);
    };
    let known = permissions.get(permission);
    Ok(Some(
        known
            .with_context(|| format!("{permission} is no permission"))?
            .clone(),
    ))
}

/// The permissions by their names, as the API's program prints them.
pub async fn permissions() -> Result<BTreeMap<String, Demand>> {
    let page = second_api::run(&["permissions"], &[]).await?;
    let mut permissions = BTreeMap::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let permission = cells[0].trim_end_matches('`').to_owned();
        let (rest, person_only) = match cells[1].strip_suffix(", a person") {
            Some(rest) => (rest, true),
            None => (cells[1], false),
        };
        let (least, root_only) = match rest.strip_suffix(" of the root organization") {
            Some(least) => (least, true),
            None => (rest, false),
        };
        let demand = Demand {
            permission: permission.clone(),
            least: Role::parse(least)?,
            root_only,
            person_only,
        };
        permissions.insert(permission, demand);
    }
    ensure!(!permissions.is_empty(), "no permissions in {page}");
    Ok(permissions)
}
