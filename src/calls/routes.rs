//! `/api/v1/calls`: HTTP only.

use axum::{Json, extract::State, response::Response};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{CallParams, CallView, Link},
    store::{self, Filter},
};
use crate::{
    app::App,
    auth::caller::CallHandler,
    db::Tx,
    error::{self, AppError, Problem},
    http::{
        cursor::{self, Cursor, Page, PageParams},
        extract::{Id, ValidJson, ValidQuery},
        idempotency::{Answer, Once},
    },
    phone,
    requests::{self, flow, model::EventKind},
};

/// The endpoints of calls.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(triage)).routes(routes!(read)).routes(routes!(link))
}

fn page(rows: Vec<CallView>, limit: i64) -> Json<Page<CallView>> {
    Json(Page::new(rows, limit, |row| Cursor { at: row.received_at, id: row.id }))
}

/// List calls, newest first
#[utoipa::path(get, path = "/calls", tag = "calls", extensions(("x-action" = json!("calls"))), params(CallParams), responses(
    (status = 200, description = "A page", body = Page<CallView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn list(
    caller: CallHandler,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<CallParams>,
) -> Result<Json<Page<CallView>>, AppError> {
    let phone = params.phone.map(|text| {
        phone::normalise(&text, &app.config.telephony.region)
            .ok_or_else(|| AppError::invalid_field("phone", "is no phone number"))
    });
    let filter = Filter {
        result: params.result,
        direction: params.direction,
        phone: phone.transpose()?,
        request: params.request,
        triage: false,
        after: params.cursor.as_deref().map(Cursor::decode).transpose()?,
        limit: cursor::limit(params.limit)?,
    };
    let mut db = app.db.acquire().await?;
    Ok(page(store::list(&mut db, &caller, &filter).await?, filter.limit))
}

/// Incoming calls that found no service request and wait for a person, newest first
#[utoipa::path(get, path = "/calls/triage", tag = "calls", extensions(("x-action" = json!("calls"))), params(PageParams), responses(
    (status = 200, description = "A page", body = Page<CallView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn triage(
    caller: CallHandler,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<CallView>>, AppError> {
    let (after, limit) = params.parse()?;
    let filter = Filter { triage: true, after, limit, ..Filter::default() };
    let mut db = app.db.acquire().await?;
    Ok(page(store::list(&mut db, &caller, &filter).await?, filter.limit))
}

/// Read a call
#[utoipa::path(get, path = "/calls/{id}", tag = "calls", extensions(("x-action" = json!("calls"))), params(("id" = i64, Path)), responses(
    (status = 200, description = "The call", body = CallView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn read(caller: CallHandler, State(app): State<App>, Id(id): Id) -> Result<Json<CallView>, AppError> {
    let mut db = app.db.acquire().await?;
    Ok(Json(store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?))
}

/// Link a call to a service request
#[utoipa::path(post, path = "/calls/{id}/link", tag = "calls", extensions(("x-action" = json!("calls"))), request_body = Link, params(("id" = i64, Path)), responses(
    (status = 200, description = "Linked", body = CallView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It belongs to another service request", body = Problem),
    (status = 422, description = "No service request of yours", body = Problem),
))]
async fn link(
    caller: CallHandler,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    ValidJson(body): ValidJson<Link>,
) -> Result<Response, AppError> {
    let link = async |tx: &mut Tx| {
        let call = store::lock(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        if call.request_id.is_some_and(|linked| linked != body.request_id) {
            return Err(error::CONFLICT.because("This call belongs to another service request."));
        }
        // Locked, so that it is not deleted meanwhile: the call would have left triage for nothing.
        let request = requests::store::lock(tx, &caller, body.request_id).await?;
        let request =
            request.ok_or_else(|| AppError::invalid_field("/request_id", "is no service request of yours"))?;
        if call.request_id.is_none() {
            store::link(tx, id, request.id, request.city_id).await?;
            let diff = json!({ "call_id": [null, id] });
            flow::append(tx, &caller, request.id, EventKind::CallAttached, app.clock.now(), diff).await?;
        }
        let linked = store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        Ok(Answer::of(Json(linked)).about(request.id))
    };
    once.run(&app, &caller, link).await
}
