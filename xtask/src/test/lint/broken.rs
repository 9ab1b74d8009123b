//! For every rule, ways to break it: each turns the sound document into one with findings of that rule alone.

use serde_json::{Value, json};

use super::samples::{good, refused};

/// A rule, the place of its finding, and what spoils the sound document.
pub(super) type Broken = (&'static str, &'static str, fn(&mut Value));

fn list(document: &mut Value) -> &mut Value {
    &mut document["paths"]["/v1/many-things"]["get"]
}

fn create(document: &mut Value) -> &mut Value {
    &mut document["paths"]["/v1/many-things"]["post"]
}

fn read(document: &mut Value) -> &mut Value {
    &mut document["paths"]["/v1/many-things/{id}"]["get"]
}

fn change(document: &mut Value) -> &mut Value {
    &mut document["paths"]["/v1/many-things/{id}"]["patch"]
}

fn schema<'a>(document: &'a mut Value, name: &str) -> &'a mut Value {
    &mut document["components"]["schemas"][name]
}

fn remove(value: &mut Value, key: &str) {
    value
        .as_object_mut()
        .expect("an object")
        .remove(key)
        .expect("there");
}

fn push(list: &mut Value, value: Value) {
    list.as_array_mut().expect("a list").push(value);
}

fn remove_parameter(operation: &mut Value, name: &str) {
    let parameters = operation["parameters"].as_array_mut().expect("a list");
    parameters.retain(|parameter| parameter["name"] != name);
}

const LIST: &str = "GET /v1/many-things";
const CREATE: &str = "POST /v1/many-things";
const READ: &str = "GET /v1/many-things/{id}";
const CHANGE: &str = "PATCH /v1/many-things/{id}";

/// At least one broken document a rule.
pub(super) fn all() -> Vec<Broken> {
    let mut all = of_operations();
    all.extend(of_answers());
    all.extend(of_schemas());
    all
}

fn of_operations() -> Vec<Broken> {
    vec![
        ("operation-id", CREATE, |d| remove(create(d), "operationId")),
        ("operation-id", CREATE, |d| {
            create(d)["operationId"] = json!("createThing");
        }),
        ("operation-id", CHANGE, |d| {
            create(d)["operationId"] = json!("update_thing");
        }),
        ("summary", CREATE, |d| create(d)["summary"] = json!("")),
        ("summary", CREATE, |d| {
            create(d)["summary"] = json!("Create a thing.");
        }),
        ("summary", CREATE, |d| {
            create(d)["summary"] = json!("x".repeat(61));
        }),
        ("description", CREATE, |d| remove(create(d), "description")),
        ("description", CREATE, |d| {
            create(d)["description"] = json!("creates it");
        }),
        ("tag", CREATE, |d| create(d)["tags"] = json!([])),
        ("tag", CREATE, |d| create(d)["tags"] = json!(["things", "others"])),
        ("tag", CREATE, |d| create(d)["tags"] = json!(["others"])),
        ("tag", "/tags", |d| d["tags"][0]["description"] = json!("")),
        ("tag", "/tags", |d| {
            push(
                &mut d["tags"],
                json!({ "name": "others", "description": "None." }),
            );
        }),
        ("path", "/paths//v1/Other_Things", |d| {
            d["paths"]["/v1/Other_Things"] = json!({ "parameters": [] });
        }),
        ("security", CREATE, |d| remove(create(d), "security")),
        ("security", CREATE, |d| remove(create(d), "x-required-permission")),
        ("security", CREATE, |d| create(d)["security"] = json!([])),
        ("security", CREATE, |d| {
            create(d)["security"] = json!([{ "key": [] }]);
        }),
        ("security", CREATE, |d| {
            create(d)["security"] = json!([{ "bearer": [] }, {}]);
        }),
        ("parameter", LIST, |d| {
            remove(&mut list(d)["parameters"][2], "description");
        }),
        ("parameter", LIST, |d| {
            remove(&mut list(d)["parameters"][2], "schema");
        }),
        ("parameter", LIST, |d| {
            list(d)["parameters"][2]["name"] = json!("Kind");
        }),
        ("path-parameter", READ, |d| remove_parameter(read(d), "id")),
        ("path-parameter", READ, |d| {
            read(d)["parameters"][0]["required"] = json!(false);
        }),
        ("idempotency-key", CREATE, |d| {
            remove_parameter(create(d), "Idempotency-Key");
        }),
        ("idempotency-key", CREATE, |d| {
            create(d)["parameters"][0]["schema"]["maxLength"] = json!(64);
        }),
        ("idempotency-key", CREATE, |d| {
            remove(&mut create(d)["parameters"][0]["schema"], "pattern");
        }),
        ("idempotency-key", LIST, |d| {
            let key = create(d)["parameters"][0].clone();
            push(&mut list(d)["parameters"], key);
        }),
        ("paging", LIST, |d| remove_parameter(list(d), "limit")),
        ("paging", LIST, |d| remove_parameter(list(d), "page_token")),
        ("paging", LIST, |d| {
            list(d)["parameters"][0]["schema"]["maximum"] = json!(1000);
        }),
        ("if-match", READ, |d| remove_parameter(read(d), "If-None-Match")),
        ("if-match", CHANGE, |d| remove_parameter(change(d), "If-Match")),
    ]
}

