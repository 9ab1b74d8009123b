//! What handlers take from a request beside its body. Each parses strictly, names what it refuses, and documents itself.

use std::{collections::HashSet, fmt};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header};
use platform::{
    error::Violation,
    id::{self, UserId},
    idempotency::Once,
    precondition::Precondition,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::{
    IntoParams, PartialSchema,
    openapi::{
        ObjectBuilder, Required, Type,
        path::{ParameterBuilder, ParameterIn},
    },
};

use super::{
    answer::version_of,
    body::Body,
    sketch::{Describe, Sketch},
};
use crate::problem::{ApiError, ErrorCode};

/// Code and sentence for a text with the character that no text in Postgres can have.
pub(super) const NUL: (&str, &str) = ("invalid_text", "must not contain the character U+0000");

/// The id in a path `…/{id}`.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

impl<T: id::Id + PartialSchema> Describe for Id<T> {
    fn describe(sketch: &mut Sketch) {
        describe_id::<T>(sketch, "id");
    }
}

impl<T: id::Id> FromRequest for Id<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(parse_id(request, "id").map(Self))
    }
}

/// The user in a path `…/{user_id}`.
#[derive(Debug, Clone, Copy)]
pub struct UserInPath(pub UserId);

impl Describe for UserInPath {
    fn describe(sketch: &mut Sketch) {
        describe_id::<UserId>(sketch, "user_id");
    }
}

impl FromRequest for UserInPath {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(parse_id(request, "user_id").map(Self))
    }
}

fn describe_id<T: id::Id + PartialSchema>(sketch: &mut Sketch, name: &str) {
    sketch.parameters.push(
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("The id."))
            .schema(Some(T::schema()))
            .example(Some(Value::String(T::example())))
            .build(),
    );
    sketch.errors(&[ErrorCode::MalformedId, ErrorCode::NotFound]);
}

fn parse_id<T: id::Id>(request: &HttpRequest, name: &str) -> Result<T, ApiError> {
    let text = request.match_info().get(name).unwrap_or_default();
    text.parse().map_err(|error: id::ParseIdError| {
        ApiError::new(ErrorCode::MalformedId).detail(format!("The id {error}."))
    })
}

/// The program that sends a request, as it calls itself.
#[derive(Debug)]
pub struct UserAgent(pub Option<String>);

impl Describe for UserAgent {
    fn describe(_: &mut Sketch) {}
}

impl FromRequest for UserAgent {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let said = request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .map(|text| text.chars().take(200).collect());
        std::future::ready(Ok(Self(said)))
    }
}

/// The query parameters, none of them unknown or given twice.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: IntoParams> Describe for Query<T> {
    fn describe(sketch: &mut Sketch) {
        let parameters = T::into_params(|| Some(ParameterIn::Query));
        if parameters.iter().any(|parameter| parameter.name == "page_token") {
            sketch.errors(&[ErrorCode::InvalidPageToken]);
        }
        sketch.parameters.extend(parameters);
        sketch.errors(&[ErrorCode::Invalid]);
    }
}

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(parse_query(request.query_string()).map(Self))
    }
}

/// Refuses a query where an endpoint knows no parameter.
pub(super) fn check_no_query(request: &HttpRequest) -> Result<(), ApiError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    match request.query_string() {
        "" => Ok(()),
        text => parse_query::<Nothing>(text).map(|Nothing {}| ()),
    }
}

fn parse_query<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(text).map_err(|error| {
        ApiError::invalid(vec![Violation::of_parameter(
            "",
            "malformed_query",
            error.to_string(),
        )])
    })?;
    let mut seen = HashSet::new();
    if let Some((twice, _)) = pairs.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(ApiError::invalid(vec![Violation::of_parameter(
            twice,
            "duplicate_parameter",
            "is given twice",
        )]));
    }
    if let Some((name, _)) = pairs.iter().find(|(_, value)| value.contains('\0')) {
        return Err(ApiError::invalid(vec![Violation::of_parameter(
            name, NUL.0, NUL.1,
        )]));
    }
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(form_pairs(text))).map_err(|error| {
        let name = error.path().to_string();
        let (code, detail) = explain(error.inner());
        let name = if code == "unknown_field" {
            quoted(&error.inner().to_string()).unwrap_or(name)
        } else {
            name
        };
        let code = if code == "unknown_field" {
            "unknown_parameter"
        } else {
            code
        };
        ApiError::invalid(vec![Violation::of_parameter(name, code, detail)])
    })
}

fn form_pairs(text: &str) -> url::form_urlencoded::Parse<'_> {
    url::form_urlencoded::parse(text.as_bytes())
}

