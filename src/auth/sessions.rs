//! Sessions: families of refresh tokens, each used once. Whoever presents one a second time, when those
//! side by side have long had their answer, or by another way than it was given out, holds a copy, and the
//! family ends.
//!
//! Nobody needs Redis for any of this: that a session is alive is read from its row, with each request.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Role,
    refresh::{RefreshToken, Use},
    store, tokens,
};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    config::Secret,
    db::DbError,
    error::{self, AppError},
    http::{cookies::Cookies, csrf::Page, stats},
    telemetry::labels::RefreshResult,
    wire_enum,
};

wire_enum! {
    /// Where the tokens of a session go.
    pub enum SessionKind {
        /// Into HttpOnly cookies: for browsers.
        Cookie = "cookie",
        /// Into the body, the access token to be sent as `Authorization: Bearer`: for machines.
        Token = "token",
    }
}

/// What the client of a session is given.
#[derive(Debug)]
pub struct Granted {
    /// Whose session it is.
    pub user_id: i64,
    /// Their role now.
    pub role: Role,
    /// The session.
    pub session_id: String,
    /// JWT.
    pub access_token: Secret,
    /// When the access token ends.
    pub expires_at: DateTime<Utc>,
    /// To be exchanged for the next ones.
    pub refresh_token: RefreshToken,
    /// When the session ends, unless it is refreshed.
    pub refresh_expires_at: DateTime<Utc>,
}

/// When a session ends that is refreshed now and then no more.
fn end(app: &App, created_at: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = |setting: u32| TimeDelta::seconds(i64::from(setting));
    let session = &app.config.session;
    (app.clock.now() + seconds(session.idle_s)).min(created_at + seconds(session.lifetime_s))
}

/// Opens a session, and ends the one that it replaces in the same browser.
///
/// # Errors
/// As the database.
pub async fn open(
    app: &App,
    user: &store::Credentials,
    kind: SessionKind,
    replaced: Option<&str>,
) -> Result<Granted, AppError> {
    let (session_id, refresh_token) = (tokens::random_id(), RefreshToken::random());
    let created_at = app.clock.now();
    let session = store::NewSession {
        id: &session_id,
        user_id: user.id,
        token_version: user.token_version,
        kind,
        created_at,
        expires_at: end(app, created_at),
        refresh_token: &refresh_token.hash(),
        replaces: replaced,
    };
    store::create_session(&mut app.db.acquire().await?, &session).await?;
    let refresh_expires_at = session.expires_at;
    grant(app, (user.id, user.role), session_id, refresh_token, refresh_expires_at)
}

fn grant(
    app: &App,
    (user_id, role): (i64, Role),
    session_id: String,
    refresh_token: RefreshToken,
    refresh_expires_at: DateTime<Utc>,
) -> Result<Granted, AppError> {
    let (access_token, expires_at) =
        app.tokens.issue(user_id, &session_id, refresh_expires_at).map_err(AppError::internal)?;
    Ok(Granted { user_id, role, session_id, access_token, expires_at, refresh_token, refresh_expires_at })
}

/// Exchanges a refresh token for new tokens. What a browser presents must come with the CSRF token of its
/// session, unless it is a copy: whoever holds one is not asked for more before the session ends.
///
/// # Errors
/// 401 when the session is over, or the token is nobody's or a copy; 403 `csrf_token`; or as the database.
pub async fn refresh(
    app: &App,
    presented: &Secret,
    kind: SessionKind,
    page: &Page,
    address: IpAddr,
) -> Result<Granted, AppError> {
    let count = |result| app.metrics.auth_refreshes(result).inc();
    let refuse = |result| {
        count(result);
        AppError::from(error::UNAUTHENTICATED)
    };
    let token = RefreshToken::parse(presented.expose()).ok_or_else(|| refuse(RefreshResult::Rejected))?;
    let (hash, now) = (token.hash(), app.clock.now());
    let mut tx = app.db.begin().await?;
    let session = store::lock_refresh_token(&mut tx, &hash, now).await?;
    let session = session.ok_or_else(|| refuse(RefreshResult::Rejected))?;
    stats::record_user(session.user_id, session.role);
    let found = Use::of(session.used_ms_ago, session.kind == kind);
    if kind == SessionKind::Cookie && found != Use::Copied {
        page.check_token(&app.keys, &session.id)?;
    }
    let (result, next, ends) = match found {
        Use::First => {
            let (next, ends) = (token.child(&app.keys), end(app, session.created_at));
            store::rotate_refresh_token(&mut tx, &session.id, &hash, &next.hash(), now, ends).await?;
            (RefreshResult::Success, next, ends)
        }
        Use::SideBySide => {
            let next = token.heir(&app.keys, &store::refresh_tokens_since(&mut tx, &session.id, &hash).await?);
            store::add_refresh_token(&mut tx, &session.id, &next.hash()).await?;
            (RefreshResult::Repeated, next, session.expires_at)
        }
        Use::Copied => {
            store::revoke_session(&mut tx, &session.id, now).await?;
            let entry = Entry::new(AuditAction::RefreshTokenReused, AuditSubject::Sessions, session.user_id);
            audit::record(&mut tx, By::stranger(address), entry, now).await?;
            tx.commit().await?;
            app.metrics.auth_refresh_reuse().inc();
            tracing::warn!(
                user_id = session.user_id,
                "a refresh token was presented after its use, or by another way than it was given out: somebody has a \
                 copy; its session was ended"
            );
            return Err(refuse(RefreshResult::Reused));
        }
    };
    tx.commit().await?;
    count(result);
    grant(app, (session.user_id, session.role), session.id, next, ends)
}

/// The session that a browser's cookies are of, alive or not: by the access token, or once that has expired
/// by the refresh token, which stays as it is.
///
/// # Errors
/// As the database.
pub async fn of_cookies(app: &App, cookies: &Cookies) -> Result<Option<String>, DbError> {
    let access = cookies.access.as_ref().and_then(|token| app.tokens.verify(token.expose()).ok());
    if let Some(claims) = access {
        return Ok(Some(claims.sid));
    }
    let refresh = cookies.refresh.as_ref().and_then(|token| RefreshToken::parse(token.expose()));
    match refresh {
        Some(token) => store::session_of_refresh_token(&mut app.db.acquire().await?, &token.hash()).await,
        None => Ok(None),
    }
}
