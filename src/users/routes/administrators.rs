//! `/api/v1/users/administrators`.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{created, filter, page, tagged};
use crate::{
    app::App,
    auth::caller::AdministratorManager,
    error::{self, AppError, Problem},
    http::{
        caching::Tagged,
        cursor::Page,
        etag::IfMatch,
        extract::{Id, ValidJson, ValidQuery},
        idempotency::Once,
    },
    users::{
        bodies::{NewAdministrator, PatchAdministrator},
        flow,
        model::{Administrator, Kind, ListParams, Person},
        store,
    },
};

/// The endpoints of administrators.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_administrators, create_administrator)).routes(routes!(
        read_administrator,
        edit_administrator,
        remove_administrator
    ))
}

/// List administrators, newest first
#[utoipa::path(get, path = "/users/administrators", tag = "users", params(ListParams),
    extensions(("x-action" = json!("manage_administrators"))), responses(
    (status = 200, description = "A page", body = Page<Administrator>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn list_administrators(
    caller: AdministratorManager,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<ListParams>,
) -> Result<Tagged, AppError> {
    page(&app, &caller, Kind::Administrator, filter(params, true)?, Administrator::from).await
}

/// Create an administrator
#[utoipa::path(post, path = "/users/administrators", tag = "users", request_body = NewAdministrator,
    extensions(("x-action" = json!("manage_administrators"))), responses(
    (status = 201, description = "Created", body = Administrator),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The login or the phone is taken", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create_administrator(
    caller: AdministratorManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewAdministrator>,
) -> Result<Response, AppError> {
    let show = |person: Person| created(Kind::Administrator, person.id, person.version, Administrator::from(person));
    flow::create(&app, &caller, once, Kind::Administrator, body.into(), show).await
}

/// Read an administrator
#[utoipa::path(get, path = "/users/administrators/{id}", tag = "users", params(("id" = i64, Path, example = 12)),
    extensions(("x-action" = json!("manage_administrators"))), responses(
    (status = 200, description = "The administrator; the ETag is what If-Match wants", body = Administrator, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn read_administrator(
    caller: AdministratorManager,
    State(app): State<App>,
    Id(id): Id,
) -> Result<Response, AppError> {
    let mut db = app.db.acquire().await?;
    let person = store::by_id(&mut db, &caller, Kind::Administrator, id).await?.ok_or(error::NOT_FOUND)?;
    Ok(tagged(person.version, Administrator::from(person)))
}

/// Change an administrator
#[utoipa::path(patch, path = "/users/administrators/{id}", tag = "users", request_body = PatchAdministrator,
    extensions(("x-action" = json!("manage_administrators"))),
    params(("id" = i64, Path, example = 12), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"3\"")), responses(
    (status = 200, description = "Changed", body = Administrator),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "The phone is taken, or it is the last active administrator", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or not yours to change", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_administrator(
    caller: AdministratorManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchAdministrator>,
) -> Result<Response, AppError> {
    let person = flow::edit(&app, &caller, Kind::Administrator, id, &if_match.required()?, body.into()).await?;
    Ok(tagged(person.version, Administrator::from(person)))
}

/// Delete an administrator: the sessions end, the login stays taken
#[utoipa::path(delete, path = "/users/administrators/{id}", tag = "users",
    extensions(("x-action" = json!("manage_administrators"))),
    params(("id" = i64, Path, example = 12), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"3\"")), responses(
    (status = 204, description = "Deleted"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It is oneself, or the last active administrator", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove_administrator(
    caller: AdministratorManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    flow::delete(&app, &caller, Kind::Administrator, id, &if_match.required()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
