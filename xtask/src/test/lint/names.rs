//! Rules of what operations are called, what they say of themselves and what they demand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::{Document, is_snake_case, object, says_something};
use super::{Findings, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "operation-id",
        promise: "every operation has an operationId in snake_case that no other has: SDKs name functions after it",
        check: operation_id,
    },
    Rule {
        name: "summary",
        promise: "every operation has a summary of a few words, at most 60 characters, without a full stop",
        check: summary,
    },
    Rule {
        name: "description",
        promise: "every operation is described by sentences",
        check: description,
    },
    Rule {
        name: "tag",
        promise: "every operation has exactly one tag, and every tag is declared with a description and used",
        check: tag,
    },
    Rule {
        name: "path",
        promise: "paths are kebab-case words and parameters in snake_case",
        check: path,
    },
    Rule {
        name: "security",
        promise: "a guarded operation names its scheme and its x-required-permission; a public one says `security: []`",
        check: security,
    },
];

/// The longest summary: one line of a list.
const SUMMARY_CHARACTERS: usize = 60;

fn operation_id(document: &Document, findings: &mut Findings) {
    let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for operation in document.operations() {
        match operation.value["operationId"].as_str() {
            None => findings.add(operation, "has no operationId"),
            Some(id) => {
                if !is_snake_case(id) {
                    findings.add(operation, format!("operationId {id} is not snake_case"));
                }
                owners.entry(id).or_default().push(operation.to_string());
            }
        }
    }
    for (id, operations) in owners {
        if let [first, others @ ..] = operations.as_slice() {
            for other in others {
                findings.add(other, format!("operationId {id} is that of {first} too"));
            }
        }
    }
}

fn summary(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let text = operation.value["summary"].as_str().unwrap_or_default();
        if text.is_empty() {
            findings.add(operation, "has no summary");
        } else if text.ends_with('.') {
            findings.add(operation, "the summary ends with a full stop");
        } else if text.chars().count() > SUMMARY_CHARACTERS {
            findings.add(
                operation,
                format!("the summary is longer than {SUMMARY_CHARACTERS} characters"),
            );
        }
    }
}

fn description(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let text = operation.value["description"].as_str().unwrap_or_default().trim();
        let begins = text.starts_with(|first: char| first.is_uppercase() || first == '`');
        if text.is_empty() {
            findings.add(operation, "has no description");
        } else if !begins || !text.ends_with('.') {
            findings.add(operation, "the description is no sentence");
        }
    }
}

fn tag(document: &Document, findings: &mut Findings) {
    let mut unused = BTreeSet::new();
    let mut declared = BTreeSet::new();
    for tag in document.value()["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or_default();
        declared.insert(name);
        unused.insert(name);
        if !says_something(&tag["description"]) {
            findings.add("/tags", format!("the tag {name} has no description"));
        }
    }
    for operation in document.operations() {
        let tags: Vec<&str> = operation.value["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        match tags.as_slice() {
            [tag] if declared.contains(tag) => {
                unused.remove(tag);
            }
            [tag] => findings.add(operation, format!("the tag {tag} is not declared")),
            _ => findings.add(operation, format!("has {} tags", tags.len())),
        }
    }
    for name in unused {
        findings.add("/tags", format!("no operation has the tag {name}"));
    }
}

fn path(document: &Document, findings: &mut Findings) {
    for path in object(&document.value()["paths"]).keys() {
        let fine = path.strip_prefix('/').is_some_and(|segments| {
            segments.split('/').all(|segment| {
                match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(parameter) => is_snake_case(parameter),
                    None => is_kebab_case(segment),
                }
            })
        });
        if !fine {
            findings.add(
                format!("/paths/{path}"),
                "is not made of kebab-case words and {snake_case} parameters",
            );
        }
    }
}

/// Well-known places (RFC 8615) begin with a full stop, and files have a suffix.
fn is_kebab_case(segment: &str) -> bool {
    !segment.is_empty()
        && segment.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-' || letter == '.'
        })
}

fn security(document: &Document, findings: &mut Findings) {
    let schemes = object(&document.value()["components"]["securitySchemes"]);
    for operation in document.operations() {
        let permission = &operation.value["x-required-permission"];
        let Some(ways) = operation.value["security"].as_array() else {
            findings.add(operation, "says nothing of security, not even `security: []`");
            continue;
        };
        for scheme in ways.iter().flat_map(|way| object(way).keys()) {
            if !schemes.contains_key(scheme) {
                findings.add(operation, format!("the security scheme {scheme} is not declared"));
            }
        }
        if ways.iter().any(|way| object(way).is_empty()) {
            findings.add(operation, "is guarded and public at once");
        }
        match (operation.is_guarded(), says_something(permission)) {
            (true, false) => findings.add(operation, "is guarded and names no x-required-permission"),
            (false, true) => findings.add(operation, "is public and names an x-required-permission"),
            _ => {}
        }
    }
}
