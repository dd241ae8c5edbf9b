//! SQL of users, sessions and who is behind them.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};

use super::{policy::Role, refresh::Hash, sessions::SessionKind};
use crate::db::{Conn, DbError, DbOperation};

/// What a sign-in needs to know about a login.
pub struct Credentials {
    /// User id.
    pub id: i64,
    /// As [`super::passwords`] stores it.
    pub password_hash: String,
    /// Whether the user may sign in at all.
    pub active: bool,
    /// Role.
    pub role: Role,
    /// To be stamped into the session.
    pub token_version: i32,
}

// A hash is nobody's business, in a log least of all.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for OwnPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnPassword").field("login", &self.login).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser").field("login", &self.login).finish_non_exhaustive()
    }
}

/// Who is behind a session.
#[derive(Debug)]
pub struct SessionUser {
    /// User id.
    pub id: i64,
    /// Role now, not when the token was made.
    pub role: Role,
    /// City ids now.
    pub cities: Vec<i64>,
}

/// A user as they see themselves.
#[derive(Debug)]
pub struct Profile {
    /// Login.
    pub login: String,
    /// Display name.
    pub name: String,
    /// Codes of their cities.
    pub cities: Vec<String>,
}

/// Credentials by login.
///
/// # Errors
/// As the database.
pub async fn credentials(db: &mut Conn, login: &str) -> Result<Option<Credentials>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Credentials,
        r#"SELECT id, password_hash, status = 'active' AS "active!", role AS "role: _", token_version FROM users WHERE login = $1"#,
        login
    );
    telemetry.run(DbOperation::UserCredentials, query.fetch_optional(pg)).await
}

/// A session to be opened.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// As [`super::tokens::random_id`] makes it.
    pub id: &'a str,
    /// Whose it is.
    pub user_id: i64,
    /// That of the user.
    pub token_version: i32,
    /// Where its tokens go.
    pub kind: SessionKind,
    /// Now.
    pub created_at: DateTime<Utc>,
    /// When it ends, unless it is refreshed.
    pub expires_at: DateTime<Utc>,
    /// Its first refresh token.
    pub refresh_token: &'a Hash,
    /// The session that ends in its stead.
    pub replaces: Option<&'a str>,
}

/// Opens a session.
///
/// # Errors
/// As the database.
pub async fn create_session(db: &mut Conn, session: &NewSession<'_>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "WITH opened AS (
             INSERT INTO sessions (id, user_id, token_version, kind, created_at, refreshed_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $5, $6)
         ), ended AS (
             UPDATE sessions SET revoked_at = $5 WHERE id = $8 AND revoked_at IS NULL
         )
         INSERT INTO refresh_tokens (hash, session_id) VALUES ($7, $1)",
        session.id,
        session.user_id,
        session.token_version,
        session.kind.as_str(),
        session.created_at,
        session.expires_at,
        session.refresh_token,
        session.replaces
    );
    telemetry.run(DbOperation::SessionCreate, query.execute(pg)).await.map(drop)
}

/// The live session of a refresh token.
#[derive(Debug)]
pub struct RefreshedSession {
    /// Session id.
    pub id: String,
    /// Whose it is.
    pub user_id: i64,
    /// Their role now.
    pub role: Role,
    /// Where its tokens go.
    pub kind: SessionKind,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it ends, unless it is refreshed.
    pub expires_at: DateTime<Utc>,
    /// How long ago the token was used, if it was, in milliseconds.
    pub used_ms_ago: Option<i64>,
}

/// The live session, as [`session_user`] has it, of a refresh token; both stay locked until the end of the
/// transaction.
///
/// # Errors
/// As the database.
pub async fn lock_refresh_token(
    db: &mut Conn,
    hash: &Hash,
    now: DateTime<Utc>,
) -> Result<Option<RefreshedSession>, DbError> {
    let (pg, telemetry) = db.parts();
    // Who waited for the lock is shown both rows as they are by then.
    let query = sqlx::query_as!(
        RefreshedSession,
        r#"SELECT s.id, s.user_id, u.role AS "role: _", s.kind AS "kind: _", s.created_at, s.expires_at,
                  (extract(epoch FROM clock_timestamp() - t.used_at) * 1000)::bigint AS used_ms_ago
             FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id
            WHERE t.hash = $1 AND s.revoked_at IS NULL AND s.expires_at > $2
              AND s.token_version = u.token_version AND u.status = 'active'
              FOR UPDATE OF s, t"#,
        hash,
        now
    );
    telemetry.run(DbOperation::RefreshTokenLock, query.fetch_optional(pg)).await
}

