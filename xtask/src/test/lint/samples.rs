//! A small document that breaks no rule.

use serde_json::{Value, json};

const HEADERS: [&str; 4] = [
    "X-Request-Id",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
];

fn answer(body: Option<(&str, &str)>, headers: &[&str]) -> Value {
    let mut answer = json!({ "description": "So it is.", "headers": {}, "content": {} });
    for name in HEADERS.iter().chain(headers) {
        answer["headers"][name] = json!({ "description": "Says it.", "schema": { "type": "string" } });
    }
    if let Some((media_type, schema)) = body {
        answer["content"][media_type] = json!({
            "schema": { "$ref": format!("#/components/schemas/{schema}") },
            "example": {},
        });
    }
    answer
}

/// An answer with a body.
pub(super) fn good(schema: &str, headers: &[&str]) -> Value {
    answer(Some(("application/json", schema)), headers)
}

/// An error.
pub(super) fn refused(status: &str) -> Value {
    let headers: &[&str] = match status {
        "401" => &["WWW-Authenticate"],
        "429" | "503" => &["Retry-After"],
        _ => &[],
    };
    answer(Some(("application/problem+json", "Problem")), headers)
}

fn operation(id: &str, good: &[(&str, Value)], refusals: &[&str]) -> Value {
    let mut operation = json!({
        "operationId": id,
        "summary": "Do it",
        "description": "Does it. `This` is how.",
        "tags": ["things"],
        "security": [{ "bearer": [] }],
        "x-required-permission": "things.do",
        "parameters": [],
        "responses": {},
    });
    for (status, answer) in good {
        operation["responses"][status] = answer.clone();
    }
    for status in ["401", "403", "406", "429", "500", "503"].iter().chain(refusals) {
        operation["responses"][status] = refused(status);
    }
    operation
}

fn parameter(place: &str, name: &str, schema: &Value) -> Value {
    json!({ "in": place, "name": name, "description": "Says which.", "required": place == "path", "schema": schema })
}

fn body(media_types: &[&str]) -> Value {
    let mut body = json!({ "content": {} });
    for media_type in media_types {
        body["content"][media_type] = json!({
            "schema": { "$ref": "#/components/schemas/NewThing" },
            "example": { "kind": "small" },
        });
    }
    body
}

/// It breaks no rule.
pub(super) fn sound() -> Value {
    let id = json!({ "$ref": "#/components/schemas/ThingId" });
    let key = parameter(
        "header",
        "Idempotency-Key",
        &json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" }),
    );
    let if_match = parameter("header", "If-Match", &json!({ "type": "string" }));
    let mut list = operation("list_things", &[("200", good("ThingPage", &[]))], &["400", "422"]);
    list["parameters"] = json!([
        parameter(
            "query",
            "limit",
            &json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 })
        ),
        parameter("query", "page_token", &json!({ "type": "string" })),
        parameter("query", "kind", &json!({ "type": "string", "enum": ["small"] })),
    ]);
    let mut create = operation(
        "create_thing",
        &[("201", good("Thing", &["Location"]))],
        &["400", "409", "413", "415", "422"],
    );
    create["parameters"] = json!([key]);
    create["requestBody"] = body(&["application/json"]);
    let mut read = operation(
        "get_thing",
        &[("200", good("Thing", &["ETag"])), ("304", answer(None, &[]))],
        &["400", "404"],
    );
    read["parameters"] = json!([
        parameter("path", "id", &id),
        parameter("header", "If-None-Match", &json!({ "type": "string" })),
    ]);
    let mut change = operation(
        "update_thing",
        &[("200", good("Thing", &["ETag"]))],
        &["400", "404", "412", "413", "415", "422"],
    );
    change["parameters"] = json!([parameter("path", "id", &id), if_match]);
    change["requestBody"] = body(&["application/json", "application/merge-patch+json"]);
    let mut delete = operation(
        "delete_thing",
        &[
            ("202", good("Thing", &["Location", "Retry-After"])),
            ("204", answer(None, &[])),
        ],
        &["400", "404", "412"],
    );
    delete["parameters"] = json!([parameter("path", "id", &id), if_match]);
    // Shared by reference, as any of them could be.
    read["responses"]["404"]["headers"]["X-Request-Id"] =
        json!({ "$ref": "#/components/headers/X-Request-Id" });
    let mut health = operation("get_health", &[("200", good("Thing", &[]))], &[]);
    health["security"] = json!([]);
    health["x-required-permission"] = Value::Null;
    json!({
        "tags": [{ "name": "things", "description": "What there is." }],
        "paths": {
            "/v1/many-things": { "get": list, "post": create },
            "/v1/many-things/{id}": { "get": read, "patch": change, "delete": delete },
            "/.well-known/health.json": { "get": health },
        },
        "components": {
            "headers": { "X-Request-Id": { "description": "Says it.", "schema": { "type": "string" } } },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "ThingId": { "type": "string", "pattern": "^thg_[0-9a-z]{26}$" },
                "Thing": {
                    "type": "object",
                    "required": ["id"],
                    "properties": {
                        "id": { "$ref": "#/components/schemas/ThingId", "description": "It." },
                        "parent_id": { "oneOf": [
                            { "$ref": "#/components/schemas/ThingId", "description": "Above it." },
                            { "type": "null" },
                        ] },
                        "kind": { "type": "string", "description": "How.", "x-extensible-enum": ["small"] },
                        "size_bytes": { "type": ["integer", "null"], "description": "How large." },
                        "created_at": { "type": "string", "format": "date-time", "description": "When." },
                    },
                },
                "ThingPage": {
                    "type": "object",
                    "required": ["items", "next_page"],
                    "properties": {
                        "items": {
                            "type": "array",
                            "items": { "$ref": "#/components/schemas/Thing" },
                            "description": "The things.",
                        },
                        "next_page": { "type": ["string", "null"], "description": "What follows." },
                    },
                },
                "NewThing": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "kind": { "type": "string", "enum": ["small"], "description": "How." },
                        "labels": {
                            "type": "object",
                            "additionalProperties": { "type": "string" },
                            "description": "Notes.",
                        },
                    },
                },
                "Problem": {
                    "type": "object",
                    "properties": { "code": { "type": "string", "description": "Why." } },
                },
            },
        },
    })
}
