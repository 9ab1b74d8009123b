//! Rules of what requests and answers carry.

use serde_json::Value;

use super::document::{Document, Operation, is_json, object};
use super::{Findings, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "named-body",
        promise: "every JSON body is a component with a name: SDKs make a type of it",
        check: named_body,
    },
    Rule {
        name: "request-example",
        promise: "every request body has an example",
        check: request_example,
    },
    Rule {
        name: "answer-example",
        promise: "every 2xx JSON answer has an example",
        check: answer_example,
    },
    Rule {
        name: "problem",
        promise: "every error is application/problem+json with the schema Problem",
        check: problem,
    },
    Rule {
        name: "no-content",
        promise: "204 and 304 carry nothing; other good answers carry a body",
        check: no_content,
    },
    Rule {
        name: "merge-patch",
        promise: "PATCH takes a JSON merge patch under both of its media types",
        check: merge_patch,
    },
    Rule {
        name: "list-body",
        promise: "lists answer `items` and `next_page`, both always there",
        check: list_body,
    },
];

/// Its one answer is this very document, which describes itself.
const SELF_DESCRIBED: &str = "get_openapi";

/// Readiness answers the same report with 503 as with 200: a load balancer's answer, not a caller's error.
const NO_ERROR: [(&str, &str); 1] = [("get_readiness", "503")];

fn is_no_error(operation: &Operation<'_>, status: &str) -> bool {
    NO_ERROR
        .iter()
        .any(|(id, exempt)| operation.value["operationId"] == *id && *exempt == status)
}

fn named_body(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let answers = operation.answers().iter().flat_map(|(status, answer)| {
            object(&answer["content"])
                .iter()
                .map(move |body| (status.as_str(), body))
        });
        let request = operation.request_media().iter().map(|body| ("request", body));
        for (whose, (media_type, content)) in request.chain(answers) {
            let schema = &content["schema"];
            let place = format!("the {whose} body as {media_type}");
            if !schema.is_object() {
                findings.add(operation, format!("{place} has no schema"));
            } else if is_json(media_type) && operation.value["operationId"] != SELF_DESCRIBED {
                let name = schema["$ref"]
                    .as_str()
                    .and_then(|reference| reference.strip_prefix("#/components/schemas/"));
                if !name.is_some_and(|name| document.schemas().contains_key(name)) {
                    findings.add(operation, format!("{place} is no reference to a component"));
                }
            }
        }
    }
}

/// An example beside the schema; those inside it are of single fields.
fn has_example(content: &Value) -> bool {
    !content["example"].is_null() || !object(&content["examples"]).is_empty()
}

fn request_example(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        for (media_type, content) in operation.request_media() {
            if !has_example(content) {
                findings.add(
                    operation,
                    format!("the request body as {media_type} has no example"),
                );
            }
        }
    }
}

fn answer_example(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if operation.value["operationId"] == SELF_DESCRIBED {
            continue;
        }
        for (status, answer) in operation.answers() {
            for (media_type, content) in object(&answer["content"]) {
                if status.starts_with('2') && is_json(media_type) && !has_example(content) {
                    findings.add(operation, format!("the answer {status} has no example"));
                }
            }
        }
    }
}

fn problem(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        for (status, answer) in operation.answers() {
            let is_error = status.starts_with(['4', '5']);
            if !is_error || is_no_error(&operation, status) {
                continue;
            }
            let content = object(&answer["content"]);
            let schema = content
                .get("application/problem+json")
                .map(|content| &content["schema"]["$ref"]);
            if content.len() != 1 || schema.is_none_or(|name| name != "#/components/schemas/Problem") {
                findings.add(
                    operation,
                    format!("{status} is not application/problem+json with Problem"),
                );
            }
        }
    }
}

fn no_content(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        for (status, answer) in operation.answers() {
            let carries = !object(&answer["content"]).is_empty();
            let empty = matches!(status.as_str(), "204" | "304");
            if empty && carries {
                findings.add(operation, format!("{status} carries a body"));
            } else if !empty && !carries && status.starts_with('2') {
                findings.add(operation, format!("{status} carries nothing"));
            }
        }
    }
}

fn merge_patch(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if operation.method != "patch" {
            continue;
        }
        for media_type in ["application/json", "application/merge-patch+json"] {
            if !operation.request_media().contains_key(media_type) {
                findings.add(operation, format!("takes no {media_type}"));
            }
        }
    }
}

fn list_body(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let Some(answer) = operation.answer("200") else {
            continue;
        };
        let schema = document.resolve(&answer["content"]["application/json"]["schema"]);
        let properties = object(&schema["properties"]);
        let is_page = properties.contains_key("items") && properties.contains_key("next_page");
        if !super::parameters::is_list(&operation) {
            if is_page {
                findings.add(operation, "answers a page and is not named list_…");
            }
            continue;
        }
        if !is_page {
            findings.add(operation, "does not answer items and next_page");
            continue;
        }
        if properties["items"]["type"] != "array" {
            findings.add(operation, "items is no array");
        }
        let required = schema["required"].as_array();
        for name in ["items", "next_page"] {
            if !required.is_some_and(|names| names.iter().any(|present| present == name)) {
                findings.add(operation, format!("{name} is not always there"));
            }
        }
    }
}
