//! What stands before every handler. [`Authz`] proves that the caller has a permission, now; [`Reads`] has it proved in
//! the statement that reads; [`Public`] says that nothing need be proved.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use futures::future::LocalBoxFuture;
use platform::{Platform, auth::Claims, caller::Caller, permissions::Permission, reader::Reader};

use super::sketch::{Describe, Sketch};
use crate::{
    limits::{Credential, client_address},
    problem::{ApiError, ErrorCode},
    request_id::RequestId,
    state::State,
};

/// The first argument of a handler.
pub trait Guard: Describe {}

/// A caller that has the permission `P`. Only it leads to the stores that change something.
#[derive(Debug)]
pub struct Authz<P> {
    caller: Caller<P>,
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
        describe_permission::<P>(sketch);
    }
}

fn describe_permission<P: Permission>(sketch: &mut Sketch) {
    sketch.permission = Some(P::ID);
    sketch.errors(&[
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
        ErrorCode::RateLimited,
        ErrorCode::Unavailable,
        ErrorCode::Internal,
    ]);
}

impl<P: Permission> FromRequest for Authz<P> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = state_of(request);
        let claims = claims(request);
        let request_id = RequestId::of(request);
        Box::pin(async move {
            let caller = state
                .platform
                .authorize::<P>(&*claims?, request_id.as_str())
                .await?;
            Ok(Self { caller })
        })
    }
}

/// What the request's token says, if it is good.
fn claims(request: &HttpRequest) -> Result<Arc<Claims>, ApiError> {
    match Credential::of(request) {
        Credential::Verified(claims) => Ok(claims),
        Credential::Missing => Err(ApiError::new(ErrorCode::Unauthenticated)),
        Credential::Refused(error) => Err(error),
    }
}

/// A caller whose token is good and who only reads. Whether the session and the permission `P` still hold is asked with
/// each read, in the same statement; a [`Reader`] has no other way to the database.
#[derive(Debug)]
pub struct Reads<P> {
    reader: Reader<P>,
    state: web::Data<State>,
}

impl<P> Reads<P> {
    /// What the process shares.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl<P> Deref for Reads<P> {
    type Target = Reader<P>;

    fn deref(&self) -> &Reader<P> {
        &self.reader
    }
}

impl<P: Permission> Guard for Reads<P> {}

impl<P: Permission> Describe for Reads<P> {
    fn describe(sketch: &mut Sketch) {
        describe_permission::<P>(sketch);
    }
}

impl<P: Permission> FromRequest for Reads<P> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = state_of(request);
        let reader = claims(request).map(|claims| {
            let request_id = RequestId::of(request);
            let reader = state.platform.reader(claims, request_id.as_str());
            Self { reader, state }
        });
        std::future::ready(reader)
    }
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
    address: IpAddr,
}

impl Public {
    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.state.platform
    }

    /// Where the request comes from.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
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
        sketch.errors(&[ErrorCode::RateLimited, ErrorCode::Internal]);
    }
}

impl FromRequest for Public {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Ok(Self {
            state: state_of(request),
            address: client_address(request),
        }))
    }
}
