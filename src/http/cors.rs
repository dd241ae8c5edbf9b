//! Which pages of other origins may read answers. The layer of tower-http answers every preflight itself,
//! so it stands in two places: inside of the limits for preflights, which are requests like any other, and
//! outside of them for the rest, so that a page may read why it was turned away.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tower::{Layer, ServiceExt};
use tower_http::cors::CorsLayer;

use super::{csrf, idempotency};

/// What pages of these origins may do.
pub fn policy(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::RANGE,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("traceparent"),
            idempotency::KEY,
            csrf::HEADER,
        ])
        .expose_headers([
            header::CONTENT_DISPOSITION,
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            idempotency::REPLAYED,
        ])
        .max_age(Duration::from_mins(10))
}

/// The inner middleware: answers what asks for permission.
pub async fn preflights(State(policy): State<CorsLayer>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS { apply(&policy, request, next).await } else { next.run(request).await }
}

/// The outer middleware: says of everything else who may read it.
pub async fn answers(State(policy): State<CorsLayer>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS { next.run(request).await } else { apply(&policy, request, next).await }
}

async fn apply(policy: &CorsLayer, request: Request, next: Next) -> Response {
    let Ok(response) = policy.layer(next).oneshot(request).await;
    response
}
