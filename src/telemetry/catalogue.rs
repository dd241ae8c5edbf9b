//! THE metric catalogue: every metric Switchboard exposes is declared in `catalogue!` below, with
//! its type, unit, labels, buckets and help. The recording methods, the zero-initialised series and
//! `docs/METRICS.md` come from it, so a call site can neither invent a metric nor a label.
//!
//! A metric that only the process knows when it is scraped (`process_*`, from the `prometheus`
//! crate) is listed in [`PROCESS`].

use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};

use super::labels::{
    AuthResult, CacheName, CacheResult, CapacityScope, Dependency, DictionaryCode, DropReason, IdempotencyOutcome,
    Label, LogLevel, Method, PoolState, RateLimitScope, RecordingOutcome, RefreshResult, RejectionReason, ReloadResult,
    RetentionTable, Route, SqlstateClass, Status, Values, WebhookOutcome,
};
use crate::{
    auth::Role,
    calls::{
        facts::{CallResult, Direction},
        providers::Provider,
    },
    db::DbOperation,
    requests::{model::Source, state::Status as RequestStatus},
    sla::model::Policy,
};

/// What a metric is, for documentation and tests.
#[derive(Clone, Copy, Debug)]
pub struct MetricSpec {
    /// As exposed, without the suffixes that a histogram adds.
    pub name: &'static str,
    /// Prometheus type.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Label names and what they can be.
    pub labels: &'static [(&'static str, Values)],
    /// Upper bounds of a histogram's buckets, in the unit of its name.
    pub buckets: &'static [f64],
}

/// Prometheus metric types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As in the exposition format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// HTTP server durations: the buckets of the OpenTelemetry semantic conventions, and 0.1 s is the SLO.
const HTTP_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Database and cache operations: same conventions, finer below 5 ms.
const OPERATION_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Cache round trips.
const CACHE_SECONDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1];
/// How long people take: one minute to thirty days.
const HUMAN_SECONDS: &[f64] = &[
    60.0,
    300.0,
    900.0,
    1_800.0,
    3_600.0,
    7_200.0,
    14_400.0,
    28_800.0,
    86_400.0,
    172_800.0,
    259_200.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
];
/// How long a phone rings.
const RING_SECONDS: &[f64] = &[1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0];
/// How long people talk.
const TALK_SECONDS: &[f64] = &[5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1_200.0, 3_600.0];
/// From intake of a webhook to its effect.
const LAG_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];
/// Bodies.
const BYTES: &[f64] = &[64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 10_485_760.0];
/// How late a timer fires.
const TIMER_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Families that the `prometheus` crate's process collector adds on Linux.
pub const PROCESS: &[(&str, Kind)] = &[
    ("process_cpu_seconds_total", Kind::Counter),
    ("process_max_fds", Kind::Gauge),
    ("process_open_fds", Kind::Gauge),
    ("process_resident_memory_bytes", Kind::Gauge),
    ("process_start_time_seconds", Kind::Gauge),
    ("process_threads", Kind::Gauge),
    ("process_virtual_memory_bytes", Kind::Gauge),
];

macro_rules! kind {
    (@kind counter) => {
        Kind::Counter
    };
    (@kind gauge) => {
        Kind::Gauge
    };
    (@kind amount) => {
        Kind::Counter
    };
    (@kind histogram) => {
        Kind::Histogram
    };
    (@vec counter) => {
        IntCounterVec
    };
    (@vec gauge) => {
        IntGaugeVec
    };
    (@vec amount) => {
        CounterVec
    };
    (@vec histogram) => {
        HistogramVec
    };
    (@child counter) => {
        IntCounter
    };
    (@child gauge) => {
        IntGauge
    };
    (@child amount) => {
        Counter
    };
    (@child histogram) => {
        Histogram
    };
    (@new counter, $spec:expr, $names:expr) => {
        IntCounterVec::new(Opts::new($spec.name, $spec.help), $names)
    };
    (@new gauge, $spec:expr, $names:expr) => {
        IntGaugeVec::new(Opts::new($spec.name, $spec.help), $names)
    };
    (@new amount, $spec:expr, $names:expr) => {
        CounterVec::new(Opts::new($spec.name, $spec.help), $names)
    };
    (@new histogram, $spec:expr, $names:expr) => {
        HistogramVec::new(HistogramOpts::new($spec.name, $spec.help).buckets($spec.buckets.to_vec()), $names)
    };
}

macro_rules! label_name {
    ($label:ident) => {
        stringify!($label)
    };
    ($label:ident $shown:literal) => {
        $shown
    };
}

