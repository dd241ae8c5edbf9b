//! The cache: JSON with its ETag, in Redis where all replicas find it, and in this process for when Redis does
//! not answer. What is in neither is loaded from the database: a cache never fails a request.
//!
//! How new things are is PostgreSQL's to say ([`versions`]): a value carries the version that was known before
//! it was loaded, and is served for as long as no newer one is known. So a value that Redis kept through an
//! outage, that a slow replica stored late or that somebody changed by SQL is found out, however it came there.

mod flights;
mod key;
mod store;
mod value;
mod versions;

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use redis::{AsyncCommands, Script};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep;
use tracing::Instrument;

pub use key::{Domain, Key};

use self::{flights::Flights, value::Value, versions::Versions};
use crate::{
    app::App,
    clock::Clock,
    config,
    db::{Db, Tx},
    error::AppError,
    http::{
        caching::{Freshness, Tagged},
        stats,
    },
    redis_client::{RedisClient, Unavailable},
    telemetry::{
        labels::{CacheName, CacheResult},
        metrics::Metrics,
    },
};

/// How often PostgreSQL is asked for its versions: without Redis, also how long a change that another process
/// made may stay unseen.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Room for values in this process, in bytes.
const LOCAL_CAPACITY: u64 = 32 << 20;
/// A version stays in Redis for long after each replica has heard of it from PostgreSQL, and no longer: garbage
/// in its place goes by itself.
const TOLD_FOR: Duration = Duration::from_mins(1);

/// Raises the version that the other replicas find beside a value. Whatever is there that is no number counts
/// as none. `KEYS`: the version. ARGV: the version, seconds to live.
static TELL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local told = tonumber(redis.call('MGET', KEYS[1])[1])
        if told and told >= tonumber(ARGV[1]) then
            redis.call('EXPIRE', KEYS[1], ARGV[2])
        else
            redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
        end
        return 0
        ",
    )
});

/// What this process keeps.
#[derive(Clone, Debug)]
struct Held {
    value: Value,
    since: Instant,
    until: Instant,
}

/// What Redis said.
struct Shared {
    value: Option<Value>,
    /// The version that a replica has told of.
    told: i64,
}

/// The cache of one App.
#[derive(Debug)]
pub struct Cache {
    redis: Option<RedisClient>,
    local: moka::sync::Cache<String, Held>,
    versions: Versions,
    flights: Flights,
    parsed: Parsed,
    settings: config::Cache,
    metrics: Arc<Metrics>,
}

/// What [`Cache::get`] has made of the values under its keys, which are few, with the ETags of these: who looks up a
/// code in all dictionaries has no time to read them first.
#[derive(Debug, Default)]
struct Parsed(Mutex<HashMap<String, (String, Made)>>);

type Made = Arc<dyn Any + Send + Sync>;

impl Parsed {
    fn get<T: DeserializeOwned + Send + Sync + 'static>(&self, key: &Key, value: &Tagged) -> Option<Arc<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((tag, parsed)) = all.get(key.text())
            && tag == value.tag()
            && let Ok(parsed) = parsed.clone().downcast()
        {
            return Some(parsed);
        }
        let parsed: Arc<T> = Arc::new(serde_json::from_slice(value.body()).ok()?);
        all.insert(key.text().to_owned(), (value.tag().to_owned(), parsed.clone()));
        Some(parsed)
    }
}

impl Cache {
    /// A cache in Redis and in this process, or in this process alone.
    #[must_use]
    pub fn new(redis: Option<RedisClient>, db: Db, settings: &config::Cache, metrics: Arc<Metrics>) -> Self {
        let weight = |key: &String, held: &Held| u32::try_from(key.len() + held.value.len()).unwrap_or(u32::MAX);
        let local = moka::sync::Cache::builder().weigher(weight).max_capacity(LOCAL_CAPACITY).build();
        let versions = Versions::new(db, redis.clone());
        let (flights, parsed) = Default::default();
        Self { redis, local, versions, flights, parsed, settings: settings.clone(), metrics }
    }

