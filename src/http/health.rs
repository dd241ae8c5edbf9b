//! Probes. Live: the process answers. Ready: migrated, not shutting down, and PostgreSQL answers on
//! a connection of its own, so that a busy pool does not take a working replica out of rotation.
//! Redis never counts: the server does without it.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::Mutex;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, db::migrate, telemetry::labels::Dependency};

const PATIENCE: Duration = Duration::from_secs(1);

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

/// The process answers
#[utoipa::path(get, path = "/health/live", tag = "ops", security(()), responses((status = 200, description = "Alive", body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Requests may be sent here
#[utoipa::path(get, path = "/health/ready", tag = "ops", security(()), responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "Not ready: starting, shutting down, or the database does not answer", body = Health),
))]
async fn ready(State(app): State<App>) -> Response {
    let status = if app.lifecycle.is_draining() { "shutting_down" } else { app.readiness.check().await };
    app.metrics.dependency_up(Dependency::Postgresql).set(i64::from(status != "database_unavailable"));
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status })).into_response()
}

/// The connection that readiness asks on.
#[derive(Debug)]
pub struct Readiness {
    options: PgConnectOptions,
    connection: Mutex<Option<PgConnection>>,
}

impl Readiness {
    /// Asks the database that `options` name.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: Mutex::new(None) }
    }

    /// `ok`, `starting` or `database_unavailable`, within a second.
    pub async fn check(&self) -> &'static str {
        let ask = async {
            // Probes queue here: one connection serves them all, one after the other.
            let mut slot = self.connection.lock().await;
            // Taken out while in use, so that a probe that times out drops a connection of unknown state.
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => self.options.clone().application_name("switchboard readiness").connect().await?,
            };
            let current = migrate::is_current(&mut connection).await?;
            *slot = Some(connection);
            Ok::<_, sqlx::Error>(current)
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(true)) => "ok",
            Ok(Ok(false)) => "starting",
            Ok(Err(_)) | Err(_) => "database_unavailable",
        }
    }

    /// Gives the connection back.
    pub async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            drop(connection.close().await);
        }
    }
}
