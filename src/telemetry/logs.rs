//! Log lines: one JSON object a line on standard output, or a readable form on a terminal. Every
//! line that is written inside a span carries its `trace_id` and `span_id`.

use std::{
    fmt,
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::Context,
    registry::LookupSpan,
};

use super::{labels::LogLevel, trace::TraceIds};
use crate::config::LogFormat;

/// The layer that writes to standard output.
pub fn layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let pretty = match format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stdout().is_terminal(),
    };
    if pretty {
        return tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stdout().is_terminal())
            .with_target(false)
            .compact()
            .with_filter(HideSpans)
            .boxed();
    }
    tracing_subscriber::fmt::layer().event_format(JsonLine).fmt_fields(NoFields).boxed()
}

/// On a terminal the span's fields would repeat the line's; without spans the line reads alone.
struct HideSpans;

impl<S> tracing_subscriber::layer::Filter<S> for HideSpans {
    fn enabled(&self, meta: &tracing::Metadata<'_>, _: &Context<'_, S>) -> bool {
        meta.is_event()
    }
}

/// Span fields are for traces; formatting them for the log would be work for nothing.
struct NoFields;

impl<'writer> FormatFields<'writer> for NoFields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(&self, _: Writer<'writer>, _: R) -> fmt::Result {
        Ok(())
    }
}

struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::with_capacity(32);
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = Map::new();
        line.insert("timestamp".into(), Value::String(timestamp));
        line.insert("level".into(), json!(event.metadata().level().as_str().to_ascii_lowercase()));
        line.insert("target".into(), json!(event.metadata().target()));
        // From the current span itself and not by this layer's look-up, for which a filter such as
        // "warn" hides our spans. `http::observe` writes its line outside its span, with its ids.
        if let Some(ids) = TraceIds::current() {
            line.insert("trace_id".into(), json!(ids.trace_id));
            line.insert("span_id".into(), json!(ids.span_id));
        }
        event.record(&mut Fields(&mut line));
        // serde_json escapes control characters: a value cannot forge a second line.
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}

/// Counts log lines by level; a layer, filtered like the output so that it counts what is written.
#[derive(Clone, Debug, Default)]
pub struct LevelCounts(Arc<[AtomicU64; 5]>);

impl LevelCounts {
    /// Lines written at `level` so far.
    #[must_use]
    pub fn get(&self, level: LogLevel) -> u64 {
        self.0[level as usize].load(Ordering::Relaxed)
    }
}

impl<S: Subscriber> Layer<S> for LevelCounts {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        self.0[level as usize].fetch_add(1, Ordering::Relaxed);
    }
}