    /// What is under `key`, loaded and kept when it is not there or not fresh. Many who want the same at once
    /// make one of them load it; the others wait, and hold no connection of the database meanwhile if the
    /// caller holds none.
    ///
    /// # Errors
    /// Only those of `load`, which are not kept.
    pub async fn read<T: Serialize, F: Future<Output = Result<T, AppError>>>(
        &self,
        key: &Key,
        freshness: Freshness,
        load: impl Fn() -> F,
    ) -> Result<Tagged, AppError> {
        if freshness == Freshness::Anew {
            return Ok(self.load(key, &load).await?.tagged);
        }
        let started = Instant::now();
        let (found, result) = self.look_up(key).await;
        self.metrics.cache_requests(key.name(), result).inc();
        self.metrics.cache_operation_duration(key.name(), result).observe(started.elapsed().as_secs_f64());
        stats::record_cache(result);
        match found {
            Some(value) => Ok(value.tagged),
            None => self.load_once(key, started, &load).await,
        }
    }

    /// The same, as what it is.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub async fn get<T, F>(&self, key: &Key, freshness: Freshness, load: impl Fn() -> F) -> Result<Arc<T>, AppError>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<T, AppError>>,
    {
        let found = self.read(key, freshness, &load).await?;
        if let Some(value) = self.parsed.get(key, &found) {
            return Ok(value);
        }
        // Another build of this release had other ideas of it.
        let loaded = self.read(key, Freshness::Anew, load).await?;
        serde_json::from_slice(loaded.body()).map(Arc::new).map_err(AppError::internal)
    }

    /// After a change of what `domain` is about, to this version, was committed: from here on this replica serves
    /// nothing that is older, nor do those that Redis tells. The others hear of it from PostgreSQL.
    pub async fn changed(&self, domain: Domain, version: i64) {
        self.versions.learn(domain, version);
        if let Some(redis) = &self.redis {
            let mut call = TELL.key(domain.shared());
            call.arg(version).arg(TOLD_FOR.as_secs());
            // Else they hear of it a little later.
            let _ = redis.run(async move |mut connection| call.invoke_async::<i64>(&mut connection).await).await;
        }
    }

    /// Asks PostgreSQL how new things are.
    pub async fn catch_up(&self) {
        self.versions.ask(Instant::now()).await;
    }

    /// What there is under `key` that is still true, and how it was found.
    async fn look_up(&self, key: &Key) -> (Option<Value>, CacheResult) {
        let shared = match &self.redis {
            Some(redis) => Some(look_in(redis, key).await),
            None => None,
        };
        let told = shared.as_ref().and_then(|shared| shared.as_ref().ok()).map_or(0, |shared| shared.told);
        // After Redis has answered, so that what it gave is judged by what was known later.
        let (trusted, least) = match key.domain() {
            Some(domain) => self.versions.prepare(domain, told).await,
            None => (true, 0),
        };
        let failed = matches!(shared, Some(Err(Unavailable)));
        let value = match shared {
            Some(Ok(shared)) if trusted => shared.value.inspect(|value| self.adopt(key, value)),
            _ => self.held(key).map(|held| held.value),
        };
        let value = value.filter(|value| value.version >= self.wanted(key).max(least));
        let result = match (failed, value.is_some()) {
            (true, _) => CacheResult::Error,
            (false, true) => CacheResult::Hit,
            (false, false) => CacheResult::Miss,
        };
        (value, result)
    }

    /// The version that a value must have now. What belongs to no domain has the time at which it was loaded: what is
    /// from before Redis was away is not served after it.
    fn wanted(&self, key: &Key) -> i64 {
        let back = || self.redis.as_ref().map_or(0, RedisClient::back_since);
        key.domain().map_or_else(back, |domain| self.versions.known(domain))
    }

    async fn load_once<T: Serialize, F: Future<Output = Result<T, AppError>>>(
        &self,
        key: &Key,
        started: Instant,
        load: &impl Fn() -> F,
    ) -> Result<Tagged, AppError> {
        let wanted = self.wanted(key);
        loop {
            let flight = self.flights.join(key.text());
            let work = async || match self.held(key) {
                // Somebody has landed since we began to look.
                Some(held) if held.since >= started && held.value.version >= wanted => Ok(held.value),
                _ => self.load(key, load).await,
            };
            match flight.get_or_init(work).await.clone() {
                // It took off before the change that we know of.
                Ok(value) if value.version < wanted => {}
                landed => return landed.map(|value| value.tagged),
            }
        }
    }

