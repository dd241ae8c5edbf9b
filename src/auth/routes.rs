//! `/api/v1/auth`: sign in, sign out, who am I, another password.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Role, caller::AccountOwner, lockout, passwords, sessions, store};
use crate::{
    app::App,
    config::Secret,
    error::{self, AppError, Problem},
    http::{
        client_ip::ClientIp,
        cookies,
        extract::{FieldErrors, ValidJson, Validate, discreet},
        stats,
    },
    telemetry::labels::AuthResult,
    wire_enum,
};

/// The endpoints of authentication.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(change_password))
}

wire_enum! {
    /// Where the access token goes.
    pub enum SessionKind {
        /// Into an HttpOnly cookie: for browsers.
        Cookie = "cookie",
        /// Into the body, to be sent as `Authorization: Bearer`: for machines.
        Token = "token",
    }
}

/// A login and its password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"login": "operator1", "password": "correct horse battery", "session": "token"}))]
struct Credentials {
    login: String,
    #[serde(deserialize_with = "discreet")]
    password: String,
    #[serde(default = "cookie")]
    #[schema(default = "cookie")]
    session: SessionKind,
}

fn cookie() -> SessionKind {
    SessionKind::Cookie
}

impl Validate for Credentials {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.login, 1..=64, "/login");
        // A shorter one cannot be right, and the bound keeps the hash's input small.
        errors.text(&self.password, 1..=*passwords::LENGTH.end(), "/password");
    }
}

/// A session that was opened.
#[derive(Serialize, ToSchema)]
struct Session {
    user_id: i64,
    role: Role,
    expires_at: DateTime<Utc>,
    /// Only for `session: "token"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl")]
    access_token: Option<String>,
}

/// Sign in
#[utoipa::path(post, path = "/auth/login", tag = "auth", extensions(("x-action" = json!("public"))), security(()), request_body = Credentials, responses(
    (status = 200, description = "Signed in: a cookie, or with `session: \"token\"` a token", body = Session),
    (status = 401, description = "Wrong, unknown or disabled: one answer", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
    (status = 429, description = "Too many tries from this address", body = Problem),
    (status = 503, description = "Too many people are signing in", body = Problem),
))]
async fn login(
    State(app): State<App>,
    client: ClientIp,
    ValidJson(body): ValidJson<Credentials>,
) -> Result<Response, AppError> {
    let count = |result: AuthResult| app.metrics.auth_attempts(result).inc();
    // Before any look-up: a flood must not reach the database.
    app.login_limit.check(&client.bucket()).await.inspect_err(|_| count(AuthResult::RateLimited))?;
    let login = body.login.to_lowercase();
    let attempt = lockout::begin(&app, &login, client).await.inspect_err(|error| {
        if error.kind() == error::RATE_LIMITED {
            count(AuthResult::Locked);
        }
    })?;
    let known = store::credentials(&mut app.db.acquire().await?, &login).await?;
    let stored = known.as_ref().map(|user| user.password_hash.clone());
    let matches = match app.passwords.verify(&body.password, stored).await {
        Ok(matches) => matches,
        Err(error) => {
            count(AuthResult::Overloaded);
            attempt.withdraw(&app).await;
            return Err(error);
        }
    };
    let user_id = known.as_ref().map(|user| user.id);
    let Some(user) = known.filter(|user| matches && user.active) else {
        count(AuthResult::Rejected);
        attempt.failed(&app, user_id).await?;
        return Err(error::BAD_CREDENTIALS.into());
    };
    attempt.succeeded(&app, user.id).await?;
    passwords::renew(&app, user.id, body.password, &user.password_hash);
    let granted = sessions::open(&app, &user, body.session).await?;
    count(AuthResult::Success);
    stats::record_user(user.id, user.role);
    let session = |access_token| {
        Json(Session { user_id: user.id, role: user.role, expires_at: granted.expires_at, access_token })
    };
    Ok(match body.session {
        SessionKind::Token => session(Some(granted.access_token)).into_response(),
        SessionKind::Cookie => {
            let lifetime = TimeDelta::num_seconds(&(granted.expires_at - app.clock.now()));
            (cookies::set_access(&app, granted.access_token, lifetime), session(None)).into_response()
        }
    })
}

