//! Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

use std::time::Duration;

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, Responder, body::BoxBody, dev::Payload, http::header, web::Bytes,
};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use utoipa::openapi::{
    ContentBuilder, ObjectBuilder, Required, Type,
    path::{ParameterBuilder, ParameterIn},
    response::ResponseBuilder,
};

use super::sketch::{Describe, Sketch};
use crate::problem::ApiError;

/// After so long without an event a comment keeps the connection open.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// One event.
#[derive(Debug)]
pub struct Event {
    name: &'static str,
    id: i64,
    data: String,
}

impl Event {
    /// An event with a JSON value.
    #[must_use]
    pub fn new(name: &'static str, id: i64, data: &impl Serialize) -> Self {
        Self {
            name,
            id,
            // In one line, as serde_json writes it: a line break would end the field.
            data: serde_json::to_string(data).unwrap_or_default(),
        }
    }

    fn to_bytes(&self) -> Bytes {
        format!("event: {}\nid: {}\ndata: {}\n\n", self.name, self.id, self.data).into()
    }
}

/// A stream of events: 200 that goes on.
pub struct Events(stream::LocalBoxStream<'static, Event>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Answers with these, as they come.
    pub fn new(events: impl Stream<Item = Event> + 'static) -> Self {
        Self(events.boxed_local())
    }
}

impl Describe for Events {
    fn describe(sketch: &mut Sketch) {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let response = ResponseBuilder::new()
            .description("The events, as they come. A comment is sent every 15 seconds.")
            .content(
                "text/event-stream",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build();
        sketch.answers.insert(200, response);
    }
}

impl Responder for Events {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let lines = stream::unfold(Some(self.0), async |events| {
            let mut events = events?;
            match tokio::time::timeout(COMMENT_EVERY, events.next()).await {
                Ok(Some(event)) => Some((event.to_bytes(), Some(events))),
                Ok(None) => None,
                Err(_) => Some((Bytes::from_static(b": still here\n\n"), Some(events))),
            }
        });
        // The headers go out at once, though nothing may happen for long.
        let opening = stream::once(async { Bytes::from_static(b": open\n\n") });
        HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header(("X-Accel-Buffering", "no"))
            .streaming(opening.chain(lines).map(Ok::<_, std::convert::Infallible>))
    }
}

/// The `Last-Event-ID` header: the id of the last event that a client has seen.
#[derive(Debug)]
pub struct LastEventId(pub Option<i64>);

impl Describe for LastEventId {
    fn describe(sketch: &mut Sketch) {
        sketch.parameters.push(
            ParameterBuilder::new()
                .name("Last-Event-ID")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "The `id` of the last event seen: only what changed since is sent. Another text is as if it were absent.",
                ))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
                .build(),
        );
    }
}

impl FromRequest for LastEventId {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = request
            .headers()
            .get("last-event-id")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        std::future::ready(Ok(Self(id)))
    }
}
