//! Walks through schemas: each with its JSON pointer, its property's name, and which way it goes, into the API or out
//! of it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Document, object};

/// A schema and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    /// Its JSON pointer (RFC 6901).
    pub(super) pointer: String,
    /// The property or parameter whose schema it is.
    pub(super) property: Option<&'a str>,
    /// The schema.
    pub(super) schema: &'a Value,
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In requests: bodies and parameters.
    In,
    /// In answers: bodies and headers.
    Out,
}

/// All schemas of all components, with those inside them.
pub(super) fn of_components(document: &Document) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    for (name, schema) in document.schemas() {
        let pointer = format!("/components/schemas/{}", escaped(name));
        descend(pointer, None, schema, &mut nodes);
    }
    nodes
}

/// All schemas that go one way, with the components that they refer to.
pub(super) fn of_way(document: &Document, way: Way) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    for operation in document.operations() {
        let base = format!("/paths/{}/{}", escaped(operation.path), operation.method);
        match way {
            Way::In => {
                for (index, parameter) in operation.parameters().enumerate() {
                    let pointer = format!("{base}/parameters/{index}/schema");
                    descend(
                        pointer,
                        parameter["name"].as_str(),
                        &parameter["schema"],
                        &mut nodes,
                    );
                }
                media(
                    &format!("{base}/requestBody"),
                    &operation.value["requestBody"],
                    &mut nodes,
                );
            }
            Way::Out => {
                for (status, answer) in operation.answers() {
                    let base = format!("{base}/responses/{status}");
                    media(&base, answer, &mut nodes);
                    for (name, header) in object(&answer["headers"]) {
                        let pointer = format!("{base}/headers/{}/schema", escaped(name));
                        descend(pointer, None, &header["schema"], &mut nodes);
                    }
                }
            }
        }
    }
    with_components(document, nodes)
}

/// Whether a schema is used by nothing.
pub(super) fn unused(document: &Document) -> Vec<&str> {
    let used: BTreeSet<String> = [Way::In, Way::Out]
        .into_iter()
        .flat_map(|way| of_way(document, way))
        .filter_map(|node| component(node.schema).map(str::to_owned))
        .collect();
    let names = document.schemas().keys();
    names
        .map(String::as_str)
        .filter(|name| !used.contains(*name))
        .collect()
}

fn with_components<'a>(document: &'a Document, mut nodes: Vec<Node<'a>>) -> Vec<Node<'a>> {
    let mut seen = BTreeSet::new();
    let mut next = 0;
    while next < nodes.len() {
        if let Some(name) = component(nodes[next].schema)
            && seen.insert(name)
            && let Some(schema) = document.schemas().get(name)
        {
            descend(
                format!("/components/schemas/{}", escaped(name)),
                None,
                schema,
                &mut nodes,
            );
        }
        next += 1;
    }
    nodes
}

fn media<'a>(base: &str, body: &'a Value, nodes: &mut Vec<Node<'a>>) {
    for (media_type, content) in object(&body["content"]) {
        let pointer = format!("{base}/content/{}/schema", escaped(media_type));
        descend(pointer, None, &content["schema"], nodes);
    }
}

/// The component that a schema refers to.
fn component(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

/// Adds a schema and all that stand inside it; references are not followed.
fn descend<'a>(pointer: String, property: Option<&'a str>, schema: &'a Value, nodes: &mut Vec<Node<'a>>) {
    if !schema.is_object() {
        return;
    }
    for (name, inner) in object(&schema["properties"]) {
        descend(
            format!("{pointer}/properties/{}", escaped(name)),
            Some(name),
            inner,
            nodes,
        );
    }
    for keyword in ["items", "additionalProperties", "propertyNames", "not"] {
        descend(format!("{pointer}/{keyword}"), None, &schema[keyword], nodes);
    }
    for keyword in ["oneOf", "anyOf", "allOf", "prefixItems"] {
        for (index, branch) in schema[keyword].as_array().into_iter().flatten().enumerate() {
            descend(format!("{pointer}/{keyword}/{index}"), None, branch, nodes);
        }
    }
    nodes.push(Node {
        pointer,
        property,
        schema,
    });
}

fn escaped(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}