/// Marks a refresh token as used, adds the next one, and lets the session go on until `expires_at`.
///
/// # Errors
/// As the database.
pub async fn rotate_refresh_token(
    db: &mut Conn,
    session_id: &str,
    used: &Hash,
    next: &Hash,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "WITH used AS (
             UPDATE refresh_tokens SET used_at = clock_timestamp() WHERE hash = $2
         ), refreshed AS (
             UPDATE sessions SET refreshed_at = $4, expires_at = $5 WHERE id = $1
         )
         INSERT INTO refresh_tokens (hash, session_id) VALUES ($3, $1)",
        session_id,
        used,
        next,
        now,
        expires_at
    );
    telemetry.run(DbOperation::RefreshTokenRotate, query.execute(pg)).await.map(drop)
}

/// The refresh tokens of a session that were not used before the given one was, and of each whether it is
/// unused.
///
/// # Errors
/// As the database.
pub async fn refresh_tokens_since(
    db: &mut Conn,
    session_id: &str,
    hash: &Hash,
) -> Result<HashMap<Hash, bool>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"SELECT hash AS "hash: Hash", used_at IS NULL AS "unused!"
             FROM refresh_tokens
            WHERE session_id = $1
              AND (used_at IS NULL OR used_at >= (SELECT used_at FROM refresh_tokens WHERE hash = $2))"#,
        session_id,
        hash
    );
    let rows = telemetry.run(DbOperation::RefreshTokensSince, query.fetch_all(pg)).await?;
    Ok(rows.into_iter().map(|row| (row.hash, row.unused)).collect())
}

/// Adds a refresh token to a session, unless it is there.
///
/// # Errors
/// As the database.
pub async fn add_refresh_token(db: &mut Conn, session_id: &str, hash: &Hash) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO refresh_tokens (hash, session_id) VALUES ($2, $1) ON CONFLICT (hash) DO NOTHING",
        session_id,
        hash
    );
    telemetry.run(DbOperation::RefreshTokenAdd, query.execute(pg)).await.map(drop)
}

/// The session of a refresh token, whether or not either is still good.
///
/// # Errors
/// As the database.
pub async fn session_of_refresh_token(db: &mut Conn, hash: &Hash) -> Result<Option<String>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!("SELECT session_id FROM refresh_tokens WHERE hash = $1", hash);
    telemetry.run(DbOperation::SessionOfRefreshToken, query.fetch_optional(pg)).await
}

/// The user of a live session: not revoked, not expired, the user active, and nothing about the user
/// changed since that ends sessions.
///
/// # Errors
/// As the database.
pub async fn session_user(
    db: &mut Conn,
    session_id: &str,
    user_id: i64,
    now: DateTime<Utc>,
) -> Result<Option<SessionUser>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        SessionUser,
        r#"SELECT u.id, u.role AS "role: _",
                  ARRAY(SELECT city_id FROM user_cities WHERE user_id = u.id) AS "cities!"
             FROM sessions s JOIN users u ON u.id = s.user_id
            WHERE s.id = $1 AND u.id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3
              AND s.token_version = u.token_version AND u.status = 'active'"#,
        session_id,
        user_id,
        now
    );
    telemetry.run(DbOperation::SessionPrincipal, query.fetch_optional(pg)).await
}

/// Those of the given sessions that are live, as [`session_user`] has it, with their users.
///
/// # Errors
/// As the database.
pub async fn live_sessions(
    db: &mut Conn,
    sessions: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<(String, SessionUser)>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"SELECT s.id AS session, u.id, u.role AS "role: Role",
                  ARRAY(SELECT city_id FROM user_cities WHERE user_id = u.id) AS "cities!"
             FROM sessions s JOIN users u ON u.id = s.user_id
            WHERE s.id = ANY($1) AND s.revoked_at IS NULL AND s.expires_at > $2
              AND s.token_version = u.token_version AND u.status = 'active'"#,
        sessions,
        now
    );
    let rows = telemetry.run(DbOperation::SessionsAlive, query.fetch_all(pg)).await?;
    let user = |id, role, cities| SessionUser { id, role, cities };
    Ok(rows.into_iter().map(|row| (row.session, user(row.id, row.role, row.cities))).collect())
}

/// Ends a session, if it has not been ended yet: whose it was, and their role.
///
/// # Errors
/// As the database.
pub async fn revoke_session(db: &mut Conn, id: &str, now: DateTime<Utc>) -> Result<Option<(i64, Role)>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"UPDATE sessions s SET revoked_at = $2 FROM users u
            WHERE s.id = $1 AND s.revoked_at IS NULL AND u.id = s.user_id
        RETURNING u.id, u.role AS "role: Role""#,
        id,
        now
    );
    let ended = telemetry.run(DbOperation::SessionRevoke, query.fetch_optional(pg)).await?;
    Ok(ended.map(|user| (user.id, user.role)))
}