/// A code and a sentence for what serde says.
pub(super) fn explain(error: &impl fmt::Display) -> (&'static str, String) {
    let text = error.to_string();
    if text.starts_with("unknown field") {
        ("unknown_field", "is not known here".to_owned())
    } else if text.starts_with("missing field") {
        ("missing_field", "is missing".to_owned())
    } else if text.starts_with("unknown variant") {
        (
            "invalid_value",
            format!("must be one of the known values: {text}"),
        )
    } else if let Some(rest) = text.strip_prefix("invalid type: ") {
        ("invalid_type", format!("has the wrong type: {rest}"))
    } else {
        ("invalid_value", text)
    }
}

/// The first text between backquotes.
pub(super) fn quoted(text: &str) -> Option<String> {
    text.split('`').nth(1).map(str::to_owned)
}

/// The `Idempotency-Key` header.
#[derive(Debug)]
pub struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The key together with the request that it belongs to.
    #[must_use]
    pub fn with<T>(self, body: &Body<T>) -> Option<Once> {
        self.0.map(|key| Once {
            key,
            request_hash: body.hash().to_vec(),
        })
    }
}

impl Describe for IdempotencyKey {
    fn describe(sketch: &mut Sketch) {
        sketch.parameters.push(
            ParameterBuilder::new()
                .name("Idempotency-Key")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "Makes the request safe to send again: the same key and request are carried out once within 24 \
                     hours, and answered the same, without secrets.",
                ))
                .schema(Some(
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .min_length(Some(1))
                        .max_length(Some(255))
                        .pattern(Some(r"^[\x20-\x7e]+$"))
                        .build(),
                ))
                .build(),
        );
        sketch.errors(&[
            ErrorCode::IdempotencyInFlight,
            ErrorCode::IdempotencyKeyReused,
            ErrorCode::Invalid,
        ]);
    }
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all("idempotency-key");
        let key = match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None)
                if (1..=255).contains(&value.len())
                    && value.as_bytes().iter().all(|b| (0x20..0x7f).contains(b)) =>
            {
                Ok(Self(value.to_str().ok().map(str::to_owned)))
            }
            _ => Err(ApiError::invalid(vec![Violation::of_parameter(
                "Idempotency-Key",
                "invalid_idempotency_key",
                "must be one value of 1 to 255 printable ASCII characters",
            )])),
        };
        std::future::ready(key)
    }
}

/// The `If-Match` header: the change is made only to the version that it names.
#[derive(Debug)]
pub struct IfMatch(pub Precondition);

impl Describe for IfMatch {
    fn describe(sketch: &mut Sketch) {
        sketch.parameters.push(
            ParameterBuilder::new()
                .name("If-Match")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "The `ETag` that was read: the change is made only if nobody else made one since.",
                ))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
                .example(Some(Value::String("\"v3\"".to_owned())))
                .build(),
        );
        sketch.errors(&[ErrorCode::PreconditionFailed]);
    }
}

impl FromRequest for IfMatch {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut tags = entity_tags(request, &header::IF_MATCH).peekable();
        let precondition = if tags.peek().is_none() {
            Precondition::None
        } else {
            let tags: Vec<&str> = tags.collect();
            if tags.contains(&"*") {
                Precondition::None
            } else {
                // A weak tag matches nothing.
                Precondition::Versions(tags.into_iter().filter_map(version_of).collect())
            }
        };
        std::future::ready(Ok(Self(precondition)))
    }
}

/// The entity tags of a header, as they stand.
pub(super) fn entity_tags<'r>(
    request: &'r HttpRequest,
    name: &'static header::HeaderName,
) -> impl Iterator<Item = &'r str> {
    request
        .headers()
        .get_all(name)
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn a_refused_query_names_its_parameter() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sample {
            limit: Option<u32>,
        }
        let refusal = |text: &str| {
            let problem = parse_query::<Sample>(text).unwrap_err().problem("r");
            let first = problem.errors[0].clone();
            format!("{} {}", first.parameter.unwrap_or_default(), first.code)
        };
        assert_eq!(parse_query::<Sample>("limit=3").unwrap().limit, Some(3));
        assert_eq!(parse_query::<Sample>("").unwrap().limit, None);
        assert_eq!(refusal("colour=1"), "colour unknown_parameter");
        assert_eq!(refusal("limit=x"), "limit invalid_value");
        assert_eq!(refusal("limit=1&limit=2"), "limit duplicate_parameter");
        assert_eq!(refusal("limit=%00"), "limit invalid_text");
    }
}
