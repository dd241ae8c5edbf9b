//! What the process says about itself: [`metrics`] (the catalogue), [`trace`] (spans and their
//! export), [`logs`] (lines on standard output). What is said about one HTTP request is decided in
//! [`crate::http::observe`].

pub mod catalogue;
pub mod labels;
pub mod logs;
pub mod metrics;
mod seldom;
pub mod trace;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::Log;

pub use seldom::Seldom;

/// Counters that exist once a process because the tracing subscriber does; a registry reads them
/// when it is scraped.
#[derive(Clone, Debug, Default)]
pub struct ProcessCounters {
    /// Log lines written, by level.
    pub log_events: logs::LevelCounts,
    /// Spans that were not delivered, by reason.
    pub spans_dropped: trace::DroppedSpans,
}

/// Keeps telemetry alive; dropped spans and log counts are read from it, and
/// [`Telemetry::shutdown`] sends what is still queued.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
    /// See [`ProcessCounters`].
    pub counters: ProcessCounters,
}

/// Installs the process-wide subscriber: log lines to standard output, spans to OTLP.
///
/// # Errors
/// When the exporter cannot be built from the `OTEL_*` variables, or a subscriber is installed.
pub fn init(log: &Log) -> anyhow::Result<Telemetry> {
    let counters = ProcessCounters::default();
    let provider = trace::provider(&counters.spans_dropped)?;
    let filter = EnvFilter::try_new(&log.level)?;
    tracing_subscriber::registry()
        .with(trace::layer(&provider))
        .with(counters.log_events.clone().and_then(logs::layer(log.format)).with_filter(filter))
        .try_init()?;
    Ok(Telemetry { provider, counters })
}

impl Telemetry {
    /// Exports what is queued, for at most `limit`. Blocking: call it outside the async threads.
    pub fn shutdown(self, limit: std::time::Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(limit) {
            tracing::warn!(%error, "some spans could not be exported");
        }
    }
}
