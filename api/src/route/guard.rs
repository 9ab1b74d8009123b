//! What stands before every handler. [`Authz`] proves that the caller has a permission, now; [`Public`] says that
//! nothing need be proved.

use std::{ops::Deref, sync::Arc};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header, web};
use futures::future::LocalBoxFuture;
use platform::{Platform, caller::Caller, error::Error, permissions::Permission};

use super::sketch::{Describe, Sketch};
use crate::{
    problem::{ApiError, ErrorCode},
    request_id::RequestId,
    state::State,
};

/// The first argument of a handler.
pub trait Guard: Describe {}

/// A caller that has the permission `P`. Only it leads to the stores.
#[derive(Debug)]
pub struct Authz<P> {
    caller: Caller<P>,
    state: web::Data<State>,
}

impl<P> Authz<P> {
    /// What the process shares: the watcher of operations, and the like.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl<P> Deref for Authz<P> {
    type Target = Caller<P>;

    fn deref(&self) -> &Caller<P> {
        &self.caller
    }
}

impl<P: Permission> Guard for Authz<P> {}

impl<P: Permission> Describe for Authz<P> {
    fn describe(sketch: &mut Sketch) {
        sketch.permission = Some(P::ID);
        sketch.errors(&[
            ErrorCode::Unauthenticated,
            ErrorCode::Forbidden,
            ErrorCode::Unavailable,
            ErrorCode::Internal,
        ]);
    }
}

impl<P: Permission> FromRequest for Authz<P> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = state_of(request);
        let bearer = bearer(request);
        let request_id = RequestId::of(request);
        Box::pin(async move {
            let bearer = bearer.ok_or(Error::Unauthenticated)?;
            let caller = state
                .platform
                .authorize::<P>(&bearer, request_id.as_str())
                .await?;
            Ok(Self { caller, state })
        })
    }
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

fn state_of(request: &HttpRequest) -> web::Data<State> {
    request
        .app_data::<web::Data<State>>()
        .cloned()
        .expect("the application is built with its state")
}

/// Nobody need prove anything. For what is public by its nature; the endpoint's description says why.
#[derive(Debug)]
pub struct Public {
    state: web::Data<State>,
}

impl Public {
    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.state.platform
    }

    /// What the process shares.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl Guard for Public {}

impl Describe for Public {
    fn describe(sketch: &mut Sketch) {
        sketch.permission = None;
        sketch.errors(&[ErrorCode::Internal]);
    }
}

impl FromRequest for Public {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Ok(Self {
            state: state_of(request),
        }))
    }
}
