//! As many requests are served at a time as the server can serve well; more are told at once to come back,
//! which costs less than to let all of them time out. Webhooks have places of their own: neither can crowd
//! out the other. A request that waits for its client to send is not being served: a thousand clients that
//! send slowly take no places. When they have sent they wait for one, for a moment: they were let in before.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request},
    http::Method,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    error::{self, AppError},
    telemetry::{labels::CapacityScope, metrics::Metrics},
};

/// How long who has sent waits for a place. Those who are served leave theirs many times in it, unless what
/// they stand on hangs.
const PATIENCE: Duration = Duration::from_millis(500);

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
    api: Arc<Semaphore>,
    webhook: Arc<Semaphore>,
    upload: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Capacity {
    /// So many places for the API, half as many for webhooks, and so many for files on their way in, which are
    /// requests of the API that also have memory.
    #[must_use]
    pub fn new(max_in_flight: usize, max_uploads: u16, metrics: Arc<Metrics>) -> Self {
        let places = |most| Arc::new(Semaphore::new(most));
        let (api, webhook) = (places(max_in_flight), places(max_in_flight.div_ceil(2)));
        Self { api, webhook, upload: places(max_uploads.into()), metrics }
    }

    /// A place for a file, for as long as it is on its way.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub fn admit_upload(&self) -> Result<OwnedSemaphorePermit, AppError> {
        self.upload.clone().try_acquire_owned().map_err(|_| {
            self.metrics.http_requests_shed(CapacityScope::Upload).inc();
            error::OVERLOADED.because("Too many files are being uploaded.").retry_after(1)
        })
    }

    fn places(&self, scope: CapacityScope) -> &Arc<Semaphore> {
        match scope {
            CapacityScope::Api => &self.api,
            CapacityScope::Webhook => &self.webhook,
            CapacityScope::Upload => &self.upload,
        }
    }
}

/// The layer: 503 when all places are taken.
pub async fn limit<F: Future<Output = Response>>(
    capacity: &Capacity,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let Some(scope) = scope(&request) else { return next(request).await };
    let shed = || {
        capacity.metrics.http_requests_shed(scope).inc();
        error::OVERLOADED.because("Too many requests are being served.").retry_after(1).into_response()
    };
    let Some(place) = Place::take(capacity.places(scope)) else { return shed() };
    // Held here until there is an answer, and by the body for as long as somebody reads it.
    let place = Arc::new(place);
    let request = request.map(|body| {
        let arriving = |body| Arriving { body, place: place.clone(), coming_back: None };
        if body.is_end_stream() { body } else { Body::new(arriving(body)) }
    });
    let response = next(request).await;
    // To whoever read it the body has broken off; not so if it was not needed.
    let is_shed = place.is_lost.load(Ordering::Relaxed) && !response.status().is_success();
    if is_shed { shed() } else { response }
}

/// One place; left when dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
    /// There was none to come back to.
    is_lost: AtomicBool,
}

impl Place {
    fn take(places: &Arc<Semaphore>) -> Option<Self> {
        let held = places.clone().try_acquire_owned().ok()?;
        Some(Self { places: places.clone(), held: Mutex::new(Some(held)), is_lost: AtomicBool::new(false) })
    }

    fn held(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        self.held().take();
    }

    /// Waits for a place, before all who come anew.
    async fn come_back(self: Arc<Self>) -> Result<(), axum::Error> {
        if let Ok(Ok(place)) = timeout(PATIENCE, self.places.clone().acquire_owned()).await {
            self.held().replace(place);
            return Ok(());
        }
        self.is_lost.store(true, Ordering::Relaxed);
        Err(axum::Error::new("there was no place to come back to"))
    }
}

/// A body that leaves the place while it waits for the client.
struct Arriving {
    body: Body,
    place: Arc<Place>,
    /// What has come, and is told once there is a place again.
    coming_back: Option<(Arrived, BoxFuture<'static, Result<(), axum::Error>>)>,
}

type Arrived = Option<Result<Frame<Bytes>, axum::Error>>;

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Arrived> {
        let this = self.get_mut();
        if this.coming_back.is_none() {
            let Poll::Ready(arrived) = Pin::new(&mut this.body).poll_frame(context) else {
                this.place.leave();
                return Poll::Pending;
            };
            if this.place.held().is_some() {
                return Poll::Ready(arrived);
            }
            this.coming_back = Some((arrived, Box::pin(this.place.clone().come_back())));
        }
        let Some((arrived, back)) = &mut this.coming_back else { return Poll::Pending };
        let outcome = ready!(back.as_mut().poll(context));
        let arrived = arrived.take();
        this.coming_back = None;
        Poll::Ready(outcome.map_or_else(|lost| Some(Err(lost)), |()| arrived))
    }

    fn is_end_stream(&self) -> bool {
        self.coming_back.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
