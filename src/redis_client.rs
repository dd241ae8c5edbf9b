//! Redis: a connection that never makes a request wait. Every call is bounded (the driver's own
//! defaults allow nine seconds), and a failure means "do without", never an error for the client. After a
//! few failures in a row nobody asks any more but a probe in the background, until Redis answers that.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    Client, ErrorKind, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tracing::{Instrument, field::Empty, info_span};

use crate::{
    config::Secret,
    telemetry::{Seldom, labels::Dependency, metrics::Metrics},
};

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Calls in a row without an answer before nobody waits for one any more.
const FAILURES: u32 = 5;
/// How often it is then asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A shared connection; cheap to clone.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    manager: ConnectionManager,
    metrics: Arc<Metrics>,
    breaker: Mutex<Breaker>,
    refusals: Seldom,
    thread: Handle,
    /// Its thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

/// What is thought of Redis, and told in the metrics.
#[derive(Default)]
struct Breaker {
    /// Calls in a row that came to nothing.
    failures: u32,
    /// Those of them in a row that had no answer at all.
    silences: u32,
    /// Nobody asks but the probe.
    open: bool,
    /// What the metrics say; nothing before the first call.
    told: Option<bool>,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisClient")
    }
}

/// Redis did not answer as it should; already counted.
#[derive(Debug)]
pub struct Unavailable;

/// Why a call came to nothing.
enum Failure {
    /// Nobody is there.
    Silence(String),
    /// It answers, and does not do what it was asked: it is full, or read-only, or has something else there.
    Refusal(String),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => {
                Self::Refusal(error.to_string())
            }
            _ => Self::Silence(error.to_string()),
        }
    }
}

impl RedisClient {
    /// Connects when first used, so that a server starts without Redis.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(url: &Secret, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_number_of_retries(1);
        let client = Client::open(url.expose()).map_err(|error| anyhow::anyhow!("REDIS_URL: {error}"))?;
        let manager = ConnectionManager::new_lazy_with_config(client, config)?;
        let (thread, alive) = own_thread()?;
        let (breaker, refusals) = (Mutex::default(), Seldom::new());
        Ok(Self(Arc::new(Shared { manager, metrics, breaker, refusals, thread, _alive: alive })))
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Unavailable`]; do without.
    pub async fn run<T, F>(&self, command: impl FnOnce(ConnectionManager) -> F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send + 'static,
    {
        if self.0.breaker().open {
            return Err(Unavailable);
        }
        let outcome = self.0.call(command).await;
        if self.0.note(outcome.as_ref().err()) {
            self.watch();
        }
        outcome.map_err(|_| Unavailable)
    }

    /// Asks until there is an answer, so that no request has to try; ends with the last user of the client.
    fn watch(&self) {
        let shared = Arc::downgrade(&self.0);
        self.0.thread.spawn(async move {
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                let Some(shared) = shared.upgrade() else { return };
                if shared.call(ping).await.is_ok() {
                    shared.close();
                    return;
                }
            }
        });
    }

    /// Whether Redis answers; the outcome is in the metrics.
    pub async fn probe(&self) -> bool {
        if self.0.breaker().open {
            return false;
        }
        let outcome = self.0.call(ping).await;
        let mut breaker = self.0.breaker();
        if outcome.is_ok() && breaker.failures > 0 {
            // That it answers this does not mean that it does what it is asked.
            breaker.silences = 0;
            return true;
        }
        drop(breaker);
        if self.0.note(outcome.as_ref().err()) {
            self.watch();
        }
        outcome.is_ok()
    }
}

/// A runtime with a thread of its own: where many requests wait for their turn, a timer among them would tell
/// how busy this process is, and not how Redis is. A flood would then be counted by each replica by itself.
fn own_thread() -> anyhow::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (alive, ended) = oneshot::channel();
    std::thread::Builder::new().name("redis".to_owned()).spawn(move || runtime.block_on(ended))?;
    Ok((handle, alive))
}

async fn ping(mut connection: ConnectionManager) -> RedisResult<()> {
    redis::cmd("PING").query_async(&mut connection).await
}

impl Shared {
    async fn call<T, F>(&self, command: impl FnOnce(ConnectionManager) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send + 'static,
    {
        let span = info_span!(
            target: "switchboard::redis",
            "redis",
            otel.name = "redis",
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "redis",
        );
        // One bound over connect, retry and answer together.
        let limit = CONNECT_TIMEOUT + RESPONSE_TIMEOUT;
        let work = command(self.manager.clone());
        let bounded = self.thread.spawn(async move { tokio::time::timeout(limit, work).await });
        let outcome = match bounded.instrument(span.clone()).await {
            Ok(Ok(answer)) => answer.map_err(Failure::from),
            Ok(Err(_)) => Err(Failure::Silence(format!("no answer within {limit:?}"))),
            Err(error) => Err(Failure::Silence(error.to_string())),
        };
        if outcome.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        outcome
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what became of a call; whether that was one failure too many. One that fails among others that do
    /// not is no outage, and says nothing of one. A Redis that answers and does nothing of what it is asked is
    /// none either, but is asked on: it may do the next thing.
    fn note(&self, failure: Option<&Failure>) -> bool {
        let mut breaker = self.breaker();
        if breaker.open {
            // It was sent before; the probe knows better.
            return false;
        }
        let Some(failure) = failure else {
            breaker.failures = 0;
            breaker.silences = 0;
            self.tell(&mut breaker, true);
            return false;
        };
        breaker.failures += 1;
        if breaker.told.is_none() || breaker.failures >= FAILURES {
            self.tell(&mut breaker, false);
        }
        match failure {
            Failure::Silence(error) => {
                breaker.silences += 1;
                breaker.open = breaker.silences >= FAILURES;
                if breaker.open {
                    tracing::warn!(%error, "Redis does not answer; doing without");
                }
            }
            Failure::Refusal(error) => {
                breaker.silences = 0;
                if self.refusals.is_due() {
                    tracing::warn!(%error, "Redis refuses what it is asked; doing without");
                }
            }
        }
        breaker.open
    }

    fn close(&self) {
        let mut breaker = self.breaker();
        *breaker = Breaker::default();
        self.tell(&mut breaker, true);
        tracing::info!("Redis answers again");
    }

    fn tell(&self, breaker: &mut Breaker, up: bool) {
        if breaker.told.replace(up) != Some(up) {
            self.metrics.cache_fallback_active().set(i64::from(!up));
            self.metrics.dependency_up(Dependency::Redis).set(i64::from(up));
        }
    }
}
