//! Redis: a connection that never makes a request wait. Every call is bounded (the driver's own
//! defaults allow nine seconds), and a failure means "do without", never an error for the client.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tracing::{Instrument, field::Empty, info_span};

use crate::{
    config::Secret,
    telemetry::{labels::Dependency, metrics::Metrics},
};

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// A shared connection; cheap to clone.
#[derive(Clone)]
pub struct RedisClient {
    manager: ConnectionManager,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisClient")
    }
}

/// Redis did not answer as it should; already counted.
#[derive(Debug)]
pub struct Unavailable;

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
        Ok(Self { manager, metrics })
    }

    /// Runs one command, and keeps `cache_fallback_active` and `dependency_up` true to its outcome.
    ///
    /// # Errors
    /// [`Unavailable`]; do without.
    pub async fn run<T>(
        &self,
        command: impl AsyncFnOnce(&mut ConnectionManager) -> RedisResult<T>,
    ) -> Result<T, Unavailable> {
        let mut manager = self.manager.clone();
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
        let outcome = tokio::time::timeout(limit, command(&mut manager)).instrument(span.clone()).await;
        let answer = match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {limit:?}")),
        };
        self.note(&answer);
        answer.map_err(|_| {
            span.record("otel.status_code", "ERROR");
            Unavailable
        })
    }

    /// Keeps the gauges; says something only when it changes, since an outage has many calls.
    fn note<T>(&self, answer: &Result<T, String>) {
        let (fallback, up) = (self.metrics.cache_fallback_active(), self.metrics.dependency_up(Dependency::Redis));
        match answer {
            Ok(_) if fallback.get() != 0 => tracing::info!("Redis answers again"),
            Err(error) if fallback.get() == 0 => tracing::warn!(%error, "Redis does not answer; doing without"),
            _ => {}
        }
        fallback.set(i64::from(answer.is_err()));
        up.set(i64::from(answer.is_ok()));
    }

    /// Whether Redis answers; the outcome is in the metrics.
    pub async fn probe(&self) -> bool {
        self.run(async |connection| redis::cmd("PING").query_async::<()>(connection).await).await.is_ok()
    }
}
