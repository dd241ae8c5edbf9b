//! Settings: one struct a section, every default in `defaults.toml`, every value checked at start.
//! Reading (files, environment, `*_FILE`) is in [`source`]; what a value must satisfy is here.

mod hours;
mod rate;
mod secret;
mod source;

use std::{
    any::TypeId,
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use crate::calls::providers::generic;

pub use hours::BusinessHours;
pub use rate::Rate;
pub use secret::Secret;
pub use source::{Origin, Settings};

/// The defaults with their documentation: also what `switchboard config --defaults` prints.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Shortest accepted signing key or pepper, in bytes (RFC 7518 §3.2: at least the hash's output).
pub const MIN_SECRET_BYTES: usize = 32;

/// A setting that cannot be used: it names the setting, what is wrong and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    /// The variable or key to change.
    pub setting: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into() }
    }
}

/// All settings of a server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: Http,
    pub tls: Tls,
    pub ops: Ops,
    pub data: Data,
    pub database: Database,
    pub redis: Redis,
    pub cache: Cache,
    pub jwt: Jwt,
    pub session: Session,
    pub password: Password,
    pub limits: Limits,
    pub mango: Mango,
    pub generic: Generic,
    pub privacy: Privacy,
    pub files: Files,
    pub recordings: Recordings,
    pub sla: Sla,
    pub collector: Collector,
    pub events: Events,
    pub retention: Retention,
    pub business: Business,
    pub telephony: Telephony,
    pub inbox: Inbox,
    pub log: Log,
    pub shutdown: Shutdown,
}

macro_rules! sections {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $(pub $field: $ty),* }
        )*

        /// Whether a setting is a secret, which its type says: it is never printed, and not taken from a file
        /// of settings.
        fn is_secret(key: &str) -> bool {
            let fields = [$($((stringify!($name), stringify!($field), TypeId::of::<$ty>())),*),*];
            fields.iter().any(|(section, field, ty)| {
                *ty == TypeId::of::<Secret>() && key.split_once('.') == Some((&section.to_ascii_lowercase(), field))
            })
        }
    };
}

sections! {
    /// The public listener.
    Http {
        addr: SocketAddr, request_timeout_ms: u64, body_limit_bytes: usize,
        allowed_origins: Vec<String>, trusted_proxies: Vec<IpNet>, insecure_cookies: bool,
        header_timeout_ms: u64, stall_timeout_ms: u64, max_in_flight: usize,
    }
    /// TLS of the public listener.
    Tls { cert_file: PathBuf, key_file: PathBuf, reload_interval_ms: u64 }
    /// The listener for Prometheus and probes.
    Ops { addr: SocketAddr }
    /// Files of this installation.
    Data { dir: PathBuf }
    /// PostgreSQL.
    Database { url: Secret, max_connections: u16, acquire_timeout_ms: u64, query_timeout_ms: u64 }
    /// Redis.
    Redis { url: Secret }
    /// How long what is cached may live.
    Cache { dictionaries_ttl_s: u32, users_ttl_s: u32, reports_ttl_s: u32 }
    /// Access tokens.
    Jwt { secret: Secret, previous_secret: Secret, ttl_s: u32 }
    /// How long people stay signed in.
    Session { idle_s: u32, lifetime_s: u32 }
    /// Password hashing.
    Password { pepper: Secret, previous_pepper: Secret, cost: u32, queue_timeout_ms: u64 }
    /// Rate limits.
    Limits { ip: Rate, user: Rate, login_ip: Rate, webhook: Rate, replicas: u32 }
    /// The Mango Office provider.
    Mango { api_key: Secret, api_salt: Secret, base_url: String }
    /// The generic provider.
    Generic { secret: Secret }
    /// Personal data at rest.
    Privacy { passport_key: Secret }
    /// Uploads and recordings.
    Files { store: String, max_bytes: usize, max_per_owner: u32, max_uploads: u16, upload_timeout_s: u32 }
    /// Fetching recordings of calls.
    Recordings { poll_interval_ms: u64, timeout_ms: u64, max_attempts: u16, max_bytes: usize }
    /// What was promised to clients.
    Sla { poll_interval_ms: u64, offer_timeout_s: u32 }
    /// The business metrics.
    Collector { interval_ms: u64 }
    /// Live events.
    Events { poll_interval_ms: u64, buffer: usize }
    /// How long things are kept.
    Retention {
        interval_s: u64, batch_rows: u32, inbox_days: u32, sessions_days: u32, login_attempts_days: u32,
        idempotency_days: u32, audit_days: u32, personal_data_days: u32,
    }
    /// When the company is there for its clients.
    Business { hours: BusinessHours }
    /// What every provider has in common.
    Telephony { region: String, dedupe_window_s: u32 }
    /// The webhook worker.
    Inbox { poll_interval_ms: u64, max_attempts: u16 }
    /// Log output.
    Log { format: LogFormat, level: String }
    /// How the server stops.
    Shutdown { delay_ms: u64, drain_ms: u64 }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl Database {
    /// Longest wait for a connection.
    #[must_use]
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }

    /// Longest run of one query.
    #[must_use]
    pub fn query_timeout(&self) -> Duration {
        Duration::from_millis(self.query_timeout_ms)
    }
}

