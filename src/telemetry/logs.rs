//! Log lines: one JSON object a line on standard output, or a readable form on a terminal. Every
//! line that is written inside a span carries its `trace_id` and `span_id`. Whatever a value contains, it
//! neither begins another line nor says anything to the terminal.

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
    field::MakeExt,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{Writer, debug_fn},
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
    if pretty { readable(std::io::stdout, std::io::stdout().is_terminal()) } else { json_lines(std::io::stdout) }
}

fn readable<S, W>(writer: W, ansi: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false)
        .compact()
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .with_filter(HideSpans)
        .boxed()
}

fn json_lines<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().with_writer(writer).event_format(JsonLine).fmt_fields(NoFields).boxed()
}

/// What a terminal, or a program that splits lines, could take for something else than text.
fn is_unprintable(character: char) -> bool {
    // The last are those that end a line, and those that turn the direction of writing.
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    for character in format!("{value:?}").chars() {
        if is_unprintable(character) {
            write!(writer, "{}", character.escape_default())?;
        } else {
            writer.write_char(character)?;
        }
    }
    Ok(())
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
        // serde_json escapes what is below the space, and leaves the rest as it is. Outside of strings
        // there is none of it.
        let line = Value::Object(line).to_string();
        let mut rest = line.as_str();
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| is_unprintable(*character)) {
            write!(writer, "{}\\u{:04x}", &rest[..at], u32::from(character))?;
            rest = &rest[at + character.len_utf8()..];
        }
        writeln!(writer, "{rest}")
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

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const NASTY: &str = "a\r\n{\"level\":\"error\"}\u{1b}[31m\u{9b}2J\u{7f}\u{85}\u{2028}\u{2029}\u{202e}z";

    /// What is written when a value of each kind is nasty.
    fn written(layer: impl Fn(Buffer) -> Box<dyn Layer<Registry> + Send + Sync>) -> String {
        let buffer = Buffer::default();
        tracing::subscriber::with_default(Registry::default().with(layer(buffer.clone())), || {
            let error = io::Error::other(NASTY);
            tracing::info!(text = NASTY, shown = %NASTY, debugged = ?NASTY, error = &error as &dyn std::error::Error, "said {NASTY}");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[track_caller]
    fn is_one_harmless_line(text: &str) {
        let line = text.strip_suffix('\n').unwrap();
        let nasty = |character: &char| NASTY.contains(*character) && !(' '..='~').contains(character);
        assert!(line.contains("31m") && !line.chars().any(|character| nasty(&character)), "{line:?}");
    }

    #[test]
    fn a_value_forges_no_line_and_tells_the_terminal_nothing() {
        let json = written(|buffer| {
            let writer = move || buffer.clone();
            json_lines(writer)
        });
        is_one_harmless_line(&json);
        // And it says what it was.
        let line: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&line["text"], &line["shown"], &line["error"]), (&json!(NASTY), &json!(NASTY), &json!(NASTY)));
        assert_eq!(line["message"], format!("said {NASTY}"));

        let readable = written(|buffer| {
            let writer = move || buffer.clone();
            readable(writer, false)
        });
        is_one_harmless_line(&readable);
        assert!(readable.contains("said a\\r\\n{"), "{readable}");
        assert!(readable.contains(" shown=a\\r\\n{"), "{readable}");
    }
}