fn of_answers() -> Vec<Broken> {
    vec![
        ("named-body", CREATE, |d| {
            create(d)["requestBody"]["content"]["application/json"]["schema"] =
                json!({ "type": "object", "additionalProperties": false });
        }),
        ("named-body", CREATE, |d| {
            remove(
                &mut create(d)["responses"]["201"]["content"]["application/json"],
                "schema",
            );
        }),
        ("request-example", CREATE, |d| {
            remove(
                &mut create(d)["requestBody"]["content"]["application/json"],
                "example",
            );
        }),
        ("answer-example", CREATE, |d| {
            remove(
                &mut create(d)["responses"]["201"]["content"]["application/json"],
                "example",
            );
        }),
        ("problem", CREATE, |d| {
            create(d)["responses"]["409"]["content"] = json!({});
        }),
        ("problem", CREATE, |d| {
            create(d)["responses"]["409"]["content"]["application/problem+json"]["schema"] =
                json!({ "$ref": "#/components/schemas/Thing" });
        }),
        ("no-content", READ, |d| {
            read(d)["responses"]["304"] = good("Thing", &[]);
        }),
        ("no-content", READ, |d| {
            read(d)["responses"]["200"]["content"] = json!({});
        }),
        ("merge-patch", CHANGE, |d| {
            remove(
                &mut change(d)["requestBody"]["content"],
                "application/merge-patch+json",
            );
        }),
        ("list-body", LIST, |d| remove(schema(d, "ThingPage"), "required")),
        ("list-body", LIST, |d| {
            remove(&mut schema(d, "ThingPage")["properties"], "next_page");
            schema(d, "ThingPage")["required"] = json!(["items"]);
        }),
        ("list-body", READ, |d| {
            read(d)["responses"]["200"] = good("ThingPage", &["ETag"]);
        }),
        ("good-answer", CREATE, |d| {
            remove(&mut create(d)["responses"], "201");
        }),
        ("good-answer", CREATE, |d| {
            create(d)["responses"]["default"] = refused("default");
        }),
        ("guarded-statuses", CREATE, |d| {
            remove(&mut create(d)["responses"], "403");
        }),
        ("rate-limited", CREATE, |d| {
            remove(&mut create(d)["responses"], "429");
        }),
        ("input-statuses", READ, |d| {
            remove(&mut read(d)["responses"], "404");
        }),
        ("input-statuses", LIST, |d| {
            remove(&mut list(d)["responses"], "422");
        }),
        ("input-statuses", CREATE, |d| {
            remove(&mut create(d)["responses"], "413");
        }),
        ("conflict-statuses", CREATE, |d| {
            remove(&mut create(d)["responses"], "409");
        }),
        ("conflict-statuses", CHANGE, |d| {
            remove(&mut change(d)["responses"], "412");
        }),
        ("conflict-statuses", READ, |d| {
            remove(&mut read(d)["responses"], "304");
        }),
        ("not-acceptable", CREATE, |d| {
            remove(&mut create(d)["responses"], "406");
        }),
        ("internal-error", CREATE, |d| {
            remove(&mut create(d)["responses"], "500");
        }),
        ("header", CREATE, |d| {
            remove(
                &mut create(d)["responses"]["201"]["headers"]["Location"],
                "description",
            );
        }),
        ("header", READ, |d| {
            remove(&mut d["components"]["headers"]["X-Request-Id"], "schema");
        }),
        ("request-id", CREATE, |d| {
            remove(&mut create(d)["responses"]["409"]["headers"], "X-Request-Id");
        }),
        ("rate-limit-headers", CREATE, |d| {
            remove(&mut create(d)["responses"]["201"]["headers"], "RateLimit-Reset");
        }),
        ("status-headers", CREATE, |d| {
            remove(&mut create(d)["responses"]["201"]["headers"], "Location");
        }),
        ("status-headers", CREATE, |d| {
            remove(&mut create(d)["responses"]["503"]["headers"], "Retry-After");
        }),
        ("etag", READ, |d| {
            remove(&mut read(d)["responses"]["200"]["headers"], "ETag");
        }),
    ]
}

