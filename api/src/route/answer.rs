//! What handlers answer. Each kind of answer knows its status, its headers and its documentation.

use std::pin::Pin;

use actix_web::{HttpRequest, HttpResponse, Responder, body::BoxBody, http::header, web};
use futures::Stream;
use platform::{id::OperationId, idempotency::Effect, precondition::Versioned};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{ContentBuilder, HeaderBuilder, ObjectBuilder, Type, response::ResponseBuilder},
};

use super::{
    extract::entity_tags,
    sketch::{Describe, Sketch},
};
use crate::problem::ApiError;

/// What a handler answers when all is well.
pub trait Answer: Describe {}

impl<T: Describe> Answer for T {}

/// 200 with a JSON body.
#[derive(Debug)]
pub struct Reply<T>(pub T);

impl<T: ToSchema> Describe for Reply<T> {
    fn describe(sketch: &mut Sketch) {
        let schema = sketch.schema::<T>();
        let response = ResponseBuilder::new()
            .description("As asked.")
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build();
        sketch.answers.insert(200, response);
    }
}

impl<T: Serialize> Responder for Reply<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(self.0)
    }
}

/// The strong entity tag of a version.
fn entity_tag(version: &str) -> String {
    format!("\"{version}\"")
}

/// The version that a tag stands for. A weak one stands for none.
pub(super) fn version_of(tag: &str) -> Option<String> {
    tag.strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
}

/// Whoever shows another credential may get another answer.
const BY_CREDENTIAL: (header::HeaderName, &str) = (header::VARY, "Authorization");

/// 200 with one thing and its `ETag`, or 304 for who has this version already.
#[derive(Debug)]
pub struct Resource<T>(pub T);

impl<T: ToSchema> Describe for Resource<T> {
    fn describe(sketch: &mut Sketch) {
        Reply::<T>::describe(sketch);
        let etag = || {
            HeaderBuilder::new()
                .description(Some("The version, for `If-Match` and `If-None-Match`."))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build()
        };
        if let Some(answer) = sketch.answers.get_mut(&200) {
            answer.headers.insert("ETag".to_owned(), etag().into());
        }
        sketch.conditional = Some(
            ResponseBuilder::new()
                .description("It has not changed since the version that `If-None-Match` names.")
                .header("ETag", etag())
                .build(),
        );
    }
}

impl<T: Serialize + Versioned> Responder for Resource<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        let tag = entity_tag(&self.0.version());
        let known = request.method().is_safe()
            && entity_tags(request, &header::IF_NONE_MATCH)
                .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag);
        if known {
            return HttpResponse::NotModified()
                .insert_header((header::ETAG, tag))
                .insert_header(BY_CREDENTIAL)
                .finish();
        }
        HttpResponse::Ok()
            .insert_header((header::ETAG, tag))
            // Kept by whoever likes, asked about each time.
            .insert_header((header::CACHE_CONTROL, "private, no-cache"))
            .insert_header(BY_CREDENTIAL)
            .json(self.0)
    }
}

/// A body that may be answered again to a request that is sent again.
pub trait Replayable: Serialize {
    /// The fields that are answered only once.
    const SECRETS: &'static [&'static str] = &[];

    /// The body without them.
    fn without_secrets(&self) -> Value {
        let mut body = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = body.as_object_mut() {
            for secret in Self::SECRETS {
                fields.remove(*secret);
            }
        }
        body
    }
}

/// A body that belongs to a long-running operation.
pub trait HasOperation: Replayable {
    /// The operation.
    fn operation_id(&self) -> OperationId;
}

/// A body that is a thing with an address.
pub trait HasLocation: Replayable {
    /// The path.
    fn location(&self) -> String;
}

/// 202 with a JSON body: the work has been accepted and goes on.
#[derive(Debug)]
pub struct Accepted<T>(pub T);

impl<T: ToSchema> Describe for Accepted<T> {
    fn describe(sketch: &mut Sketch) {
        let schema = sketch.schema::<T>();
        let text = |about: &str, kind: Type| {
            HeaderBuilder::new()
                .description(Some(about))
                .schema(Some(ObjectBuilder::new().schema_type(kind)))
                .build()
        };
        let response = ResponseBuilder::new()
            .description("Accepted: `Location` is the operation that carries it out.")
            .header("Location", text("The operation's path.", Type::String))
            .header(
                "Retry-After",
                text("Seconds after which to look again.", Type::Integer),
            )
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build();
        sketch.answers.insert(202, response);
    }
}

/// Seconds after which a client that doesn't wait should look at an operation again.
const LOOK_AGAIN_SECONDS: u32 = 1;

fn location(operation: OperationId) -> String {
    format!("/v1/operations/{operation}")
}

impl<T: HasOperation> Responder for Accepted<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Accepted()
            .insert_header((header::LOCATION, location(self.0.operation_id())))
            .insert_header((header::RETRY_AFTER, LOOK_AGAIN_SECONDS))
            .json(self.0)
    }
}

/// 201 with a JSON body: the thing that was made.
#[derive(Debug)]
pub struct Created<T>(pub T);

impl<T: ToSchema> Describe for Created<T> {
    fn describe(sketch: &mut Sketch) {
        let schema = sketch.schema::<T>();
        let text = |about: &str| {
            HeaderBuilder::new()
                .description(Some(about))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build()
        };
        let response = ResponseBuilder::new()
            .description("Made.")
            .header("Location", text("Its path."))
            .header("ETag", text("The version, for `If-Match` and `If-None-Match`."))
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build();
        sketch.answers.insert(201, response);
    }
}

