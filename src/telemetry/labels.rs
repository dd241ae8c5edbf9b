//! The label types of the metric catalogue. A label value is an enum variant, a route template or a
//! dictionary code under a cap: never an id, a phone number, a login or a path as it was asked for.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The values a label can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Exactly these.
    Closed(&'static [&'static str]),
    /// As described; at most `cap` of them.
    Capped {
        /// What the values are.
        what: &'static str,
        /// The most values there can be.
        cap: usize,
    },
}

/// A type that can label a series.
pub trait Label {
    /// All it can be.
    const VALUES: Values;
    /// The value as exposed.
    fn value(&self) -> &str;
}

impl<T: Label> Label for &T {
    const VALUES: Values = T::VALUES;
    fn value(&self) -> &str {
        (**self).value()
    }
}

/// Declares an enum whose variants have stable names, usable as a label.
#[macro_export]
macro_rules! label_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable name, as in JSON, the database and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl $crate::telemetry::labels::Label for $name {
            const VALUES: $crate::telemetry::labels::Values =
                $crate::telemetry::labels::Values::Closed(&[$($text),*]);
            fn value(&self) -> &str { self.as_str() }
        }
    };
}

label_enum! {
    /// `http.request.method` of the semantic conventions; others become `_OTHER`.
    pub enum Method {
        Get = "GET", Head = "HEAD", Post = "POST", Put = "PUT", Patch = "PATCH", Delete = "DELETE",
        Options = "OPTIONS", Connect = "CONNECT", Trace = "TRACE", Other = "_OTHER",
    }
}

impl From<&axum::http::Method> for Method {
    fn from(method: &axum::http::Method) -> Self {
        Self::ALL.iter().copied().find(|known| known.as_str() == method.as_str()).unwrap_or(Self::Other)
    }
}

/// A route template (`http.route`), or `unmatched`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(Arc<str>);

impl Route {
    /// The template of a matched route; `None` is a path nobody serves.
    #[must_use]
    pub fn new(template: Option<&axum::extract::MatchedPath>) -> Self {
        Self(template.map_or("unmatched", axum::extract::MatchedPath::as_str).into())
    }

    /// The template of a declared operation.
    pub(crate) fn declared(template: &str) -> Self {
        Self(template.into())
    }

    /// The template.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Label for Route {
    const VALUES: Values = Values::Capped { what: "route templates, `unmatched`", cap: 96 };
    fn value(&self) -> &str {
        &self.0
    }
}

/// An HTTP status code; 499 is a client that hung up before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(&'static str);

/// The statuses this server can give.
const STATUSES: &[&str] = &[
    "101", "200", "201", "202", "204", "206", "301", "303", "304", "307", "308", "400", "401", "403", "404", "405",
    "406", "408", "409", "410", "411", "412", "413", "414", "415", "416", "417", "422", "426", "428", "429", "431",
    "499", "500", "501", "502", "503", "504", "505", "507", "other",
];

impl Status {
    /// The client closed the connection before there was an answer.
    pub const CLIENT_CLOSED: Self = Self("499");
}

impl From<axum::http::StatusCode> for Status {
    fn from(status: axum::http::StatusCode) -> Self {
        Self(STATUSES.iter().find(|known| **known == status.as_str()).copied().unwrap_or("other"))
    }
}

impl Label for Status {
    const VALUES: Values = Values::Closed(STATUSES);
    fn value(&self) -> &str {
        self.0
    }
}

/// How many values of one dictionary may become label values.
pub const DICTIONARY_CAP: usize = 50;

/// A dictionary code (a city, a request type) that has passed the cap. Made by [`Codes::label`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DictionaryCode(Arc<str>);

impl Label for DictionaryCode {
    const VALUES: Values = Values::Capped { what: "dictionary codes, `other`", cap: DICTIONARY_CAP + 1 };
    fn value(&self) -> &str {
        &self.0
    }
}

/// The codes of one dictionary seen so far: the first [`DICTIONARY_CAP`] keep their name.
#[derive(Debug, Default)]
pub struct Codes(Mutex<BTreeSet<Arc<str>>>);

impl Codes {
    /// The label for `code`: itself, or `other` past the cap.
    pub fn label(&self, code: &str) -> DictionaryCode {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get(code) {
            return DictionaryCode(known.clone());
        }
        if seen.len() >= DICTIONARY_CAP {
            return DictionaryCode("other".into());
        }
        let code: Arc<str> = code.into();
        seen.insert(code.clone());
        DictionaryCode(code)
    }
}

label_enum! {
    /// What became of a sign-in.
    pub enum AuthResult {
        /// Signed in.
        Success = "success",
        /// Wrong, unknown or disabled: one value, as there is one answer.
        Rejected = "rejected",
        /// Turned away by the rate limit.
        RateLimited = "rate_limited",
        /// Turned away for a while after failures of this login from this address.
        Locked = "locked",
        /// No core was free in time.
        Overloaded = "overloaded",
    }
}

label_enum! {
    /// What a rate limit protects.
    pub enum RateLimitScope {
        /// All requests of one client address.
        Ip = "ip",
        /// All requests of one user.
        User = "user",
        /// Sign-ins of one client address.
        LoginIp = "login_ip",
        /// Sign-ins with one login from one client address.
        Login = "login",
        /// Deliveries of one webhook provider.
        Webhook = "webhook",
    }
}