/// Declares the metrics. `[zero]` marks those whose every label combination exists from the start;
/// the others are started by [`super::metrics::Metrics`] with their legal combinations.
macro_rules! catalogue {
    ($($kind:ident $field:ident = $name:literal $(($buckets:ident))? $([$zero:ident])? { $($label:ident $(as $shown:literal)?: $ty:ty),* } $help:literal;)*) => {
        /// Every declared metric, in the order of the documentation.
        pub const CATALOGUE: &[MetricSpec] = &[$(MetricSpec {
            name: $name,
            kind: kind!(@kind $kind),
            help: $help,
            labels: &[$((label_name!($label $($shown)?), <$ty as Label>::VALUES)),*],
            buckets: { let buckets: &[f64] = &[]; $(let buckets = { let _ = buckets; $buckets };)? buckets },
        }),*];

        /// The vectors behind the recording methods. Private to this module, on purpose.
        #[derive(Debug)]
        pub struct Vectors { $($field: kind!(@vec $kind)),* }

        impl Vectors {
            /// Builds and registers all of them.
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                let mut specs = CATALOGUE.iter();
                $(let $field = {
                    let spec = specs.next().ok_or(prometheus::Error::AlreadyReg)?;
                    let names: Vec<&str> = spec.labels.iter().map(|(name, _)| *name).collect();
                    let vector = kind!(@new $kind, spec, &names)?;
                    registry.register(Box::new(vector.clone()))?;
                    $(zero::$zero(spec, |values| { vector.with_label_values(values); });)?
                    vector
                };)*
                Ok(Self { $($field),* })
            }

            /// How many series there are now, buckets included.
            #[must_use]
            pub fn series(&self) -> usize {
                0 $(+ count(&self.$field.collect()))*
            }

            $(
                #[doc = $help]
                #[must_use]
                pub fn $field(&self, $($label: $ty),*) -> kind!(@child $kind) {
                    self.$field.with_label_values(&[$($label.value()),*] as &[&str])
                }
            )*
        }
    };
}

/// As Prometheus counts: a histogram is its buckets, +Inf, a sum and a count.
fn count(families: &[prometheus::proto::MetricFamily]) -> usize {
    let series = |metric: &prometheus::proto::Metric| match metric.get_histogram().get_bucket().len() {
        0 => 1,
        buckets => buckets + 3,
    };
    families.iter().flat_map(prometheus::proto::MetricFamily::get_metric).map(series).sum()
}

mod zero {
    use super::{MetricSpec, Values};

    /// Calls `touch` with every combination of the closed labels of `spec`.
    pub(super) fn zero(spec: &MetricSpec, mut touch: impl FnMut(&[&str])) {
        let mut rows: Vec<Vec<&str>> = vec![vec![]];
        for (_, values) in spec.labels {
            let Values::Closed(values) = values else { return };
            rows =
                rows.iter().flat_map(|row| values.iter().map(|value| [row.as_slice(), &[*value]].concat())).collect();
        }
        for row in &rows {
            touch(row);
        }
    }
}

