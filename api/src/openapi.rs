//! The OpenAPI document, made of the route table: what an endpoint is, what it demands and what it can answer stand in
//! its handler's signature, so the document can't say otherwise.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Value, json};
use utoipa::{
    ToSchema as _,
    openapi::{
        ComponentsBuilder, ContentBuilder, HeaderBuilder, InfoBuilder, License, ObjectBuilder, OpenApi,
        OpenApiBuilder, PathItem, Paths, Ref, RefOr, Required, ResponseBuilder, SecurityRequirement, Type,
        extensions::ExtensionsBuilder,
        path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn},
        security::{Http, HttpAuthScheme, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    problem::{ErrorCode, Problem},
    route::{Endpoint, RouteTable},
};

/// What operations were asked and said when the examples were recorded, by operation id.
static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../openapi/examples.json")).expect("the recorded examples are JSON")
});

/// One side of an operation's example.
fn example(endpoint: &Endpoint, side: &str) -> Option<Value> {
    EXAMPLES.get(endpoint.operation_id)?.get(side).cloned()
}

const TAGS: &[(&str, &str)] = &[
    ("auth", "Credentials: signing in, refreshing, logging out."),
    (
        "organizations",
        "Accounts: a tree of the operator, resellers and customers.",
    ),
    (
        "members",
        "People with a role in an organization, and invitations.",
    ),
    ("api-keys", "Credentials for programs."),
    ("audit", "What was done and refused, by whom."),
    ("me", "Who is calling."),
    ("tenants", "Odoo databases with what belongs to them."),
    (
        "operations",
        "Long-running pieces of work: their status, progress and errors.",
    ),
    ("system", "What the platform says of itself."),
];

/// The document.
#[must_use]
pub fn document(table: &RouteTable) -> OpenApi {
    let mut components = ComponentsBuilder::new().security_scheme(
        "bearer",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT or API key")
                .description(Some(
                    "An access token of `POST /v1/auth/token`, or the secret of an API key, which begins with `osk_`.",
                ))
                .build(),
        ),
    );
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    components = components.schema(Problem::name(), <Problem as utoipa::PartialSchema>::schema());
    for (name, schema) in schemas {
        components = components.schema(name, schema);
    }
    let mut paths = Paths::new();
    for endpoint in table.endpoints() {
        for (name, schema) in &endpoint.sketch.schemas {
            components = components.schema(name, schema.clone());
        }
        let item = PathItem::new(method(endpoint), operation(endpoint));
        match paths.paths.get_mut(endpoint.path) {
            Some(known) => known.merge_operations(item),
            None => {
                paths.paths.insert(endpoint.path.to_owned(), item);
            }
        }
    }
    let mut components = components.build();
    for (name, header) in common_headers() {
        components.headers.insert(name.to_owned(), header.into());
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Odoo SaaS Platform")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Sells Odoo as a service: tenants appear, are billed, backed up, upgraded, suspended and deleted, \
                     each an Odoo database of its own.\n\nLong work answers 202 with an operation, which \
                     `GET /v1/operations/{id}?wait=60` waits for. Every error is `application/problem+json`; its \
                     `code` is stable. Requests with an `Idempotency-Key` may be sent again. Within `/v1` changes only \
                     add.",
                ))
                .license(Some(License::builder().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
                .build(),
        )
        .paths(paths)
        .components(Some(components))
        .tags(Some(TAGS.iter().map(|(name, about)| TagBuilder::new().name(*name).description(Some(*about)).build())))
        .build()
}

