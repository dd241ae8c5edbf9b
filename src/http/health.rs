//! Probes. Live: the process answers. Ready: migrated, not shutting down, and PostgreSQL answers on
//! a connection of its own, so that a busy pool does not take a working replica out of rotation.
//! Redis never counts: the server does without it.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

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
#[utoipa::path(get, path = "/health/live", tag = "ops", extensions(("x-action" = json!("public"))), security(()), responses((status = 200, description = "Alive", body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Requests may be sent here
#[utoipa::path(get, path = "/health/ready", tag = "ops", extensions(("x-action" = json!("public"))), security(()), responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "Not ready: starting, shutting down, or the database does not answer", body = Health),
))]
async fn ready(State(app): State<App>) -> Response {
    let status = if app.lifecycle.is_draining() { "shutting_down" } else { app.check_database().await };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status })).into_response()
}