/// Sign out: the session ends at once, everywhere
#[utoipa::path(post, path = "/auth/logout", tag = "auth", extensions(("x-action" = json!("own_account"))), responses(
    (status = 204, description = "Signed out"),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn logout(caller: AccountOwner, State(app): State<App>) -> Result<Response, AppError> {
    let mut db = app.db.acquire().await?;
    store::revoke_session(&mut db, &caller.principal.session_id, app.clock.now()).await?;
    Ok((StatusCode::NO_CONTENT, cookies::set_access(&app, String::new(), 0)).into_response())
}

/// A user's own password and the one to have instead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current": "correct horse battery", "new": "a long sentence is best"}))]
struct PasswordChange {
    /// As it is.
    #[serde(deserialize_with = "discreet")]
    #[schema(value_type = String)]
    current: Secret,
    /// As it shall be: 8 to 128 characters.
    #[serde(deserialize_with = "discreet")]
    #[schema(value_type = String)]
    new: Secret,
}

impl Validate for PasswordChange {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(self.current.expose(), 1..=*passwords::LENGTH.end(), "/current");
        if let Some(objection) = passwords::objection(self.new.expose(), "") {
            errors.check(false, "/new", objection);
        }
    }
}

/// Change one's own password: all sessions end, this one too
#[utoipa::path(post, path = "/auth/password", tag = "auth", request_body = PasswordChange,
    extensions(("x-action" = json!("own_account"))), responses(
    (status = 204, description = "Changed; sign in again"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 409, description = "Changed by somebody else meanwhile", body = Problem),
    (status = 422, description = "The current password is wrong, or the new one is not good", body = Problem),
    (status = 429, description = "Too many tries from this address", body = Problem),
))]
async fn change_password(
    caller: AccountOwner,
    State(app): State<App>,
    client: ClientIp,
    ValidJson(body): ValidJson<PasswordChange>,
) -> Result<Response, AppError> {
    // Whoever found an open browser could otherwise guess here, past the limit of signing in.
    app.login_limit.check(&client.bucket()).await?;
    let user_id = caller.principal.user_id;
    let own = store::own_password(&mut app.db.acquire().await?, user_id).await?.ok_or(error::UNAUTHENTICATED)?;
    let attempt = lockout::begin(&app, &own.login, client).await?;
    if !app.passwords.verify(body.current.expose(), Some(own.hash.clone())).await? {
        attempt.failed(&app, Some(user_id)).await?;
        return Err(AppError::invalid_field("/current", "is wrong"));
    }
    attempt.withdraw(&app).await;
    let objection = passwords::objection(body.new.expose(), &own.login)
        .or_else(|| (body.new.expose() == body.current.expose()).then(|| "is the old one".to_owned()));
    if let Some(objection) = objection {
        return Err(AppError::invalid_field("/new", objection));
    }
    let hash = app.passwords.hash(body.new.expose()).await?;
    let mut tx = app.db.begin().await?;
    if !store::replace_password(&mut tx, user_id, &own.hash, &hash).await? {
        return Err(error::CONFLICT.because("The password was changed meanwhile."));
    }
    store::revoke_sessions_of(&mut tx, user_id, app.clock.now()).await?;
    tx.commit().await?;
    Ok((StatusCode::NO_CONTENT, cookies::set_access(&app, String::new(), 0)).into_response())
}

/// A user, as they see themselves.
#[derive(Serialize, ToSchema)]
struct Me {
    id: i64,
    #[schema(example = "operator1")]
    login: String,
    #[schema(example = "Olga")]
    name: String,
    role: Role,
    /// Codes of their cities.
    #[schema(example = json!(["novosibirsk"]))]
    cities: Vec<String>,
}

/// Who am I
#[utoipa::path(get, path = "/auth/me", tag = "auth", extensions(("x-action" = json!("own_account"))), responses(
    (status = 200, description = "The signed-in user", body = Me),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn me(caller: AccountOwner, State(app): State<App>) -> Result<Json<Me>, AppError> {
    let mut db = app.db.acquire().await?;
    let profile = store::profile(&mut db, caller.principal.user_id).await?.ok_or(error::UNAUTHENTICATED)?;
    Ok(Json(Me {
        id: caller.principal.user_id,
        login: profile.login,
        name: profile.name,
        role: caller.principal.role,
        cities: profile.cities,
    }))
}
