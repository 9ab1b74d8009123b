//! Bodies of requests: read with limits of size and time, parsed strictly, refused by name.

use std::{marker::PhantomData, ops::Deref, time::Duration};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload, http::header, web};
use futures::{StreamExt as _, future::LocalBoxFuture};
use platform::error::Violation;
use serde::{
    Deserialize,
    de::{self, DeserializeOwned},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::{
    ToSchema,
    openapi::{ContentBuilder, Required, request_body::RequestBodyBuilder},
};

use super::{
    extract::{NUL, explain, quoted},
    sketch::{Describe, Sketch},
};
use crate::problem::{ApiError, ErrorCode};

/// The most bytes of a body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// A JSON body.
#[derive(Debug)]
pub struct Body<T> {
    value: T,
    /// Hash of the method, the path and the body's bytes.
    hash: Vec<u8>,
}

impl<T> Body<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// What makes the request the same as another one with the same idempotency key.
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }
}

impl<T> Deref for Body<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ToSchema> Describe for Body<T> {
    fn describe(sketch: &mut Sketch) {
        describe_body::<T>(sketch, Required::True);
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            check_content_type(&request, &[JSON])?;
            let bytes = read(&request, payload).await?;
            Ok(Self {
                value: parse_body(&bytes)?,
                hash: request_hash(&request, &bytes),
            })
        })
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct MaybeBody<T>(pub Body<T>);

impl<T: ToSchema> Describe for MaybeBody<T> {
    fn describe(sketch: &mut Sketch) {
        describe_body::<T>(sketch, Required::False);
    }
}

impl<T: DeserializeOwned + Default + 'static> FromRequest for MaybeBody<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let bytes = read(&request, payload).await?;
            let hash = request_hash(&request, &bytes);
            if bytes.is_empty() {
                return Ok(Self(Body {
                    value: T::default(),
                    hash,
                }));
            }
            check_content_type(&request, &[JSON])?;
            Ok(Self(Body {
                value: parse_body(&bytes)?,
                hash,
            }))
        })
    }
}

/// A JSON merge patch (RFC 7396): what is absent stays.
#[derive(Debug)]
pub struct MergePatch<T>(pub T);

impl<T: ToSchema> Describe for MergePatch<T> {
    fn describe(sketch: &mut Sketch) {
        describe_body_as::<T>(
            sketch,
            Required::True,
            "A JSON merge patch (RFC 7396): what is absent stays as it is. Unknown fields are refused.",
            &[JSON, MERGE_PATCH],
        );
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for MergePatch<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            check_content_type(&request, &[JSON, MERGE_PATCH])?;
            let bytes = read(&request, payload).await?;
            Ok(Self(parse_body(&bytes)?))
        })
    }
}

/// No body: nothing needs to be said. An empty object is let pass, since some clients always send one.
#[derive(Debug)]
pub struct NoBody(Body<()>);

impl NoBody {
    /// What makes the request the same as another one with the same idempotency key.
    pub fn as_body(&self) -> &Body<()> {
        &self.0
    }
}

impl Describe for NoBody {
    fn describe(sketch: &mut Sketch) {
        sketch.errors(&[
            ErrorCode::MalformedJson,
            ErrorCode::BodyTooLarge,
            ErrorCode::Invalid,
        ]);
    }
}

impl FromRequest for NoBody {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}

        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let bytes = read(&request, payload).await?;
            if !bytes.is_empty() {
                let Nothing {} = parse_body(&bytes)?;
            }
            Ok(Self(Body {
                value: (),
                hash: request_hash(&request, &[]),
            }))
        })
    }
}

/// A field of a merge patch that can be cleared: absent, null, or a value. For `#[serde(default)]` fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// It stays.
    #[default]
    Keep,
    /// It goes.
    Clear,
    /// It becomes this.
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::deserialize(deserializer)? {
            None => Self::Clear,
            Some(value) => Self::Set(value),
        })
    }
}

impl<T> Patch<T> {
    /// The value of a field that can't be cleared.
    ///
    /// # Errors
    /// It is null.
    pub fn required(self, pointer: &str, violations: &mut Vec<Violation>) -> Option<T> {
        match self {
            Self::Keep => None,
            Self::Set(value) => Some(value),
            Self::Clear => {
                violations.push(Violation::at(pointer, "not_clearable", "can't be null"));
                None
            }
        }
    }
}

fn describe_body<T: ToSchema>(sketch: &mut Sketch, required: Required) {
    describe_body_as::<T>(
        sketch,
        required,
        "A JSON object. Unknown fields are refused.",
        &[JSON],
    );
}

fn describe_body_as<T: ToSchema>(sketch: &mut Sketch, required: Required, about: &str, media_types: &[&str]) {
    let schema = sketch.schema::<T>();
    let body = media_types.iter().fold(
        RequestBodyBuilder::new()
            .description(Some(about))
            .required(Some(required)),
        |body, media_type| {
            body.content(
                *media_type,
                ContentBuilder::new().schema(Some(schema.clone())).build(),
            )
        },
    );
    sketch.request_body = Some(body.build());
    sketch.errors(&[
        ErrorCode::RequestTimeout,
        ErrorCode::MalformedJson,
        ErrorCode::BodyTooLarge,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::Invalid,
    ]);
}

fn check_content_type(request: &HttpRequest, good: &[&str]) -> Result<(), ApiError> {
    let media_type = request.mime_type().ok().flatten();
    let fine = media_type.is_some_and(|media_type| {
        good.contains(&media_type.essence_str())
            && media_type
                .get_param("charset")
                .is_none_or(|charset| charset.as_str().eq_ignore_ascii_case("utf-8"))
    });
    if fine {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::UnsupportedMediaType))
    }
}

