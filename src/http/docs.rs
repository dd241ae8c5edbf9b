//! `/openapi.json` and the interactive page at `/docs`, both made from the handlers' annotations.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::Redirect,
    routing::get,
};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::{
    OpenApi,
    openapi::{
        Content, Ref, RefOr, ResponseBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_swagger_ui::SwaggerUi;

use crate::error;

/// The document without its paths, which the routers add.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Switchboard",
        description = "Service requests of a field-service call centre: from a ringing phone to a closed request.\n\n\
            Errors are problem+json (RFC 9457) with a stable `code`; times are RFC 3339; money is a decimal in a string.",
    ),
    security(("bearer" = []), ("cookie" = [])),
    modifiers(&Security),
    tags(
        (name = "auth", description = "Sign in and out"),
        (name = "requests", description = "Service requests"),
        (name = "calls", description = "Phone calls and triage"),
        (name = "dictionaries", description = "What things are called"),
        (name = "users", description = "Masters, employees, administrators"),
        (name = "transactions", description = "Cash"),
        (name = "files", description = "Receipts, contracts, photographs"),
        (name = "sla", description = "What was promised to clients"),
        (name = "reports", description = "Reports for a range of days"),
        (name = "metrics", description = "Business metrics for the console"),
        (name = "events", description = "Live events"),
        (name = "webhooks", description = "For telephony providers"),
        (name = "ops", description = "Probes"),
    ),
)]
pub struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme(
            "cookie",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "__Host-access",
                "Set by signing in without `session`. With the setting `http.insecure_cookies` its name is `access`.",
            ))),
        );
    }
}

/// Says of every operation what its handler need not repeat: an id that is unique in the document, the
/// media type of problems, and the errors that layers and extractors give.
pub fn complete(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            // Handlers are named within their feature.
            if let (Some(tag), Some(name)) = (operation.tags.iter().flatten().next(), &operation.operation_id) {
                operation.operation_id = Some(format!("{tag}_{name}"));
            }
            let tag = operation.tags.iter().flatten().next().map_or("", String::as_str);
            let json = matches!(&operation.request_body, Some(RefOr::T(body)) if body.content.contains_key("application/json"));
            let mut common = Vec::new();
            if json {
                common.extend([error::MALFORMED, error::TOO_LARGE, error::WRONG_MEDIA_TYPE]);
            }
            if tag != "ops" {
                common.extend([error::INTERNAL, error::DATABASE_UNAVAILABLE, error::TIMED_OUT]);
            }
            for kind in common {
                let response = || ResponseBuilder::new().description(kind.title).content("application/json", problem());
                let status = kind.status.as_str().to_owned();
                operation.responses.responses.entry(status).or_insert_with(|| response().build().into());
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && tag != "ops"
                    && (status.starts_with('4') || status.starts_with('5'))
                    && let Some(content) = response.content.shift_remove("application/json")
                {
                    response.content.insert("application/problem+json".to_owned(), content);
                }
            }
        }
    }
    drop_unused_schemas(document);
}

/// A page spells its items out, so that some of their schemas are referred to by nobody.
fn drop_unused_schemas(document: &mut utoipa::openapi::OpenApi) {
    let Ok(text) = document.to_json() else { return };
    if let Some(components) = &mut document.components {
        components.schemas.retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
    }
}

fn problem() -> Content {
    Content::new(Some(Ref::from_schema_name("Problem")))
}

/// The page and the document.
pub fn router<S: Clone + Send + Sync + 'static>(document: utoipa::openapi::OpenApi) -> Router<S> {
    // The page needs its own scripts and styles, which the policy of the API's answers forbids.
    let policy = HeaderValue::from_static(
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    );
    Router::new()
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .route("/", get(|| async { Redirect::temporary("/docs") }))
        .layer(SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, policy))
}
