//! What a handler's signature says of an endpoint, gathered for the OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema, path::Parameter, request_body::RequestBody, response::Response},
};

use crate::problem::ErrorCode;

/// Something that adds to an endpoint's documentation: a guard, an extractor or an answer.
pub trait Describe {
    /// Adds it.
    fn describe(sketch: &mut Sketch);
}

/// What is known of an endpoint from its handler's signature.
#[derive(Default)]
pub struct Sketch {
    /// The permission that it demands; `None`: it is public.
    pub permission: Option<&'static str>,
    /// Path and query parameters and headers.
    pub parameters: Vec<Parameter>,
    /// The body that it takes.
    pub request_body: Option<RequestBody>,
    /// Its good answers, by status.
    pub answers: BTreeMap<u16, Response>,
    /// Its answer to who has the present version already.
    pub conditional: Option<Response>,
    /// The errors that it can answer.
    pub errors: BTreeSet<ErrorCode>,
    /// The schemas that it mentions, by name.
    pub schemas: BTreeMap<String, RefOr<Schema>>,
}

impl Sketch {
    /// Adds a schema with all that it mentions, and answers a reference to it.
    pub fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        let mut mentioned = Vec::new();
        T::schemas(&mut mentioned);
        self.schemas.extend(mentioned);
        self.schemas.insert(name.clone(), T::schema());
        utoipa::openapi::Ref::from_schema_name(name).into()
    }

    /// Adds errors.
    pub fn errors(&mut self, codes: &[ErrorCode]) {
        self.errors.extend(codes);
    }
}
