//! The App: everything a handler can reach, and the router with the order of its layers.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, Method, header},
    middleware,
    response::IntoResponse,
    routing::get,
};
use chrono::TimeDelta;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    auth::{self, passwords::Passwords, tokens::Tokens},
    cache::Cache,
    calls::{self, providers::mango},
    clock::Clock,
    config::Config,
    db::Db,
    dictionaries,
    error::{self, AppError},
    http::{
        docs, guard,
        health::{self, Readiness},
        observe,
        rate_limit::Limit,
    },
    lifecycle::Lifecycle,
    phone,
    redis_client::RedisClient,
    requests,
    telemetry::{
        ProcessCounters,
        labels::{Dependency, RateLimitScope},
        metrics::{Metrics, Operation},
    },
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
    pub cache: Cache,
    pub redis: Option<RedisClient>,
    pub tokens: Tokens,
    pub passwords: Passwords,
    pub login_limit: Limit,
    pub mango: Option<mango::Credentials>,
    pub readiness: Readiness,
    pub lifecycle: Lifecycle,
    /// Wakes the inbox worker of this replica.
    pub inbox_wakeup: Notify,
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
        let redis = if config.redis.url.is_empty() {
            None
        } else {
            Some(RedisClient::new(&config.redis.url, metrics.clone())?)
        };
        let mango = (!config.mango.api_key.is_empty()).then(|| mango::Credentials {
            api_key: config.mango.api_key.expose().to_owned(),
            api_salt: config.mango.api_salt.expose().to_owned(),
        });
        let app = Self(Arc::new(Shared {
            tokens: Tokens::new(&config.jwt.secret, TimeDelta::seconds(i64::from(config.jwt.ttl_s)), clock.clone()),
            passwords: Passwords::new(&config.password, metrics.clone())?,
            login_limit: Limit::per_minute(
                RateLimitScope::LoginIp,
                config.login.per_minute,
                redis.clone(),
                metrics.clone(),
            ),
            cache: Cache::new(redis.clone(), metrics.clone()),
            readiness: Readiness::new(db.options().clone()),
            lifecycle: Lifecycle::default(),
            inbox_wakeup: Notify::new(),
            config,
            clock,
            metrics,
            db,
            redis,
            mango,
        }));
        app.metrics.seed_operations(&operations(&openapi()));
        Ok(app)
    }

    /// Reads the dictionaries, so that the first requests find them cached and their series exist, and
    /// whatever else the first request would have to wait for.
    ///
    /// # Errors
    /// As the database.
    pub async fn warm_up(&self) -> anyhow::Result<()> {
        let known = dictionaries::cached(self).await.context("reading the dictionaries")?;
        self.metrics.seed_dictionaries(
            known.cities.iter().map(|city| city.code.as_str()),
            known.request_types.iter().map(|kind| kind.code.as_str()),
        );
        // Its tables are parsed at the first use, which takes half a second that no caller should pay.
        let _ = phone::normalise("+79130000001", &self.config.telephony.region);
        Ok(())
    }

    /// Asks every dependency; `dependency_up` tells.
    pub async fn check_dependencies(&self) {
        let up = self.readiness.check().await != "database_unavailable";
        self.metrics.dependency_up(Dependency::Postgresql).set(i64::from(up));
        if let Some(redis) = &self.redis {
            redis.probe().await;
        }
    }

    /// Gives everything back: connections in the pool and beside it.
    pub async fn close(&self) {
        self.readiness.close().await;
        self.db.close().await;
    }

    /// The public router. Layers run from the last one here to the first: what observes is outermost,
    /// so that nothing an inner layer answers is missed.
    pub fn router(&self) -> Router {
        let (router, document) = routes().split_for_parts();
        router
            .merge(docs::router(document))
            .fallback(async || AppError::from(error::NOT_FOUND))
            .method_not_allowed_fallback(async || AppError::from(error::METHOD_NOT_ALLOWED))
            .layer(DefaultBodyLimit::max(self.config.http.body_limit_bytes))
            .layer(CatchPanicLayer::custom(guard::panicked))
            .layer(middleware::from_fn_with_state(
                Duration::from_millis(self.config.http.request_timeout_ms),
                guard::time_limit,
            ))
            .layer(cors(&self.config.http.allowed_origins))
            .layer(middleware::from_fn(guard::security_headers))
            .layer(middleware::from_fn_with_state(self.metrics.clone(), observe::observe))
            .with_state(self.clone())
    }

    /// The router of the ops listener: metrics and probes. Nothing here is observed: scrapes and
    /// probes are not the service.
    pub fn ops_router(&self) -> Router {
        let (probes, _) = health::router().split_for_parts();
        probes
            .route("/metrics", get(metrics))
            .fallback(async || AppError::from(error::NOT_FOUND))
            .with_state(self.clone())
    }
}

/// All routes of the public API, with their documentation.
fn routes() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .merge(auth::routes::router())
        .merge(requests::routes::router())
        .merge(calls::routes::router())
        .merge(calls::webhooks::router())
        .merge(dictionaries::routes::router());
    OpenApiRouter::with_openapi(docs::Document::openapi()).nest("/api/v1", api).merge(health::router())
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().split_for_parts().1
}

/// Every operation of the document with the status of its success.
fn operations(document: &utoipa::openapi::OpenApi) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (route, item) in &document.paths.paths {
        let methods = [
            (Method::GET, &item.get),
            (Method::POST, &item.post),
            (Method::PATCH, &item.patch),
            (Method::PUT, &item.put),
            (Method::DELETE, &item.delete),
        ];
        for (method, operation) in
            methods.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
        {
            let success = operation
                .responses
                .responses
                .keys()
                .find(|status| status.starts_with('2'))
                .and_then(|status| status.parse().ok());
            operations.push(Operation { method, route: route.clone(), success: success.unwrap_or_default() });
        }
    }
    operations
}

fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            header::IF_MATCH,
            "traceparent".parse().unwrap_or(header::TE),
        ])
        .expose_headers([header::ETAG, header::LOCATION, header::RETRY_AFTER])
        .max_age(Duration::from_mins(10))
}

/// What Prometheus scrapes.
async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, AppError> {
    app.db.sample();
    let runtime = tokio::runtime::Handle::current().metrics();
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    app.metrics.tokio_workers().set(count(runtime.num_workers()));
    app.metrics.tokio_alive_tasks().set(count(runtime.num_alive_tasks()));
    app.metrics.tokio_global_queue_depth().set(count(runtime.global_queue_depth()));
    let text = app.metrics.render().map_err(AppError::internal)?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
