//! `/api/v1/users/employees`.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{created, filter, page, tagged};
use crate::{
    app::App,
    auth::caller::{EmployeeCreator, EmployeeManager},
    error::{self, AppError, Problem},
    http::{
        caching::Tagged,
        cursor::Page,
        etag::IfMatch,
        extract::{Id, ValidJson, ValidQuery},
        idempotency::Once,
    },
    users::{
        bodies::{NewEmployee, PatchEmployee},
        flow,
        model::{Employee, Kind, ListParams, Person},
        store,
    },
};

/// The endpoints of employees.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_employees, create_employee)).routes(routes!(
        read_employee,
        edit_employee,
        remove_employee
    ))
}

/// List employees of your cities, newest first
#[utoipa::path(get, path = "/users/employees", tag = "users", params(ListParams),
    extensions(("x-action" = json!("manage_employees"))), responses(
    (status = 200, description = "A page", body = Page<Employee>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn list_employees(
    caller: EmployeeManager,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<ListParams>,
) -> Result<Tagged, AppError> {
    page(&app, &caller, Kind::Employee, filter(params, true)?, Employee::from).await
}

/// Create an employee
#[utoipa::path(post, path = "/users/employees", tag = "users", request_body = NewEmployee,
    extensions(("x-action" = json!("create_employees"))), responses(
    (status = 201, description = "Created", body = Employee),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The login or the phone is taken", body = Problem),
    (status = 422, description = "A field is not valid, or not yours to give", body = Problem),
))]
async fn create_employee(
    caller: EmployeeCreator,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewEmployee>,
) -> Result<Response, AppError> {
    let show = |person: Person| created(Kind::Employee, person.id, person.version, Employee::from(person));
    flow::create(&app, &caller, once, Kind::Employee, body.into(), show).await
}

/// Read an employee
#[utoipa::path(get, path = "/users/employees/{id}", tag = "users", params(("id" = i64, Path, example = 12)),
    extensions(("x-action" = json!("manage_employees"))), responses(
    (status = 200, description = "The employee; the ETag is what If-Match wants", body = Employee, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn read_employee(caller: EmployeeManager, State(app): State<App>, Id(id): Id) -> Result<Response, AppError> {
    let mut db = app.db.acquire().await?;
    let person = store::by_id(&mut db, &caller, Kind::Employee, id).await?.ok_or(error::NOT_FOUND)?;
    Ok(tagged(person.version, Employee::from(person)))
}

/// Change an employee
#[utoipa::path(patch, path = "/users/employees/{id}", tag = "users", request_body = PatchEmployee,
    extensions(("x-action" = json!("manage_employees"))),
    params(("id" = i64, Path, example = 12), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"3\"")), responses(
    (status = 200, description = "Changed", body = Employee),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "The phone is taken, or the employee works in cities that are not yours", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or not yours to change", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_employee(
    caller: EmployeeManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchEmployee>,
) -> Result<Response, AppError> {
    let person = flow::edit(&app, &caller, Kind::Employee, id, &if_match.required()?, body.into()).await?;
    Ok(tagged(person.version, Employee::from(person)))
}

/// Delete an employee: the sessions end, the login stays taken
#[utoipa::path(delete, path = "/users/employees/{id}", tag = "users",
    extensions(("x-action" = json!("manage_employees"))),
    params(("id" = i64, Path, example = 12), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"3\"")), responses(
    (status = 204, description = "Deleted"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It is oneself, or the employee works in cities that are not yours", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove_employee(
    caller: EmployeeManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    flow::delete(&app, &caller, Kind::Employee, id, &if_match.required()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
