//! Sessions: families of refresh tokens, each used once.

use chrono::{DateTime, Utc};

use super::{routes::SessionKind, store, tokens};
use crate::{app::App, error::AppError};

/// What the client of a session is given.
#[derive(Debug)]
pub struct Granted {
    /// JWT.
    pub access_token: String,
    /// When the access token ends.
    pub expires_at: DateTime<Utc>,
}

/// Opens a session.
///
/// # Errors
/// As the database.
pub async fn open(app: &App, user: &store::Credentials, _kind: SessionKind) -> Result<Granted, AppError> {
    let (now, session_id) = (app.clock.now(), tokens::random_id());
    let (access_token, expires_at) = app.tokens.issue(user.id, &session_id).map_err(AppError::internal)?;
    let mut db = app.db.acquire().await?;
    store::create_session(&mut db, &session_id, user.id, user.token_version, now, expires_at).await?;
    Ok(Granted { access_token, expires_at })
}