    async fn load<T: Serialize, F: Future<Output = Result<T, AppError>>>(
        &self,
        key: &Key,
        load: &impl Fn() -> F,
    ) -> Result<Value, AppError> {
        // Before it is loaded: each statement that follows sees at least this much.
        let version = match key.domain() {
            Some(domain) => self.versions.known(domain),
            None => Clock::System.now().timestamp_micros(),
        };
        let value = Value { version, tagged: Tagged::json(&load().await?)? };
        let ttl = self.ttl(key.name());
        if let Some(redis) = &self.redis {
            let (name, bytes) = (key.shared(), value.encode());
            let set = async move |mut connection: redis::aio::ConnectionManager| {
                connection.set_ex::<_, _, ()>(name, bytes, ttl.as_secs()).await
            };
            // Else it is loaded again, by whoever asks there.
            let _ = redis.run(set).await;
        }
        // Last: who did not find it in Redis has begun to look before this.
        self.hold(key, value.clone(), ttl);
        Ok(value)
    }

    fn hold(&self, key: &Key, value: Value, ttl: Duration) {
        let now = Instant::now();
        self.local.insert(key.text().to_owned(), Held { value, since: now, until: now + ttl });
    }

    fn held(&self, key: &Key) -> Option<Held> {
        self.local.get(key.text()).filter(|held| held.until > Instant::now())
    }

    /// Keeps here what was found in Redis, for when Redis is not there. Not what has only its age to say that it
    /// is fresh, and would begin to be young again.
    fn adopt(&self, key: &Key, value: &Value) {
        if key.domain().is_some() && self.held(key).is_none_or(|held| held.value.version < value.version) {
            self.hold(key, value.clone(), self.ttl(key.name()));
        }
    }

    fn ttl(&self, name: CacheName) -> Duration {
        let seconds = match name {
            CacheName::Dictionaries => self.settings.dictionaries_ttl_s,
            CacheName::Users => self.settings.users_ttl_s,
            CacheName::Reports => self.settings.reports_ttl_s,
        };
        Duration::from_secs(u64::from(seconds))
    }
}

/// The value and its version, in one round trip.
async fn look_in(redis: &RedisClient, key: &Key) -> Result<Shared, Unavailable> {
    let names: Vec<String> = [Some(key.shared()), key.domain().map(Domain::shared)].into_iter().flatten().collect();
    let found: Vec<Option<Vec<u8>>> =
        redis.run(async move |mut connection| connection.mget::<_, Vec<Option<Vec<u8>>>>(&names).await).await?;
    let mut found = found.into_iter();
    let value = found.next().flatten().and_then(|bytes| Value::decode(&Bytes::from(bytes)));
    let told = found.next().flatten().and_then(|bytes| str::from_utf8(&bytes).ok()?.parse().ok());
    Ok(Shared { value, told: told.unwrap_or_default() })
}

/// Commits a change of what `domain` is about; from then on nobody here is served what was before. In a task of
/// its own: a caller who hangs up in between changes nothing about that.
///
/// # Errors
/// As the commit.
pub async fn commit(app: &App, tx: Tx, domain: Domain) -> Result<(), AppError> {
    let (app, mut tx) = (app.clone(), tx);
    let work = async move {
        // Here, where the change has raised it, and not afterwards on a connection that may not be had.
        let version = store::version(&mut tx, domain).await?;
        let committed = tx.commit().await;
        // Even if the commit is not confirmed: it may have happened.
        app.cache.changed(domain, version).await;
        committed
    };
    Ok(tokio::spawn(stats::carried(work.in_current_span())).await.map_err(AppError::internal)??)
}

/// Keeps up with what others change, so that no request has to ask.
pub async fn follow(app: App) {
    let stopped = app.lifecycle.stopped();
    while !stopped.is_cancelled() {
        app.cache.catch_up().await;
        tokio::select! {
            () = stopped.cancelled() => {}
            () = sleep(ASK_EVERY) => {}
        }
    }
}
