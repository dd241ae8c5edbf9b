//! Log lines: one JSON object a line on standard output, or a readable form on a terminal. Every
//! line that is written inside a span carries its `trace_id` and `span_id`. Whatever a value contains, it
//! neither begins another line nor says anything to the terminal.

use std::{
    fmt::{self, Write as _},
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

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
        let metadata = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        let level = LogLevel::from(*metadata.level()).as_str();
        write!(writer, "\",\"level\":\"{level}\",\"target\":\"{}\"", metadata.target())?;
        // From the current span itself and not by this layer's look-up, for which a filter such as
        // "warn" hides our spans. `http::observe` writes its line outside its span, with its ids.
        if let Some(ids) = TraceIds::current() {
            write!(writer, ",\"trace_id\":\"{}\",\"span_id\":\"{}\"", ids.trace_id, ids.span_id)?;
        }
        let mut fields = Fields { writer, outcome: Ok(()) };
        event.record(&mut fields);
        fields.outcome?;
        fields.writer.write_str("}\n")
    }
}

/// Writes fields as members of an object, behind others.
struct Fields<'writer> {
    writer: Writer<'writer>,
    outcome: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.outcome = self.outcome.and_then(|()| write!(self.writer, ",\"{}\":{value}", field.name()));
    }

    /// A string.
    fn put_text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut write = || {
            write!(self.writer, ",\"{}\":\"", field.name())?;
            write!(Escaped(&mut self.writer), "{value}")?;
            self.writer.write_char('"')
        };
        self.outcome = self.outcome.and_then(|()| write());
    }
}

/// What is between the quotes of a JSON string (RFC 8259 §7).
struct Escaped<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        let is_special = |character: char| matches!(character, '"' | '\\') || is_unprintable(character);
        while let Some(at) = rest.find(is_special) {
            self.0.write_str(&rest[..at])?;
            let mut behind = rest[at..].chars();
            match behind.next() {
                Some(character @ ('"' | '\\')) => write!(self.0, "\\{character}")?,
                // Of those that are not to be printed none needs two of them.
                Some(character) => write!(self.0, "\\u{:04x}", u32::from(character))?,
                None => {}
            }
            rest = behind.as_str();
        }
        self.0.write_str(rest)
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, format_args!("{value}"));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, format_args!("{value}"));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, format_args!("{value}"));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() { self.put(field, format_args!("{value}")) } else { self.put(field, format_args!("null")) }
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, format_args!("{value}"));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warn,
            Level::INFO => Self::Info,
            Level::DEBUG => Self::Debug,
            Level::TRACE => Self::Trace,
        }
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
        let level = LogLevel::from(*event.metadata().level());
        self.0[level as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use serde_json::{Value, json};
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
