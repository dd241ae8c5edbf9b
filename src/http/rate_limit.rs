//! Rate limits by the generic cell rate algorithm (GCRA): in Redis, on Redis' clock, one script for
//! all replicas; without Redis, or while it does not answer, in this process.

use std::{
    num::NonZeroU32,
    sync::{Arc, LazyLock},
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock as _, state::keyed::DefaultKeyedStateStore};
use redis::Script;

use crate::{
    error::{self, AppError},
    redis_client::RedisClient,
    telemetry::{labels::RateLimitScope, metrics::Metrics},
};

/// One limit: `burst` at once, refilled evenly over the period.
#[derive(Debug)]
pub struct Limit {
    scope: RateLimitScope,
    burst: NonZeroU32,
    period: Duration,
    redis: Option<RedisClient>,
    local: RateLimiter<String, DefaultKeyedStateStore<String>, governor::clock::DefaultClock>,
    metrics: Arc<Metrics>,
}

/// Keys kept in memory before idle ones are forgotten.
const KEYS_BEFORE_CLEANUP: usize = 10_000;

/// `KEYS[1]`: the bucket. ARGV: emission interval and burst tolerance, microseconds. Returns 0 when it
/// conforms, else the microseconds to wait. The stored value is the theoretical arrival time.
static GCRA: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
        local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
        local wait = arrival - now - tolerance
        if wait > 0 then return wait end
        local next = arrival + interval
        redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1)
        return 0
        ",
    )
});

impl Limit {
    /// `per_minute` actions a minute, all of which may come at once.
    #[must_use]
    pub fn per_minute(
        scope: RateLimitScope,
        per_minute: u32,
        redis: Option<RedisClient>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let burst = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        let local = RateLimiter::keyed(Quota::per_minute(burst));
        Self { scope, burst, period: Duration::from_mins(1), redis, local, metrics }
    }

    /// Takes one action of whoever `bucket` names.
    ///
    /// # Errors
    /// 429 with Retry-After.
    pub async fn check(&self, bucket: &str) -> Result<(), AppError> {
        let key = format!("limit:{}:{}", self.scope.as_str(), bucket);
        let wait = match self.shared(&key).await {
            Some(wait) => wait,
            None => self.in_process(&key),
        };
        if wait.is_zero() {
            return Ok(());
        }
        self.metrics.rate_limited(self.scope).inc();
        Err(AppError::from(error::RATE_LIMITED).retry_after(wait.as_secs() + 1))
    }

    /// `None` when Redis is not configured or did not answer: the limit then holds per replica.
    async fn shared(&self, key: &str) -> Option<Duration> {
        let redis = self.redis.as_ref()?;
        let interval = self.period.as_micros() / u128::from(self.burst.get());
        let tolerance = self.period.as_micros() - interval;
        let mut call = GCRA.key(key);
        call.arg(interval.to_string()).arg(tolerance.to_string());
        redis.run(async |connection| call.invoke_async::<u64>(connection).await).await.ok().map(Duration::from_micros)
    }

    fn in_process(&self, key: &String) -> Duration {
        if self.local.len() > KEYS_BEFORE_CLEANUP {
            self.local.retain_recent();
        }
        match self.local.check_key(key) {
            Ok(()) => Duration::ZERO,
            Err(refused) => {
                refused.wait_time_from(governor::clock::DefaultClock::default().now()).max(Duration::from_millis(1))
            }
        }
    }
}
