//! `/api/v1/users/masters`.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{created, filter, page, tagged};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::{
        Action, Caller, Scope,
        caller::{MasterEditor, MasterManager, MasterReader},
        policy,
    },
    error::{self, AppError, Problem},
    http::{
        caching::Tagged,
        cursor::Page,
        etag::IfMatch,
        extract::{Id, ValidJson, ValidQuery},
        idempotency::Once,
    },
    users::{
        bodies::{NewMaster, PatchMaster},
        flow,
        model::{Kind, ListParams, Master, Person},
        store,
    },
};

/// The endpoints of masters.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_masters, create_master)).routes(routes!(
        read_master,
        edit_master,
        remove_master
    ))
}

/// List masters of your cities, newest first
#[utoipa::path(get, path = "/users/masters", tag = "users", params(ListParams),
    extensions(("x-action" = json!("read_masters"))), responses(
    (status = 200, description = "A page", body = Page<Master>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn list_masters(
    caller: MasterReader,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<ListParams>,
) -> Result<Tagged, AppError> {
    let detailed = sees_details(&caller);
    page(&app, &caller, Kind::Master, filter(params, detailed)?, |person| Master::new(person, detailed)).await
}

/// Create a master
#[utoipa::path(post, path = "/users/masters", tag = "users", request_body = NewMaster,
    extensions(("x-action" = json!("manage_masters"))), responses(
    (status = 201, description = "Created", body = Master),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The login or the phone is taken, or no key for passports is configured", body = Problem),
    (status = 422, description = "A field is not valid, or not yours to give", body = Problem),
))]
async fn create_master(
    caller: MasterManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewMaster>,
) -> Result<Response, AppError> {
    let show = |person: Person| created(Kind::Master, person.id, person.version, Master::new(person, true));
    flow::create(&app, &caller, once, Kind::Master, body.into(), show).await
}

/// Read a master
#[utoipa::path(get, path = "/users/masters/{id}", tag = "users", params(("id" = i64, Path, example = 12)),
    extensions(("x-action" = json!("read_masters"))), responses(
    (status = 200, description = "The master; the ETag is what If-Match wants", body = Master, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn read_master(caller: MasterReader, State(app): State<App>, Id(id): Id) -> Result<Response, AppError> {
    let mut db = app.db.acquire().await?;
    let person = store::by_id(&mut db, &caller, Kind::Master, id).await?.ok_or(error::NOT_FOUND)?;
    drop(db);
    let sealed = if manages(&caller) { person.passport.clone() } else { None };
    let mut view = Master::new(person, sees_details(&caller));
    if let (Some(details), Some(sealed), Some(vault)) = (&mut view.details, &sealed, &app.passports) {
        // Without the key that sealed it, a passport cannot be shown, and the rest still can.
        details.passport = vault
            .open(id, sealed)
            .inspect_err(|error| tracing::error!(user_id = id, error = %error, "a passport does not open"))
            .ok();
    }
    if view.details.as_ref().is_some_and(|details| details.passport.is_some()) {
        // Nobody gets to see one without a trace.
        let mut tx = app.db.begin().await?;
        let entry = Entry::new(AuditAction::PassportRead, AuditSubject::Users, id);
        audit::record(&mut tx, By::caller(&caller), entry, app.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(tagged(view.version, view))
}

/// Change a master; a master changes their own contact data
#[utoipa::path(patch, path = "/users/masters/{id}", tag = "users", request_body = PatchMaster,
    extensions(("x-action" = json!("edit_masters"))),
    params(("id" = i64, Path, example = 12), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"3\"")), responses(
    (status = 200, description = "Changed", body = Master),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "The phone is taken, the master holds service requests or works in cities that are not yours, or no key for passports is configured", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or not yours to change", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_master(
    caller: MasterEditor,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchMaster>,
) -> Result<Response, AppError> {
    let person = flow::edit(&app, &caller, Kind::Master, id, &if_match.required()?, body.into()).await?;
    Ok(tagged(person.version, Master::new(person, true)))
}

/// Delete a master: the sessions end, the login stays taken
#[utoipa::path(delete, path = "/users/masters/{id}", tag = "users",
    extensions(("x-action" = json!("manage_masters"))),
    params(("id" = i64, Path, example = 12), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"3\"")), responses(
    (status = 204, description = "Deleted"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "The master holds service requests, or works in cities that are not yours", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove_master(
    caller: MasterManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    flow::delete(&app, &caller, Kind::Master, id, &if_match.required()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the caller manages masters, which is what passports are for.
fn manages(caller: &Caller) -> bool {
    policy::scope(caller.principal.role, Action::ManageMasters).is_some()
}

/// Masters see their own details.
fn sees_details(caller: &Caller) -> bool {
    manages(caller) || caller.scope == Scope::Own
}
