//! The route table: the one place from which the router, the OpenAPI document and the tests are made. An endpoint
//! enters it only with a handler whose first argument is a [`Guard`]: [`Authz`] with a permission, or [`Public`] with a
//! reason. Clippy forbids actix's own ways of adding a route elsewhere.

mod accept;
mod answer;
mod body;
mod events;
mod extract;
mod guard;
mod sketch;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use actix_web::{
    FromRequest, Handler as ActixHandler, HttpMessage as _, HttpRequest, Responder, Route, dev::Payload,
    http::Method, web,
};
pub use answer::{
    Accepted, Answer, Created, HasLocation, HasOperation, Html, Lines, NoContent, Once, Raw, Recorded,
    Replayable, Reply, Resource,
};
pub use body::{Body, MaybeBody, MergePatch, NoBody, Patch};
pub use events::{Event, Events, LastEventId};
pub use extract::{Id, IdempotencyKey, IfMatch, Query, UserAgent, UserInPath};
pub use guard::{Action, Authz, Guard, Public, Reads};
pub use platform::precondition::Versioned;
pub use sketch::{Describe, Sketch};

use futures::FutureExt as _;
use utoipa::openapi::path::ParameterIn;

use crate::problem::{ApiError, ErrorCode};

/// Where the API is; what is beside it is for browsers and probes, which may add what they like.
const API: &str = "/v1/";

/// One row of the route table.
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// Unique; SDKs name their functions after it.
    pub operation_id: &'static str,
    /// The group in the documentation.
    pub tag: &'static str,
    /// A few words.
    pub summary: &'static str,
    /// What it does, for a reader who has only this.
    pub description: &'static str,
    /// What the handler's arguments and answer say of themselves.
    pub sketch: Sketch,
    route: Box<dyn Fn() -> Route + Send + Sync>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.method, self.path, self.operation_id)
    }
}

/// An endpoint that has no handler yet.
#[must_use = "an endpoint is nothing without its handler"]
#[derive(Debug)]
pub struct EndpointBuilder {
    method: Method,
    path: &'static str,
    operation_id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    errors: &'static [ErrorCode],
}

/// Begins an endpoint.
pub fn endpoint(method: Method, path: &'static str, operation_id: &'static str) -> EndpointBuilder {
    EndpointBuilder {
        method,
        path,
        operation_id,
        tag: "",
        summary: "",
        description: "",
        errors: &[],
    }
}

impl EndpointBuilder {
    /// Groups it in the documentation.
    pub fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    /// Says what it does: a few words, then the whole.
    pub fn about(mut self, summary: &'static str, description: &'static str) -> Self {
        self.summary = summary;
        self.description = description;
        self
    }

    /// Names errors of its own, beside those that its handler's arguments and answer can have.
    pub fn errors(mut self, errors: &'static [ErrorCode]) -> Self {
        self.errors = errors;
        self
    }

    /// Ends it with its handler, whose first argument guards it.
    pub fn to<H, Args>(self, handler: H) -> Endpoint
    where
        H: Guarded<Args> + Send + Sync,
    {
        let Self {
            method,
            path,
            operation_id,
            tag,
            summary,
            description,
            errors,
        } = self;
        let mut sketch = Sketch::default();
        H::describe(&mut sketch);
        let takes_query = sketch
            .parameters
            .iter()
            .any(|parameter| parameter.parameter_in == ParameterIn::Query);
        let refuses_query = !takes_query && path.starts_with(API);
        if refuses_query {
            sketch.errors(&[ErrorCode::Invalid]);
        }
        sketch.errors(errors);
        let media_types: Arc<[String]> = sketch
            .answers
            .values()
            .flat_map(|answer| answer.content.keys().cloned())
            .collect();
        if !media_types.is_empty() {
            sketch.errors(&[ErrorCode::NotAcceptable]);
        }
        let of_route = method.clone();
        let action = Action {
            operation_id,
            path,
            refuses_query,
        };
        let route = Box::new(move || {
            handler
                .clone()
                .route(of_route.clone(), action, media_types.clone())
        });
        Endpoint {
            method,
            path,
            operation_id,
            tag,
            summary,
            description,
            sketch,
            route,
        }
    }
}

/// A function that can stand behind an endpoint: its first argument is a guard, the others and its answer describe
/// themselves.
pub trait Guarded<Args>: Clone + 'static {
    /// Adds what the function's signature says to a sketch.
    fn describe(sketch: &mut Sketch);
    /// Makes the route of an operation, which answers in one of these media types.
    fn route(self, method: Method, action: Action, media_types: Arc<[String]>) -> Route;
}

