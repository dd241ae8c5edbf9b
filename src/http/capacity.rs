//! As many requests are served at a time as the server can serve well; more are told at once to come back,
//! which costs less than to let all of them time out. Webhooks have places of their own: neither can crowd
//! out the other. A request that waits for its client to send is not being served: a thousand clients that
//! send slowly take no places.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body::{Frame, SizeHint};

use crate::{
    error,
    telemetry::{labels::CapacityScope, metrics::Metrics},
};

/// Whose place a request takes; `None` for probes, which must be answered when the server is busy.
#[must_use]
pub fn scope(request: &Request) -> Option<CapacityScope> {
    match request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str) {
        "/health/live" | "/health/ready" => None,
        path if path.starts_with("/api/v1/webhooks/") && request.method() == Method::POST => {
            Some(CapacityScope::Webhook)
        }
        _ => Some(CapacityScope::Api),
    }
}

/// The places of one server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity {
    api: Arc<Places>,
    webhook: Arc<Places>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Places {
    taken: AtomicUsize,
    most: usize,
}

impl Capacity {
    /// So many places for the API, and half as many for webhooks.
    #[must_use]
    pub fn new(max_in_flight: usize, metrics: Arc<Metrics>) -> Self {
        let places = |most| Arc::new(Places { taken: AtomicUsize::new(0), most });
        Self { api: places(max_in_flight), webhook: places(max_in_flight.div_ceil(2)), metrics }
    }

    fn places(&self, scope: CapacityScope) -> &Arc<Places> {
        match scope {
            CapacityScope::Api => &self.api,
            CapacityScope::Webhook => &self.webhook,
        }
    }
}

/// The middleware: 503 when all places are taken.
pub async fn limit(State(capacity): State<Capacity>, request: Request, next: Next) -> Response {
    let Some(scope) = scope(&request) else { return next.run(request).await };
    let Some(place) = Place::take(capacity.places(scope)) else {
        capacity.metrics.http_requests_shed(scope).inc();
        return error::OVERLOADED.because("Too many requests are being served.").retry_after(1).into_response();
    };
    // Held here until there is an answer, and by the body for as long as somebody reads it.
    let place = Arc::new(place);
    let request = request
        .map(|body| if body.is_end_stream() { body } else { Body::new(Arriving { body, place: place.clone() }) });
    let response = next.run(request).await;
    drop(place);
    response
}

/// One place; left when dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    held: AtomicBool,
}

impl Place {
    fn take(places: &Arc<Places>) -> Option<Self> {
        let one_more = |taken| (taken < places.most).then_some(taken + 1);
        places.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { places: places.clone(), held: AtomicBool::new(true) })
    }

    fn leave(&self) {
        if self.held.swap(false, Ordering::Relaxed) {
            self.places.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether or not one is free: what was begun is finished.
    fn come_back(&self) {
        if !self.held.swap(true, Ordering::Relaxed) {
            self.places.taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A body that leaves the place while it waits for the client.
#[derive(Debug)]
struct Arriving {
    body: Body,
    place: Arc<Place>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() {
            self.place.leave();
        } else {
            self.place.come_back();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