async fn read(request: &HttpRequest, mut payload: Payload) -> Result<web::Bytes, ApiError> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > MAX_BODY_BYTES) {
        return Err(ApiError::new(ErrorCode::BodyTooLarge));
    }
    let mut body = web::BytesMut::new();
    let late = tokio::time::Instant::now() + BODY_DEADLINE;
    // A client that sends half of a body and waits must not be waited for.
    while let Some(chunk) = tokio::time::timeout_at(late, payload.next())
        .await
        .map_err(|_| ApiError::new(ErrorCode::RequestTimeout))?
    {
        let chunk = chunk.map_err(|_| {
            ApiError::new(ErrorCode::MalformedRequest).detail("The body did not arrive whole.")
        })?;
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(ApiError::new(ErrorCode::BodyTooLarge));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn request_hash(request: &HttpRequest, body: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [
        request.method().as_str().as_bytes(),
        request.path().as_bytes(),
        body,
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// Parses a body: first that it is JSON at all (400), then that it is what is wanted (422, with a pointer).
fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let strict = StrictValue::deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            let code = if error.is_data() {
                ErrorCode::Invalid
            } else {
                ErrorCode::MalformedJson
            };
            match code {
                ErrorCode::Invalid => {
                    ApiError::invalid(vec![Violation::at("", "duplicate_key", error.to_string())])
                }
                code => ApiError::new(code).detail(format!("The body is not JSON: {error}.")),
            }
        })?;
    // Serde also reads a struct from the list of its fields' values; a body that says no names is none of ours.
    if !strict.0.is_object() {
        return Err(ApiError::invalid(vec![Violation::at(
            "",
            "invalid_type",
            "must be a JSON object",
        )]));
    }
    if let Some(pointer) = place_of_nul(&strict.0) {
        return Err(ApiError::invalid(vec![Violation::at(pointer, NUL.0, NUL.1)]));
    }
    serde_path_to_error::deserialize(strict.0).map_err(|error| {
        let mut pointer = pointer_of(error.path());
        let (code, detail) = explain(error.inner());
        if let ("unknown_field" | "missing_field", Some(field)) = (code, quoted(&error.inner().to_string())) {
            // Serde names the object for a missing field, and the field itself for an unknown one.
            let segment = segment(&field);
            if !pointer.ends_with(&segment) {
                pointer.push_str(&segment);
            }
        }
        ApiError::invalid(vec![Violation::at(pointer, code, detail)])
    })
}

/// Where a text has the character that no text in Postgres can have.
fn place_of_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| Some(format!("/{index}{}", place_of_nul(item)?))),
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let inner = if key.contains('\0') {
                String::new()
            } else {
                place_of_nul(value)?
            };
            Some(segment(key) + &inner)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => self::segment(key),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// One step of a JSON pointer (RFC 6901).
fn segment(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A JSON value in which no object has the same key twice: what one reader takes from the first, another takes from
/// the last.
struct StrictValue(Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor(PhantomData)).map(Self)
    }
}

struct StrictVisitor(PhantomData<()>);

impl<'de> de::Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(StrictValue(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some((key, StrictValue(value))) = entries.next_entry::<String, StrictValue>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("has the key {key:?} twice")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        slug: String,
        #[serde(default)]
        admin: Option<Inner>,
        #[serde(default)]
        limit: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        email: String,
    }

    fn refusal(body: &str) -> (u16, String) {
        let problem = parse_body::<Sample>(body.as_bytes()).unwrap_err().problem("r");
        let first = problem.errors.first();
        let text = first.map(|item| format!("{} {}", item.pointer.clone().unwrap_or_default(), item.code));
        (problem.status, text.unwrap_or_default())
    }

    #[test]
    fn a_refused_body_says_where_and_why() {
        let good: Sample = parse_body(br#"{"slug":"a","admin":{"email":"x"},"limit":1}"#).unwrap();
        assert_eq!((good.slug.as_str(), good.limit), ("a", Some(1)));
        assert_eq!(good.admin.unwrap().email, "x");
        assert_eq!(refusal("{").0, 400);
        assert_eq!(refusal("{} x").0, 400);
        assert_eq!(refusal("").0, 400);
        assert_eq!(refusal(&"[".repeat(5000)).0, 400);
        for body in ["[]", r#"["a"]"#, "null", "3"] {
            assert_eq!(refusal(body), (422, " invalid_type".into()));
        }
        assert_eq!(
            refusal(r#"{"slug":"a","colour":1}"#),
            (422, "/colour unknown_field".into())
        );
        assert_eq!(
            refusal(r#"{"slug":"a","admin":{"email":"x","b/c":1}}"#),
            (422, "/admin/b~1c unknown_field".into())
        );
        assert_eq!(refusal("{}"), (422, "/slug missing_field".into()));
        assert_eq!(
            refusal(r#"{"slug":"a","admin":{}}"#),
            (422, "/admin/email missing_field".into())
        );
        assert_eq!(refusal(r#"{"slug":3}"#), (422, "/slug invalid_type".into()));
        assert_eq!(
            refusal(r#"{"slug":"a","admin":{"email":"x\u0000"}}"#),
            (422, "/admin/email invalid_text".into())
        );
        assert_eq!(
            refusal(r#"{"slug":"a","slug":"b"}"#),
            (422, " duplicate_key".into())
        );
    }
}