fn of_schemas() -> Vec<Broken> {
    vec![
        ("reference", "/components/schemas/Alone", |d| {
            *schema(d, "Alone") = json!({ "type": "string" });
        }),
        (
            "reference",
            "/components/schemas/ThingPage/properties/next_page",
            |d| {
                schema(d, "ThingPage")["properties"]["next_page"] =
                    json!({ "$ref": "#/components/schemas/Missing", "description": "What follows." });
            },
        ),
        ("property", "/components/schemas/Problem/properties/code", |d| {
            remove(&mut schema(d, "Problem")["properties"]["code"], "description");
        }),
        (
            "property",
            "/components/schemas/Problem/properties/theCode",
            |d| {
                schema(d, "Problem")["properties"]["theCode"] =
                    json!({ "type": "string", "description": "Why." });
            },
        ),
        ("required", "/components/schemas/Thing", |d| {
            push(&mut schema(d, "Thing")["required"], json!("colour"));
        }),
        ("open-enum", "/components/schemas/Thing/properties/kind", |d| {
            schema(d, "Thing")["properties"]["kind"]["enum"] = json!(["small"]);
        }),
        (
            "closed-enum",
            "/components/schemas/NewThing/properties/kind",
            |d| {
                schema(d, "NewThing")["properties"]["kind"]["x-extensible-enum"] = json!(["small"]);
            },
        ),
        ("closed-object", "/components/schemas/NewThing", |d| {
            remove(schema(d, "NewThing"), "additionalProperties");
        }),
        (
            "timestamp",
            "/components/schemas/Thing/properties/created_at",
            |d| {
                remove(&mut schema(d, "Thing")["properties"]["created_at"], "format");
            },
        ),
        ("timestamp", "/components/schemas/Problem/properties/since", |d| {
            schema(d, "Problem")["properties"]["since"] =
                json!({ "type": "string", "format": "date-time", "description": "When." });
        }),
        ("id", "/components/schemas/Thing/properties/parent_id", |d| {
            remove(schema(d, "ThingId"), "pattern");
        }),
        ("id", "/components/schemas/Thing/properties/child_ids", |d| {
            schema(d, "Thing")["properties"]["child_ids"] =
                json!({ "type": "array", "items": { "type": "string" }, "description": "Below it." });
        }),
        ("bytes", "/components/schemas/Thing/properties/size_bytes", |d| {
            schema(d, "Thing")["properties"]["size_bytes"]["type"] = json!("number");
        }),
        ("pattern", "/components/schemas/ThingId", |d| {
            schema(d, "ThingId")["pattern"] = json!("thg_");
        }),
    ]
}
