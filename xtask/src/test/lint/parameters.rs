//! Rules of what operations take beside a body.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Document, Operation, is_snake_case, says_something};
use super::{Findings, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "parameter",
        promise: "every parameter has a description and a schema; names in paths and queries are snake_case",
        check: parameter,
    },
    Rule {
        name: "path-parameter",
        promise: "the parameters of a path are those that its operations declare, and are required",
        check: path_parameter,
    },
    Rule {
        name: "idempotency-key",
        promise: "every POST outside /v1/auth and incoming webhooks takes an Idempotency-Key of 1 to 255 printable ASCII characters",
        check: idempotency_key,
    },
    Rule {
        name: "paging",
        promise: "lists take `limit` (1 to 200, 50 by default) and `page_token`",
        check: paging,
    },
    Rule {
        name: "if-match",
        promise: "reading one resource takes If-None-Match; changing or deleting it takes If-Match",
        check: if_match,
    },
];

fn parameter(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        for parameter in operation.parameters() {
            let name = parameter["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                findings.add(operation, "a parameter has no name");
                continue;
            }
            if !says_something(&parameter["description"]) {
                findings.add(operation, format!("the parameter {name} has no description"));
            }
            if !parameter["schema"].is_object() {
                findings.add(operation, format!("the parameter {name} has no schema"));
            }
            if parameter["in"] != "header" && !is_snake_case(name) {
                findings.add(operation, format!("the parameter {name} is not snake_case"));
            }
        }
    }
}

fn path_parameter(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let in_path: BTreeSet<&str> = operation
            .path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let of_path = || {
            operation
                .parameters()
                .filter(|parameter| parameter["in"] == "path")
        };
        let declared: BTreeSet<&str> = of_path()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for name in in_path.symmetric_difference(&declared) {
            findings.add(
                operation,
                format!("the path parameter {name} stands in only one of path and parameters"),
            );
        }
        for parameter in of_path().filter(|parameter| parameter["required"] != true) {
            findings.add(
                operation,
                format!("the path parameter {} is not required", parameter["name"]),
            );
        }
    }
}

/// Credentials are not to be replayed, and a provider's webhooks carry keys of their own.
const WITHOUT_KEY: [&str; 2] = ["/v1/auth/", "/v1/billing/webhooks/"];

/// Whether requests may carry an idempotency key.
pub(super) fn takes_key(operation: &Operation<'_>) -> bool {
    operation.method == "post"
        && operation.path.starts_with("/v1/")
        && !WITHOUT_KEY
            .iter()
            .any(|prefix| operation.path.starts_with(prefix))
}

fn idempotency_key(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let key = operation
            .parameters()
            .find(|parameter| parameter["in"] == "header" && parameter["name"] == "Idempotency-Key");
        match (key, takes_key(&operation)) {
            (None, true) => findings.add(operation, "takes no Idempotency-Key"),
            (Some(_), false) => findings.add(operation, "takes an Idempotency-Key, where there is none"),
            (Some(key), true) => {
                let schema = &key["schema"];
                let bounded = schema["minLength"] == 1 && schema["maxLength"] == 255;
                if key["required"] == true || !bounded || !says_something(&schema["pattern"]) {
                    findings.add(
                        operation,
                        "Idempotency-Key is not optional, of 1 to 255 characters, with a pattern of printable ASCII",
                    );
                }
            }
            (None, false) => {}
        }
    }
}

/// Whether an operation is named as one that answers a list.
pub(super) fn is_list(operation: &Operation<'_>) -> bool {
    operation.method == "get"
        && operation.value["operationId"]
            .as_str()
            .is_some_and(|id| id.starts_with("list_"))
}

fn paging(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let query = |name: &str| {
            operation
                .parameters()
                .find(|parameter| parameter["in"] == "query" && parameter["name"] == name)
        };
        if !is_list(&operation) {
            if query("page_token").is_some() {
                findings.add(operation, "takes page_token and is no list");
            }
            continue;
        }
        match query("limit").map(|limit| &limit["schema"]) {
            None => findings.add(operation, "takes no limit"),
            Some(limit) => {
                let number = |keyword: &str| limit[keyword].as_f64();
                let wanted = [("minimum", 1.0), ("maximum", 200.0), ("default", 50.0)];
                if wanted
                    .iter()
                    .any(|(keyword, value)| number(keyword) != Some(*value))
                {
                    findings.add(operation, "limit is not 1 to 200, 50 by default");
                }
            }
        }
        if query("page_token").is_none_or(|token| token["required"] == Value::Bool(true)) {
            findings.add(operation, "takes no optional page_token");
        }
    }
}

fn if_match(document: &Document, findings: &mut Findings) {
    for operation in document
        .operations()
        .into_iter()
        .filter(Operation::is_of_one_resource)
    {
        let wanted = match operation.method {
            "get" => "If-None-Match",
            "put" | "patch" | "delete" => "If-Match",
            _ => continue,
        };
        if !operation.has_parameter("header", wanted) {
            findings.add(operation, format!("takes no {wanted}"));
        }
    }
}
