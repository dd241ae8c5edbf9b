//! `/api/v1/requests`: HTTP only.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    flow::{self, Effect},
    model::{
        Assignment, Comment, Event, EventKind, ListParams, Move, NewComment, NewRequest, PatchRequest, RequestView,
        Source,
    },
    query::Filter,
    store::{self, NewRow},
};
use crate::{
    app::App,
    auth::caller::{Commenter, RequestAssigner, RequestDeleter, RequestEditor, RequestMover, RequestReader},
    db::{Plans, Tx},
    dictionaries::{self, Dictionaries},
    error::{self, AppError, Problem},
    http::{
        cursor::{Cursor, Page, PageParams},
        etag::{IfMatch, etag},
        extract::{Id, ValidJson, ValidQuery},
        idempotency::{Answer, Once},
    },
    phone,
};

/// The endpoints of service requests.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, edit, remove))
        .routes(routes!(transition))
        .routes(routes!(assign))
        .routes(routes!(list_comments, comment))
        .routes(routes!(history))
}

/// A request with its ETag.
fn tagged(status: StatusCode, view: RequestView) -> Response {
    (status, [(header::ETAG, etag(view.version))], Json(view)).into_response()
}

/// List service requests, newest first
#[utoipa::path(get, path = "/requests", tag = "requests", extensions(("x-action" = json!("read_requests"))), params(ListParams), responses(
    (status = 200, description = "A page", body = Page<RequestView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn list(
    caller: RequestReader,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<ListParams>,
) -> Result<Json<Page<RequestView>>, AppError> {
    let known = dictionaries::cached(&app).await?;
    let filter = Filter::new(params, &app.config.telephony.region, &known)?;
    let mut db = app.db.acquire_with(filter.plans()).await?;
    let rows = store::list(&mut db, &caller, &filter).await?;
    Ok(Json(Page::new(rows, filter.limit, |row| Cursor { at: row.created_at, id: row.id })))
}

/// Create a service request
#[utoipa::path(post, path = "/requests", tag = "requests", extensions(("x-action" = json!("edit_intake"))), request_body = NewRequest, responses(
    (status = 201, description = "Created, in state `new`", body = RequestView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create(
    caller: RequestEditor,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewRequest>,
) -> Result<Response, AppError> {
    let phone = phone::normalise(&body.phone, &app.config.telephony.region)
        .ok_or_else(|| AppError::invalid_field("/phone", "is no phone number"))?;
    let dictionaries = dictionaries::cached(&app).await?;
    let create = async |tx: &mut Tx| {
        let city = dictionaries.cities.iter().find(|city| city.code == body.city && city.active);
        // A city of somebody else is as unknown as one that does not exist.
        let city = city
            .filter(|city| caller.may_act_in(city.id))
            .ok_or_else(|| AppError::invalid_field("/city", "is no city of yours"))?;
        check_codes(&dictionaries, body.r#type.as_deref(), body.direction.as_deref())?;
        let now = app.clock.now();
        let row = NewRow {
            client_id: store::upsert_client(tx, &phone, now).await?,
            city: &city.code,
            kind: body.r#type.as_deref(),
            direction: body.direction.as_deref(),
            campaign_id: None,
            source: Source::Manual,
            client_name: body.client_name.as_deref(),
            description: body.description.as_deref(),
            address: body.address.as_deref(),
            created_by: Some(caller.principal.user_id),
            at: now,
        };
        let created = store::insert(tx, &row).await?;
        let view = store::by_id(tx, &caller, created.id).await?.ok_or(error::NOT_FOUND)?;
        let effect = Effect::Created { source: Source::Manual, kind: created.kind, city: city.code.clone() };
        let location = [(header::LOCATION, format!("/api/v1/requests/{}", created.id))];
        let answer = Answer::of((location, tagged(StatusCode::CREATED, view))).about(created.id);
        Ok(answer.then(move |app| flow::record(&app.metrics, &[effect])))
    };
    once.run(&app, &caller, create).await
}

/// The answer to a move.
fn moved((view, effects): (RequestView, Vec<Effect>)) -> Answer {
    let id = view.id;
    let answer = Answer::of(tagged(StatusCode::OK, view)).about(id);
    answer.then(move |app| flow::record(&app.metrics, &effects))
}

fn check_codes(dictionaries: &Dictionaries, kind: Option<&str>, direction: Option<&str>) -> Result<(), AppError> {
    let mut errors = crate::http::extract::FieldErrors::default();
    let known = |items: &[dictionaries::model::Item], code: Option<&str>| {
        code.is_none_or(|code| items.iter().any(|item| item.active && item.code == code))
    };
    errors.check(known(&dictionaries.request_types, kind), "/type", "is no request type");
    errors.check(known(&dictionaries.directions, direction), "/direction", "is no direction");
    errors.into_result()
}

/// Read a service request
#[utoipa::path(get, path = "/requests/{id}", tag = "requests", extensions(("x-action" = json!("read_requests"))), params(("id" = i64, Path)), responses(
    (status = 200, description = "The request; its ETag is what If-Match wants", body = RequestView, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn read(caller: RequestReader, State(app): State<App>, Id(id): Id) -> Result<Response, AppError> {
    let mut db = app.db.acquire_with(Plans::Kept).await?;
    let view = store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    Ok(tagged(StatusCode::OK, view))
}

/// Edit what the client said
#[utoipa::path(patch, path = "/requests/{id}", tag = "requests", extensions(("x-action" = json!("edit_intake"))), request_body = PatchRequest,
    params(("id" = i64, Path), ("If-Match" = String, Header, description = "The ETag that was read")), responses(
    (status = 200, description = "Changed", body = RequestView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It has ended", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit(
    caller: RequestEditor,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchRequest>,
) -> Result<Response, AppError> {
    let if_match = if_match.required()?;
    let dictionaries = dictionaries::cached(&app).await?;
    check_codes(&dictionaries, body.r#type.as_deref(), body.direction.as_ref().and_then(Option::as_deref))?;
    flow::edit(&app, &caller, id, &if_match, body).await.map(|view| tagged(StatusCode::OK, view))
}

/// Delete a service request (it is kept, unseen)
#[utoipa::path(delete, path = "/requests/{id}", tag = "requests", extensions(("x-action" = json!("delete_requests"))),
    params(("id" = i64, Path), ("If-Match" = String, Header, description = "The ETag that was read")), responses(
    (status = 204, description = "Deleted"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there", body = Problem),
    (status = 409, description = "It is done: reopen it first, so that its income is taken back", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove(
    caller: RequestDeleter,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    flow::delete(&app, &caller, id, &if_match.required()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Move a service request to another state
#[utoipa::path(post, path = "/requests/{id}/transitions", tag = "requests", extensions(("x-action" = json!("move_requests"))), request_body = Move,
    params(("id" = i64, Path), ("If-Match" = Option<String>, Header, description = "Optional: the ETag that was read")), responses(
    (status = 200, description = "Moved", body = RequestView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "No such move from its state; `allowed` lists those there are", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "Something the state needs is missing", body = Problem),
))]
async fn transition(
    caller: RequestMover,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<Move>,
) -> Result<Response, AppError> {
    let work = async |tx: &mut Tx| flow::transition(&app, tx, &caller, id, &if_match, body).await.map(moved);
    once.run(&app, &caller, work).await
}

/// Offer a waiting service request to a master
#[utoipa::path(post, path = "/requests/{id}/assign", tag = "requests", extensions(("x-action" = json!("assign_master"))), request_body = Assignment,
    params(("id" = i64, Path), ("If-Match" = Option<String>, Header, description = "Optional: the ETag that was read")), responses(
    (status = 200, description = "Offered", body = RequestView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It is not waiting", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "No active master of this city", body = Problem),
))]
async fn assign(
    caller: RequestAssigner,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<Assignment>,
) -> Result<Response, AppError> {
    let work = async |tx: &mut Tx| flow::assign(&app, tx, &caller, id, &if_match, body.master_id).await.map(moved);
    once.run(&app, &caller, work).await
}

/// List the comments, oldest first
#[utoipa::path(get, path = "/requests/{id}/comments", tag = "requests", extensions(("x-action" = json!("read_requests"))), params(("id" = i64, Path), PageParams), responses(
    (status = 200, description = "A page", body = Page<Comment>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn list_comments(
    caller: RequestReader,
    State(app): State<App>,
    Id(id): Id,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<Comment>>, AppError> {
    let (after, limit) = params.parse()?;
    let mut db = app.db.acquire_with(Plans::Kept).await?;
    store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let rows = store::comments(&mut db, id, after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.at, id: row.id })))
}

/// Write a comment
#[utoipa::path(post, path = "/requests/{id}/comments", tag = "requests", extensions(("x-action" = json!("comment"))), request_body = NewComment, params(("id" = i64, Path)), responses(
    (status = 201, description = "Written", body = Comment),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 422, description = "The text is empty or too long", body = Problem),
))]
async fn comment(
    caller: Commenter,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    ValidJson(body): ValidJson<NewComment>,
) -> Result<Response, AppError> {
    let write = async |tx: &mut Tx| {
        let now = app.clock.now();
        store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        let comment = store::insert_comment(tx, id, caller.principal.user_id, &body.body, now).await?;
        flow::append(tx, &caller, id, EventKind::Commented, now, Value::Object(Map::new())).await?;
        Ok(Answer::of((StatusCode::CREATED, Json(comment))).about(id))
    };
    once.run(&app, &caller, write).await
}

/// What happened to a service request, oldest first
#[utoipa::path(get, path = "/requests/{id}/history", tag = "requests", extensions(("x-action" = json!("read_requests"))), params(("id" = i64, Path), PageParams), responses(
    (status = 200, description = "A page", body = Page<Event>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn history(
    caller: RequestReader,
    State(app): State<App>,
    Id(id): Id,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<Event>>, AppError> {
    let (after, limit) = params.parse()?;
    let mut db = app.db.acquire_with(Plans::Kept).await?;
    store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let rows = store::history(&mut db, id, after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.at, id: row.id })))
}