/// Takes an argument from a request.
async fn extract<T>(request: &HttpRequest, payload: &mut Payload) -> Result<T, ApiError>
where
    T: FromRequest,
    ApiError: From<T::Error>,
{
    Ok(T::from_request(request, payload).await?)
}

macro_rules! guarded {
    ($($argument:ident)*) => {
        impl<F, Fut, G, $($argument,)* A> Guarded<(G, $($argument,)*)> for F
        where
            F: Fn(G, $($argument),*) -> Fut + ActixHandler<(G, $($argument,)*), Output = Result<A, ApiError>, Future = Fut>,
            Fut: Future<Output = Result<A, ApiError>> + 'static,
            G: Guard + FromRequest<Error = ApiError> + 'static,
            $($argument: Describe + FromRequest<Error = ApiError> + 'static,)*
            A: Answer + Responder + 'static,
        {
            fn describe(sketch: &mut Sketch) {
                G::describe(sketch);
                $($argument::describe(sketch);)*
                A::describe(sketch);
            }

            #[allow(clippy::disallowed_methods, reason = "the one place where routes are made")]
            #[allow(non_snake_case, reason = "an argument is named as its type")]
            fn route(self, method: Method, action: Action, media_types: Arc<[String]>) -> Route {
                let changes = !method.is_safe();
                web::method(method).to(move |request: HttpRequest, payload: web::Payload| {
                    let (handler, media_types) = (self.clone(), media_types.clone());
                    async move {
                        request.extensions_mut().insert(action);
                        let answered = async {
                            // One after the other, the guard first: who may not do a thing is not told what is wrong
                            // with the request.
                            let mut payload = payload.into_inner();
                            let guard = extract::<G>(&request, &mut payload).await?;
                            accept::check(&request, &media_types)?;
                            if action.refuses_query {
                                extract::check_no_query(&request)?;
                            }
                            $(let $argument = extract::<$argument>(&request, &mut payload).await?;)*
                            let answer = AssertUnwindSafe(handler(guard, $($argument),*)).catch_unwind();
                            answer.await.unwrap_or_else(|_| {
                                tracing::error!("a handler panicked");
                                Err(ApiError::new(ErrorCode::Internal))
                            })
                        };
                        let answered: Result<A, ApiError> = answered.await;
                        if changes && let Err(refusal) = &answered {
                            guard::record_refusal::<G>(&request, refusal).await;
                        }
                        answered
                    }
                })
            }
        }
    };
}

guarded!();
guarded!(A1);
guarded!(A1 A2);
guarded!(A1 A2 A3);
guarded!(A1 A2 A3 A4);

/// Every endpoint of the API.
#[derive(Debug)]
pub struct RouteTable(Vec<Endpoint>);

impl RouteTable {
    /// From the endpoints of all modules.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self(endpoints)
    }

    /// The rows.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter()
    }

    /// Adds all routes to an application. A path with another method answers 405 with `Allow`.
    ///
    /// Each collection is a scope, passed over by its name alone: a request is compared with the patterns of one, and not
    /// with those of all.
    #[allow(clippy::disallowed_methods, reason = "the one place where routes are made")]
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        let mut collections: BTreeMap<&'static str, BTreeMap<&'static str, Vec<&Endpoint>>> = BTreeMap::new();
        for endpoint in &self.0 {
            let (collection, rest) = endpoint.path.split_at(collection_end(endpoint.path));
            let by_path = collections.entry(collection).or_default();
            by_path.entry(rest).or_default().push(endpoint);
        }
        for (collection, by_path) in collections {
            let mut scope = web::scope(collection);
            for (rest, endpoints) in by_path {
                scope = scope.service(resource(rest, &endpoints));
            }
            config.service(scope);
        }
    }
}

/// Where the collection's name in a path ends: `/v1/tenants` of `/v1/tenants/{id}`.
fn collection_end(path: &str) -> usize {
    let name = if path.starts_with(API) {
        API.len()
    } else {
        "/".len()
    };
    path[name..].find('/').map_or(path.len(), |end| name + end)
}

#[allow(clippy::disallowed_methods, reason = "the one place where routes are made")]
fn resource(path: &str, endpoints: &[&Endpoint]) -> actix_web::Resource {
    let mut allow: Vec<&str> = endpoints
        .iter()
        .map(|endpoint| endpoint.method.as_str())
        .collect();
    allow.sort_unstable();
    let allow = allow.join(", ");
    let mut resource = web::resource(path);
    for endpoint in endpoints {
        resource = resource.route((endpoint.route)());
    }
    resource.default_service(web::to(move || {
        let refusal = ApiError::method_not_allowed(&allow);
        async move { Err::<&'static str, _>(refusal) }
    }))
}
