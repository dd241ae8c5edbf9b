//! Rate limits: in Redis, on Redis' clock, one script for all replicas; without Redis, or while it does
//! not answer, in this process, which then grants its part. Each of the two tells the other how empty a
//! bucket is, so that an outage, or a Redis that has lost its data, gives nobody their actions back. Answers tell how each limit stands that was
//! asked for them.

mod local;
mod quota;

use std::sync::{Arc, LazyLock};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use redis::Script;

use self::{
    local::Local,
    quota::{Quota, Verdict},
};
use super::{capacity, client_ip::ClientIp, stats};
use crate::{
    app::App,
    config::Rate,
    error::{self, AppError},
    redis_client::RedisClient,
    telemetry::{
        labels::{CapacityScope, RateLimitScope},
        metrics::Metrics,
    },
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// One limit, for as many buckets as there are addresses, or users.
#[derive(Debug)]
pub struct Limit {
    scope: RateLimitScope,
    quota: Quota,
    /// Names the rate too: a bucket of another setting is not misread.
    prefix: String,
    redis: Option<RedisClient>,
    local: Local,
    metrics: Arc<Metrics>,
}

/// [`Quota::take`] in Redis. `KEYS[1]`: when the bucket is full again, microseconds of Redis' clock. ARGV:
/// interval, burst, and how empty the bucket is at least. Returns the verdict: wait, remaining, reset. What is no
/// such number counts as a full bucket, and is overwritten.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
        local whole = interval * burst
        local stored = redis.pcall('GET', KEYS[1])
        local full_at = type(stored) == 'string' and stored:match('^%d+$') and tonumber(stored) or 0
        local missing = math.min(math.max(full_at - now, tonumber(ARGV[3])), whole)
        local wait = math.max(missing + interval - whole, 0)
        if wait == 0 then missing = missing + interval end
        if wait == 0 or full_at > now + whole then
            redis.call('SET', KEYS[1], string.format('%.0f', now + missing), 'PX', math.ceil(missing / 1000))
        end
        return { wait, math.floor((whole - missing) / interval), missing }
        ",
    )
});

impl Limit {
    /// A limit on what `scope` says.
    #[must_use]
    pub fn new(
        scope: RateLimitScope,
        rate: Rate,
        replicas: u32,
        redis: Option<RedisClient>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let local = Local::new(Quota::part(rate, replicas));
        let prefix = format!("limit:{}:{rate}", scope.as_str());
        Self { scope, quota: Quota::part(rate, 1), prefix, redis, local, metrics }
    }

    /// Takes one action of whoever `bucket` names.
    ///
    /// # Errors
    /// 429 with Retry-After.
    pub async fn check(&self, bucket: &str) -> Result<(), AppError> {
        let (quota, verdict) = match self.shared(bucket).await {
            Some(verdict) => (self.quota, verdict),
            None => (self.local.quota(), self.local.take(bucket)),
        };
        stats::record_limit(quota.policy(self.scope), verdict.standing(self.scope));
        let Some(seconds) = verdict.retry_after() else { return Ok(()) };
        self.metrics.rate_limited(self.scope).inc();
        Err(AppError::from(error::RATE_LIMITED).retry_after(seconds))
    }

    /// `None` when Redis is not configured or did not answer.
    async fn shared(&self, bucket: &str) -> Option<Verdict> {
        let redis = self.redis.as_ref()?;
        let mut call = TAKE.key(format!("{}:{bucket}", self.prefix));
        call.arg(self.quota.interval).arg(self.quota.burst).arg(self.local.ahead(bucket));
        let ask = async move |mut connection| call.invoke_async::<(u64, u32, u64)>(&mut connection).await;
        let (wait, remaining, reset) = redis.run(ask).await.ok()?;
        self.local.follow(bucket, reset);
        Some(Verdict { wait, remaining, reset })
    }
}

/// Asks the limit of the client's address before anything is looked at, and tells in the answer how each
/// limit stands that was asked on the way.
pub async fn per_address<F: Future<Output = Response>>(
    app: &App,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let granted = match bucket(app, &request) {
        Ok(Some(bucket)) => app.ip_limit.check(&bucket).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    let mut response = match granted {
        Ok(()) => next(request).await,
        Err(refused) => refused.into_response(),
    };
    let (policies, standings) = stats::limits();
    for (name, items) in [(POLICY, policies), (STANDING, standings)] {
        if let Ok(value) = HeaderValue::try_from(items.join(", "))
            && !value.is_empty()
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Whose limit a request is asked for; of none that is a probe, which must get through, or a webhook, which has limits of
/// its own: a PBX has one address.
fn bucket(app: &App, request: &Request) -> Result<Option<String>, AppError> {
    if capacity::scope(request) != Some(CapacityScope::Api) {
        return Ok(None);
    }
    let client = ClientIp::of(request.extensions(), request.headers(), app)?;
    Ok(Some(client.bucket()))
}
