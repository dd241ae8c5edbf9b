//! The cache: typed keys, values as JSON in Redis when it is configured, otherwise in this process.
//! What cannot be read from it is loaded from the database: a cache never fails a request.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moka::future::Cache as LocalCache;
use redis::AsyncCommands;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    http::stats,
    redis_client::RedisClient,
    telemetry::{
        labels::{CacheName, CacheResult},
        metrics::Metrics,
    },
};

const DICTIONARY_TTL: Duration = Duration::from_hours(1);
const LOCAL_CAPACITY: u64 = 10_000;

/// What a value is cached under.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// The cache of one App.
#[derive(Debug)]
pub struct Cache {
    redis: Option<RedisClient>,
    local: LocalCache<String, Arc<str>>,
    /// How often this process has forgotten something.
    forgotten: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Cache {
    /// A cache in Redis, or in this process.
    #[must_use]
    pub fn new(redis: Option<RedisClient>, metrics: Arc<Metrics>) -> Self {
        let local = LocalCache::builder().max_capacity(LOCAL_CAPACITY).time_to_live(DICTIONARY_TTL).build();
        Self { redis, local, forgotten: AtomicU64::new(0), metrics }
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
            Ok(Some(_)) => CacheResult::Hit,
            Ok(None) => CacheResult::Miss,
            Err(()) => CacheResult::Error,
        };
        self.metrics.cache_requests(key.name, result).inc();
        self.metrics.cache_operation_duration(key.name, result).observe(started.elapsed().as_secs_f64());
        stats::record_cache(result);
        // A value of an older release that no longer parses is as good as none.
        if let Ok(Some(text)) = found
            && let Ok(value) = serde_json::from_str(&text)
        {
            return Ok(value);
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let value = load.await?;
        if let Ok(text) = serde_json::to_string(&value) {
            self.write(key, text).await;
            // What was loaded before a change and written after it would be stale until it expires.
            if self.forgotten.load(Ordering::SeqCst) != forgotten {
                self.remove(key).await;
            }
        }
        Ok(value)
    }

    /// Forgets `key`; for the code that changes what it holds.
    pub async fn forget(&self, key: &Key) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.remove(key).await;
    }

    async fn remove(&self, key: &Key) {
        match &self.redis {
            Some(redis) => drop(redis.run(async |connection| connection.del::<_, ()>(&key.text).await).await),
            None => self.local.invalidate(&key.text).await,
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Arc<str>>, ()> {
        match &self.redis {
            Some(redis) => redis
                .run(async |connection| connection.get::<_, Option<String>>(&key.text).await)
                .await
                .map(|found| found.map(Arc::from))
                .map_err(drop),
            None => Ok(self.local.get(&key.text).await),
        }
    }

    async fn write(&self, key: &Key, text: String) {
        match &self.redis {
            Some(redis) => {
                let seconds = key.ttl.as_secs();
                drop(redis.run(async |connection| connection.set_ex::<_, _, ()>(&key.text, text, seconds).await).await);
            }
            None => self.local.insert(key.text.clone(), text.into()).await,
        }
    }
}
