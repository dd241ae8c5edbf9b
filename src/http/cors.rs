//! Which pages of other origins may read answers, as the layer of tower-http says. It answers every preflight itself,
//! so it is asked in two places: inside of the limits for preflights, which are requests like any other, and
//! outside of them for the rest, so that a page may read why it was turned away.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

use super::{csrf, idempotency};

/// What an answer depends on.
const VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

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

/// The inner layer: answers what asks for permission.
pub async fn preflights<F: Future<Output = Response>>(
    policy: &CorsLayer,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    if request.method() == Method::OPTIONS { said(policy, head_of(&request)).await } else { next(request).await }
}

/// The outer layer: says of everything else who may read it.
pub async fn answers<F: Future<Output = Response>>(
    policy: &CorsLayer,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    if request.method() == Method::OPTIONS {
        return next(request).await;
    }
    let headers = if request.headers().contains_key(header::ORIGIN) {
        said(policy, head_of(&request)).await.into_parts().0.headers
    } else {
        // Programs, and pages of this origin: only that another might have been told something else.
        HeaderMap::from_iter([(header::VARY, VARY)])
    };
    let mut response = next(request).await;
    for (name, value) in &headers {
        response.headers_mut().append(name, value.clone());
    }
    response
}

/// What tower-http says to such a request: it looks at the head alone.
async fn said(policy: &CorsLayer, head: Request) -> Response {
    let nothing = service_fn(async |_: Request| Ok::<_, Infallible>(Response::default()));
    let Ok(response) = policy.layer(nothing).oneshot(head).await;
    response
}

fn head_of(request: &Request) -> Request {
    let mut head = Request::default();
    *head.method_mut() = request.method().clone();
    *head.headers_mut() = request.headers().clone();
    head
}
