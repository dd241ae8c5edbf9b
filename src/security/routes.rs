//! `/api/v1/security`: HTTP only.

use axum::{Json, extract::State, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{AttemptParams, AuditEntry, AuditParams, LockedAccount, LoginAttempt, Unlock, Unlocked},
    store,
};
use crate::{
    app::App,
    audit::By,
    auth::{caller::SecurityOfficer, lockout},
    db::Tx,
    error::{self, AppError, Problem},
    http::{
        cursor::{Cursor, Page, PageParams},
        extract::{ValidJson, ValidQuery},
        idempotency::{Answer, Once},
    },
};

/// The endpoints of security.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login_attempts))
        .routes(routes!(locked_accounts))
        .routes(routes!(unlock))
        .routes(routes!(audit_log))
}

/// List tries to sign in, newest first
#[utoipa::path(get, path = "/security/login-attempts", tag = "security", params(AttemptParams),
    extensions(("x-action" = json!("security"))), responses(
    (status = 200, description = "A page", body = Page<LoginAttempt>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn login_attempts(
    _: SecurityOfficer,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<AttemptParams>,
) -> Result<Json<Page<LoginAttempt>>, AppError> {
    let (after, limit) = PageParams { cursor: params.cursor.clone(), limit: params.limit }.parse()?;
    let mut db = app.db.acquire().await?;
    let rows = store::login_attempts(&mut db, &params, after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.at, id: row.id })))
}

/// List logins that are locked now, each for the address that failed, those locked longest first
#[utoipa::path(get, path = "/security/locked-accounts", tag = "security", params(PageParams),
    extensions(("x-action" = json!("security"))), responses(
    (status = 200, description = "A page", body = Page<LockedAccount>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn locked_accounts(
    _: SecurityOfficer,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<LockedAccount>>, AppError> {
    let (after, limit) = params.parse()?;
    let mut db = app.db.acquire().await?;
    let rows = store::locked_accounts(&mut db, after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.locked_until, id: row.id })))
}

/// Forget a login's failures, so that it may be tried at once from everywhere
#[utoipa::path(post, path = "/security/unlock", tag = "security", request_body = Unlock,
    extensions(("x-action" = json!("security"))), responses(
    (status = 200, description = "Unlocked, if it was locked anywhere", body = Unlocked),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Nobody has this login", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn unlock(
    caller: SecurityOfficer,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<Unlock>,
) -> Result<Response, AppError> {
    let unlock = async |tx: &mut Tx| {
        let user_id = store::user_by_login(tx, &body.login.to_lowercase()).await?;
        let user_id = user_id.ok_or_else(|| error::NOT_FOUND.because("Nobody has this login."))?;
        let unlocked = lockout::unlock(tx, By::caller(&caller), user_id, app.clock.now()).await?;
        Ok(Answer::of(Json(Unlocked { unlocked })))
    };
    once.run(&app, &caller, unlock).await
}

/// List who changed what, newest first
#[utoipa::path(get, path = "/security/audit-log", tag = "security", params(AuditParams),
    extensions(("x-action" = json!("security"))), responses(
    (status = 200, description = "A page", body = Page<AuditEntry>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn audit_log(
    _: SecurityOfficer,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<AuditParams>,
) -> Result<Json<Page<AuditEntry>>, AppError> {
    let (after, limit) = PageParams { cursor: params.cursor.clone(), limit: params.limit }.parse()?;
    let mut db = app.db.acquire().await?;
    let rows = store::audit_log(&mut db, &params, after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.at, id: row.id })))
}
