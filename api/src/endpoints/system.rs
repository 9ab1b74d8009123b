//! What the platform says of itself: whether it lives, whether it is ready, and what it can do.

use std::time::Duration;

use actix_web::{HttpResponse, http::Method};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_swagger_ui::Config;

use crate::{
    problem::ApiError,
    route::{Describe, Endpoint, Html, Public, Raw, Reply, Sketch, endpoint},
    state::State,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        endpoint(Method::GET, "/healthz", "get_health")
            .tag("system")
            .about(
                "Liveness",
                "Answers as long as the process can answer at all; asks nothing of its surroundings. Public, for \
                 supervisors.",
            )
            .to(health),
        endpoint(Method::GET, "/readyz", "get_readiness")
            .tag("system")
            .about(
                "Readiness",
                "Whether requests can be served, and which part is not ready. Without Redis they are served, only \
                 slower. Public, for load balancers.",
            )
            .to(readiness),
        endpoint(Method::GET, "/openapi.json", "get_openapi")
            .tag("system")
            .about("This document", "The API in OpenAPI 3.1. Public, as the contract is.")
            .to(openapi),
        endpoint(Method::GET, "/docs", "get_docs")
            .tag("system")
            .about("This documentation", "The API's documentation, for people. Public, as the contract is.")
            .to(docs),
        endpoint(Method::GET, "/docs/errors", "get_error_docs")
            .tag("system")
            .about("Error codes", "Every error code and what to do about it. Public, as the contract is.")
            .to(errors),
        endpoint(Method::GET, "/docs/{asset}", "get_docs_asset")
            .tag("system")
            .about("A part of the documentation", "Style sheets and scripts of the documentation. Public, like it.")
            .to(docs_asset),
    ]
}

/// Whether the process lives.
#[derive(Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether requests can be served.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// `ready`, or `not_ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Each part.
    components: Vec<Component>,
}

/// A part that the platform needs.
#[derive(Serialize, ToSchema)]
struct Component {
    /// Its name.
    #[schema(example = "database")]
    name: &'static str,
    /// Whether it answers.
    ready: bool,
    /// Whether requests can't be served without it.
    required: bool,
}

/// 200 when ready, 503 when not; the same body.
struct ReadinessAnswer(Readiness);

impl Describe for ReadinessAnswer {
    fn describe(sketch: &mut Sketch) {
        Reply::<Readiness>::describe(sketch);
        let mut not_ready = sketch.answers[&200].clone();
        not_ready.description = "Not ready; `components` says why.".to_owned();
        sketch.answers.insert(503, not_ready);
    }
}

impl actix_web::Responder for ReadinessAnswer {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &actix_web::HttpRequest) -> HttpResponse {
        let ready = self.0.status == "ready";
        let mut response = if ready {
            HttpResponse::Ok()
        } else {
            HttpResponse::ServiceUnavailable()
        };
        if !ready {
            response.insert_header(("Retry-After", "2"));
        }
        let mut response = response.json(self.0);
        response.extensions_mut().insert(crate::request_id::OwnBody);
        response
    }
}

async fn health(_: Public) -> Result<Reply<Health>, ApiError> {
    Ok(Reply(Health { status: "ok" }))
}

async fn readiness(public: Public) -> Result<ReadinessAnswer, ApiError> {
    let state = public.state();
    let (database, redis) = futures::join!(state.platform.ping_database(), redis_answers(state));
    let components = vec![
        Component {
            name: "database",
            ready: database.is_ok(),
            required: true,
        },
        Component {
            name: "redis",
            ready: redis,
            required: false,
        },
    ];
    let ready = components
        .iter()
        .all(|component| component.ready || !component.required);
    Ok(ReadinessAnswer(Readiness {
        status: if ready { "ready" } else { "not_ready" },
        components,
    }))
}

async fn redis_answers(state: &State) -> bool {
    let mut redis = state.redis.clone();
    let ping = redis::cmd("PING");
    matches!(
        tokio::time::timeout(Duration::from_secs(1), ping.query_async::<String>(&mut redis)).await,
        Ok(Ok(answer)) if answer == "PONG"
    )
}

