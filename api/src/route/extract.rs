//! What handlers take from a request. Each parses strictly, names what it refuses, and documents itself.

use std::{collections::HashSet, fmt, marker::PhantomData, ops::Deref};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload, http::header, web};
use futures::{StreamExt as _, future::LocalBoxFuture};
use platform::{error::Violation, id, idempotency::Once};
use serde::{
    Deserialize,
    de::{self, DeserializeOwned},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, ObjectBuilder, Required, Type,
        path::{ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
    },
};

use super::sketch::{Describe, Sketch};
use crate::problem::{ApiError, ErrorCode};

/// The most bytes of a body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The id in a path `…/{id}`.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

impl<T: id::Id + PartialSchema> Describe for Id<T> {
    fn describe(sketch: &mut Sketch) {
        sketch.parameters.push(
            ParameterBuilder::new()
                .name("id")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("The id."))
                .schema(Some(T::schema()))
                .example(Some(Value::String(T::example())))
                .build(),
        );
        sketch.errors(&[ErrorCode::MalformedId, ErrorCode::NotFound]);
    }
}

impl<T: id::Id> FromRequest for Id<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("id").unwrap_or_default();
        std::future::ready(text.parse().map(Self).map_err(|error: id::ParseIdError| {
            ApiError::new(ErrorCode::MalformedId).detail(format!("The id {error}."))
        }))
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
            check_content_type(&request)?;
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
            check_content_type(&request)?;
            Ok(Self(Body {
                value: parse_body(&bytes)?,
                hash,
            }))
        })
    }
}

fn describe_body<T: ToSchema>(sketch: &mut Sketch, required: Required) {
    let schema = sketch.schema::<T>();
    sketch.request_body = Some(
        RequestBodyBuilder::new()
            .description(Some("A JSON object. Unknown fields are refused."))
            .required(Some(required))
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build(),
    );
    sketch.errors(&[
        ErrorCode::MalformedJson,
        ErrorCode::BodyTooLarge,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::Invalid,
    ]);
}

fn check_content_type(request: &HttpRequest) -> Result<(), ApiError> {
    let media_type = request.mime_type().ok().flatten();
    let fine = media_type.is_some_and(|media_type| {
        media_type.essence_str() == "application/json"
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
    while let Some(chunk) = payload.next().await {
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

/// A code and a sentence for what serde says.
fn explain(error: &impl fmt::Display) -> (&'static str, String) {
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
fn quoted(text: &str) -> Option<String> {
    text.split('`').nth(1).map(str::to_owned)
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

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
                    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255)).build(),
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
        assert_eq!(refusal("[]").0, 422);
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
            refusal(r#"{"slug":"a","slug":"b"}"#),
            (422, " duplicate_key".into())
        );
    }

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
    }
}
