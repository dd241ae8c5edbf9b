//! The cache: typed keys, values as JSON in Redis when it is configured, otherwise in this process.
//! What cannot be read from it is loaded from the database: a cache never fails a request.
//!
//! In Redis a key has an epoch beside it, drawn anew whenever the key is forgotten. A value is stored
//! only if the epoch is still the one that was seen before the value was loaded: what a replica loads
//! while another one changes it is not kept. Where Redis does not answer, a change may not have got
//! through, so the key is in doubt here until it has been forgotten there.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moka::future::Cache as LocalCache;
use redis::{AsyncCommands, Script};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    auth::tokens::random_id,
    http::stats,
    redis_client::{RedisClient, Unavailable},
    telemetry::{
        labels::{CacheName, CacheResult},
        metrics::Metrics,
    },
};

/// Also how long a change may stay unseen of which no server knows: by SQL, by an import, by another
/// replica without Redis, or by one that died before it could tell.
const DICTIONARY_TTL: Duration = Duration::from_mins(1);
const LOCAL_CAPACITY: u64 = 10_000;

/// `KEYS`: the value and its epoch. ARGV: the epoch that was seen, the value, seconds to live.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if (redis.call('GET', KEYS[2]) or '') == ARGV[1] then
            redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
        end
        return 0
        ",
    )
});

/// What a value is cached under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: CacheName,
    text: String,
    ttl: Duration,
}

impl Key {
    /// A dictionary, whole.
    #[must_use]
    pub fn dictionary(name: &str) -> Self {
        Self { name: CacheName::Dictionaries, text: format!("dictionary:{name}"), ttl: DICTIONARY_TTL }
    }

    fn epoch(&self) -> String {
        format!("epoch:{}", self.text)
    }
}

/// What was found under a key.
#[derive(Debug)]
struct Found {
    value: Option<Arc<str>>,
    /// What must still be so when a value is stored.
    epoch: String,
}

/// The cache of one App.
#[derive(Debug)]
pub struct Cache {
    redis: Option<RedisClient>,
    local: LocalCache<String, Arc<str>>,
    /// How often this process has forgotten something that only it had.
    forgotten: AtomicU64,
    /// Keys about which Redis was asked or told something and did not answer, and how often.
    doubted: Mutex<HashMap<Key, u64>>,
    metrics: Arc<Metrics>,
}

impl Cache {
    /// A cache in Redis, or in this process.
    #[must_use]
    pub fn new(redis: Option<RedisClient>, metrics: Arc<Metrics>) -> Self {
        let local = LocalCache::builder().max_capacity(LOCAL_CAPACITY).time_to_live(DICTIONARY_TTL).build();
        Self { redis, local, forgotten: AtomicU64::new(0), doubted: Mutex::default(), metrics }
    }

    /// The value under `key`, loaded and stored when it is not there.
    ///
    /// # Errors
    /// Only those of `load`.
    pub async fn get_or_load<T, E>(&self, key: &Key, load: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let started = Instant::now();
        let found = self.read(key).await;
        let result = match &found {
            Ok(Found { value: Some(_), .. }) => CacheResult::Hit,
            Ok(_) => CacheResult::Miss,
            Err(_) => CacheResult::Error,
        };
        self.metrics.cache_requests(key.name, result).inc();
        self.metrics.cache_operation_duration(key.name, result).observe(started.elapsed().as_secs_f64());
        stats::record_cache(result);
        // A value of an older release that no longer parses is as good as none.
        if let Ok(Found { value: Some(text), .. }) = &found
            && let Ok(value) = serde_json::from_str(text)
        {
            return Ok(value);
        }
        let value = load.await?;
        if let (Ok(found), Ok(text)) = (found, serde_json::to_string(&value)) {
            self.write(key, &found.epoch, text).await;
        }
        Ok(value)
    }

    /// Forgets `key`; for the code that changes what it holds. If Redis does not answer now, this process
    /// does not read the key there until it has been forgotten, which is tried at every look at it and by
    /// [`Cache::make_up`].
    pub async fn forget(&self, key: &Key) {
        if let Some(redis) = &self.redis {
            // What does not get through is in doubt from then on.
            let _ = self.forget_in(redis, key).await;
        } else {
            self.forgotten.fetch_add(1, Ordering::SeqCst);
            self.local.invalidate(&key.text).await;
        }
    }

    /// Forgets in Redis what is in doubt: the other replicas may still find it there.
    pub async fn make_up(&self) {
        let keys: Vec<Key> = self.doubts().keys().cloned().collect();
        for key in keys {
            self.forget(&key).await;
        }
    }

    fn doubts(&self) -> std::sync::MutexGuard<'_, HashMap<Key, u64>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self, key: &Key) {
        *self.doubts().entry(key.clone()).or_default() += 1;
    }

    async fn forget_in(&self, redis: &RedisClient, key: &Key) -> Result<(), Unavailable> {
        let before = self.doubts().get(key).copied();
        let mut both = redis::pipe();
        both.atomic().set(key.epoch(), random_id()).ignore().del(&key.text).ignore();
        let told = redis.run(async move |mut connection| both.query_async::<()>(&mut connection).await).await;
        if told.is_err() {
            self.doubt(key);
            return told;
        }
        let mut doubts = self.doubts();
        // Unless a doubt came up since, about what may be newer than this.
        if doubts.get(key).copied() == before {
            doubts.remove(key);
        }
        Ok(())
    }

    async fn read(&self, key: &Key) -> Result<Found, Unavailable> {
        let Some(redis) = &self.redis else {
            let epoch = self.forgotten.load(Ordering::SeqCst).to_string();
            return Ok(Found { value: self.local.get(&key.text).await, epoch });
        };
        let in_doubt = self.doubts().contains_key(key);
        if in_doubt {
            self.forget_in(redis, key).await?;
        }
        let names = [key.text.clone(), key.epoch()];
        let found = redis
            .run(async move |mut connection| connection.mget::<_, (Option<String>, Option<String>)>(&names).await)
            .await;
        let (value, epoch) = found.inspect_err(|_| self.doubt(key))?;
        Ok(Found { value: value.map(Arc::from), epoch: epoch.unwrap_or_default() })
    }

    async fn write(&self, key: &Key, epoch: &str, text: String) {
        if let Some(redis) = &self.redis {
            let mut call = STORE.key(&key.text);
            call.key(key.epoch()).arg(epoch).arg(text).arg(key.ttl.as_secs());
            let stored = redis.run(async move |mut connection| call.invoke_async::<i64>(&mut connection).await).await;
            if stored.is_err() {
                self.doubt(key);
            }
            return;
        }
        self.local.insert(key.text.clone(), text.into()).await;
        // What was loaded before a change and stored after it would be stale until it expires.
        if self.forgotten.load(Ordering::SeqCst).to_string() != epoch {
            self.local.invalidate(&key.text).await;
        }
    }
}
