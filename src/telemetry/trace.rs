//! Traces: the tracer provider (standard `OTEL_*` variables), W3C propagation, and an export that
//! costs requests nothing: a bounded queue, and every span that is lost is counted.
//!
//! Without an OTLP endpoint nothing is exported, but trace ids still exist: answers and log lines
//! carry them either way.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, SpanId, TraceContextExt, TraceId, TracerProvider},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::{Layer, registry::LookupSpan};

use super::labels::DropReason;
use crate::config::ConfigError;

/// Spans waiting for export; more are dropped and counted. `OTEL_BSP_MAX_QUEUE_SIZE` overrides it.
const QUEUE_SIZE: usize = 4_096;

/// Spans that were not delivered, by reason.
#[derive(Clone, Debug, Default)]
pub struct DroppedSpans(Arc<[AtomicU64; 2]>);

impl DroppedSpans {
    /// Spans lost for `reason` so far.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    fn add(&self, reason: DropReason, spans: usize) {
        self.0[reason as usize].fetch_add(spans as u64, Ordering::Relaxed);
    }
}

/// Builds the provider. The sampler, resource attributes, headers and timeouts are read by the SDK
/// from the standard variables; export is on when an endpoint is set and `OTEL_SDK_DISABLED` is not.
pub(super) fn provider(dropped: &DroppedSpans) -> anyhow::Result<SdkTracerProvider> {
    let service = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "switchboard".to_owned());
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let set = |name: &str| env::var(name).is_ok_and(|value| !value.is_empty());
    let wanted = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    if !wanted || env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(builder.build());
    }
    let protocol = env::var("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|_| env::var("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let exporter = match protocol.as_deref() {
        Ok("grpc") => SpanExporter::builder().with_tonic().build(),
        Ok("http/protobuf") | Err(_) => SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build(),
        Ok(other) => {
            let problem = format!("{other:?} is not supported; use grpc or http/protobuf");
            return Err(ConfigError::new("OTEL_EXPORTER_OTLP_PROTOCOL", problem).into());
        }
    }
    .map_err(|error| ConfigError::new("OTEL_EXPORTER_OTLP_ENDPOINT", format!("cannot be used: {error}")))?;
    let capacity = env::var("OTEL_BSP_MAX_QUEUE_SIZE").ok().and_then(|value| value.parse().ok()).unwrap_or(QUEUE_SIZE);
    let waiting = Arc::new(AtomicUsize::new(0));
    let exporter = CountingExporter { inner: exporter, waiting: waiting.clone(), dropped: dropped.clone() };
    let batch = BatchSpanProcessor::builder(exporter)
        .with_batch_config(BatchConfigBuilder::default().with_max_queue_size(capacity).build())
        .build();
    Ok(builder
        .with_span_processor(BoundedProcessor { inner: batch, waiting, capacity, dropped: dropped.clone() })
        .build())
}

/// The tracing layer that turns spans into OpenTelemetry spans.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    // Only our own spans: libraries' would multiply cost and say little.
    let ours = tracing_subscriber::filter::filter_fn(|meta| meta.is_span() && meta.target().starts_with("switchboard"));
    OpenTelemetryLayer::new(provider.tracer("switchboard"))
        .with_location(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(ours)
}

/// Refuses spans beyond the capacity before the SDK's own queue would, because the SDK drops
/// without telling anybody how many.
#[derive(Debug)]
struct BoundedProcessor {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    dropped: DroppedSpans,
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.capacity {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.add(DropReason::QueueFull, 1);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[derive(Debug)]
struct CountingExporter {
    inner: SpanExporter,
    waiting: Arc<AtomicUsize>,
    dropped: DroppedSpans,
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.inner.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        if outcome.is_err() {
            self.dropped.add(DropReason::ExportFailed, spans);
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Which span it is, of which trace; written as W3C Trace Context has them, 16 and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceIds {
    /// Of the trace.
    pub trace_id: TraceId,
    /// Of the span.
    pub span_id: SpanId,
    /// Whether the trace goes to a collector.
    pub is_sampled: bool,
}

impl TraceIds {
    /// Of the current tracing span; `None` without a subscriber or outside any span.
    #[must_use]
    pub fn current() -> Option<Self> {
        let context = tracing::Span::current().context();
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| Self { trace_id: ids.trace_id(), span_id: ids.span_id(), is_sampled: ids.is_sampled() })
    }

    /// The W3C `traceparent` of the span.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// The caller's context from its `traceparent` header.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    struct Headers<'a>(&'a HeaderMap);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(HeaderName::as_str).collect()
        }
    }
    TraceContextPropagator::new().extract(&Headers(headers))
}

/// The span context that a stored `traceparent` names, to link to.
#[must_use]
pub fn parse_traceparent(traceparent: &str) -> Option<SpanContext> {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::try_from(traceparent).ok()?);
    let context = extract(&headers).span().span_context().clone();
    context.is_valid().then_some(context)
}
