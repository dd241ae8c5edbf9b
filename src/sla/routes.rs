//! HTTP of SLA policies and timers, and of requests that nobody moves.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{PatchPolicy, SlaPolicy, SlaTimer, StuckRequest},
    store,
};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::caller::{DictionaryManager, DictionaryReader, RequestReader},
    error::{self, AppError, Problem},
    http::{
        cursor::{Cursor, Page, PageParams},
        etag::{IfMatch, etag},
        extract::{Id, ValidJson, ValidQuery},
    },
    requests,
};

/// The endpoints of SLA policies.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(policies))
        .routes(routes!(edit_policy))
        .routes(routes!(timers))
        .routes(routes!(stuck))
}

/// What is promised: a policy for each type of service request and each promise
#[utoipa::path(get, path = "/sla/policies", tag = "sla", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The policies; the `version` of one is the ETag that If-Match wants", body = Vec<SlaPolicy>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn policies(_: DictionaryReader, State(app): State<App>) -> Result<Json<Vec<SlaPolicy>>, AppError> {
    let mut db = app.db.acquire().await?;
    Ok(Json(store::policies(&mut db).await?))
}

/// Change what is promised, for timers that start from now on
#[utoipa::path(patch, path = "/sla/policies/{id}", tag = "sla", request_body = PatchPolicy,
    extensions(("x-action" = json!("manage_dictionaries"))),
    params(("id" = i64, Path), ("If-Match" = String, Header, description = "The ETag that was read", example = "\"1\"")), responses(
    (status = 200, description = "Changed", body = SlaPolicy),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_policy(
    caller: DictionaryManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchPolicy>,
) -> Result<([(header::HeaderName, HeaderValue); 1], Json<SlaPolicy>), AppError> {
    let if_match = if_match.required()?;
    // `PatchPolicy::validate` has seen that it is there.
    let target_s = body.target_s.ok_or(error::INVALID)?;
    let mut tx = app.db.begin().await?;
    let before = store::lock_policy(&mut tx, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(before.version)?;
    let policy = store::save_policy(&mut tx, id, target_s).await?;
    let entry = Entry::new(AuditAction::SlaPolicyChanged, AuditSubject::SlaPolicies, id)
        .with("type", policy.r#type.as_str())
        .with("policy", policy.policy.as_str())
        .change("target_s", before.target_s, policy.target_s);
    audit::record(&mut tx, By::caller(&caller), entry, app.clock.now()).await?;
    tx.commit().await?;
    Ok(([(header::ETAG, etag(policy.version))], Json(policy)))
}

/// The timers of a service request
#[utoipa::path(get, path = "/requests/{id}/sla", tag = "sla", extensions(("x-action" = json!("read_requests"))),
    params(("id" = i64, Path)), responses(
    (status = 200, description = "A timer for each promise; none for a request that is older than they are", body = Vec<SlaTimer>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn timers(caller: RequestReader, State(app): State<App>, Id(id): Id) -> Result<Json<Vec<SlaTimer>>, AppError> {
    let mut db = app.db.acquire().await?;
    requests::store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let (rows, now) = (store::timers(&mut db, id).await?, app.clock.now());
    Ok(Json(rows.into_iter().map(|row| row.view(now)).collect()))
}

/// Service requests that nobody moves, those stuck longest first
#[utoipa::path(get, path = "/requests/stuck", tag = "sla", extensions(("x-action" = json!("read_requests"))),
    params(PageParams), responses(
    (status = 200, description = "A page", body = Page<StuckRequest>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn stuck(
    caller: RequestReader,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<StuckRequest>>, AppError> {
    let (after, limit) = params.parse()?;
    let mut db = app.db.acquire().await?;
    let rows = store::stuck(&mut db, &caller, app.clock.now(), app.config.sla.offer_timeout_s, after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.since, id: row.id })))
}
