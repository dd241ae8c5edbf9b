//! `/api/v1/webhooks/telephony`: verify, store, answer. Everything else is the worker's, so that a
//! provider is never kept waiting and nothing is lost between the two.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    providers::{
        IntakeError, Provider,
        mango::{self, EventKind},
    },
    store,
};
use crate::{
    app::App,
    error::{self, AppError, Problem},
    http::extract::{self, Segments},
    telemetry::{labels::WebhookOutcome, trace::TraceIds},
};

/// The endpoints that providers post to.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(plain)).routes(routes!(with_kind)).routes(routes!(with_long_kind))
}

/// What became of a delivery.
#[derive(Serialize, ToSchema)]
struct Receipt {
    /// `accepted`, or `duplicate` when it was stored before.
    #[schema(example = "accepted")]
    status: &'static str,
}

/// What Mango posts.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "documentation: the signature is over the raw form, which is parsed by the provider's adapter"
)]
struct MangoForm {
    /// The account's key.
    #[schema(example = "d41d8cd98f00b204e9800998ecf8427e")]
    vpbx_api_key: String,
    /// Lower-case hexadecimal SHA-256 of key + json + salt.
    #[schema(example = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    sign: String,
    /// The event.
    #[schema(example = r#"{"entry_id":"1","call_id":"2","seq":1,"call_state":"Appeared"}"#)]
    json: String,
}

macro_rules! webhook {
    ($(#[$meta:meta])* $name:ident, $path:literal, $($segment:literal),+) => {
        $(#[$meta])*
        #[utoipa::path(post, path = $path, tag = "webhooks", extensions(("x-action" = json!("public"))), security(()), params($(($segment = String, Path)),+),
            request_body(content = MangoForm, content_type = "application/x-www-form-urlencoded"),
            responses(
                (status = 200, description = "Stored, or stored before", body = Receipt),
                (status = 400, description = "Not the form that was promised", body = Problem),
                (status = 401, description = "The signature does not match", body = Problem),
                (status = 404, description = "No such provider, or it is not configured", body = Problem),
                (status = 413, description = "Too large", body = Problem),
                (status = 503, description = "Not stored; send it again", body = Problem),
            ))]
        async fn $name(
            State(app): State<App>,
            Segments(path): Segments,
            request: Request,
        ) -> Result<Json<Receipt>, AppError> {
            receive(&app, &path, request).await
        }
    };
}

webhook!(
    /// Receive a telephony event whose kind is told by its content
    plain, "/webhooks/telephony/{provider}", "provider"
);
webhook!(
    /// Receive a telephony event: `call`, `summary` or `recording`
    with_kind, "/webhooks/telephony/{provider}/events/{kind}", "provider", "kind"
);
webhook!(
    /// Receive a telephony event: `record/added`
    with_long_kind, "/webhooks/telephony/{provider}/events/{kind}/{detail}", "provider", "kind", "detail"
);

async fn receive(app: &App, path: &[String], request: Request) -> Result<Json<Receipt>, AppError> {
    let (provider, kind) = path.split_first().ok_or(error::NOT_FOUND)?;
    let provider: Provider = provider.parse().map_err(|_| error::NOT_FOUND)?;
    let credentials = match provider {
        Provider::Mango => app.mango.as_ref().ok_or(error::NOT_FOUND)?,
    };
    let count = |outcome: WebhookOutcome| app.metrics.webhook_events(provider, outcome).inc();
    let reject = |error: AppError| {
        count(WebhookOutcome::Rejected);
        error
    };
    let body = extract::body(request, app).await.map_err(reject)?;
    let verified = mango::verify(credentials, &body).map_err(|error| {
        reject(match error {
            IntakeError::Malformed(reason) => error::MALFORMED.because(reason),
            IntakeError::BadSignature => error::BAD_SIGNATURE.into(),
        })
    })?;
    let kind = if kind.is_empty() {
        // Kept as a call event if nothing gives it away: the worker will then say what is wrong with it.
        Some(EventKind::infer(&verified.json).unwrap_or(EventKind::Call))
    } else {
        EventKind::from_path(&format!("events/{}", kind.join("/")))
    };
    let kind = kind.ok_or_else(|| reject(error::NOT_FOUND.because("There is no such kind of event.")))?;
    let identity = mango::identify(kind, &verified.json);
    let traceparent = TraceIds::current().map(|ids| ids.traceparent);
    let mut db = app.db.acquire().await?;
    let new = store::insert_event(
        &mut db,
        provider,
        kind.as_str(),
        &identity,
        &verified.json,
        traceparent.as_deref(),
        app.clock.now(),
    )
    .await?;
    let outcome = if new { WebhookOutcome::Accepted } else { WebhookOutcome::Duplicate };
    count(outcome);
    if new {
        app.inbox_wakeup.notify_one();
    }
    Ok(Json(Receipt { status: outcome.as_str() }))
}
