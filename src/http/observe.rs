//! The outermost layer: one server span, one set of metrics and one log line for each HTTP request,
//! whatever becomes of it: answered, failed, panicked (500) or abandoned by its client (499).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request},
    http::StatusCode,
    response::Response,
};
use http_body::{Frame, SizeHint};
use prometheus::Histogram;
use tracing::{Instrument, Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::stats::{self, RequestStats};
use crate::{
    error::ErrorReport,
    telemetry::{
        labels::{Method, Route, Status},
        metrics::Metrics,
        trace::{self, TraceIds},
    },
};

/// The layer.
pub async fn observe<F: Future<Output = Response>>(
    metrics: &Arc<Metrics>,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    if cfg!(feature = "unobserved") {
        return stats::scope(Arc::default(), next(request)).await;
    }
    let matched = request.extensions().get::<MatchedPath>();
    let (method, route) = (Method::from(request.method()), Route::new(matched));
    let span = info_span!(
        target: "switchboard::http",
        "request",
        otel.name = format!("{} {}", method.as_str(), route.as_str()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method.as_str(),
        http.route = matched.map(MatchedPath::as_str),
        http.response.status_code = Empty,
        error.r#type = Empty,
        user.id = Empty,
    );
    // Without a valid traceparent the context is empty and the span starts a trace of its own.
    let _ = span.set_parent(trace::extract(request.headers()));
    let size = metrics.http_request_body_size(&route);
    let request =
        request.map(|body| if body.is_end_stream() { body } else { Body::new(Measured { body, read: 0, size }) });
    let ids = span.in_scope(TraceIds::current);
    let mut in_flight = InFlight::new(metrics.clone(), method, route, ids, span.clone());
    let response = stats::scope(in_flight.stats.clone(), next(request)).instrument(span).await;
    in_flight.finish(&response);
    response
}

/// A body of which is counted what was read: what its head claims, anybody can write there.
#[derive(Debug)]
struct Measured {
    body: Body,
    read: u64,
    size: Histogram,
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
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

impl Drop for Measured {
    fn drop(&mut self) {
        self.size.observe(bytes(self.read));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a body of 2^53 bytes is not served")]
fn bytes(count: u64) -> f64 {
    count as f64
}

/// A request that is being served. If it is dropped before [`InFlight::finish`], its client has gone.
struct InFlight {
    metrics: Arc<Metrics>,
    method: Method,
    route: Route,
    ids: Option<TraceIds>,
    span: Span,
    stats: Arc<RequestStats>,
    started: Instant,
    finished: bool,
}

impl InFlight {
    fn new(metrics: Arc<Metrics>, method: Method, route: Route, ids: Option<TraceIds>, span: Span) -> Self {
        metrics.http_active_requests(method).inc();
        let is_sampled = ids.is_some_and(|ids| ids.is_sampled);
        let (stats, started) = (Arc::new(RequestStats::new(is_sampled)), Instant::now());
        Self { metrics, method, route, ids, span, stats, started, finished: false }
    }

    fn finish(&mut self, response: &Response) {
        self.finished = true;
        if let Some(size) = response.body().size_hint().exact() {
            self.metrics.http_response_body_size(&self.route).observe(bytes(size));
        }
        self.record(Status::from(response.status()), response.status(), response.extensions().get::<ErrorReport>());
    }

    fn record(&self, label: Status, status: StatusCode, report: Option<&ErrorReport>) {
        let elapsed = self.started.elapsed();
        self.metrics.http_active_requests(self.method).dec();
        self.metrics.http_request_duration(self.method, &self.route, label).observe(elapsed.as_secs_f64());

        let code = report.map(|report| report.code);
        let user = self.stats.user();
        let span = &self.span;
        span.record("http.response.status_code", status.as_u16());
        if let Some((id, _)) = user {
            span.record("user.id", id);
        }
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", code.unwrap_or(status.as_str()));
        }

        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "switchboard::http",
                    // Given here and not by the log layer: this line is written outside the span.
                    trace_id = self.ids.map(|ids| display(ids.trace_id)),
                    span_id = self.ids.map(|ids| display(ids.span_id)),
                    method = self.method.as_str(),
                    route = self.route.as_str(),
                    status = status.as_u16(),
                    error_code = code,
                    cause = report.and_then(|report| report.cause.as_deref()),
                    duration_ms = (elapsed.as_secs_f64() * 1e5).round() / 1e2,
                    user_id = user.map(|(id, _)| id),
                    role = user.map(|(_, role)| role.as_str()),
                    db_queries = self.stats.queries(),
                    db_ms = (self.stats.query_time().as_secs_f64() * 1e5).round() / 1e2,
                    cache = self.stats.cache().map(|result| result.as_str()),
                    "request"
                )
            };
        }
        // A probe that is told "not ready" has its answer.
        if status.is_server_error() && report.is_some() {
            line!(error);
        } else {
            line!(info);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.finished {
            // 499 is nginx's number for it; it has no name in the http crate.
            let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            self.record(Status::CLIENT_CLOSED, status, Some(&ErrorReport { code: "client_closed", cause: None }));
        }
    }
}
