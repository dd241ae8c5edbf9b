//! `/api/v1/auth`: sign in, stay signed in, sign out, who am I, another password.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use axum_extra::extract::CookieJar;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Role,
    caller::{AccountGuard, AccountOwner, Leaving},
    lockout, passwords,
    sessions::{self, Granted, SessionKind},
    store, tokens,
};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    config::Secret,
    error::{self, AppError, Problem},
    http::{
        client_ip::ClientIp,
        cookies,
        csrf::{self, Page},
        extract::{FieldErrors, ValidJson, Validate, discreet},
        stats,
    },
    telemetry::labels::AuthResult,
};

/// The endpoints of authentication.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(csrf_token))
        .routes(routes!(logout))
        .routes(routes!(logout_all))
        .routes(routes!(me))
        .routes(routes!(change_password))
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

/// A session that was opened, or goes on.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "user_id": 7, "role": "operator", "expires_at": "2026-10-05T03:35:00Z", "refresh_expires_at": "2026-10-12T03:20:00Z",
    "access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
    "refresh_token": "swr_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
}))]
struct Session {
    user_id: i64,
    role: Role,
    /// When the access token ends; refresh before.
    expires_at: DateTime<Utc>,
    /// When the session ends, unless it is refreshed.
    refresh_expires_at: DateTime<Utc>,
    /// Only for `session: "token"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    /// Only for `session: "token"`: good for one exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// Only for cookies: to be sent as `X-CSRF-Token` with whatever changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

impl Session {
    fn of(granted: &Granted) -> Self {
        Self {
            user_id: granted.user_id,
            role: granted.role,
            expires_at: granted.expires_at,
            refresh_expires_at: granted.refresh_expires_at,
            access_token: None,
            refresh_token: None,
            csrf_token: None,
        }
    }

    /// For a machine: everything in the body.
    fn with_tokens(granted: &Granted) -> Json<Self> {
        Json(Self {
            access_token: Some(granted.access_token.expose().to_owned()),
            refresh_token: Some(granted.refresh_token.text().expose().to_owned()),
            ..Self::of(granted)
        })
    }

