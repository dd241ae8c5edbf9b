//! `/api/v1/calls/{id}/recording`: HTTP only.

use axum::{extract::State, http::HeaderMap, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::store::{self, OfCall};
use crate::{
    app::App,
    auth::caller::CallHandler,
    calls::{
        self,
        model::{RecordingParams, RecordingStatus},
    },
    error::{self, AppError, Problem},
    files::{
        media::Media,
        model::Binary,
        serve::{self, Content},
    },
    http::extract::{Id, ValidQuery},
};

/// How soon to ask again for a recording that is on its way, in seconds.
const SOON: u64 = 5;

/// The endpoints of recordings.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// Listen to a call
#[utoipa::path(get, path = "/calls/{id}/recording", tag = "calls", params(("id" = i64, Path), RecordingParams,
    ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
    ("If-Range" = Option<String>, Header, description = "The ETag that the range is of")),
    extensions(("x-action" = json!("calls"))), responses(
    (status = 200, description = "The recording", body = Binary, content_type = "*/*", headers(("ETag"))),
    (status = 206, description = "The part that was asked for", body = Binary, content_type = "*/*"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "No such call of yours, or nothing was recorded or could be fetched", body = Problem),
    (status = 409, description = "It is still being fetched from the provider", body = Problem),
    (status = 416, description = "The recording has no such part", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn listen(
    caller: CallHandler,
    State(app): State<App>,
    Id(id): Id,
    ValidQuery(params): ValidQuery<RecordingParams>,
    headers: HeaderMap,
) -> Result<Response, AppError> {
    let mut db = app.db.acquire().await?;
    calls::store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let mut recordings = store::of_call(&mut db, id).await?;
    drop(db);
    if let Some(wanted) = params.recording {
        recordings.retain(|recording| recording.id == wanted);
    }
    let content = choose(id, recordings)?;
    serve::respond(&app.storage, &headers, &content).await
}

/// The newest that can be listened to; else the best that can be said of the others.
fn choose(call_id: i64, recordings: Vec<OfCall>) -> Result<Content, AppError> {
    let none = recordings.is_empty();
    let pending = recordings.iter().any(|recording| recording.status == RecordingStatus::Pending);
    for OfCall { id, object, mime, bytes, sha256, .. } in recordings {
        if let (Some(object), Some(mime), Some(bytes), Some(sha256)) = (object, mime, bytes, sha256) {
            let extension = Media::named(&mime).map_or("bin", Media::extension);
            let name = format!("call-{call_id}-{id}.{extension}");
            return Ok(Content { object, name, mime, bytes, sha256 });
        }
    }
    Err(if pending {
        error::CONFLICT.because("The recording is still being fetched from the provider.").retry_after(SOON)
    } else if none {
        error::NOT_FOUND.because("There is no such recording of this call.")
    } else {
        error::NOT_FOUND.because("The recording could not be fetched from the provider.")
    })
}
