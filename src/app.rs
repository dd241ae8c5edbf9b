//! The App: everything a handler can reach. What it serves is put together in [`crate::server`].

use std::sync::{Arc, OnceLock};

use chrono::TimeDelta;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, Semaphore};

use crate::{
    auth::{keys::Keys, passwords::Passwords, tokens::Tokens},
    cache::Cache,
    calls::{
        providers::{generic, mango},
        webhooks::Delivered,
    },
    clock::Clock,
    config::Config,
    db::{Db, Readiness},
    events::hub::Hub,
    files::storage::Storage,
    http::{capacity::Capacity, rate_limit::Limit},
    lifecycle::Lifecycle,
    redis_client::RedisClient,
    telemetry::{
        ProcessCounters,
        labels::{Dependency, RateLimitScope},
        metrics::Metrics,
    },
    users::passport::Vault,
};

/// The state of one server; cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

/// What [`App`] shares.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub db: Db,
    /// Connections that requests cannot use up: for calls that come in, and for the cache.
    pub reserved: Db,
    pub cache: Cache,
    pub redis: Option<RedisClient>,
    pub tokens: Tokens,
    pub keys: Keys,
    pub passwords: Passwords,
    /// `None` when no key is configured.
    pub passports: Option<Vault>,
    /// Of all requests of one address.
    pub ip_limit: Limit,
    /// Of all requests of one user.
    pub user_limit: Limit,
    /// Of tries to sign in from one address.
    pub login_limit: Limit,
    /// Of signed deliveries of one provider.
    pub webhook_limit: Limit,
    pub mango: Option<mango::Credentials>,
    pub generic: Option<generic::Credentials>,
    pub storage: Storage,
    /// Requests and files that are dealt with at a time.
    pub capacity: Capacity,
    /// Talks to the provider; made when first used.
    pub provider_client: OnceLock<reqwest::Client>,
    pub readiness: Readiness,
    pub lifecycle: Lifecycle,
    /// Webhook deliveries that this replica has seen.
    pub delivered: Delivered,
    /// Wakes the inbox worker of this replica.
    pub inbox_wakeup: Notify,
    /// Who listens to live events on this replica.
    pub events: Hub,
    /// Reports at a time: they must leave connections for everybody else.
    pub report_turns: Semaphore,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Builds the state over a migrated database; connects lazily, so it does not wait.
    ///
    /// # Errors
    /// When a setting that only a library can judge is wrong.
    pub fn build(
        config: Config,
        database: PgConnectOptions,
        clock: Clock,
        counters: ProcessCounters,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new(counters)?);
        let db = Db::new(database, &config.database, metrics.clone());
        let reserved = db.reserve(&config.database);
        let redis = if config.redis.url.is_empty() {
            None
        } else {
            Some(RedisClient::new(&config.redis.url, metrics.clone())?)
        };
        let mango = (!config.mango.api_key.is_empty()).then(|| mango::Credentials {
            api_key: config.mango.api_key.expose().to_owned(),
            api_salt: config.mango.api_salt.expose().to_owned(),
        });
        let limit = |scope, rate| Limit::new(scope, rate, config.limits.replicas, redis.clone(), metrics.clone());
        Ok(Self(Arc::new(Shared {
            tokens: Tokens::new(
                &config.jwt.secret,
                &config.jwt.previous_secret,
                TimeDelta::seconds(i64::from(config.jwt.ttl_s)),
                clock.clone(),
            ),
            keys: Keys::derive(&config.jwt.secret, &config.jwt.previous_secret)?,
            passports: Vault::new(&config.privacy.passport_key)?,
            passwords: Passwords::new(&config.password, metrics.clone())?,
            ip_limit: limit(RateLimitScope::Ip, config.limits.ip),
            user_limit: limit(RateLimitScope::User, config.limits.user),
            login_limit: limit(RateLimitScope::LoginIp, config.limits.login_ip),
            webhook_limit: limit(RateLimitScope::Webhook, config.limits.webhook),
            cache: Cache::new(redis.clone(), reserved.clone(), &config.cache, metrics.clone()),
            readiness: Readiness::new(db.options().clone()),
            lifecycle: Lifecycle::default(),
            storage: Storage::new(&config)?,
            capacity: Capacity::new(config.http.max_in_flight, config.files.max_uploads, metrics.clone()),
            provider_client: OnceLock::new(),
            delivered: Delivered::default(),
            inbox_wakeup: Notify::new(),
            events: Hub::new(config.events.buffer),
            report_turns: Semaphore::new(usize::from(config.database.max_connections).div_ceil(4)),
            generic: generic::Credentials::read(config.generic.secret.expose()),
            config,
            clock,
            metrics,
            db,
            reserved,
            redis,
            mango,
        })))
    }

    /// Whether the database can serve, as [`Readiness::check`]; `dependency_up` tells too.
    pub async fn check_database(&self) -> &'static str {
        let answer = self.readiness.check().await;
        self.metrics.dependency_up(Dependency::Postgresql).set(i64::from(answer != "database_unavailable"));
        answer
    }

    /// Asks every dependency; `dependency_up` tells.
    pub async fn check_dependencies(&self) {
        self.check_database().await;
        if let Some(redis) = &self.redis {
            redis.probe().await;
        }
    }

    /// Gives everything back: connections in the pool and beside it.
    pub async fn close(&self) {
        self.readiness.close().await;
        self.reserved.close().await;
        self.db.close().await;
    }
}
