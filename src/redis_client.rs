//! Redis: a connection that never makes a request wait. Every call is bounded (the driver's own
//! defaults allow nine seconds), and a failure means "do without", never an error for the client. When a
//! few calls have had no answer, or a late one, nobody asks any more but a probe in the background, until Redis
//! is quick again.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    Client, ErrorKind, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::{Notify, oneshot},
};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    clock::Clock,
    config::Secret,
    http::stats,
    telemetry::{Seldom, labels::Dependency, metrics::Metrics},
};

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// An answer that takes longer is late. Redis needs a fraction of a millisecond and a network between two halls
/// one or two; a request asks it a few times in a row, and is to take no more than twice as long as without it.
const LATE: Duration = Duration::from_millis(10);
/// A timer that rings so much too late tells that this machine is busy, and nothing of Redis.
const BUSY: Duration = Duration::from_millis(5);
/// Of the last [`WINDOW`] calls, so many without an answer or with a late one are too many: a quarter, since one
/// that hesitates every other time is no better than one that always does, and a single hiccup does no harm.
const FAILURES: u32 = 5;
const WINDOW: u32 = 20;
/// What was before a pause like this says nothing of now.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// How often it is then asked whether it is back, and so many quick answers in a row say that it is.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const CONFIRM_EVERY: Duration = Duration::from_millis(250);
const CONFIRMATIONS: u32 = 4;

/// A shared connection; cheap to clone.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    client: Client,
    /// Replaced when Redis is silent: in a dark network a connection looks alive for a quarter of an hour.
    manager: Mutex<ConnectionManager>,
    metrics: Arc<Metrics>,
    breaker: Mutex<Breaker>,
    /// Those who wait for an answer learn here that nobody waits any more.
    opened: Notify,
    /// How often it came back, and when it last did, in microseconds since 1970.
    returns: AtomicU64,
    back_since: AtomicI64,
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
    /// The last calls, the newest in the lowest bit, and when that was: those without an answer or with a late one.
    lost: u32,
    last: Option<Instant>,
    /// Nobody asks but the probe.
    open: bool,
    /// What the metrics say; nothing before the first call.
    told: Option<bool>,
}

impl Breaker {
    /// Remembers how a call went; whether that was one too many.
    fn opens(&mut self, lost: bool, now: Instant) -> bool {
        let before = self.last.replace(now);
        if before.is_none_or(|before| now.duration_since(before) > FORGOTTEN_AFTER) {
            self.lost = 0;
        }
        self.lost = (self.lost << 1 | u32::from(lost)) & ((1 << WINDOW) - 1);
        self.open = self.lost.count_ones() >= FAILURES;
        self.open
    }
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

impl Failure {
    fn message(&self) -> &str {
        match self {
            Self::Silence(error) | Self::Refusal(error) => error,
        }
    }
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
        let client = Client::open(url.expose()).map_err(|error| anyhow::anyhow!("REDIS_URL: {error}"))?;
        let manager = Mutex::new(connection(&client)?);
        let (thread, alive) = own_thread()?;
        let (breaker, opened) = (Mutex::default(), Notify::new());
        let (returns, back_since, refusals) = (AtomicU64::default(), AtomicI64::default(), Seldom::new());
        let shared =
            Shared { client, manager, metrics, breaker, opened, returns, back_since, refusals, thread, _alive: alive };
        Ok(Self(Arc::new(shared)))
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
        let Outcome { answer, late } = self.0.call(command, false).await;
        self.0.note(answer.as_ref().err(), late);
        answer.map_err(|_| Unavailable)
    }

    /// How often Redis came back after nobody had asked it for a while. What it has then may be from before.
    #[must_use]
    pub fn returns(&self) -> u64 {
        self.0.returns.load(Ordering::SeqCst)
    }

    /// When Redis last came back, in microseconds since 1970; 0 if it was never away.
    #[must_use]
    pub fn back_since(&self) -> i64 {
        self.0.back_since.load(Ordering::SeqCst)
    }

