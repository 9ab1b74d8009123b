//! Rules of the statuses that operations document, and of the headers on them.

use std::collections::BTreeMap;

use super::document::{Document, Operation, header, object, says_something};
use super::{Findings, Rule, parameters};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "good-answer",
        promise: "every operation documents a good answer, and no `default`",
        check: good_answer,
    },
    Rule {
        name: "guarded-statuses",
        promise: "guarded operations document 401 and 403",
        check: guarded_statuses,
    },
    Rule {
        name: "rate-limited",
        promise: "every operation documents 429",
        check: rate_limited,
    },
    Rule {
        name: "input-statuses",
        promise: "what a request carries can be refused: ids by 400 and 404, queries by 422, bodies by 400, 413, 415 and 422",
        check: input_statuses,
    },
    Rule {
        name: "conflict-statuses",
        promise: "an Idempotency-Key can be refused by 409 and 422, If-Match by 412; If-None-Match can answer 304",
        check: conflict_statuses,
    },
    Rule {
        name: "not-acceptable",
        promise: "every operation that answers a body documents 406",
        check: not_acceptable,
    },
    Rule {
        name: "internal-error",
        promise: "every operation documents 500",
        check: internal_error,
    },
    Rule {
        name: "header",
        promise: "every header has a description and a schema",
        check: described_header,
    },
    Rule {
        name: "request-id",
        promise: "every answer carries X-Request-Id",
        check: request_id,
    },
    Rule {
        name: "rate-limit-headers",
        promise: "every answer carries RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset",
        check: rate_limit_headers,
    },
    Rule {
        name: "status-headers",
        promise: "201 and 202 carry Location; 202, 429 and 503 Retry-After; 401 WWW-Authenticate",
        check: status_headers,
    },
    Rule {
        name: "etag",
        promise: "one resource, read or changed, carries its ETag",
        check: etag,
    },
];

/// Demands statuses of an operation.
fn demand(operation: &Operation<'_>, statuses: &[&str], why: &str, findings: &mut Findings) {
    let missing: Vec<&str> = statuses
        .iter()
        .copied()
        .filter(|status| operation.answer(status).is_none())
        .collect();
    if !missing.is_empty() {
        findings.add(
            operation,
            format!("{why} does not document {}", missing.join(", ")),
        );
    }
}

/// Demands a header of all answers that ought to carry it: one finding an operation, not one an answer.
fn demand_header(
    operation: &Operation<'_>,
    name: &str,
    belongs: impl Fn(&str) -> bool,
    findings: &mut Findings,
) {
    let missing: Vec<&str> = operation
        .answers()
        .iter()
        .filter(|(status, answer)| belongs(status) && header(answer, name).is_none())
        .map(|(status, _)| status.as_str())
        .collect();
    if !missing.is_empty() {
        findings.add(operation, format!("no {name} on {}", missing.join(", ")));
    }
}

fn good_answer(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if !operation.answers().keys().any(|status| status.starts_with('2')) {
            findings.add(operation, "documents no good answer");
        }
        for status in operation.answers().keys() {
            if status.len() != 3 || status.parse::<u16>().is_err() {
                findings.add(
                    operation,
                    format!("documents {status}, which is no single status"),
                );
            }
        }
    }
}

fn guarded_statuses(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if operation.is_guarded() {
            demand(&operation, &["401", "403"], "is guarded and", findings);
        }
    }
}

fn rate_limited(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        demand(&operation, &["429"], "is rate-limited and", findings);
    }
}

fn input_statuses(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if !operation.path.starts_with("/v1/") {
            continue;
        }
        let takes = |place: &str| operation.parameters().any(|parameter| parameter["in"] == place);
        if takes("path") {
            demand(&operation, &["400", "404"], "takes an id and", findings);
        }
        if takes("query") {
            demand(&operation, &["422"], "takes a query and", findings);
        }
        if operation.has_parameter("query", "page_token") {
            demand(&operation, &["400"], "takes a page token and", findings);
        }
        if operation.value["requestBody"].is_object() {
            demand(
                &operation,
                &["400", "413", "415", "422"],
                "takes a body and",
                findings,
            );
        }
    }
}

fn conflict_statuses(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if parameters::takes_key(&operation) {
            demand(
                &operation,
                &["409", "422"],
                "takes an Idempotency-Key and",
                findings,
            );
        }
        for (name, status) in [("If-Match", "412"), ("If-None-Match", "304")] {
            if operation.has_parameter("header", name) {
                demand(&operation, &[status], &format!("takes {name} and"), findings);
            }
        }
    }
}

fn not_acceptable(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let answers_body = operation
            .answers()
            .iter()
            .any(|(status, answer)| status.starts_with('2') && !object(&answer["content"]).is_empty());
        if answers_body {
            demand(&operation, &["406"], "answers a body and", findings);
        }
    }
}

fn internal_error(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        demand(&operation, &["500"], "can fail and", findings);
    }
}

fn described_header(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let mut lacking: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (status, answer) in operation.answers() {
            for (name, header) in object(&answer["headers"]) {
                if !says_something(&header["description"]) || !header["schema"].is_object() {
                    lacking.entry(name).or_default().push(status);
                }
            }
        }
        for (name, statuses) in lacking {
            let statuses = statuses.join(", ");
            findings.add(
                operation,
                format!("{name} on {statuses} lacks a description or a schema"),
            );
        }
    }
}

fn request_id(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        demand_header(&operation, "X-Request-Id", |_| true, findings);
    }
}

fn rate_limit_headers(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        for name in ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"] {
            demand_header(&operation, name, |_| true, findings);
        }
    }
}

fn status_headers(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        let headers: [(&str, &[&str]); 3] = [
            ("Location", &["201", "202"]),
            ("Retry-After", &["202", "429", "503"]),
            ("WWW-Authenticate", &["401"]),
        ];
        for (name, statuses) in headers {
            demand_header(
                &operation,
                name,
                |status| {
                    let is_problem = operation
                        .answer(status)
                        .is_some_and(|answer| answer["content"]["application/json"].is_null());
                    // A report of readiness asks nobody to come again.
                    statuses.contains(&status) && (status != "503" || is_problem)
                },
                findings,
            );
        }
    }
}

fn etag(document: &Document, findings: &mut Findings) {
    for operation in document.operations() {
        if operation.is_of_one_resource() && matches!(operation.method, "get" | "put" | "patch") {
            demand_header(&operation, "ETag", |status| status == "200", findings);
        }
    }
}