impl<T: HasLocation + Versioned> Responder for Created<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Created()
            .insert_header((header::LOCATION, self.0.location()))
            .insert_header((header::ETAG, entity_tag(&self.0.version())))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(self.0)
    }
}

/// An answer that can be recorded, without its secrets, and given again.
pub trait Recorded: Responder {
    /// What a replay of it needs.
    fn record(&self) -> Value;
    /// The answer of a record.
    fn replay(record: &Value) -> HttpResponse;
}

impl<T: HasOperation> Recorded for Accepted<T> {
    fn record(&self) -> Value {
        json!({ "location": location(self.0.operation_id()), "body": self.0.without_secrets() })
    }

    fn replay(record: &Value) -> HttpResponse {
        HttpResponse::Accepted()
            .insert_header((header::LOCATION, text_of(record, "location")))
            .insert_header((header::RETRY_AFTER, LOOK_AGAIN_SECONDS))
            .json(&record["body"])
    }
}

impl<T: HasLocation + Versioned> Recorded for Created<T> {
    fn record(&self) -> Value {
        json!({
            "location": self.0.location(),
            "etag": entity_tag(&self.0.version()),
            "body": self.0.without_secrets(),
        })
    }

    fn replay(record: &Value) -> HttpResponse {
        HttpResponse::Created()
            .insert_header((header::LOCATION, text_of(record, "location")))
            .insert_header((header::ETAG, text_of(record, "etag")))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(&record["body"])
    }
}

impl<T: Replayable> Recorded for Reply<T> {
    fn record(&self) -> Value {
        json!({ "body": self.0.without_secrets() })
    }

    fn replay(record: &Value) -> HttpResponse {
        HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(&record["body"])
    }
}

fn text_of<'r>(record: &'r Value, field: &str) -> &'r str {
    record[field].as_str().unwrap_or_default()
}

/// The answer of a request that may have been carried out before.
#[derive(Debug)]
pub struct Once<A>(Effect<A>);

impl<A> From<Effect<A>> for Once<A> {
    fn from(effect: Effect<A>) -> Self {
        Self(effect)
    }
}

impl<A: Describe> Describe for Once<A> {
    fn describe(sketch: &mut Sketch) {
        A::describe(sketch);
        let replayed = HeaderBuilder::new()
            .description(Some(
                "`true` where the request was carried out before and this is its answer once more, without secrets.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build();
        for answer in sketch.answers.values_mut() {
            answer
                .headers
                .insert("Idempotency-Replayed".to_owned(), replayed.clone().into());
        }
    }
}

impl<A: Recorded<Body = BoxBody>> Responder for Once<A> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self.0 {
            Effect::Done(answer) => answer.respond_to(request),
            Effect::Replayed(record) => {
                let mut response = A::replay(&record);
                response.headers_mut().insert(
                    header::HeaderName::from_static("idempotency-replayed"),
                    header::HeaderValue::from_static("true"),
                );
                response
            }
        }
    }
}

/// 204.
#[derive(Debug)]
pub struct NoContent;

impl Describe for NoContent {
    fn describe(sketch: &mut Sketch) {
        sketch.answers.insert(
            204,
            ResponseBuilder::new()
                .description("Done; there is nothing to say.")
                .build(),
        );
    }
}

impl Responder for NoContent {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::NoContent().finish()
    }
}

/// A page for people.
#[derive(Debug)]
pub struct Html(pub HttpResponse);

impl Describe for Html {
    fn describe(sketch: &mut Sketch) {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let response = ResponseBuilder::new()
            .description("A page.")
            .content("text/html", ContentBuilder::new().schema(Some(schema)).build())
            .build();
        sketch.answers.insert(200, response);
    }
}

impl Responder for Html {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.0
    }
}

/// A JSON document that is its own description.
#[derive(Debug)]
pub struct Raw(pub HttpResponse);

impl Describe for Raw {
    fn describe(sketch: &mut Sketch) {
        let schema = ObjectBuilder::new().schema_type(Type::Object);
        let response = ResponseBuilder::new()
            .description("The document.")
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build();
        sketch.answers.insert(200, response);
    }
}

impl Responder for Raw {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.0
    }
}

/// A stream of JSON values, one a line (NDJSON), as they come.
pub struct Lines(Pin<Box<dyn Stream<Item = Result<web::Bytes, ApiError>>>>);

impl Lines {
    /// Of pieces that each hold whole lines. An error ends the stream, so that its reader sees that it is not whole.
    pub fn new(pieces: impl Stream<Item = Result<web::Bytes, ApiError>> + 'static) -> Self {
        Self(Box::pin(pieces))
    }
}

impl Describe for Lines {
    fn describe(sketch: &mut Sketch) {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let response = ResponseBuilder::new()
            .description("JSON objects, one a line.")
            .content(NDJSON, ContentBuilder::new().schema(Some(schema)).build())
            .build();
        sketch.answers.insert(200, response);
    }
}

impl Responder for Lines {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Ok()
            .content_type(NDJSON)
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .streaming(self.0)
    }
}

const NDJSON: &str = "application/x-ndjson";