fn method(endpoint: &Endpoint) -> HttpMethod {
    match endpoint.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn operation(endpoint: &Endpoint) -> utoipa::openapi::path::Operation {
    let sketch = &endpoint.sketch;
    let mut operation = OperationBuilder::new()
        .operation_id(Some(endpoint.operation_id))
        .tag(endpoint.tag)
        .summary(Some(endpoint.summary))
        .description(Some(endpoint.description))
        .request_body(sketch.request_body.clone().map(|mut body| {
            for content in body.content.values_mut() {
                if let RefOr::T(content) = content {
                    content.example = example(endpoint, "request");
                }
            }
            body
        }));
    for parameter in &sketch.parameters {
        operation = operation.parameter(parameter.clone());
    }
    operation = match sketch.permission {
        Some(permission) => operation
            .security(SecurityRequirement::new::<_, [&str; 0], &str>("bearer", []))
            .extensions(Some(
                ExtensionsBuilder::new()
                    .add("x-required-permission", permission)
                    .build(),
            )),
        // An empty list: no credential.
        None => operation.securities(Some([])),
    };
    for (status, answer) in &sketch.answers {
        let mut answer = answer.clone();
        if *status < 300
            && let Some(RefOr::T(content)) = answer.content.get_mut("application/json")
        {
            content.example = example(endpoint, "response");
        }
        operation = operation.response(status.to_string(), with_common_headers(answer));
    }
    // A conditional request is one that only reads.
    if let Some(unchanged) = &sketch.conditional
        && endpoint.method == actix_web::http::Method::GET
    {
        operation = operation
            .parameter(if_none_match())
            .response("304", with_common_headers(unchanged.clone()));
    }
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in &sketch.errors {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    for (status, codes) in by_status {
        if !sketch.answers.contains_key(&status) {
            operation = operation.response(status.to_string(), refusal(&codes));
        }
    }
    operation.build()
}

/// The answer for errors of one status.
fn refusal(codes: &[ErrorCode]) -> utoipa::openapi::Response {
    let description = codes
        .iter()
        .map(|code| format!("`{}`: {}.", code.code(), code.title()))
        .collect::<Vec<_>>()
        .join(" ");
    let example = crate::problem::ApiError::new(codes[0]).problem("01934f6e-7a10-7cc0-8d4e-5f60718293a4");
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .example(serde_json::to_value(example).ok())
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    if codes
        .iter()
        .any(|code| [409, 429, 503].contains(&code.status().as_u16()))
    {
        response = response.header(
            "Retry-After",
            HeaderBuilder::new()
                .description(Some("Seconds after which another try makes sense."))
                .schema(Some(ObjectBuilder::new().schema_type(Type::Integer)))
                .build(),
        );
    }
    if codes[0].status().as_u16() == 401 {
        response = response.header(
            "WWW-Authenticate",
            HeaderBuilder::new()
                .description(Some("`Bearer`."))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build(),
        );
    }
    with_common_headers(response.build())
}

/// The headers that every answer has.
fn common_headers() -> [(&'static str, utoipa::openapi::Header); 4] {
    let number = |about: &str| {
        HeaderBuilder::new()
            .description(Some(about))
            .schema(Some(
                ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)),
            ))
            .build()
    };
    [
        ("X-Request-Id", request_id_header()),
        (
            "RateLimit-Limit",
            number("Requests that the credential may make at once."),
        ),
        ("RateLimit-Remaining", number("How many of them are left.")),
        ("RateLimit-Reset", number("Seconds until all are back.")),
    ]
}

/// Adds references to the headers that every answer has.
fn with_common_headers(mut answer: utoipa::openapi::Response) -> utoipa::openapi::Response {
    for (name, _) in common_headers() {
        let reference = Ref::new(format!("#/components/headers/{name}"));
        answer.headers.insert(name.to_owned(), RefOr::Ref(reference));
    }
    answer
}

fn if_none_match() -> utoipa::openapi::path::Parameter {
    ParameterBuilder::new()
        .name("If-None-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The `ETag` that you have: 304 says that it is still the present one.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .build()
}

fn request_id_header() -> utoipa::openapi::Header {
    HeaderBuilder::new()
        .description(Some("The request's id, as in the logs."))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .examples([json!("01934f6e-7a10-7cc0-8d4e-5f60718293a4")]),
        ))
        .build()
}

/// The document as it is served and committed.
#[must_use]
pub fn text(table: &RouteTable) -> String {
    document(table)
        .to_pretty_json()
        .expect("the document is plain data")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let committed = include_str!("../../openapi/openapi.json");
        assert!(
            committed == text(&crate::table()),
            "write it anew: cargo xtask openapi"
        );
    }

    #[test]
    fn the_page_of_error_codes_is_what_the_code_says() {
        let committed = include_str!("../../docs/errors.md");
        assert!(
            committed == crate::problem::reference(),
            "write it anew: cargo xtask openapi"
        );
    }

    #[test]
    fn the_page_of_permissions_is_what_the_code_says() {
        let committed = include_str!("../../docs/permissions.md");
        assert!(
            committed == crate::permission_reference(),
            "write it anew: cargo xtask openapi"
        );
    }

    #[test]
    fn every_endpoint_is_described_and_named_once() {
        let table = crate::table();
        let mut names = HashSet::new();
        for endpoint in table.endpoints() {
            assert!(
                names.insert(endpoint.operation_id),
                "{} is named twice",
                endpoint.operation_id
            );
            assert!(
                TAGS.iter().any(|(tag, _)| *tag == endpoint.tag),
                "{endpoint:?} has no known tag"
            );
            assert!(
                !endpoint.summary.is_empty() && !endpoint.description.is_empty(),
                "{endpoint:?} says nothing"
            );
            assert!(
                !endpoint.sketch.answers.is_empty(),
                "{endpoint:?} answers nothing"
            );
            let public = endpoint.sketch.permission.is_none();
            let says_so = endpoint.description.contains("Public");
            assert_eq!(
                public, says_so,
                "{endpoint:?}: a public endpoint says why it is, and no other does"
            );
        }
    }

    #[test]
    fn only_known_permissions_are_demanded_and_each_is_demanded_somewhere() {
        let table = crate::table();
        let demanded: HashSet<&str> = table
            .endpoints()
            .filter_map(|endpoint| endpoint.sketch.permission)
            .collect();
        let known: HashSet<&str> = platform::permissions::TABLE.iter().map(|row| row.id).collect();
        assert_eq!(demanded, known);
    }

    #[test]
    fn codes_are_unique() {
        let codes: HashSet<&str> = ErrorCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
    }
}
