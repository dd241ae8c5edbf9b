//! One registry per App: the catalogue's vectors, the dictionary codes seen so far, and the text
//! that Prometheus reads. Never a global, so that tests in parallel can assert exact counts.

use std::{
    ops::Deref,
    sync::Mutex,
    time::{Duration, Instant},
};

use prometheus::{
    Encoder, IntCounter, Registry, TextEncoder, process_collector::ProcessCollector, proto::MetricFamily,
};

use super::{
    ProcessCounters,
    catalogue::{BuildLabel, CATALOGUE, PROCESS, Vectors},
    labels::{Codes, DictionaryCode, DropReason, LogLevel, Method, Route, Status, Values},
};
use crate::requests::{model::Source, state};

/// Most series that one replica exposes, each bucket of a histogram being one: every operation giving
/// all of its answers, every undeclared method on every route, dictionaries at their cap. A test adds
/// them up.
pub const SERIES_CEILING: usize = 45_000;

/// The metrics of one App. The recording methods are those of [`Vectors`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    vectors: Vectors,
    cities: Codes,
    request_types: Codes,
    counters: ProcessCounters,
    /// Only one scrape at a time may carry process counters over.
    scrape: Mutex<()>,
    started: Instant,
}

impl Deref for Metrics {
    type Target = Vectors;

    fn deref(&self) -> &Vectors {
        &self.vectors
    }
}

/// One operation of the API, for its series to exist before its first request.
#[derive(Clone, Debug)]
pub struct Operation {
    /// HTTP method.
    pub method: axum::http::Method,
    /// Route template.
    pub route: String,
    /// The status of success.
    pub success: axum::http::StatusCode,
}

impl Metrics {
    /// Registers the catalogue.
    ///
    /// # Errors
    /// When two metrics share a name, which a test would have seen first.
    pub fn new(counters: ProcessCounters) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let vectors = Vectors::register(&registry)?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        for rule in state::TABLE {
            let _ = vectors.request_transitions(rule.from, rule.to);
        }
        vectors
            .build_info(
                &BuildLabel(env!("CARGO_PKG_VERSION")),
                &BuildLabel(env!("SWITCHBOARD_REVISION")),
                &BuildLabel(env!("SWITCHBOARD_RUSTC")),
            )
            .set(1);
        Ok(Self {
            registry,
            vectors,
            cities: Codes::default(),
            request_types: Codes::default(),
            counters,
            scrape: Mutex::new(()),
            started: Instant::now(),
        })
    }

    /// The label of a city.
    pub fn city(&self, code: &str) -> DictionaryCode {
        self.cities.label(code)
    }

    /// The label of a request type.
    pub fn request_type(&self, code: &str) -> DictionaryCode {
        self.request_types.label(code)
    }

    /// Starts the series that depend on dictionaries at 0: a counter that appears with its first
    /// increment is invisible to `rate()`.
    pub fn seed_dictionaries<'a>(
        &self,
        cities: impl IntoIterator<Item = &'a str>,
        request_types: impl IntoIterator<Item = &'a str>,
    ) {
        for code in cities {
            let city = self.city(code);
            let _ = (self.requests_created_by_city(&city), self.revenue(&city), self.refunds(&city));
        }
        for code in request_types {
            let kind = self.request_type(code);
            for source in Source::ALL {
                let _ = self.requests_created(*source, &kind);
            }
            let _ = (self.request_first_response(&kind), self.request_assign(&kind), self.request_completion(&kind));
        }
    }

    /// Starts each operation's series for its success, 500 and 503.
    pub fn seed_operations(&self, operations: &[Operation]) {
        use axum::http::StatusCode;
        for operation in operations {
            let (method, route) = (Method::from(&operation.method), Route::declared(&operation.route));
            for status in [operation.success, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE] {
                let _ = self.http_request_duration(method, &route, Status::from(status));
            }
        }
    }

    /// How long these metrics have been counting.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// One family as it is now, for what is computed from it within the process.
    #[must_use]
    pub fn family(&self, name: &str) -> Option<MetricFamily> {
        self.registry.gather().into_iter().find(|family| family.name() == name)
    }

    /// The exposition in Prometheus' text format.
    ///
    /// # Errors
    /// When a family cannot be encoded.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for level in LogLevel::ALL {
            catch_up(&self.log_events(*level), self.counters.log_events.get(*level));
        }
        for reason in DropReason::ALL {
            catch_up(&self.otel_spans_dropped(*reason), self.counters.spans_dropped.get(*reason));
        }
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// `docs/METRICS.md`, generated: `switchboard metrics` prints it and a test compares.
#[must_use]
pub fn reference() -> String {
    use std::fmt::Write as _;
    let mut out = String::from(
        "# Metrics\n\n\
         Generated from the catalogue (`src/telemetry/catalogue.rs`) by `make docs`; do not edit.\n\n\
         Switchboard exposes these on the ops listener, `http://127.0.0.1:9464/metrics` by default. Counters\n\
         start at 0 with every legal label combination. Database-wide gauges are the same on every replica: query\n\
         them with `max`, never `sum`.\n\n",
    );
    let _ = writeln!(
        out,
        "A replica exposes at most {SERIES_CEILING} series, each bucket of a histogram being one: route templates, known\n\
         methods and statuses, enums, and dictionary codes capped at {}; anything else becomes `other`.\n",
        super::labels::DICTIONARY_CAP
    );
    out.push_str("| metric | type | labels | help |\n|---|---|---|---|\n");
    for spec in CATALOGUE {
        let labels: Vec<String> = spec.labels.iter().map(|(name, values)| label(name, *values)).collect();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            spec.name,
            spec.kind.as_str(),
            if labels.is_empty() { "–".to_owned() } else { labels.join("; ") },
            spec.help
        );
    }
    for (name, kind) in PROCESS {
        let _ = writeln!(out, "| `{name}` | {} | – | Of the process, on Linux. |", kind.as_str());
    }
    out.push_str("\n## Buckets\n\n| histogram | upper bounds |\n|---|---|\n");
    for spec in CATALOGUE.iter().filter(|spec| !spec.buckets.is_empty()) {
        let bounds: Vec<String> = spec.buckets.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "| `{}` | {} |", spec.name, bounds.join(" "));
    }
    out
}

fn label(name: &str, values: Values) -> String {
    match values {
        // The full list of operations or states would drown the table.
        Values::Closed(values) if values.len() > 12 => format!("`{name}` (one of {})", values.len()),
        Values::Closed(values) => format!("`{name}` ({})", values.join(", ")),
        Values::Capped { what, cap } => format!("`{name}` ({what}; at most {cap})"),
    }
}