impl Config {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError::new(source::env_name(key), problem));
        if self.http.addr == self.ops.addr && self.http.addr.port() != 0 {
            return fail(
                "ops.addr",
                "is the public address too; give /metrics an address of its own, such as 127.0.0.1:9464",
            );
        }
        for origin in &self.http.allowed_origins {
            let parsed = url::Url::parse(origin).map(|url| url.origin().ascii_serialization());
            if parsed.as_deref() != Ok(origin.as_str()) {
                return fail(
                    "http.allowed_origins",
                    &format!("{origin:?} is no origin; write scheme://host[:port] and nothing after it"),
                );
            }
        }
        self.check_ranges()?;
        if self.http.insecure_cookies && !self.http.addr.ip().is_loopback() {
            return fail("http.insecure_cookies", "is for development on loopback; serve HTTPS instead");
        }
        if !(1..=1000).contains(&self.database.max_connections) {
            return fail("database.max_connections", "must be between 1 and 1000");
        }
        check_url("database.url", &self.database.url, &["postgres", "postgresql"])?;
        check_url("redis.url", &self.redis.url, &["redis", "unix"])?;
        if !self.redis.url.is_empty() && redis::Client::open(self.redis.url.expose()).is_err() {
            return fail("redis.url", "cannot be used; write redis://[:password@]host[:port][/number]");
        }
        self.check_secrets()?;
        self.check_tls()?;
        self.check_outside()?;
        self.check_sessions()?;
        if !(12..=16).contains(&self.password.cost) {
            return fail("password.cost", "must be between 12 (about 0.25 s a login) and 16");
        }
        if self.mango.api_key.is_empty() != self.mango.api_salt.is_empty() {
            let missing = if self.mango.api_key.is_empty() { "mango.api_key" } else { "mango.api_salt" };
            return fail(
                missing,
                "is missing; Mango needs both SWITCHBOARD_MANGO_API_KEY and SWITCHBOARD_MANGO_API_SALT",
            );
        }
        if phonenumber::country::Id::from_str(&self.telephony.region).is_err() {
            return fail("telephony.region", "is no two-letter country code such as RU");
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            return fail("log.level", &format!("{error}; try \"info\""));
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError::new(source::env_name(key), problem));
        for (key, value, most) in [
            ("http.request_timeout_ms", self.http.request_timeout_ms, 300_000),
            ("http.body_limit_bytes", self.http.body_limit_bytes as u64, 1 << 30),
            ("database.acquire_timeout_ms", self.database.acquire_timeout_ms, 60_000),
            ("database.query_timeout_ms", self.database.query_timeout_ms, 60_000),
            ("cache.dictionaries_ttl_s", u64::from(self.cache.dictionaries_ttl_s), 86_400),
            ("cache.users_ttl_s", u64::from(self.cache.users_ttl_s), 86_400),
            ("cache.reports_ttl_s", u64::from(self.cache.reports_ttl_s), 3_600),
            ("password.queue_timeout_ms", self.password.queue_timeout_ms, 60_000),
            ("inbox.poll_interval_ms", self.inbox.poll_interval_ms, 60_000),
            ("inbox.max_attempts", u64::from(self.inbox.max_attempts), 1_000),
            ("limits.replicas", u64::from(self.limits.replicas), 1_000),
            ("http.header_timeout_ms", self.http.header_timeout_ms, 60_000),
            ("http.stall_timeout_ms", self.http.stall_timeout_ms, 60_000),
            ("http.max_in_flight", self.http.max_in_flight as u64, 100_000),
            ("tls.reload_interval_ms", self.tls.reload_interval_ms, 3_600_000),
            ("files.max_bytes", self.files.max_bytes as u64, 1 << 30),
            ("files.max_per_owner", u64::from(self.files.max_per_owner), 10_000),
            ("files.max_uploads", u64::from(self.files.max_uploads), 1_000),
            ("files.upload_timeout_s", u64::from(self.files.upload_timeout_s), 3_600),
            ("recordings.poll_interval_ms", self.recordings.poll_interval_ms, 3_600_000),
            ("recordings.timeout_ms", self.recordings.timeout_ms, 3_600_000),
            ("recordings.max_attempts", u64::from(self.recordings.max_attempts), 1_000),
            ("recordings.max_bytes", self.recordings.max_bytes as u64, 1 << 30),
            ("sla.poll_interval_ms", self.sla.poll_interval_ms, 60_000),
            ("sla.offer_timeout_s", u64::from(self.sla.offer_timeout_s), 604_800),
            ("collector.interval_ms", self.collector.interval_ms, 3_600_000),
            ("events.poll_interval_ms", self.events.poll_interval_ms, 10_000),
            ("events.buffer", self.events.buffer as u64, 100_000),
            ("retention.interval_s", self.retention.interval_s, 604_800),
            ("retention.batch_rows", u64::from(self.retention.batch_rows), 100_000),
        ] {
            if !(1..=most).contains(&value) {
                return fail(key, &format!("must be between 1 and {most}"));
            }
        }
        for (key, rate) in [
            ("limits.ip", self.limits.ip),
            ("limits.user", self.limits.user),
            ("limits.login_ip", self.limits.login_ip),
            ("limits.webhook", self.limits.webhook),
        ] {
            // Else their parts, of which none can be less than one, would come to more than the whole.
            if rate.burst.get() < self.limits.replicas {
                return fail(
                    key,
                    &format!(
                        "grants fewer at once than there are replicas ({}), of which each grants one at least without Redis; raise it, or its burst",
                        self.limits.replicas
                    ),
                );
            }
        }
        for (key, days) in [
            ("retention.inbox_days", self.retention.inbox_days),
            ("retention.sessions_days", self.retention.sessions_days),
            ("retention.login_attempts_days", self.retention.login_attempts_days),
            ("retention.idempotency_days", self.retention.idempotency_days),
            ("retention.audit_days", self.retention.audit_days),
            ("retention.personal_data_days", self.retention.personal_data_days),
        ] {
            if days > 36_500 {
                return fail(key, "must be at most 36500 (a century); 0 is for ever");
            }
        }
        Ok(())
    }

    fn check_sessions(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError::new(source::env_name(key), problem));
        if !(60..=900).contains(&self.jwt.ttl_s) {
            return fail("jwt.ttl_s", "must be between 60 (a minute) and 900 (15 minutes)");
        }
        if !(self.jwt.ttl_s..=7_776_000).contains(&self.session.idle_s) {
            return fail("session.idle_s", "must be between jwt.ttl_s and 7776000 (90 days)");
        }
        if !(self.session.idle_s..=31_536_000).contains(&self.session.lifetime_s) {
            return fail("session.lifetime_s", "must be between session.idle_s and 31536000 (a year)");
        }
        if (1..366).contains(&self.retention.audit_days) {
            return fail("retention.audit_days", "must be at least 366, which the database insists on; 0 is for ever");
        }
        Ok(())
    }

    /// The secrets that this server makes up for itself: each strong, and each another one.
    fn check_secrets(&self) -> Result<(), ConfigError> {
        let key = self.privacy.passport_key.expose();
        if !key.is_empty() && (key.len() != 64 || !key.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(ConfigError::new(
                source::env_name("privacy.passport_key"),
                "must be 64 hexadecimal digits; make one with: openssl rand -hex 32",
            ));
        }
        let own = [
            ("jwt.secret", &self.jwt.secret, true),
            ("password.pepper", &self.password.pepper, true),
            ("jwt.previous_secret", &self.jwt.previous_secret, false),
            ("password.previous_pepper", &self.password.previous_pepper, false),
            ("privacy.passport_key", &self.privacy.passport_key, false),
        ];
        let mut seen: Vec<(&str, &Secret)> = Vec::new();
        for (key, secret, required) in own {
            if secret.is_empty() && !required {
                continue;
            }
            check_secret(key, secret)?;
            // Who learns one of them must not have learnt two.
            if let Some((other, _)) = seen.iter().find(|(_, other)| other.expose() == secret.expose()) {
                let problem = format!(
                    "is the same as {}; each needs a value of its own: openssl rand -hex 32",
                    source::env_name(other)
                );
                return Err(ConfigError::new(source::env_name(key), problem));
            }
            seen.push((key, secret));
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let unset = |path: &Path| path == Path::new("");
        let (missing, other) = match (unset(&self.tls.cert_file), unset(&self.tls.key_file)) {
            (true, false) => ("tls.cert_file", "tls.key_file"),
            (false, true) => ("tls.key_file", "tls.cert_file"),
            _ => return Ok(()),
        };
        let problem = format!("is not set, but {} is; TLS needs both", source::env_name(other));
        Err(ConfigError::new(source::env_name(missing), problem))
    }

    /// What lies outside: the object store and the telephony providers.
    fn check_outside(&self) -> Result<(), ConfigError> {
        let fail = |key: &str, problem: &str| Err(ConfigError::new(source::env_name(key), problem));
        let bucket = url::Url::parse(&self.files.store);
        if !self.files.store.is_empty() && !bucket.is_ok_and(|url| url.scheme() == "s3" && url.has_host()) {
            return fail("files.store", "is no s3://bucket/prefix; leave it empty for a folder under data.dir");
        }
        if !self.generic.secret.is_empty() && generic::Credentials::read(self.generic.secret.expose()).is_none() {
            return fail(
                "generic.secret",
                "is no secret of Standard Webhooks; make one with: echo whsec_$(openssl rand -base64 32)",
            );
        }
        let base = url::Url::parse(&self.mango.base_url);
        if !self.mango.base_url.is_empty() && !base.is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return fail("mango.base_url", "is no http or https URL");
        }
        Ok(())
    }

    /// The data directory, with the default for this user filled in.
    ///
    /// # Errors
    /// When it is not set and the user has no home.
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        if self.data.dir != Path::new("") {
            return std::path::absolute(&self.data.dir)
                .map_err(|error| ConfigError::new(source::env_name("data.dir"), error.to_string()));
        }
        if nix::unistd::geteuid().is_root() {
            // PostgreSQL refuses to run as root, and no other user can enter /root.
            return Ok(PathBuf::from("/var/lib/switchboard"));
        }
        std::env::home_dir().map(|home| home.join(".local/share/switchboard")).ok_or_else(|| {
            ConfigError::new(source::env_name("data.dir"), "is not set and there is no home directory; set it")
        })
    }
}