    /// For a browser, whose CSRF cookie has this value.
    fn with_cookies(app: &App, granted: &Granted, csrf_cookie: &str) -> (CookieJar, Json<Self>) {
        let csrf_token = Some(csrf::token(&app.keys, &granted.session_id, csrf_cookie));
        (cookies::of_session(app, granted), Json(Self { csrf_token, ..Self::of(granted) }))
    }
}

/// The session that a browser signs in over, if any, once the page has shown the token of it or of none.
async fn admit(app: &App, page: &Page) -> Result<Option<String>, AppError> {
    page.check_origin()?;
    let before = sessions::of_cookies(app, &page.cookies).await?;
    page.check_token(&app.keys, "").or_else(|refusal| match &before {
        Some(session) => page.check_token(&app.keys, session),
        None => Err(refusal),
    })?;
    Ok(before)
}

/// Sign in
///
/// A browser first asks for a CSRF token and sends it along.
#[utoipa::path(post, path = "/auth/login", tag = "auth", extensions(("x-action" = json!("public"))), security(()), request_body = Credentials, responses(
    (status = 200, description = "Signed in: cookies, or with `session: \"token\"` tokens", body = Session),
    (status = 401, description = "Wrong, unknown or disabled: one answer", body = Problem),
    (status = 403, description = "Without `session: \"token\"`: not from an allowed page, or without its CSRF token", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
    (status = 429, description = "Too many tries from this address", body = Problem),
    (status = 503, description = "Too many people are signing in", body = Problem),
))]
async fn login(
    State(app): State<App>,
    client: ClientIp,
    page: Page,
    ValidJson(body): ValidJson<Credentials>,
) -> Result<Response, AppError> {
    let count = |result: AuthResult| app.metrics.auth_attempts(result).inc();
    // Before any look-up: a flood must not reach the database.
    app.login_limit.check(&client.bucket()).await.inspect_err(|_| count(AuthResult::RateLimited))?;
    let replaced = match body.session {
        SessionKind::Token => None,
        SessionKind::Cookie => admit(&app, &page).await?,
    };
    let login = body.login.to_lowercase();
    let place = app.passwords.admit().inspect_err(|_| count(AuthResult::Overloaded))?;
    let attempt = lockout::begin(&app, &login, client).await.inspect_err(|refused| {
        refused.result().into_iter().for_each(count);
    })?;
    let looked_at = async {
        let known = store::credentials(&mut app.db.acquire().await?, &login).await?;
        let stored = known.as_ref().map(|user| user.password_hash.clone());
        let matches = app.passwords.verify(&body.password, stored).await?;
        Ok::<_, AppError>((known, matches))
    };
    let looked_at = looked_at.await;
    // What follows waits for the database, not for a core.
    drop(place);
    let (known, matches) = match looked_at {
        Ok(verdict) => verdict,
        Err(error) => {
            if error.kind() == error::OVERLOADED {
                count(AuthResult::Overloaded);
            }
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
    let granted = sessions::open(&app, &user, body.session, replaced.as_deref()).await?;
    count(AuthResult::Success);
    stats::record_user(user.id, user.role);
    Ok(match body.session {
        SessionKind::Token => Session::with_tokens(&granted).into_response(),
        SessionKind::Cookie => {
            // A new one: whoever planted the old one, or read it, knows nothing of the new session.
            let csrf_cookie = tokens::random_id();
            let (jar, session) = Session::with_cookies(&app, &granted, &csrf_cookie);
            (cookies::with_csrf(jar, &app, &csrf_cookie), session).into_response()
        }
    })
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"refresh_token": "swr_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}))]
struct Exchange {
    /// As signing in or the last exchange gave it.
    #[serde(deserialize_with = "discreet")]
    #[schema(value_type = String)]
    refresh_token: Secret,
}

impl Validate for Exchange {
    // Whatever is no refresh token is answered as one that is over.
    fn validate(&self, _: &mut FieldErrors) {}
}

/// Exchange a refresh token for new tokens
///
/// A machine sends it in the body and gets the next ones in the body. A browser sends no body: it has cookies, and sends
/// the CSRF token of its session. Each refresh token is good for one exchange; those who present it within ten seconds
/// of each other get the same answer, later ones end the session.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", extensions(("x-action" = json!("public"))), security(()), request_body = Option<Exchange>, responses(
    (status = 200, description = "The session goes on", body = Session),
    (status = 401, description = "The session is over, or the token was used before", body = Problem),
    (status = 403, description = "With cookies: not from an allowed page, or without its CSRF token", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn refresh(
    State(app): State<App>,
    ClientIp(address): ClientIp,
    page: Page,
    body: Option<ValidJson<Exchange>>,
) -> Result<Response, AppError> {
    if let Some(ValidJson(Exchange { refresh_token })) = body {
        let granted = sessions::refresh(&app, &refresh_token, SessionKind::Token, &page, address).await?;
        return Ok(Session::with_tokens(&granted).into_response());
    }
    let refresh_token = page.cookies.refresh.as_ref().ok_or(error::UNAUTHENTICATED)?;
    page.check_origin()?;
    let granted = sessions::refresh(&app, refresh_token, SessionKind::Cookie, &page, address).await?;
    let csrf_cookie = page.cookies.csrf.as_deref().unwrap_or_default();
    Ok(Session::with_cookies(&app, &granted, csrf_cookie).into_response())
}

/// What an unsafe request with cookies must show.
#[derive(Serialize, ToSchema)]
struct CsrfToken {
    /// To be sent as `X-CSRF-Token`.
    #[schema(example = "5v0e0mPZ4x7wZk0cB2Zc1n1jv9lQe0S1m7o3xk6h2aM")]
    csrf_token: String,
}

/// The CSRF token of this browser's session, or to sign in with
#[utoipa::path(get, path = "/auth/csrf", tag = "auth", extensions(("x-action" = json!("public"))), security(()), responses(
    (status = 200, description = "The token, and the cookie that it is bound to if there is none", body = CsrfToken),
))]
async fn csrf_token(State(app): State<App>, page: Page) -> Result<Response, AppError> {
    let session = sessions::of_cookies(&app, &page.cookies).await?.unwrap_or_default();
    let answer = |cookie: &str| Json(CsrfToken { csrf_token: csrf::token(&app.keys, &session, cookie) });
    if let Some(cookie) = &page.cookies.csrf {
        return Ok(answer(cookie).into_response());
    }
    let cookie = tokens::random_id();
    Ok((cookies::with_csrf(CookieJar::new(), &app, &cookie), answer(&cookie)).into_response())
}

/// 204, and the browser forgets its cookies.
fn signed_out(app: &App) -> Response {
    (StatusCode::NO_CONTENT, cookies::cleared(app)).into_response()
}

/// Sign out: the session ends at once, everywhere
///
/// A browser need not have an access token any more, nor a session: its cookies are gone afterwards.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", extensions(("x-action" = json!("public"))), security(()), responses(
    (status = 204, description = "Signed out, now or before"),
    (status = 401, description = "The bearer token is none of ours, or has expired: refresh it", body = Problem),
    (status = 403, description = "Without a bearer token: not from an allowed page, or without its CSRF token", body = Problem),
))]
async fn logout(Leaving(session): Leaving, State(app): State<App>) -> Result<Response, AppError> {
    if let Some(session) = session {
        let ended = store::revoke_session(&mut app.db.acquire().await?, &session, app.clock.now()).await?;
        if let Some((user_id, role)) = ended {
            stats::record_user(user_id, role);
        }
    }
    Ok(signed_out(&app))
}

