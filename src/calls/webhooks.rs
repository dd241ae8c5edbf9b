//! `/api/v1/webhooks/telephony`: verify, store, answer. Everything else is the worker's, so that a
//! provider is never kept waiting and nothing is lost between the two.

use std::time::Duration;

use axum::{
    Json,
    extract::{Request, State},
    http::HeaderMap,
};
use moka::sync::Cache;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    providers::{
        Identity, IntakeError, Provider,
        generic::{self, GenericEvent},
        mango::{self, EventKind},
    },
    store,
};
use crate::{
    app::App,
    error::{self, AppError, Problem},
    http::{
        client_ip::ClientIp,
        extract::{self, Segments},
    },
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
    ($(#[$meta:meta])* $name:ident, $path:literal, ($($body:tt)+), ($($header:tt)*), $($segment:literal),+) => {
        $(#[$meta])*
        #[utoipa::path(post, path = $path, tag = "webhooks", extensions(("x-action" = json!("public"))), security(()), params($(($segment = String, Path)),+ $($header)*),
            request_body($($body)+),
            responses(
                (status = 200, description = "Stored, or stored before", body = Receipt),
                (status = 400, description = "Not the form that was promised", body = Problem),
                (status = 401, description = "The signature does not match", body = Problem),
                (status = 404, description = "No such provider, or it is not configured", body = Problem),
                (status = 413, description = "Too large", body = Problem),
                (status = 429, description = "Too many deliveries of this provider, or too many bad or repeated ones from this address; send it again", body = Problem),
                (status = 503, description = "Not stored; send it again", body = Problem),
            ))]
        async fn $name(
            State(app): State<App>,
            client: ClientIp,
            Segments(path): Segments,
            request: Request,
        ) -> Result<Json<Receipt>, AppError> {
            receive(&app, client, &path, request).await
        }
    };
}

webhook!(
    /// Receive a telephony event whose kind is told by its content
    ///
    /// `mango` posts a form. `generic` posts JSON, signed as Standard Webhooks has it: the three headers are
    /// needed then, and a signature is good for five minutes. What is signed is stored, even if it cannot be
    /// read: it then counts as `failed` in `switchboard_webhook_events_total`, and the log says why.
    plain, "/webhooks/telephony/{provider}",
    (content((MangoForm = "application/x-www-form-urlencoded"), (GenericEvent = "application/json"))),
    (,
        ("webhook-id" = Option<String>, Header, description = "`generic`: the same for each delivery of an event", example = "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp" = Option<String>, Header, description = "`generic`: unix seconds", example = "1614265330"),
        ("webhook-signature" = Option<String>, Header, description = "`generic`: `v1,` and base64 of HMAC-SHA256 over id.timestamp.body; several separated by spaces", example = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    ),
    "provider"
);
webhook!(
    /// Receive a telephony event: `call`, `summary` or `recording`
    with_kind, "/webhooks/telephony/{provider}/events/{kind}",
    (content = MangoForm, content_type = "application/x-www-form-urlencoded"), (), "provider", "kind"
);
webhook!(
    /// Receive a telephony event: `record/added`
    with_long_kind, "/webhooks/telephony/{provider}/events/{kind}/{detail}",
    (content = MangoForm, content_type = "application/x-www-form-urlencoded"), (), "provider", "kind", "detail"
);

/// Events that this replica has lately seen stored, so that whoever repeats them reaches no database.
#[derive(Debug)]
pub struct Delivered(Cache<(Provider, String), ()>);

impl Default for Delivered {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(10_000).time_to_live(Duration::from_mins(5)).build())
    }
}

/// A delivery whose sender is authenticated.
struct Delivery {
    kind: String,
    identity: Identity,
    payload: String,
}

