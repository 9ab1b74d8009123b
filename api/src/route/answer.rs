//! What handlers answer. Each kind of answer knows its status, its headers and its documentation.

use actix_web::{HttpRequest, HttpResponse, Responder, body::BoxBody, http::header};
use platform::{id::OperationId, idempotency::Effect};
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
        HttpResponse::Ok().json(self.0)
    }
}

/// A thing that has versions.
pub trait Versioned {
    /// What changes with every change, and with who looks where not all see the same.
    fn version(&self) -> String;
}

/// The strong entity tag of a version.
fn entity_tag(version: &str) -> String {
    format!("\"{version}\"")
}

/// The revision that a tag of ours stands for. A weak one stands for none.
pub(super) fn revision_of(tag: &str) -> Option<i64> {
    tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok()
}

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
                .finish();
        }
        HttpResponse::Ok()
            .insert_header((header::ETAG, tag))
            // Kept by whoever likes, asked about each time.
            .insert_header((header::CACHE_CONTROL, "private, no-cache"))
            .json(self.0)
    }
}

/// A body that belongs to a long-running operation.
pub trait HasOperation {
    /// The operation.
    fn operation_id(&self) -> OperationId;

    /// Leaves out what is answered only once.
    fn without_secrets(&self, body: &mut Value) {
        let _ = body;
    }
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

impl<T: Serialize + HasOperation> Responder for Accepted<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Accepted()
            .insert_header((header::LOCATION, location(self.0.operation_id())))
            .insert_header((header::RETRY_AFTER, LOOK_AGAIN_SECONDS))
            .json(self.0)
    }
}

/// The answer of a request that may have been carried out before.
#[derive(Debug)]
pub struct Once<T>(Effect<Accepted<T>>);

impl<T> From<Effect<Accepted<T>>> for Once<T> {
    fn from(effect: Effect<Accepted<T>>) -> Self {
        Self(effect)
    }
}

impl<T: Serialize + HasOperation> Accepted<T> {
    /// What a replay of this answer says.
    pub fn record(&self) -> Value {
        let mut body = serde_json::to_value(&self.0).unwrap_or_default();
        self.0.without_secrets(&mut body);
        json!({ "location": location(self.0.operation_id()), "body": body })
    }
}

impl<T: ToSchema> Describe for Once<T> {
    fn describe(sketch: &mut Sketch) {
        Accepted::<T>::describe(sketch);
    }
}

impl<T: Serialize + HasOperation> Responder for Once<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self.0 {
            Effect::Done(accepted) => accepted.respond_to(request),
            Effect::Replayed(record) => HttpResponse::Accepted()
                .insert_header((header::LOCATION, record["location"].as_str().unwrap_or_default()))
                .insert_header((header::RETRY_AFTER, LOOK_AGAIN_SECONDS))
                .insert_header(("Idempotency-Replayed", "true"))
                .json(&record["body"]),
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

/// Lets wrappers that only add documentation answer as what they wrap.
macro_rules! respond_as_inner {
    ($($wrapper:ident),+) => { $(
        impl<T: serde::Serialize + $crate::route::HasOperation> actix_web::Responder for $wrapper<T> {
            type Body = actix_web::body::BoxBody;

            fn respond_to(self, request: &actix_web::HttpRequest) -> actix_web::HttpResponse {
                self.0.respond_to(request)
            }
        }
    )+ };
}
pub(crate) use respond_as_inner;