catalogue! {
    histogram http_request_duration = "http_server_request_duration_seconds" (HTTP_SECONDS)
        { http_request_method: Method, http_route: &Route, http_response_status_code: Status }
        "Duration of HTTP requests from the first byte read to the answer's head; status 499 is a client that hung up.";
    gauge http_active_requests = "http_server_active_requests" [zero] { http_request_method: Method }
        "HTTP requests being served.";
    histogram http_request_body_size = "http_server_request_body_size_bytes" (BYTES) { http_route: &Route }
        "Size of HTTP request bodies, as far as they were read.";
    histogram http_response_body_size = "http_server_response_body_size_bytes" (BYTES) { http_route: &Route }
        "Size of HTTP response bodies whose size is known beforehand.";

    counter requests_created = "switchboard_service_requests_created_total" { source: Source, kind as "type": &DictionaryCode }
        "Service requests created.";
    counter requests_created_by_city = "switchboard_service_requests_created_by_city_total" { city: &DictionaryCode }
        "Service requests created, by city.";
    counter request_transitions = "switchboard_service_request_transitions_total" { from: RequestStatus, to: RequestStatus }
        "Moves of service requests between states; only the moves of the state machine exist.";
    counter request_transition_rejections = "switchboard_service_request_transition_rejections_total" [zero] { reason: RejectionReason }
        "Moves of service requests that were refused.";
    histogram request_first_response = "switchboard_service_request_first_response_seconds" (HUMAN_SECONDS) { kind as "type": &DictionaryCode }
        "From the creation of a service request to the first move out of new by a person.";
    histogram request_assign = "switchboard_service_request_assign_seconds" (HUMAN_SECONDS) { kind as "type": &DictionaryCode }
        "From the creation of a service request to its first offer to a master.";
    histogram request_completion = "switchboard_service_request_completion_seconds" (HUMAN_SECONDS) { kind as "type": &DictionaryCode }
        "From the creation of a service request to done.";
    counter sla_breaches = "switchboard_service_request_sla_breaches_total" [zero] { policy: Policy }
        "Promises to clients that were not kept in time, counted by the replica that noticed.";
    gauge event_streams = "switchboard_event_streams" [zero] {}
        "Clients that listen to live events on this replica.";
    counter event_streams_dropped = "switchboard_event_streams_dropped_total" [zero] {}
        "Streams of live events that were cut off because their client did not keep up.";

    counter calls = "switchboard_calls_total" [zero] { result: CallResult, direction: Direction }
        "Calls that are over.";
    histogram call_talk = "switchboard_call_talk_seconds" (TALK_SECONDS) [zero] { result: CallResult, direction: Direction }
        "Talk time of calls that were answered.";
    histogram call_answer_wait = "switchboard_call_answer_wait_seconds" (RING_SECONDS) [zero] { result: CallResult, direction: Direction }
        "From the first ring to the answer, or to the end of a missed call.";
    counter calls_deduplicated = "switchboard_calls_deduplicated_total" [zero] { provider: Provider }
        "Incoming calls that joined an open service request of the same client.";
    counter calls_unknown_line = "switchboard_calls_unknown_line_total" [zero] { provider: Provider }
        "Incoming calls on a line that belongs to no campaign; they wait in triage.";
    counter calls_unknown_caller = "switchboard_calls_unknown_caller_total" [zero] { provider: Provider }
        "Incoming calls whose caller's number cannot be normalised; they wait in triage.";
    counter webhook_events = "switchboard_webhook_events_total" [zero] { provider: Provider, outcome: WebhookOutcome }
        "Webhook deliveries by outcome at intake, and stored events by outcome of their processing.";
    histogram webhook_processing_lag = "switchboard_webhook_processing_lag_seconds" (LAG_SECONDS) [zero] { provider: Provider }
        "From the intake of a webhook event to its effect in the database.";
    gauge webhook_backlog = "switchboard_webhook_backlog" [zero] { provider: Provider }
        "Webhook events stored and not yet processed, over all replicas: query with max.";
    gauge business_opened = "switchboard_business_opened_timestamp_seconds" {}
        "When today's business hours began, unix time; absent outside of them.";
    counter recordings = "switchboard_recordings_total" [zero] { outcome: RecordingOutcome }
        "Tries to fetch a recording of a call from the provider.";
    amount revenue = "switchboard_revenue_rubles_total" { city: &DictionaryCode }
        "Income booked: the company's share of finished service requests, and what was booked by hand.";
    amount refunds = "switchboard_refunds_rubles_total" { city: &DictionaryCode }
        "Income reversed: a finished service request was reopened, or a booking by hand taken back.";
    counter retention_rows = "switchboard_retention_rows_total" [zero] { table: RetentionTable }
        "Rows deleted or anonymised because they had been kept long enough.";
    gauge backup_last_success = "switchboard_backup_last_success_timestamp_seconds" {}
        "When the last backup was finished, unix time; absent as long as there is none.";

    gauge requests_open = "switchboard_service_requests_open" { status: RequestStatus }
        "Service requests that are not finished, by state; absent until the collector's first round.";
    gauge request_oldest_open = "switchboard_service_request_oldest_open_timestamp_seconds" { status: RequestStatus }
        "Creation of the oldest unfinished service request in a state; absent where there is none.";
    gauge requests_stuck = "switchboard_service_requests_stuck" { status: RequestStatus }
        "Service requests that are in a state for longer than they should be.";
    gauge active_users = "switchboard_active_users" { role: Role }
        "Users who signed in or refreshed their session within the lifetime of an access token; absent until the collector's first round.";
    gauge collector_last_success = "switchboard_collector_last_success_timestamp_seconds" {}
        "When the figures of the collector were true that this replica exports; absent until there are any.";
    histogram collector_duration = "switchboard_collector_duration_seconds" (OPERATION_SECONDS) [zero] {}
        "Duration of the collector's rounds, on the replica that is elected.";
    counter collector_errors = "switchboard_collector_errors_total" [zero] {}
        "Rounds of the collector that failed, and failed readings of its figures.";

    histogram db_operation_duration = "db_client_operation_duration_seconds" (OPERATION_SECONDS) [zero] { operation: DbOperation }
        "Duration of database operations.";
    counter db_errors = "db_client_errors_total" [zero] { sqlstate_class: SqlstateClass }
        "Failed database operations by SQLSTATE class.";
    gauge db_pool_connections = "db_pool_connections" [zero] { state: PoolState }
        "Pooled database connections.";
    gauge db_pool_max_connections = "db_pool_max_connections" [zero] {}
        "The most database connections the pool may open.";
    histogram db_pool_acquire_duration = "db_pool_acquire_duration_seconds" (OPERATION_SECONDS) [zero] {}
        "Wait for a pooled database connection.";
    counter db_pool_acquire_timeouts = "db_pool_acquire_timeouts_total" [zero] {}
        "Waits for a pooled database connection that were given up.";
    counter cache_requests = "cache_requests_total" [zero] { cache: CacheName, result: CacheResult }
        "Cache look-ups.";
    histogram cache_operation_duration = "cache_operation_duration_seconds" (CACHE_SECONDS) [zero] { cache: CacheName, result: CacheResult }
        "Duration of cache look-ups.";
    gauge cache_fallback_active = "cache_fallback_active" [zero] {}
        "1 while the shared cache is configured and does not answer.";
    gauge dependency_up = "dependency_up" { dependency: Dependency }
        "1 while the dependency answers, else 0; absent when it is not configured.";

    gauge password_hash_inflight = "password_hash_inflight" [zero] {}
        "Password hashes being computed.";
    gauge password_hash_queue_depth = "password_hash_queue_depth" [zero] {}
        "Logins waiting for a core to hash on.";
    histogram password_hash_wait = "password_hash_wait_seconds" (OPERATION_SECONDS) [zero] {}
        "Wait for a core to hash on.";
    histogram password_hash_duration = "password_hash_duration_seconds" (HTTP_SECONDS) [zero] {}
        "Duration of one password hash.";
    counter password_hash_rejected = "password_hash_rejected_total" [zero] {}
        "Logins turned away because no core was free in time.";
    counter auth_attempts = "auth_attempts_total" [zero] { result: AuthResult }
        "Sign-ins by result.";
    counter auth_refreshes = "auth_refreshes_total" [zero] { result: RefreshResult }
        "Attempts to refresh a session, by result.";
    counter auth_refresh_reuse = "auth_refresh_reuse_total" [zero] {}
        "Refresh tokens that were presented again after their use: each ended its session.";
    counter password_rehashes = "password_rehashes_total" [zero] {}
        "Passwords hashed anew at a sign-in, because the cost or the pepper had changed.";
    counter rate_limited = "rate_limited_total" [zero] { scope: RateLimitScope }
        "HTTP requests turned away by a rate limit.";
    counter idempotent_requests = "switchboard_idempotent_requests_total" [zero] { outcome: IdempotencyOutcome }
        "POSTs with an Idempotency-Key: done, answered as before, or turned away; those that failed are not counted.";
    counter http_requests_shed = "http_requests_shed_total" [zero] { scope: CapacityScope }
        "HTTP requests turned away because as many were being served as may be.";
    gauge tls_certificate_not_after = "tls_certificate_not_after_timestamp_seconds" {}
        "When the certificate in use expires, unix time; absent without TLS.";
    counter tls_certificate_reloads = "tls_certificate_reloads_total" [zero] { result: ReloadResult }
        "New certificate files that were found, by what became of them.";

    gauge tokio_workers = "tokio_workers" [zero] {}
        "Threads of the asynchronous runtime.";
    gauge tokio_alive_tasks = "tokio_alive_tasks" [zero] {}
        "Tasks of the asynchronous runtime that are not finished.";
    gauge tokio_global_queue_depth = "tokio_global_queue_depth" [zero] {}
        "Tasks waiting in the runtime's global queue.";
    histogram event_loop_lag = "event_loop_lag_seconds" (TIMER_SECONDS) [zero] {}
        "How much later than asked a 100 ms timer fires.";
    counter log_events = "log_events_total" [zero] { level: LogLevel }
        "Log lines written.";
    counter otel_spans_dropped = "otel_spans_dropped_total" [zero] { reason: DropReason }
        "Sampled spans that did not reach the collector.";
    gauge build_info = "build_info" { version: &BuildLabel, revision: &BuildLabel, rustc: &BuildLabel }
        "Always 1; its labels say what is running.";
}

impl Vectors {
    /// Takes the series away: no service request is in this state.
    pub fn forget_request_oldest_open(&self, status: RequestStatus) {
        // That it was not there is no error.
        let _ = self.request_oldest_open.remove_label_values(&[status.value()]);
    }

    /// Takes the series away: these are no business hours.
    pub fn forget_business_opened(&self) {
        let _ = self.business_opened.remove_label_values(&[] as &[&str]);
    }
}

/// One fact about the build.
#[derive(Clone, Copy, Debug)]
pub struct BuildLabel(pub(super) &'static str);

impl Label for BuildLabel {
    const VALUES: Values = Values::Capped { what: "fixed when built", cap: 1 };
    fn value(&self) -> &str {
        self.0
    }
}