fn check_secret(key: &str, secret: &Secret) -> Result<(), ConfigError> {
    let name = source::env_name(key);
    let bytes = secret.expose().len();
    if bytes == 0 {
        return Err(ConfigError::new(
            name.clone(),
            format!("is not set; make one with: export {name}=$(openssl rand -hex 32)"),
        ));
    }
    let weakness = if bytes < MIN_SECRET_BYTES { Some("too short") } else { weakness(secret.expose()) };
    if let Some(weakness) = weakness {
        let problem =
            format!("is {weakness}: at least {MIN_SECRET_BYTES} random bytes; make one with: openssl rand -hex 32");
        return Err(ConfigError::new(name, problem));
    }
    Ok(())
}

/// What makes a secret one that somebody could guess, whatever its length.
fn weakness(secret: &str) -> Option<&'static str> {
    const SAMPLES: [&str; 6] = ["change-me", "changeme", "example", "sample", "secret", "password"];
    let lower = secret.to_ascii_lowercase();
    if SAMPLES.iter().any(|sample| lower.contains(sample)) {
        return Some("made for an example");
    }
    let bytes = secret.as_bytes();
    let repeats = |period: usize| bytes.iter().zip(&bytes[period..]).all(|(one, next)| one == next);
    let distinct = bytes.iter().collect::<BTreeSet<_>>().len();
    if distinct < 8 || (1..=bytes.len() / 2).any(repeats) {
        return Some("a pattern");
    }
    None
}

fn check_url(key: &str, value: &Secret, schemes: &[&str]) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Ok(());
    }
    // The value holds a password: the message may name the scheme only.
    match url::Url::parse(value.expose()) {
        Ok(url) if schemes.contains(&url.scheme()) => Ok(()),
        Ok(url) => Err(ConfigError::new(
            source::env_name(key),
            format!("has the scheme {:?}; use {}://", url.scheme(), schemes[0]),
        )),
        Err(error) => {
            Err(ConfigError::new(source::env_name(key), format!("is no URL ({error}); use {}://…", schemes[0])))
        }
    }
}

#[cfg(test)]
mod tests;
