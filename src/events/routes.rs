//! HTTP of events.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{
        IntoResponse,
        sse::{KeepAlive, Sse},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{model::StreamParams, stream};
use crate::{
    app::App,
    auth::caller::RequestReader,
    error::{AppError, Problem},
    http::extract::ValidQuery,
};

/// Shorter than what balancers take for idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass each event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The endpoints of events.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// What happens to your service requests, live
///
/// Server-sent events, within a second of their commit and through any replica, of these names:
///
/// - `ready`: the stream is open; everything from here on is told.
/// - `request`: something happened to a service request. The data is `{id, request_id, kind, from, to, at, actor_id,
///   status, version}`: read the request for more.
/// - `gone`: a service request is not yours any more (for masters). The data is `{id, request_id, at}`.
/// - `reset`: instead of `ready` when you were away for too long (10,000 events or 24 hours): read your lists again.
/// - `lagged`: you read too slowly and the stream ends; resume.
///
/// The `id:` of an event is not its own number but the one up to which everything was told, since events become
/// visible in another order than they are numbered. Send the last one as `Last-Event-ID` (browsers do so by
/// themselves) to resume: nothing is missing then, and a few events may come again; tell them by the `id` in their
/// data. The stream ends when your session does, or your role or cities change.
#[utoipa::path(get, path = "/events", tag = "events", extensions(("x-action" = json!("read_requests"))),
    params(StreamParams, ("Last-Event-ID" = Option<i64>, Header, description = "Resume after the event with this `id:`")),
    responses(
    (status = 200, description = "The stream", body = String, content_type = "text/event-stream", example =
        "retry: 2000\nid: 6\nevent: ready\ndata: {}\n\nid: 7\nevent: request\ndata: {\"id\":7,\"request_id\":1042,\"kind\":\"transition\",\"from\":\"new\",\"to\":\"waiting\",\"at\":\"2026-06-01T07:00:00Z\",\"actor_id\":3,\"status\":\"waiting\",\"version\":2}\n\n"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 422, description = "Last-Event-ID is none", body = Problem),
))]
async fn listen(
    caller: RequestReader,
    State(app): State<App>,
    headers: HeaderMap,
    ValidQuery(params): ValidQuery<StreamParams>,
) -> Result<impl IntoResponse, AppError> {
    let last = match headers.get(LAST_EVENT_ID) {
        // A browser repeats the URL with its parameter for ever, and the header knows better.
        Some(value) => Some(last_event_id(value)?),
        None => params.last_event_id,
    };
    let events = stream::open(app, (*caller).clone(), last).await?;
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))))
}

fn last_event_id(value: &HeaderValue) -> Result<i64, AppError> {
    let id = value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|id| *id >= 0);
    id.ok_or_else(|| AppError::invalid_field("Last-Event-ID", "is no id of this stream; come without one"))
}