label_enum! {
    /// What became of a POST with an Idempotency-Key.
    pub enum IdempotencyOutcome {
        /// It was new, and was done.
        Executed = "executed",
        /// It had been done: the first answer was given again.
        Replayed = "replayed",
        /// Turned away while another one with its key was being worked on.
        InFlight = "in_flight",
        /// Turned away because its key was used for something else.
        Mismatch = "mismatch",
    }
}

label_enum! {
    /// What became of an attempt to refresh a session.
    pub enum RefreshResult {
        /// New tokens.
        Success = "success",
        /// The tokens that another refresh had just made: they ran side by side.
        Repeated = "repeated",
        /// The session is over, or there never was one.
        Rejected = "rejected",
        /// A token that was used before: somebody has a copy, the session ends.
        Reused = "reused",
    }
}

label_enum! {
    /// Requests that share a limit on how many are served at a time.
    pub enum CapacityScope {
        /// All but probes, live events and webhooks.
        Api = "api",
        /// Webhooks.
        Webhook = "webhook",
        /// Files on their way in.
        Upload = "upload",
    }
}

label_enum! {
    /// What became of new certificate files.
    pub enum ReloadResult {
        /// They are in use.
        Success = "success",
        /// They cannot be used; the ones before stay.
        Failure = "failure",
    }
}

label_enum! {
    /// What became of a webhook delivery (the first three, at intake) or of a stored event (the rest).
    pub enum WebhookOutcome {
        /// Verified and stored.
        Accepted = "accepted",
        /// Verified, but stored before.
        Duplicate = "duplicate",
        /// Not stored: badly signed, malformed or too large.
        Rejected = "rejected",
        /// Its effect is in the database.
        Processed = "processed",
        /// Understood, and nothing was to do.
        Ignored = "ignored",
        /// Given up; kept in the inbox for a person.
        Failed = "failed",
    }
}

label_enum! {
    /// A table whose rows are not kept for ever.
    pub enum RetentionTable {
        /// Deleted.
        WebhookEvents = "webhook_events",
        /// Deleted.
        RefreshTokens = "refresh_tokens",
        /// Deleted.
        Sessions = "sessions",
        /// Deleted.
        LoginAttempts = "login_attempts",
        /// Deleted.
        LoginFailures = "login_failures",
        /// Deleted.
        IdempotencyKeys = "idempotency_keys",
        /// Deleted.
        AuditLog = "audit_log",
        /// Anonymised.
        Requests = "requests",
        /// Anonymised.
        RequestComments = "request_comments",
        /// Anonymised.
        RequestEvents = "request_events",
        /// Anonymised.
        Clients = "clients",
        /// Anonymised.
        Calls = "calls",
        /// Deleted with their objects.
        Files = "files",
        /// Deleted with their objects.
        Recordings = "recordings",
    }
}

label_enum! {
    /// What became of a try to fetch a recording.
    pub enum RecordingOutcome {
        /// It can be listened to.
        Stored = "stored",
        /// It failed and will be tried again.
        Postponed = "postponed",
        /// Given up.
        Failed = "failed",
        /// The provider does not have it any more.
        Gone = "gone",
    }
}

label_enum! {
    /// A typed cache.
    pub enum CacheName {
        /// Dictionaries.
        Dictionaries = "dictionaries",
        /// Lists of people.
        Users = "users",
        /// Reports and the business metrics.
        Reports = "reports",
    }
}

label_enum! {
    /// What a cache answered.
    pub enum CacheResult {
        /// The value was there.
        Hit = "hit",
        /// It was not.
        Miss = "miss",
        /// The shared cache failed; this replica's own or the database answered.
        Error = "error",
    }
}

label_enum! {
    /// What this server cannot do without, or can.
    pub enum Dependency {
        /// The database.
        Postgresql = "postgresql",
        /// The shared cache; absent when not configured.
        Redis = "redis",
    }
}

label_enum! {
    /// State of a pooled connection.
    pub enum PoolState {
        /// Free.
        Idle = "idle",
        /// In use.
        Used = "used",
    }
}

label_enum! {
    /// Severity of a log line.
    pub enum LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
}

label_enum! {
    /// Why spans were not delivered.
    pub enum DropReason {
        /// The queue to the exporter was full.
        QueueFull = "queue_full",
        /// The collector did not take them.
        ExportFailed = "export_failed",
    }
}

label_enum! {
    /// Class of a PostgreSQL error (the first two characters of its SQLSTATE), or what kept the
    /// query from reaching the server.
    pub enum SqlstateClass {
        /// 08, or the connection broke.
        Connection = "08",
        /// Data exception.
        Data = "22",
        /// Integrity constraint violation.
        Integrity = "23",
        /// Invalid transaction state.
        TransactionState = "25",
        /// Transaction rollback: serialisation failure, deadlock.
        Rollback = "40",
        /// Syntax error or access rule violation.
        Syntax = "42",
        /// Insufficient resources.
        Resources = "53",
        /// Not in the prerequisite state, lock not available.
        State = "55",
        /// Operator intervention, cancelled by a timeout.
        Intervention = "57",
        /// The client-side timeout.
        Timeout = "timeout",
        /// Everything else.
        Other = "other",
    }
}

label_enum! {
    /// Why a move of a service request was refused.
    pub enum RejectionReason {
        /// The table has no such move from the current state.
        NotAllowed = "not_allowed",
        /// The caller may not make it.
        Forbidden = "forbidden",
        /// Something the move needs is missing.
        MissingField = "missing_field",
        /// The version in If-Match is not the current one.
        Stale = "stale",
    }
}
