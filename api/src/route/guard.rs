//! What stands before every handler. [`Authz`] proves that the caller has a permission, now; [`Reads`] has it proved in
//! the statement that reads; [`Public`] says that nothing need be proved.

use std::{ops::Deref, sync::Arc};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest, ResponseError as _, dev::Payload, http::StatusCode, web,
};
use futures::future::{Either, LocalBoxFuture, Ready, ready};
use platform::{
    Platform,
    auth::Credential,
    caller::{Caller, Origin},
    permissions::Permission,
    reader::Reader,
    values::Role,
};

use super::sketch::{Describe, Sketch};
use crate::{
    limits::{Shown, client_address},
    problem::{ApiError, ErrorCode},
    request_id::RequestId,
    state::State,
};

/// The first argument of a handler.
pub trait Guard: Describe {
    /// Whether it lets nobody pass without a credential. What it refuses, or the handler behind it, is written down.
    const CREDENTIAL: bool;
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Action {
    /// The operation's name in the document.
    pub operation_id: &'static str,
    /// The pattern of its path.
    pub path: &'static str,
    /// Whether it knows no query parameter and refuses all.
    pub refuses_query: bool,
}

/// The request, as the log knows it.
fn origin_of(request: &HttpRequest) -> Origin {
    Origin {
        request_id: RequestId::of(request).as_str().into(),
        address: client_address(request),
        action: request
            .extensions()
            .get::<Action>()
            .map_or("", |action| action.operation_id),
    }
}

/// Writes down that somebody with a credential was refused something that changes things. What is no refusal but a
/// failure of ours is not.
pub(super) async fn record_refusal<G: Guard>(request: &HttpRequest, refusal: &ApiError) {
    let Shown::Good(credential) = Shown::of(request) else {
        return;
    };
    let refused =
        refusal.status_code().is_client_error() && refusal.status_code() != StatusCode::TOO_MANY_REQUESTS;
    if !G::CREDENTIAL || !refused {
        return;
    }
    let path = request.match_info();
    let thing = path.get("id").or_else(|| path.get("user_id"));
    state_of(request)
        .platform
        .record_refusal(&credential, &origin_of(request), thing, refusal.code().code())
        .await;
}

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

impl<P: Permission> Guard for Authz<P> {
    const CREDENTIAL: bool = true;
}

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
        let credential = credential(request);
        let origin = origin_of(request);
        Box::pin(async move {
            let caller = state.platform.authorize::<P>(&credential?, origin).await?;
            Ok(Self { caller })
        })
    }
}

/// What the request shows of itself, if it is good.
fn credential(request: &HttpRequest) -> Result<Credential, ApiError> {
    match Shown::of(request) {
        Shown::Good(credential) => Ok(credential),
        Shown::Nothing => Err(ApiError::new(ErrorCode::Unauthenticated)),
        Shown::Refused(error) => Err(error),
    }
}

/// A caller whose credential is good and who only reads. Whether the session and the permission `P` still hold is asked with
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

impl<P: Permission> Guard for Reads<P> {
    const CREDENTIAL: bool = true;
}

impl<P: Permission> Describe for Reads<P> {
    fn describe(sketch: &mut Sketch) {
        describe_permission::<P>(sketch);
    }
}

impl<P: Permission> FromRequest for Reads<P> {
    type Error = ApiError;
    type Future = Either<Ready<Result<Self, ApiError>>, LocalBoxFuture<'static, Result<Self, ApiError>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = state_of(request);
        let credential = match credential(request) {
            Ok(credential) => credential,
            Err(error) => return Either::Left(ready(Err(error))),
        };
        let origin = origin_of(request);
        if P::LEAST == Role::Viewer && !P::ROOT_ONLY && !P::PERSON_ONLY {
            let reader = state.platform.reader(credential, origin);
            return Either::Left(ready(Ok(Self { reader, state })));
        }
        // What many lack is asked beforehand too: they are told so before they are told what is wrong with the request.
        Either::Right(Box::pin(async move {
            state.platform.authorize::<P>(&credential, origin.clone()).await?;
            let reader = state.platform.reader(credential, origin);
            Ok(Self { reader, state })
        }))
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
    origin: Origin,
}

impl Public {
    /// The platform, for what belongs to nobody.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.state.platform
    }

    /// The request, as the log knows it.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What the process shares.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl Guard for Public {
    const CREDENTIAL: bool = false;
}

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
            origin: origin_of(request),
        }))
    }
}
