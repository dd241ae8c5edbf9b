//! `/openapi.json` and the interactive page at `/docs`, both made from the handlers' annotations.

mod complete;
mod examples;

use axum::{
    Router,
    body::Bytes,
    http::{HeaderValue, header},
    response::Redirect,
    routing::get,
};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::{
    OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

pub use complete::{PUBLIC, complete};

/// The document without its paths, which the routers add.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Switchboard",
        description = "Service requests of a field-service call centre: from a ringing phone to a closed request.\n\n\
            Errors are problem+json (RFC 9457) with a stable `code`; times are RFC 3339; money is a decimal in a string.\n\n\
            Each operation names its action in `x-action` (`public`: no session needed) and who may take it in `x-roles`: \
            `all`, in their own `cities`, or what is their `own`. What lies outside that scope is answered 404, as if it \
            did not exist.\n\n\
            An answer with an ETag is not sent again to who names it in If-None-Match (304). Reports and business metrics \
            may be half a minute old; `Cache-Control: no-cache` has them made anew.",
    ),
    servers((url = "/", description = "This server")),
    security(("bearer" = []), ("cookie" = [], "csrf" = [])),
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
        (name = "diagnostics", description = "How the server is, for administrators"),
        (name = "security", description = "Tries to sign in, locks, and who changed what, for administrators"),
        (name = "ops", description = "Probes"),
    ),
)]
pub struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        // Without one in the manifest utoipa makes up a nameless one.
        document.info.license = None;
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
        components.add_security_scheme(
            "csrf",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "X-CSRF-Token",
                "With the cookie, for whatever changes something: the token that GET /api/v1/auth/csrf, signing in and \
                 refreshing give.",
            ))),
        );
    }
}

/// The page and the document.
pub fn router<S: Clone + Send + Sync + 'static>(document: &utoipa::openapi::OpenApi) -> Router<S> {
    // The page needs its own scripts and styles, which the policy of the API's answers forbids.
    let policy = HeaderValue::from_static(
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    );
    // Written once: it takes a while, and anybody may ask for it.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let json = [(header::CONTENT_TYPE, "application/json")];
    Router::new()
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json").show_extensions(true)))
        .route("/openapi.json", get(async move || (json, document)))
        .route("/", get(|| async { Redirect::temporary("/docs") }))
        .layer(SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, policy))
}
