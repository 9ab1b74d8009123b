//! The document as rules ask for it: operations, bodies, answers, schemas.

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// Methods that make an operation of a path item (<https://spec.openapis.org/oas/v3.1.0#path-item-object>).
const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// An OpenAPI document.
pub(super) struct Document(Value);

impl Document {
    /// Puts what paths refer to in its place, but for schemas: their names are a part of the contract, those of shared
    /// headers and parameters are not.
    pub(super) fn new(mut value: Value) -> Self {
        let Some(mut paths) = value.get_mut("paths").map(Value::take) else {
            return Self(value);
        };
        let mut document = Self(value);
        document.inline(&mut paths);
        document.0["paths"] = paths;
        document
    }

    fn inline(&self, value: &mut Value) {
        let reference = value["$ref"].as_str();
        if reference.is_some_and(|reference| !reference.starts_with("#/components/schemas/")) {
            let target = self.resolve(value);
            // A reference to nothing stays where it is, and is found there.
            if !target.is_null() {
                *value = target.clone();
            }
        }
        match value {
            Value::Object(members) => members.values_mut().for_each(|member| self.inline(member)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.inline(item)),
            _ => {}
        }
    }

    /// All of it.
    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    /// Every operation.
    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations = Vec::new();
        for (path, item) in object(&self.0["paths"]) {
            for (method, value) in object(item) {
                if METHODS.contains(&method.as_str()) {
                    operations.push(Operation { path, method, value });
                }
            }
        }
        operations
    }

    /// Components' schemas by name.
    pub(super) fn schemas(&self) -> &Map<String, Value> {
        object(&self.0["components"]["schemas"])
    }

    /// What a local reference points at; anything else as it is. A reference to nothing is null.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let mut present = value;
        // A reference to itself would never end.
        for _ in 0..16 {
            let Some(reference) = present["$ref"].as_str() else {
                return present;
            };
            present = reference
                .strip_prefix('#')
                .and_then(|pointer| self.0.pointer(pointer))
                .unwrap_or(&Value::Null);
        }
        &Value::Null
    }

    /// The alternatives of a schema without `null`, references followed: one, for a schema that is no choice.
    pub(super) fn alternatives<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        let choice = ["oneOf", "anyOf"]
            .into_iter()
            .find_map(|keyword| schema[keyword].as_array());
        match choice {
            Some(branches) => branches
                .iter()
                .map(|branch| self.resolve(branch))
                .filter(|branch| branch["type"] != "null")
                .collect(),
            None => vec![schema],
        }
    }
}

/// An operation of a path.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    /// The path, with parameters in braces.
    pub(super) path: &'a str,
    /// The method in lower case.
    pub(super) method: &'a str,
    /// The operation object.
    pub(super) value: &'a Value,
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method.to_uppercase(), self.path)
    }
}

impl<'a> Operation<'a> {
    /// Whether it demands a credential.
    pub(super) fn is_guarded(&self) -> bool {
        self.value["security"]
            .as_array()
            .is_some_and(|ways| !ways.is_empty())
    }

    /// Whether the last part of its path is a parameter: it is about one resource.
    pub(super) fn is_of_one_resource(&self) -> bool {
        self.path.starts_with("/v1/") && self.path.ends_with('}')
    }

    /// Its parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &'a Value> {
        self.value["parameters"].as_array().into_iter().flatten()
    }

    /// Whether it takes such a parameter.
    pub(super) fn has_parameter(&self, place: &str, name: &str) -> bool {
        self.parameters().any(|parameter| {
            parameter["in"] == place
                && parameter["name"]
                    .as_str()
                    .is_some_and(|present| present.eq_ignore_ascii_case(name))
        })
    }

    /// Media types of its request body.
    pub(super) fn request_media(&self) -> &'a Map<String, Value> {
        object(&self.value["requestBody"]["content"])
    }

    /// Its answers by status.
    pub(super) fn answers(&self) -> &'a Map<String, Value> {
        object(&self.value["responses"])
    }

    /// Its answer of a status.
    pub(super) fn answer(&self, status: &str) -> Option<&'a Value> {
        self.answers().get(status)
    }
}

/// An answer's header, whatever the case of its name.
pub(super) fn header<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    object(&answer["headers"])
        .iter()
        .find(|(present, _)| present.eq_ignore_ascii_case(name))
        .map(|(_, header)| header)
}

/// Whether a media type is JSON, by its suffix too (RFC 6839).
pub(super) fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

/// An object's members; none where it is no object.
pub(super) fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or(&NOTHING)
}

/// Whether a text says anything.
pub(super) fn says_something(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// `lower_case_words`.
pub(super) fn is_snake_case(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('_')
        && !text.contains("__")
        && text
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}