/// Ends all sessions of a user; how many.
///
/// # Errors
/// As the database.
pub async fn revoke_sessions_of(db: &mut Conn, user_id: i64, now: DateTime<Utc>) -> Result<u64, DbError> {
    let (pg, telemetry) = db.parts();
    let query =
        sqlx::query!("UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL", user_id, now);
    telemetry.run(DbOperation::UserSessionsRevoke, query.execute(pg)).await.map(|done| done.rows_affected())
}

/// Ends all sessions of everybody; how many.
///
/// # Errors
/// As the database.
pub async fn revoke_all_sessions(db: &mut Conn, now: DateTime<Utc>) -> Result<u64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("UPDATE sessions SET revoked_at = $1 WHERE revoked_at IS NULL", now);
    telemetry.run(DbOperation::SessionsRevoke, query.execute(pg)).await.map(|done| done.rows_affected())
}

/// The login and the password's hash of somebody who is signed in.
pub struct OwnPassword {
    /// Login.
    pub login: String,
    /// As [`super::passwords`] stores it.
    pub hash: String,
}

/// A user's own password.
///
/// # Errors
/// As the database.
pub async fn own_password(db: &mut Conn, user_id: i64) -> Result<Option<OwnPassword>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(OwnPassword, "SELECT login, password_hash AS hash FROM users WHERE id = $1", user_id);
    telemetry.run(DbOperation::UserPasswordHash, query.fetch_optional(pg)).await
}

/// Replaces one hash by another, so that older tokens die; `false` when the password is another one by
/// now.
///
/// # Errors
/// As the database.
pub async fn replace_password(db: &mut Conn, user_id: i64, old_hash: &str, new_hash: &str) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE users SET password_hash = $3, token_version = token_version + 1 WHERE id = $1 AND password_hash = $2",
        user_id,
        old_hash,
        new_hash
    );
    let done = telemetry.run(DbOperation::UserPasswordUpdate, query.execute(pg)).await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces one form of the same password by another: no session ends. `false` when it is another password
/// by now.
///
/// # Errors
/// As the database.
pub async fn renew_password(db: &mut Conn, user_id: i64, old_hash: &str, new_hash: &str) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        user_id,
        old_hash,
        new_hash
    );
    let done = telemetry.run(DbOperation::UserPasswordRenew, query.execute(pg)).await?;
    Ok(done.rows_affected() == 1)
}

/// A user's own profile.
///
/// # Errors
/// As the database.
pub async fn profile(db: &mut Conn, user_id: i64) -> Result<Option<Profile>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Profile,
        r#"SELECT login, name,
                  ARRAY(SELECT c.code FROM user_cities uc JOIN cities c ON c.id = uc.city_id
                         WHERE uc.user_id = users.id ORDER BY c.code) AS "cities!"
             FROM users WHERE id = $1"#,
        user_id
    );
    telemetry.run(DbOperation::UserProfile, query.fetch_optional(pg)).await
}

/// A user to be created.
pub struct NewUser<'a> {
    /// Lower-case letters, digits, `.`, `_`, `-`.
    pub login: &'a str,
    /// As [`super::passwords::hash`] gives it.
    pub password_hash: &'a str,
    /// Display name.
    pub name: &'a str,
    /// Role.
    pub role: Role,
    /// Codes of cities; all must exist.
    pub cities: &'a [String],
    /// For masters: the part of a net that they hand over.
    pub share: Option<rust_decimal::Decimal>,
}

/// Creates a user with cities and, for a master, the profile, in one statement.
///
/// # Errors
/// As the database; a login that is taken violates `users_login_key`.
pub async fn create_user(db: &mut Conn, user: &NewUser<'_>, now: DateTime<Utc>) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"WITH created AS (
               INSERT INTO users (login, password_hash, name, role, created_at) VALUES ($1, $2, $3, $4, $5) RETURNING id
           ), placed AS (
               INSERT INTO user_cities (user_id, city_id)
               SELECT created.id, cities.id FROM created, cities WHERE cities.code = ANY($6)
           ), profiled AS (
               INSERT INTO master_profiles (user_id, share) SELECT id, $7::numeric FROM created WHERE $7::numeric IS NOT NULL
           )
           SELECT id FROM created"#,
        user.login,
        user.password_hash,
        user.name,
        user.role.as_str(),
        now,
        user.cities,
        user.share
    );
    telemetry.run(DbOperation::UserCreate, query.fetch_one(pg)).await
}
