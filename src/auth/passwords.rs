//! Password hashing: bcrypt over a peppered digest, off the asynchronous threads, as many at once as
//! there are cores, and no longer a queue than people wait.
//!
//! bcrypt reads 72 bytes, which is 36 Cyrillic letters. So what it is given is
//! base64(HMAC-SHA384(password, pepper)), 64 bytes for any password, and the stored form names that
//! scheme: `v1` and the bcrypt string.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;
use tokio::sync::Semaphore;
use tracing::{Instrument, info_span};

use crate::{
    config::{self, Secret},
    error::{self, AppError},
    telemetry::metrics::Metrics,
};

const SCHEME: &str = "v1";
/// Accepted password lengths, in characters.
pub const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// Passwords that everybody tries first: in lower case, one a line.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// What is wrong with a new password of this user; `None` when nothing is.
#[must_use]
pub fn objection(password: &str, login: &str) -> Option<String> {
    let characters = password.chars().count();
    if !LENGTH.contains(&characters) {
        return Some(format!("must have {} to {} characters; it has {characters}", LENGTH.start(), LENGTH.end()));
    }
    // Signing in refuses these as an empty field would be.
    if password.contains('\0') || password.trim().is_empty() {
        return Some("must be text".to_owned());
    }
    let lower = password.to_lowercase();
    let distinct: HashSet<char> = lower.chars().collect();
    if COMMON.contains(lower.as_str()) || distinct.len() < 3 || lower == login {
        return Some("is among the first that somebody would try; choose another".to_owned());
    }
    None
}

/// The hashing pipeline of one App.
#[derive(Debug)]
pub struct Passwords {
    pepper: Secret,
    cost: u32,
    cores: Arc<Semaphore>,
    patience: Duration,
    metrics: Arc<Metrics>,
    /// Compared against when the login does not exist, so that the answer takes as long.
    dummy: String,
}

impl Passwords {
    /// A pipeline with the settings' pepper and cost.
    ///
    /// # Errors
    /// When bcrypt refuses the cost.
    pub fn new(config: &config::Password, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            dummy: hash(&config.pepper, config.cost, "no such user")?,
            pepper: config.pepper.clone(),
            cost: config.cost,
            cores: Arc::new(Semaphore::new(cores)),
            patience: Duration::from_millis(config.queue_timeout_ms),
            metrics,
        })
    }

    /// Whether `password` is the one behind `stored`; `None` (no such user) takes as long and is
    /// always false.
    ///
    /// # Errors
    /// 503 when no core is free in time.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, AppError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.clone());
        let pepper = self.pepper.clone();
        let matches = self.run("verify", move || matches(&pepper, &password, &stored)).await?;
        Ok(matches && known)
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// 503 when no core is free in time.
    pub async fn hash(&self, password: String) -> Result<String, AppError> {
        let (pepper, cost) = (self.pepper.clone(), self.cost);
        self.run("hash", move || hash(&pepper, cost, &password)).await?.map_err(AppError::internal)
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AppError> {
        let queued = Instant::now();
        let waiting = Gauge::raise(self.metrics.password_hash_queue_depth());
        let permit = tokio::time::timeout(self.patience, self.cores.clone().acquire_owned()).await;
        drop(waiting);
        self.metrics.password_hash_wait().observe(queued.elapsed().as_secs_f64());
        let Ok(Ok(permit)) = permit else {
            self.metrics.password_hash_rejected().inc();
            return Err(error::OVERLOADED.because("Too many people are signing in; try again.").retry_after(1));
        };
        let running = Gauge::raise(self.metrics.password_hash_inflight());
        let started = Instant::now();
        let span = info_span!(target: "switchboard::auth", "password", otel.name = format!("password {name}"), otel.kind = "internal");
        // The permit goes along: a caller that hangs up must not free the core before the work ends.
        let work = tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop((permit, running));
            outcome
        });
        let outcome = work.instrument(span).await.map_err(AppError::internal)?;
        self.metrics.password_hash_duration().observe(started.elapsed().as_secs_f64());
        Ok(outcome)
    }
}

struct Gauge(prometheus::IntGauge);

impl Gauge {
    fn raise(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Hashes without the pipeline, for tools that sign nobody in.
///
/// # Errors
/// When bcrypt refuses the cost.
pub fn hash(pepper: &Secret, cost: u32, password: &str) -> anyhow::Result<String> {
    Ok(format!("{SCHEME}{}", bcrypt::hash(digest(pepper, password)?, cost)?))
}

fn matches(pepper: &Secret, password: &str, stored: &str) -> bool {
    let Some(stored) = stored.strip_prefix(SCHEME) else { return false };
    digest(pepper, password).is_ok_and(|digest| bcrypt::verify(digest, stored).unwrap_or(false))
}

fn digest(pepper: &Secret, password: &str) -> anyhow::Result<String> {
    let mut mac = Hmac::<Sha384>::new_from_slice(pepper.expose().as_bytes())?;
    mac.update(password.as_bytes());
    Ok(STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_tries_first_is_no_password() {
        for weak in
            ["password1", "PassWord1", "qwerty123", "Йцукенгш", "aaaaaaaa", "abababab", "olga.petrova", "        "]
        {
            assert!(objection(weak, "olga.petrova").is_some(), "{weak}");
        }
        for wrong in ["1234567", "", &"x1y".repeat(43), "a\0bcdefgh"] {
            assert!(objection(wrong, "olga").is_some(), "{wrong}");
        }
        for good in ["correct horse battery", "пароль Ольги", &"щит".repeat(42)] {
            assert_eq!(objection(good, "olga"), None, "{good}");
        }
        for listed in COMMON.iter() {
            assert!(LENGTH.contains(&listed.chars().count()) && *listed == listed.to_lowercase(), "{listed}");
        }
    }

    #[test]
    fn the_last_of_64_cyrillic_letters_matters() {
        let pepper = Secret::new("pepper");
        let long = "щ".repeat(63);
        let stored = hash(&pepper, 4, &format!("{long}а")).unwrap();
        assert!(matches(&pepper, &format!("{long}а"), &stored));
        assert!(!matches(&pepper, &format!("{long}б"), &stored));
        assert!(!matches(&Secret::new("other"), &format!("{long}а"), &stored));
        assert!(!matches(&pepper, &format!("{long}а"), stored.strip_prefix(SCHEME).unwrap()));
    }
}
