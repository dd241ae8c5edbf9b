//! Probes. Live: the process answers. Ready: migrated, not shutting down, and PostgreSQL answers on
//! a connection of its own, so that a busy pool does not take a working replica out of rotation.
//! Redis never counts: the server does without it.

use std::{collections::BTreeMap, time::Instant};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::caller::HealthObserver,
    calls,
    error::{AppError, Problem},
    keeping,
    reports::collector,
    telemetry::labels::PoolState,
};

/// What a probe answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or why not.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// The probes, for both listeners.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready))
}

/// For administrators, on the public listener only.
pub fn detailed_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(detailed))
}

/// How this replica is, and what it stands on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "status": "ok", "version": "0.1.0", "revision": "1a2b3c4d", "time": "2026-10-05T03:20:00Z",
    "dependencies": { "postgresql": { "up": true, "latency_ms": 0.4 }, "redis": { "up": true, "latency_ms": 0.2 } },
    "pool": { "max": 10, "used": 1, "idle": 2 }, "inbox_waiting": { "mango": 0, "generic": 0 },
    "business_metrics_at": "2026-10-05T03:19:52Z", "last_backup_at": "2026-10-05T00:00:10Z"
}))]
pub struct Detailed {
    /// As readiness has it.
    pub status: &'static str,
    /// Of the release.
    pub version: &'static str,
    /// Of the source.
    pub revision: &'static str,
    /// By this replica's clock.
    pub time: DateTime<Utc>,
    /// Those that are configured.
    pub dependencies: BTreeMap<&'static str, DependencyHealth>,
    /// Database connections of this replica.
    pub pool: PoolHealth,
    /// Webhook events that nobody has dealt with yet, by provider.
    pub inbox_waiting: BTreeMap<&'static str, i64>,
    /// When the business metrics were last computed, by whichever replica.
    pub business_metrics_at: Option<DateTime<Utc>>,
    /// When the last backup was finished.
    pub last_backup_at: Option<DateTime<Utc>>,
}

/// One dependency.
#[derive(Debug, Serialize, ToSchema)]
pub struct DependencyHealth {
    /// Whether it answers.
    pub up: bool,
    /// How long it took to say so.
    pub latency_ms: f64,
}

/// Connections.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolHealth {
    pub max: i64,
    pub used: i64,
    pub idle: i64,
}

/// How the server is
#[utoipa::path(get, path = "/health/detailed", tag = "diagnostics", extensions(("x-action" = json!("detailed_health"))), responses(
    (status = 200, description = "How it is, well or not", body = Detailed),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
))]
async fn detailed(_: HealthObserver, State(app): State<App>) -> Result<Json<Detailed>, AppError> {
    let took = |since: Instant| since.elapsed().as_secs_f64() * 1_000.0;
    let mut dependencies = BTreeMap::new();
    let asked = Instant::now();
    let up = app.check_database().await != "database_unavailable";
    dependencies.insert("postgresql", DependencyHealth { up, latency_ms: took(asked) });
    if let Some(redis) = &app.redis {
        let asked = Instant::now();
        let up = redis.probe().await;
        dependencies.insert("redis", DependencyHealth { up, latency_ms: took(asked) });
    }
    app.db.sample();
    let of_state = |state: PoolState| app.metrics.db_pool_connections(state).get();
    let pool = PoolHealth {
        max: i64::from(app.config.database.max_connections),
        used: of_state(PoolState::Used),
        idle: of_state(PoolState::Idle),
    };
    let mut db = app.db.acquire().await?;
    let waiting = calls::store::backlog(&mut db).await?;
    let inbox_waiting = calls::providers::Provider::ALL.iter().map(|provider| {
        (provider.as_str(), waiting.iter().find(|(of, _)| of == provider).map_or(0, |(_, count)| *count))
    });
    Ok(Json(Detailed {
        status: readiness(&app).await,
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("SWITCHBOARD_REVISION"),
        time: app.clock.now(),
        dependencies,
        pool,
        inbox_waiting: inbox_waiting.collect(),
        business_metrics_at: collector::store::latest(&mut db).await?.map(|stored| stored.taken_at),
        last_backup_at: keeping::store::last_backup(&mut db).await?,
    }))
}

async fn readiness(app: &App) -> &'static str {
    if app.lifecycle.is_draining() { "shutting_down" } else { app.check_database().await }
}

/// The process answers
#[utoipa::path(get, path = "/health/live", tag = "ops", extensions(("x-action" = json!("public"))), security(()), responses((status = 200, description = "Alive", body = Health)))]
pub async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Requests may be sent here
#[utoipa::path(get, path = "/health/ready", tag = "ops", extensions(("x-action" = json!("public"))), security(()), responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "Not ready: starting, shutting down, or the database does not answer", body = Health),
))]
async fn ready(State(app): State<App>) -> Response {
    says(readiness(&app).await)
}

/// The answer of readiness.
pub fn says(status: &'static str) -> Response {
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status })).into_response()
}