async fn receive(app: &App, client: ClientIp, path: &[String], request: Request) -> Result<Json<Receipt>, AppError> {
    let (provider, delivery) = match verified(app, path, request).await {
        Ok(verified) => verified,
        Err(refused) => {
            // Whoever forges uses up what their own address may do, and nothing of the provider's.
            app.ip_limit.check(&client.bucket()).await?;
            return Err(refused);
        }
    };
    let event = (provider, delivery.identity.event_key.clone());
    if app.delivered.0.contains_key(&event) {
        // Nor does whoever repeats: with one delivery that leaked they could keep all calls to come out.
        app.ip_limit.check(&client.bucket()).await?;
        return Ok(receipt(app, provider, WebhookOutcome::Duplicate));
    }
    // A provider that is told to wait sends again.
    app.webhook_limit.check(provider.as_str()).await?;
    let traceparent = TraceIds::current().map(|ids| ids.traceparent());
    let mut db = app.reserved.acquire().await?;
    let new = store::insert_event(
        &mut db,
        provider,
        &delivery.kind,
        &delivery.identity,
        &delivery.payload,
        traceparent.as_deref(),
        app.clock.now(),
    )
    .await?;
    app.delivered.0.insert(event, ());
    if new {
        app.inbox_wakeup.notify_one();
    }
    Ok(receipt(app, provider, if new { WebhookOutcome::Accepted } else { WebhookOutcome::Duplicate }))
}

fn receipt(app: &App, provider: Provider, outcome: WebhookOutcome) -> Json<Receipt> {
    app.metrics.webhook_events(provider, outcome).inc();
    Json(Receipt { status: outcome.as_str() })
}

/// Reads a delivery and makes sure who sent it.
async fn verified(app: &App, path: &[String], request: Request) -> Result<(Provider, Delivery), AppError> {
    let (provider, kind) = path.split_first().ok_or(error::NOT_FOUND)?;
    let provider: Provider = provider.parse().map_err(|_| error::NOT_FOUND)?;
    let configured = match provider {
        Provider::Mango => app.mango.is_some(),
        Provider::Generic => app.generic.is_some(),
    };
    if !configured {
        return Err(error::NOT_FOUND.into());
    }
    let headers = request.headers().clone();
    let delivery = match extract::body(request, app).await {
        Ok(body) => match provider {
            Provider::Mango => from_mango(app, kind, &body),
            Provider::Generic => from_generic(app, kind, &headers, &body),
        },
        Err(error) => Err(error),
    };
    let delivery = delivery.inspect_err(|_| app.metrics.webhook_events(provider, WebhookOutcome::Rejected).inc())?;
    Ok((provider, delivery))
}

fn no_such_kind() -> AppError {
    error::NOT_FOUND.because("There is no such kind of event.")
}

fn refused(error: IntakeError) -> AppError {
    match error {
        IntakeError::Malformed(reason) => error::MALFORMED.because(reason),
        IntakeError::BadSignature => error::BAD_SIGNATURE.into(),
        IntakeError::Stale => error::BAD_SIGNATURE.because("The timestamp is more than five minutes from now."),
    }
}

fn from_mango(app: &App, kind: &[String], body: &[u8]) -> Result<Delivery, AppError> {
    let credentials = app.mango.as_ref().ok_or(error::NOT_FOUND)?;
    let verified = mango::verify(credentials, body).map_err(refused)?;
    let kind = if kind.is_empty() {
        // Kept as a call event if nothing gives it away: the worker will then say what is wrong with it.
        EventKind::infer(&verified.json).unwrap_or(EventKind::Call)
    } else {
        EventKind::from_path(&format!("events/{}", kind.join("/"))).ok_or_else(no_such_kind)?
    };
    let identity = mango::identify(kind, &verified.json);
    Ok(Delivery { kind: kind.as_str().to_owned(), identity, payload: verified.json })
}

fn from_generic(app: &App, kind: &[String], headers: &HeaderMap, body: &[u8]) -> Result<Delivery, AppError> {
    let credentials = app.generic.as_ref().ok_or(error::NOT_FOUND)?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let id = header("webhook-id");
    let headers =
        generic::Headers { id, timestamp: header("webhook-timestamp"), signatures: header("webhook-signature") };
    let verified = generic::verify(credentials, headers, body, app.clock.now()).map_err(refused)?;
    // The event says itself what it is.
    if !kind.is_empty() {
        return Err(no_such_kind());
    }
    let kind = generic::kind(&verified.json).to_owned();
    Ok(Delivery { kind, identity: generic::identify(id, &verified.json), payload: verified.json })
}
