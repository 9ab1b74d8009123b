//! The middleware that counts requests: by session or API key where the credential is good, else by address. It verifies the bearer
//! token on the way, so that nobody makes up credentials to be counted as many, and leaves what it found for the guard.

use std::{net::IpAddr, rc::Rc, time::Duration};

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    web,
};
use futures::future::LocalBoxFuture;
use platform::{
    auth::{Bearer, Credential},
    limits::{Standing, Subject},
};

use crate::{
    problem::{ApiError, ErrorCode},
    state::State,
};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What a request shows of itself, as the middleware found it.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// No bearer token, or not exactly one.
    Nothing,
    /// One that is good, as far as can be told without asking whether it still counts.
    Good(Credential),
    /// One that is not, or could not be checked.
    Refused(ApiError),
}

impl Shown {
    /// What the middleware left.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or(Self::Nothing)
    }
}

/// The middleware.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits;

impl<S, B> Transform<S, ServiceRequest> for RateLimits
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
        }))
    }
}

/// The middleware of one server thread.
#[derive(Debug)]
pub struct Middleware<S> {
    service: Rc<S>,
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
        let service = self.service.clone();
        let state = request
            .app_data::<web::Data<State>>()
            .cloned()
            .expect("the application is built with its state");
        Box::pin(async move {
            if state.ending.is_cancelled() {
                // An answer and no error, here and below: what stands around this gives it its request id, counts and logs it.
                let refusal = ApiError::new(ErrorCode::ShuttingDown).retry_after(Duration::from_secs(1));
                return Ok(request.error_response(refusal).map_into_right_body());
            }
            let (shown, standing) = look(&state, request.request()).await;
            if !standing.granted {
                return Ok(request.error_response(refusal(standing)).map_into_right_body());
            }
            request.extensions_mut().insert(shown);
            let mut response = service.call(request).await?.map_into_left_body();
            tell(response.headers_mut(), standing);
            Ok(response)
        })
    }
}

/// What a request shows, and how whoever is counted for it stands.
async fn look(state: &State, request: &HttpRequest) -> (Shown, Standing) {
    let bearer = match bearer(request) {
        None => Ok(None),
        Some(bearer) => state.platform.bearer(&bearer).await.map(Some),
    };
    let address = Subject::Address(client_address(request));
    match bearer {
        Ok(None) => (Shown::Nothing, state.limiter.take(address).await),
        Err(error) => (Shown::Refused(error.into()), state.limiter.take(address).await),
        Ok(Some(Bearer::Known(credential))) => {
            let standing = state.limiter.take(credential.subject()).await;
            (Shown::Good(credential), standing)
        }
        Ok(Some(Bearer::Unseen(hash))) => {
            // Anybody can make up something of the form of a key: to ask for it counts for the address.
            let standing = state.limiter.take(address).await;
            if !standing.granted {
                return (Shown::Nothing, standing);
            }
            match state.platform.look_up(hash).await {
                Ok(credential) => {
                    let standing = state.limiter.take(credential.subject()).await;
                    (Shown::Good(credential), standing)
                }
                Err(error) => (Shown::Refused(error.into()), standing),
            }
        }
    }
}

fn refusal(standing: Standing) -> ApiError {
    ApiError::new(ErrorCode::RateLimited)
        .retry_after(standing.retry_after)
        .rate_limit(standing)
}

/// Adds the numbers of a standing.
pub(crate) fn tell(headers: &mut HeaderMap, standing: Standing) {
    headers.insert(LIMIT, HeaderValue::from(standing.limit));
    headers.insert(REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RESET, HeaderValue::from(seconds(standing.reset)));
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The one bearer token of a request. A second `Authorization` header makes it none.
fn bearer(request: &HttpRequest) -> Option<String> {
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let value = headers.next()?.to_str().ok()?;
    if headers.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= 4096)
        .then(|| token.to_owned())
}

/// Where a request comes from. What a proxy says is believed only of a trusted one, and only its own word: the last
/// address that is not a trusted proxy's.
pub(crate) fn client_address(request: &HttpRequest) -> IpAddr {
    let peer = request
        .peer_addr()
        .map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
    let trusted = |address: IpAddr| {
        request
            .app_data::<web::Data<State>>()
            .is_some_and(|state| state.trusted_proxies.contains(&address))
    };
    if !trusted(peer) {
        return peer;
    }
    // From the right, as each proxy adds to the end: what stands before the first that is not a trusted proxy's own word
    // may be anything.
    let headers: Vec<&str> = request
        .headers()
        .get_all("x-forwarded-for")
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    headers
        .iter()
        .rev()
        .flat_map(|value| value.rsplit(','))
        .map_while(|address| address.trim().parse().ok())
        .find(|address| !trusted(*address))
        .unwrap_or(peer)
}