async fn openapi(public: Public) -> Result<Raw, ApiError> {
    let document = public.state().openapi.to_string();
    Ok(Raw(HttpResponse::Ok()
        .content_type("application/json")
        .body(document)))
}

/// The page that renders the document. Its parts are in the binary: it works where nothing else can be reached.
const DOCS_PAGE: &str = include_str!("docs.html");

async fn docs(_: Public) -> Result<Html, ApiError> {
    Ok(Html(page(DOCS_PAGE.to_owned())))
}

async fn errors(_: Public) -> Result<Html, ApiError> {
    let mut rows = String::new();
    for code in crate::problem::ErrorCode::ALL {
        rows += &format!(
            "<tr id=\"{0}\"><td>{1}</td><td><code>{0}</code></td><td>{2}. {3}</td></tr>",
            code.code(),
            code.status().as_u16(),
            code.title(),
            code.help()
        );
    }
    Ok(Html(page(include_str!("errors.html").replace("{{rows}}", &rows))))
}

pub(super) fn page(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "Content-Security-Policy",
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
        ))
        .body(text)
}

/// The name of one of the documentation's parts.
struct Asset(String);

impl Describe for Asset {
    fn describe(sketch: &mut Sketch) {
        use utoipa::openapi::{
            ObjectBuilder, Required, Type,
            path::{ParameterBuilder, ParameterIn},
        };
        sketch.parameters.push(
            ParameterBuilder::new()
                .name("asset")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("The part's file name."))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .example(Some(serde_json::json!("swagger-ui.css")))
                .build(),
        );
        sketch.errors(&[crate::problem::ErrorCode::NotFound]);
    }
}

impl actix_web::FromRequest for Asset {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &actix_web::HttpRequest, _: &mut actix_web::dev::Payload) -> Self::Future {
        std::future::ready(Ok(Self(
            request.match_info().get("asset").unwrap_or_default().to_owned(),
        )))
    }
}

/// A file of the documentation, with its own media type.
struct AssetFile(HttpResponse);

impl Describe for AssetFile {
    fn describe(sketch: &mut Sketch) {
        use utoipa::openapi::{ContentBuilder, ObjectBuilder, Type, response::ResponseBuilder};
        let schema: utoipa::openapi::RefOr<utoipa::openapi::Schema> =
            ObjectBuilder::new().schema_type(Type::String).into();
        let mut response = ResponseBuilder::new().description("The file.");
        for media_type in ["text/css", "text/javascript", "text/html", "image/png"] {
            response = response.content(
                media_type,
                ContentBuilder::new().schema(Some(schema.clone())).build(),
            );
        }
        sketch.answers.insert(200, response.build());
    }
}

impl actix_web::Responder for AssetFile {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &actix_web::HttpRequest) -> HttpResponse {
        self.0
    }
}

/// Starts the page's script: where the document is, and how it is shown.
const DOCS_SCRIPT: &str = "window.onload = () => {\n  window.ui = SwaggerUIBundle({\n    url: '/openapi.json',\n    \
    dom_id: '#swagger-ui',\n    deepLinking: true,\n    persistAuthorization: false,\n    validatorUrl: null,\n    \
    presets: [SwaggerUIBundle.presets.apis],\n  });\n};\n";

async fn docs_asset(_: Public, asset: Asset) -> Result<AssetFile, ApiError> {
    const DAY: (&str, &str) = ("Cache-Control", "public, max-age=86400");
    let script = match asset.0.as_str() {
        "start.js" => Some(DOCS_SCRIPT),
        "invitation.js" => Some(include_str!("invitation.js")),
        _ => None,
    };
    if let Some(script) = script {
        return Ok(AssetFile(
            HttpResponse::Ok()
                .content_type("text/javascript")
                .insert_header(DAY)
                .body(script),
        ));
    }
    let served = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];
    let file = served
        .contains(&asset.0.as_str())
        .then(|| utoipa_swagger_ui::serve(&asset.0, Config::from("/openapi.json").into()))
        .and_then(Result::ok)
        .flatten()
        .ok_or_else(|| ApiError::new(crate::problem::ErrorCode::NotFound))?;
    Ok(AssetFile(
        HttpResponse::Ok()
            .content_type(file.content_type)
            .insert_header(DAY)
            .body(file.bytes.into_owned()),
    ))
}
