//! Layers that keep one request from hurting: a time limit, panics turned into 500, and headers that
//! tell browsers to be careful with whatever comes back.

use std::{
    any::Any,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use tokio::time::{Instant, timeout_at};

use crate::error::{self, AppError};

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
pub async fn time_limit(State(limit): State<Duration>, mut request: Request, next: Next) -> Response {
    let deadline = Deadline(Arc::new(Mutex::new(Instant::now() + limit)));
    request.extensions_mut().insert(deadline.clone());
    let mut answer = pin!(next.run(request));
    loop {
        let until = deadline.get();
        match timeout_at(until, &mut answer).await {
            Ok(response) => return response,
            Err(_) if deadline.get() > until => {}
            Err(_) => return AppError::from(error::TIMED_OUT).into_response(),
        }
    }
}

/// Turns a panic into a 500 that says nothing of it; the message goes to the log.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer wants")]
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    AppError::internal(format!("panic: {message}")).into_response()
}

/// Headers of every answer. A handler that sets one of them keeps its own.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
