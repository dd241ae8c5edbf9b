//! Layers that keep one request from hurting: a time limit, limits on its head, panics turned into 500, and
//! headers that tell browsers to be careful with whatever comes back.

use std::{
    any::Any,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderName, HeaderValue, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use axum_server::tls::TlsInfo;
use futures_util::FutureExt;
use ipnet::IpNet;
use tokio::time::{Instant, timeout_at};

use super::{client_ip, turns::HeadFacts};
use crate::error::{self, AppError};

/// A larger head, its request line included, is answered 431.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// More headers are answered 431.
pub const MAX_HEADERS: usize = 64;
/// A longer path with its query is answered 414.
const MAX_URI_BYTES: usize = 8 * 1024;
/// A year. Not for subdomains: others may serve them.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// When a request must be answered. An extension of the request, for the few whose bodies take longer
/// to arrive than any handler may work.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves it, if that is later.
    pub fn put_off(&self, until: Instant) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *at = until.max(*at);
    }
}

/// Answers 504 when the handler takes longer than `limit`, or than the [`Deadline`] it was granted.
pub async fn time_limit<F: Future<Output = Response>>(
    limit: Duration,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let deadline = Deadline(Arc::new(Mutex::new(Instant::now() + limit)));
    request.extensions_mut().insert(deadline.clone());
    let mut answer = pin!(next(request));
    loop {
        let until = deadline.get();
        match timeout_at(until, &mut answer).await {
            Ok(response) => return response,
            Err(_) if deadline.get() > until => {}
            Err(_) => return AppError::from(error::TIMED_OUT).retry_after(1).into_response(),
        }
    }
}

/// Turns a panic of a handler into a 500 that says nothing of it; the message goes to the log.
pub async fn catching<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    // Nobody sees what the handler left: it is dropped, and what is shared is behind locks that do not mind.
    let answer = AssertUnwindSafe(async { next(request).await }).catch_unwind();
    answer.await.unwrap_or_else(|panic| panicked(&*panic))
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    AppError::internal(format!("panic: {message}")).into_response()
}

/// Refuses heads that are out of bounds, or that servers read in different ways.
pub async fn framing<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    let head = request.extensions().get::<HeadFacts>().copied().unwrap_or_default();
    let uri_bytes = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let refusal = if head.two_lengths {
        Some(error::MALFORMED.because("Send Content-Length or Transfer-Encoding, not both."))
    } else if request.version() == Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
        Some(error::MALFORMED.because("Send one Host header."))
    } else if uri_bytes > MAX_URI_BYTES {
        Some(error::URI_TOO_LONG.because(format!("Send at most {MAX_URI_BYTES} bytes.")))
    } else if head.bytes > MAX_HEAD_BYTES || request.headers().len() > MAX_HEADERS {
        Some(error::HEAD_TOO_LARGE.because(format!("Send at most {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes.")))
    } else {
        None
    };
    match refusal {
        Some(error) => error.into_response(),
        None => next(request).await,
    }
}

/// What every listener has around its routes, whatever else there is: the middleware of [`framing`] and
/// [`security_headers`].
pub async fn careful(State(trusted): State<Arc<[IpNet]>>, request: Request, next: Next) -> Response {
    security_headers(&trusted, request, |request| framing(request, |request| next.run(request))).await
}

/// Headers of every answer. A handler that sets one of them keeps its own.
pub async fn security_headers<F: Future<Output = Response>>(
    trusted: &[IpNet],
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let is_secure = came_over_tls(&request, trusted);
    let mut response = next(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        // The console may show pictures from here, and is of the same site.
        (HeaderName::from_static("cross-origin-resource-policy"), "same-site"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    // Over plain HTTP anybody on the way could have written it (RFC 6797 §7.2).
    if is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// Whether the client's side of the request was encrypted, as this listener or a configured balancer knows.
fn came_over_tls(request: &Request, trusted: &[IpNet]) -> bool {
    let extensions = request.extensions();
    if extensions.get::<Arc<TlsInfo>>().is_some() {
        return true;
    }
    let from_balancer = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .is_some_and(|ConnectInfo(peer)| client_ip::is_trusted(peer.ip(), trusted));
    let scheme = request.headers().get_all("x-forwarded-proto").iter().next_back();
    let scheme = scheme.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    from_balancer && scheme.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}
