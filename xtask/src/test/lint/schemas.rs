//! Rules of schemas: what fields are called, and what their names promise.

use serde_json::Value;

use super::document::{Document, is_snake_case, object, says_something};
use super::walk::{self, Node, Way};
use super::{Findings, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "reference",
        promise: "every reference points at something, and every schema is used",
        check: reference,
    },
    Rule {
        name: "property",
        promise: "every property has a description and a name in snake_case",
        check: property,
    },
    Rule {
        name: "required",
        promise: "what is required is a property",
        check: required,
    },
    Rule {
        name: "open-enum",
        promise: "enums in answers are open (`x-extensible-enum`), so that a new value breaks no client",
        check: open_enum,
    },
    Rule {
        name: "closed-enum",
        promise: "enums in requests are closed (`enum`): an unknown value is refused",
        check: closed_enum,
    },
    Rule {
        name: "closed-object",
        promise: "objects in requests are closed (`additionalProperties`): an unknown field is refused",
        check: closed_object,
    },
    Rule {
        name: "timestamp",
        promise: "what ends with _at is a date-time, and every date-time ends with _at",
        check: timestamp,
    },
    Rule {
        name: "id",
        promise: "ids have a pattern",
        check: id,
    },
    Rule {
        name: "bytes",
        promise: "sizes are whole numbers of bytes",
        check: bytes,
    },
    Rule {
        name: "pattern",
        promise: "patterns fit the whole value",
        check: pattern,
    },
];

/// Every schema once, wherever it stands.
fn every(document: &Document) -> Vec<Node<'_>> {
    let mut nodes = walk::of_way(document, Way::In);
    nodes.extend(walk::of_way(document, Way::Out));
    nodes.extend(walk::of_components(document));
    nodes
}

fn reference(document: &Document, findings: &mut Findings) {
    for node in every(document) {
        if let Some(reference) = node.schema["$ref"].as_str()
            && document.resolve(node.schema).is_null()
        {
            findings.add(node.pointer, format!("{reference} points at nothing"));
        }
    }
    for name in walk::unused(document) {
        findings.add(format!("/components/schemas/{name}"), "is used by nothing");
    }
}

/// A description of its own, or, for a choice such as "this or null", one inside it.
fn is_described(schema: &Value) -> bool {
    says_something(&schema["description"])
        || ["oneOf", "anyOf", "allOf"]
            .into_iter()
            .flat_map(|keyword| schema[keyword].as_array().into_iter().flatten())
            .any(|branch| says_something(&branch["description"]))
}

fn property(document: &Document, findings: &mut Findings) {
    for node in walk::of_components(document) {
        let Some(name) = node.property else { continue };
        if !is_described(node.schema) {
            findings.add(&node.pointer, "has no description");
        }
        if !is_snake_case(name) {
            findings.add(&node.pointer, "is not named in snake_case");
        }
    }
}

fn required(document: &Document, findings: &mut Findings) {
    for node in every(document) {
        let properties = object(&node.schema["properties"]);
        for name in node.schema["required"].as_array().into_iter().flatten() {
            if !name.as_str().is_some_and(|name| properties.contains_key(name)) {
                findings.add(&node.pointer, format!("{name} is required and no property"));
            }
        }
    }
}

fn open_enum(document: &Document, findings: &mut Findings) {
    for node in walk::of_way(document, Way::Out) {
        for keyword in ["enum", "const"] {
            if !node.schema[keyword].is_null() {
                findings.add(&node.pointer, format!("is answered and has `{keyword}`"));
            }
        }
    }
}

fn closed_enum(document: &Document, findings: &mut Findings) {
    for node in walk::of_way(document, Way::In) {
        if !node.schema["x-extensible-enum"].is_null() {
            findings.add(&node.pointer, "is taken and has `x-extensible-enum`");
        }
    }
}

fn closed_object(document: &Document, findings: &mut Findings) {
    for node in walk::of_way(document, Way::In) {
        let is_object = node.schema["type"] == "object" || node.schema["properties"].is_object();
        let extra = &node.schema["additionalProperties"];
        if is_object && *extra != false && !extra.is_object() {
            findings.add(&node.pointer, "is taken and does not say `additionalProperties`");
        }
    }
}

fn timestamp(document: &Document, findings: &mut Findings) {
    for node in every(document) {
        let Some(name) = node.property else { continue };
        let is_date_time = document
            .alternatives(node.schema)
            .iter()
            .any(|schema| schema["format"] == "date-time");
        match (name.ends_with("_at"), is_date_time) {
            (true, false) => findings.add(&node.pointer, "is no date-time"),
            // The ends of the span of time that a list is asked for are no moment of anything.
            (false, true) if node.pointer.contains("/parameters/") && ["since", "until"].contains(&name) => {}
            (false, true) => findings.add(&node.pointer, "is a date-time and does not end with _at"),
            _ => {}
        }
    }
}

fn id(document: &Document, findings: &mut Findings) {
    for node in every(document) {
        let named = |name: &&str| *name == "id" || name.ends_with("_id") || name.ends_with("_ids");
        let Some(name) = node.property.filter(named) else {
            continue;
        };
        let lacking = document.alternatives(node.schema).into_iter().any(|schema| {
            let single = if schema["type"] == "array" {
                document.resolve(&schema["items"])
            } else {
                schema
            };
            !says_something(&single["pattern"])
        });
        if lacking {
            findings.add(&node.pointer, format!("{name} is an id without a pattern"));
        }
    }
}

fn bytes(document: &Document, findings: &mut Findings) {
    for node in every(document) {
        if node.property.is_some_and(|name| name.ends_with("_bytes")) {
            let whole = document.alternatives(node.schema).into_iter().all(|schema| {
                let types = &schema["type"];
                *types == "integer"
                    || types
                        .as_array()
                        .is_some_and(|types| types.iter().any(|one| one == "integer"))
            });
            if !whole {
                findings.add(&node.pointer, "is no whole number");
            }
        }
    }
}

fn pattern(document: &Document, findings: &mut Findings) {
    for node in every(document) {
        if let Some(pattern) = node.schema["pattern"].as_str()
            && !(pattern.starts_with('^') && pattern.ends_with('$'))
        {
            findings.add(
                &node.pointer,
                format!("the pattern {pattern} fits a part of the value"),
            );
        }
    }
}