    /// Whether Redis answers; the outcome is in the metrics.
    pub async fn probe(&self) -> bool {
        if self.0.breaker().open {
            return false;
        }
        let Outcome { answer, late } = self.0.call(ping, false).await;
        // That it answers this does not mean that it does what it is asked.
        let refuses = answer.is_ok() && self.0.breaker().failures > 0;
        if !refuses {
            self.0.note(answer.as_ref().err(), late);
        }
        answer.is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A connection that is opened when first used, and again when it breaks.
fn connection(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        // A retry comes after a pause, for which everybody waits. The next call tries again.
        .set_number_of_retries(0);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

async fn ping(mut connection: ConnectionManager) -> RedisResult<()> {
    redis::cmd("PING").query_async(&mut connection).await
}

/// What became of a call.
struct Outcome<T> {
    answer: Result<T, Failure>,
    /// Whether the answer was long in coming.
    late: bool,
}

/// Waits for `work`; whether that took too long, which is told as soon as it did. Not if it is this thread that was
/// not at work.
async fn timed<F: Future>(work: F, tell: impl FnOnce()) -> (F::Output, bool) {
    let mut work = pin!(work);
    let asked = Instant::now();
    tokio::select! {
        biased;
        answer = &mut work => return (answer, false),
        () = tokio::time::sleep(LATE) => {}
    }
    let busy = asked.elapsed() > LATE + BUSY;
    tokio::select! {
        biased;
        answer = &mut work => (answer, false),
        // What has come meanwhile is read before anything is said of it.
        () = tokio::task::yield_now() => {
            if !busy {
                tell();
            }
            (work.await, !busy)
        }
    }
}

impl Shared {
    /// Asks, unless nobody does just now but who `probes`.
    async fn call<T, F>(self: &Arc<Self>, command: impl FnOnce(ConnectionManager) -> F, probes: bool) -> Outcome<T>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send + 'static,
    {
        // First, so that nobody can open the breaker unheard.
        let opened = self.opened.notified();
        if !probes && self.breaker().open {
            return Outcome { answer: Err(Failure::Silence("nobody asks just now".to_owned())), late: false };
        }
        let span = if stats::is_sampled() {
            info_span!(
                target: "switchboard::redis",
                "redis",
                otel.name = "redis",
                otel.kind = "client",
                otel.status_code = Empty,
                db.system.name = "redis",
            )
        } else {
            Span::none()
        };
        // One bound over connect and answer together.
        let limit = CONNECT_TIMEOUT + RESPONSE_TIMEOUT;
        let work = command(lock(&self.manager).clone());
        let shared = self.clone();
        let bounded = self.thread.spawn(timed(tokio::time::timeout(limit, work), move || shared.note_late()));
        let answered = async {
            tokio::select! {
                biased;
                answer = bounded => Some(answer),
                () = opened => None,
            }
        };
        let (answer, late) = match answered.instrument(span.clone()).await {
            Some(Ok((Ok(answer), late))) => (answer.map_err(Failure::from), late),
            Some(Ok((Err(_), late))) => (Err(Failure::Silence(format!("no answer within {limit:?}"))), late),
            Some(Err(error)) => (Err(Failure::Silence(error.to_string())), false),
            None => (Err(Failure::Silence("others have waited in vain".to_owned())), false),
        };
        if answer.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        Outcome { answer, late }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }

    /// Learns what became of a call. A few that fail among others that do not are no outage, and say nothing of one. A
    /// Redis that answers and does nothing of what it is asked is none either, but is asked on: it may do the next
    /// thing.
    fn note(self: &Arc<Self>, failure: Option<&Failure>, late: bool) {
        let mut breaker = self.breaker();
        // The one that was late is counted; what was sent before the breaker opened does not matter, as the probe knows
        // better.
        if breaker.open {
            return;
        }
        match failure {
            None => breaker.failures = 0,
            Some(failure) => {
                breaker.failures += 1;
                if let Failure::Refusal(error) = failure
                    && self.refusals.is_due()
                {
                    tracing::warn!(%error, "Redis refuses what it is asked; doing without");
                }
            }
        }
        if !late && breaker.opens(matches!(failure, Some(Failure::Silence(_))), Instant::now()) {
            return self.open(&mut breaker, failure.map_or("", Failure::message));
        }
        match failure {
            None => self.tell(&mut breaker, true),
            Some(_) if breaker.told.is_none() || breaker.failures >= FAILURES => self.tell(&mut breaker, false),
            Some(_) => {}
        }
    }

    /// Learns that an answer is late before it is there, if it ever will be.
    fn note_late(self: &Arc<Self>) {
        let mut breaker = self.breaker();
        if !breaker.open && breaker.opens(true, Instant::now()) {
            self.open(&mut breaker, "it takes too long");
        }
    }

    /// Nobody waits any more.
    fn open(self: &Arc<Self>, breaker: &mut Breaker, error: &str) {
        tracing::warn!(error, "Redis does not answer as it should; doing without");
        self.tell(breaker, false);
        self.opened.notify_waiters();
        self.renew();
        self.watch();
    }

    /// Asks until there are quick answers, so that no request has to try; ends with the last user of the client.
    fn watch(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        self.thread.spawn(async move {
            let mut quick = 0;
            while quick < CONFIRMATIONS {
                tokio::time::sleep(if quick == 0 { PROBE_EVERY } else { CONFIRM_EVERY }).await;
                let Some(shared) = shared.upgrade() else { return };
                let Outcome { answer, late } = shared.call(ping, true).await;
                if matches!(answer, Err(Failure::Silence(_))) {
                    shared.renew();
                }
                quick = if answer.is_ok() && !late { quick + 1 } else { 0 };
            }
            if let Some(shared) = shared.upgrade() {
                shared.close();
            }
        });
    }

    /// The next one to ask opens a connection of its own.
    fn renew(&self) {
        match connection(&self.client) {
            Ok(new) => *lock(&self.manager) = new,
            Err(error) => tracing::error!(%error, "no new connection to Redis can be made"),
        }
    }

    fn close(&self) {
        let mut breaker = self.breaker();
        *breaker = Breaker { told: breaker.told, ..Breaker::default() };
        // Before anybody can ask again.
        self.back_since.store(Clock::System.now().timestamp_micros(), Ordering::SeqCst);
        self.returns.fetch_add(1, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// After which call the breaker opens: calls a millisecond apart, of which those are lost that say so.
    fn opened_by(lost: impl Fn(u64) -> bool, apart: Duration) -> Option<u64> {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        (1..=200).find(|call| {
            now += apart;
            breaker.opens(lost(*call), now)
        })
    }

    #[test]
    fn a_quarter_of_the_last_calls_is_too_many_to_lose() {
        let quick = Duration::from_millis(1);
        assert_eq!(opened_by(|_| true, quick), Some(5));
        assert_eq!(opened_by(|call| call % 2 == 0, quick), Some(10), "every other one");
        assert_eq!(opened_by(|call| call % 4 == 0, quick), Some(20), "every fourth");
        assert_eq!(opened_by(|call| call % 5 == 0, quick), None, "every fifth");
        assert_eq!(opened_by(|call| call % 100 < 4, quick), None, "a hiccup now and then");
        assert_eq!(opened_by(|_| true, FORGOTTEN_AFTER * 2), None, "each of them is long forgotten");
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "this thread is to be busy")]
    async fn an_answer_is_late_if_this_thread_could_have_had_it_in_time() {
        let answer = async |after: Duration| {
            tokio::time::sleep(after).await;
            7
        };
        assert_eq!(timed(answer(Duration::ZERO), || panic!()).await, (7, false));
        let mut told = None;
        let asked = Instant::now();
        assert_eq!(timed(answer(LATE * 10), || told = Some(asked.elapsed())).await, (7, true));
        assert!(told.unwrap() < LATE * 10, "before it is there: {told:?}");
        // It has come long ago when this thread gets to look.
        let (sender, receiver) = oneshot::channel();
        let busy = async {
            let _ = sender.send(7);
            std::thread::sleep(LATE * 3);
        };
        let ((answer, late), ()) = tokio::join!(timed(receiver, || panic!()), busy);
        assert_eq!((answer, late), (Ok(7), false));
        // It comes late, and nobody was there to see how late.
        let (sender, receiver) = oneshot::channel();
        let busy = async {
            std::thread::sleep(LATE * 3);
            tokio::time::sleep(LATE).await;
            let _ = sender.send(7);
        };
        let ((answer, late), ()) = tokio::join!(timed(receiver, || panic!()), busy);
        assert_eq!((answer, late), (Ok(7), false));
    }
}
