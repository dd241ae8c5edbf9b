//! What one HTTP request did, gathered while it runs for its log line and the headers of its answer:
//! who, how many queries, what the cache said, how the limits stand that were asked. Lives in a
//! task-local, so that no signature has to carry it.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{auth::Role, telemetry::labels::CacheResult};

tokio::task_local! {
    static CURRENT: Arc<RequestStats>;
}

/// The record of one request.
#[derive(Debug, Default)]
pub struct RequestStats {
    is_sampled: bool,
    queries: AtomicU64,
    query_nanos: AtomicU64,
    wait_nanos: AtomicU64,
    user: OnceLock<(i64, Role)>,
    cache: OnceLock<CacheResult>,
    limits: Mutex<Limits>,
}

/// The policies of the limits that were asked, and how each of them stands: items of two header fields.
type Limits = (Vec<String>, Vec<String>);

impl RequestStats {
    /// Of a request whose trace goes to a collector, or not.
    #[must_use]
    pub fn new(is_sampled: bool) -> Self {
        Self { is_sampled, ..Self::default() }
    }

    /// Statements run.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Time spent in them.
    #[must_use]
    pub fn query_time(&self) -> Duration {
        Duration::from_nanos(self.query_nanos.load(Ordering::Relaxed))
    }

    /// Who asked, once known.
    #[must_use]
    pub fn user(&self) -> Option<(i64, Role)> {
        self.user.get().copied()
    }

    /// What the cache said, if asked.
    #[must_use]
    pub fn cache(&self) -> Option<CacheResult> {
        self.cache.get().copied()
    }
}

/// Runs `work` with `stats` as the current request's record.
pub async fn scope<T>(stats: Arc<RequestStats>, work: impl Future<Output = T>) -> T {
    CURRENT.scope(stats, work).await
}

/// Work that counts for the current request, though it runs in a task of its own.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let stats = CURRENT.try_with(Arc::clone).unwrap_or_default();
    scope(stats, work)
}

/// Whether what happens now is to be traced: always outside a request.
#[must_use]
pub fn is_sampled() -> bool {
    CURRENT.try_with(|stats| stats.is_sampled).unwrap_or(true)
}

/// Adds one statement; outside a request (workers) nothing is kept.
pub fn record_query(elapsed: Duration) {
    let _ = CURRENT.try_with(|stats| {
        stats.queries.fetch_add(1, Ordering::Relaxed);
        stats.query_nanos.fetch_add(nanos(elapsed), Ordering::Relaxed);
    });
}

/// Adds a wait for a connection.
pub fn record_wait(elapsed: Duration) {
    let _ = CURRENT.try_with(|stats| stats.wait_nanos.fetch_add(nanos(elapsed), Ordering::Relaxed));
}

/// How long the current request has waited for connections; outside one it has not.
#[must_use]
pub fn waited() -> Duration {
    CURRENT.try_with(|stats| Duration::from_nanos(stats.wait_nanos.load(Ordering::Relaxed))).unwrap_or_default()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Notes who asks.
pub fn record_user(id: i64, role: Role) {
    let _ = CURRENT.try_with(|stats| stats.user.set((id, role)));
}

/// Notes what the cache said; the first look-up counts.
pub fn record_cache(result: CacheResult) {
    let _ = CURRENT.try_with(|stats| stats.cache.set(result));
}

/// Notes that a limit was asked, as its header fields have it.
pub fn record_limit(policy: String, standing: String) {
    let _ = CURRENT.try_with(|stats| {
        let (policies, standings) = &mut *stats.limits.lock().unwrap_or_else(PoisonError::into_inner);
        policies.push(policy);
        standings.push(standing);
    });
}

/// The limits that were asked so far.
#[must_use]
pub fn limits() -> Limits {
    let limits = CURRENT.try_with(|stats| stats.limits.lock().unwrap_or_else(PoisonError::into_inner).clone());
    limits.unwrap_or_default()
}