/// Sign out on all devices: all of one's sessions end, this one too
#[utoipa::path(post, path = "/auth/logout-all", tag = "auth", extensions(("x-action" = json!("own_account"))), responses(
    (status = 204, description = "Signed out"),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn logout_all(caller: AccountGuard, State(app): State<App>) -> Result<Response, AppError> {
    let (user_id, now) = (caller.principal.user_id, app.clock.now());
    let mut tx = app.db.begin().await?;
    store::revoke_sessions_of(&mut tx, user_id, now).await?;
    let entry = Entry::new(AuditAction::SignedOutEverywhere, AuditSubject::Sessions, user_id);
    audit::record(&mut tx, By::caller(&caller), entry, now).await?;
    tx.commit().await?;
    Ok(signed_out(&app))
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
        if let Some(objection) = passwords::objection(self.new.expose()) {
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
    caller: AccountGuard,
    State(app): State<App>,
    client: ClientIp,
    ValidJson(body): ValidJson<PasswordChange>,
) -> Result<Response, AppError> {
    // Whoever found an open browser could otherwise guess here, past the limit of signing in.
    app.login_limit.check(&client.bucket()).await?;
    let user_id = caller.principal.user_id;
    let own = store::own_password(&mut app.db.acquire().await?, user_id).await?.ok_or(error::UNAUTHENTICATED)?;
    let attempt = lockout::begin(&app, &own.login, client).await?;
    let verified = app.passwords.verify(body.current.expose(), Some(own.hash.clone())).await;
    if let Ok(false) = verified {
        attempt.failed(&app, Some(user_id)).await?;
        return Err(AppError::invalid_field("/current", "is wrong"));
    }
    attempt.withdraw(&app).await;
    verified?;
    if body.new.expose() == body.current.expose() {
        return Err(AppError::invalid_field("/new", "is the old one"));
    }
    let hash = app.passwords.hash(body.new.expose(), &own.login, "/new").await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::replace_password(&mut tx, user_id, &own.hash, &hash).await? {
        return Err(error::CONFLICT.because("The password was changed meanwhile."));
    }
    store::revoke_sessions_of(&mut tx, user_id, now).await?;
    let entry = Entry::new(AuditAction::PasswordChanged, AuditSubject::Users, user_id);
    audit::record(&mut tx, By::caller(&caller), entry, now).await?;
    tx.commit().await?;
    Ok(signed_out(&app))
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
