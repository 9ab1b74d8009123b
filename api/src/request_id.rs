//! The outermost middleware: gives every request an id, writes the body of every error, turns a panic into one, counts
//! and logs. It alone sees the end of every request.

use std::{borrow::Cow, panic::AssertUnwindSafe, rc::Rc, time::Instant};

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http::header::{self, HeaderName, HeaderValue},
};
use futures::{FutureExt as _, future::LocalBoxFuture};

use crate::{
    metrics::HttpMetrics,
    problem::{ApiError, ErrorCode},
    route::Action,
};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: the client's own, if it is fit, or one of ours.
#[derive(Debug, Clone)]
pub struct RequestId(Rc<str>);

impl RequestId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that a request was given.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or_else(Self::new)
    }

    fn new() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }

    fn accepted(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let fine = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        fine.then(|| Self(text.into()))
    }
}

/// Marks an answer that has a body of its own although its status is an error's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnBody;

/// The middleware.
#[derive(Debug, Clone)]
pub struct RequestIds {
    metrics: HttpMetrics,
}

impl RequestIds {
    /// Counts into these metrics.
    #[must_use]
    pub fn new(metrics: HttpMetrics) -> Self {
        Self { metrics }
    }
}

impl<S, B> Transform<S, ServiceRequest> for RequestIds
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B, BoxBody>>;
    type Error = Error;
    type Transform = Middleware<S>;
    type InitError = ();
    type Future = std::future::Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        std::future::ready(Ok(Middleware {
            service: Rc::new(service),
            metrics: self.metrics.clone(),
        }))
    }
}

/// The middleware of one server thread.
#[derive(Debug)]
pub struct Middleware<S> {
    service: Rc<S>,
    metrics: HttpMetrics,
}

impl<S, B> Service<ServiceRequest> for Middleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B, BoxBody>>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let begun = Instant::now();
        let (service, metrics) = (self.service.clone(), self.metrics.clone());
        let id = request
            .headers()
            .get(&HEADER)
            .and_then(RequestId::accepted)
            .unwrap_or_else(RequestId::new);
        request.extensions_mut().insert(id.clone());
        Box::pin(async move {
            let outcome = AssertUnwindSafe(service.call(request)).catch_unwind().await;
            let response = match outcome {
                Ok(response) => response?,
                // Handlers' own panics are caught where routes are made; this is for what stands before them. The
                // request is gone with the panic, so this answer lacks its id.
                Err(_) => {
                    tracing::error!(request_id = id.as_str(), "a request's preparation panicked");
                    return Err(ApiError::new(ErrorCode::Internal).into());
                }
            };
            let mut response = with_problem(response.map_into_left_body(), &id);
            if let Ok(value) = HeaderValue::from_str(id.as_str()) {
                response.headers_mut().insert(HEADER, value);
            }
            // To ask for the pattern would match the path once more, so only where no endpoint was reached.
            let action = response.request().extensions().get::<Action>().copied();
            let route = match action {
                Some(action) => Cow::Borrowed(action.path),
                None => response
                    .request()
                    .match_pattern()
                    .map_or("unmatched".into(), Cow::Owned),
            };
            let (method, status) = (response.request().method(), response.status().as_u16());
            metrics.observe(method.as_str(), &route, status, begun.elapsed());
            tracing::info!(
                target: "api::access",
                request_id = id.as_str(),
                method = method.as_str(),
                route = &*route,
                status,
                micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                "answered"
            );
            Ok(response)
        })
    }
}

/// Gives an error its body. One without a problem of its own comes from the HTTP library, and gets that of its status.
fn with_problem<B: MessageBody + 'static>(
    response: ServiceResponse<EitherBody<B, BoxBody>>,
    id: &RequestId,
) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let status = response.status();
    let has_own_body = response.response().extensions().get::<OwnBody>().is_some();
    if has_own_body || (!status.is_client_error() && !status.is_server_error()) {
        return response;
    }
    let carried = response.response().extensions().get::<ApiError>().cloned();
    let error = carried.unwrap_or_else(|| ApiError::of_status(status));
    error.log(id.as_str());
    let problem = error.problem(id.as_str());
    let (request, old) = response.into_parts();
    let mut new = HttpResponse::build(old.status());
    for (name, value) in old.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            new.append_header((name.clone(), value.clone()));
        }
    }
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let new = new.content_type("application/problem+json").body(body);
    ServiceResponse::new(request, new).map_into_right_body()
}
