//! Labels as requests and answers have them. The limits stand in `platform::text`; the document says them too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema, Type,
        schema::{AdditionalProperties, SchemaType},
    },
};

const KEYS: &str = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$";

/// Your own notes for programs.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Labels(pub BTreeMap<String, String>);

/// Labels as they are stored: checked when they were written.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct StoredLabels(pub serde_json::Value);

impl PartialSchema for StoredLabels {
    fn schema() -> RefOr<Schema> {
        Labels::schema()
    }
}

impl ToSchema for StoredLabels {
    fn name() -> std::borrow::Cow<'static, str> {
        Labels::name()
    }
}

/// Labels to set, and those to remove, whose value is null.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct LabelPatch(pub BTreeMap<String, Option<String>>);

fn map(about: &str, values: SchemaType) -> RefOr<Schema> {
    let value = ObjectBuilder::new()
        .schema_type(values)
        .max_length(Some(255))
        .pattern(Some(super::NO_CONTROL_CHARACTERS));
    ObjectBuilder::new()
        .description(Some(about))
        .property_names(Some(
            ObjectBuilder::new().schema_type(Type::String).pattern(Some(KEYS)),
        ))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(Schema::from(value)))))
        .max_properties(Some(64))
        .examples([serde_json::json!({ "cost-centre": "4711" })])
        .into()
}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        map("Your own notes for programs: at most 64.", Type::String.into())
    }
}

impl ToSchema for Labels {}

impl PartialSchema for LabelPatch {
    fn schema() -> RefOr<Schema> {
        map(
            "Labels to set, and those to remove, whose value is null.",
            SchemaType::Array(vec![Type::String, Type::Null]),
        )
    }
}

impl ToSchema for LabelPatch {}
