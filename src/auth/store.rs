//! SQL of users, sessions and who is behind them.

use std::fmt;

use chrono::{DateTime, Utc};

use super::policy::Role;
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

/// Opens a session.
///
/// # Errors
/// As the database.
pub async fn create_session(
    db: &mut Conn,
    id: &str,
    user_id: i64,
    token_version: i32,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO sessions (id, user_id, token_version, created_at, refreshed_at, expires_at) VALUES ($1, $2, $3, $4, $4, $5)",
        id,
        user_id,
        token_version,
        now,
        expires_at
    );
    telemetry.run(DbOperation::SessionCreate, query.execute(pg)).await.map(drop)
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

/// Ends a session; ending it twice is no error.
///
/// # Errors
/// As the database.
pub async fn revoke_session(db: &mut Conn, id: &str, now: DateTime<Utc>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", id, now);
    telemetry.run(DbOperation::SessionRevoke, query.execute(pg)).await.map(drop)
}

/// Ends all sessions of a user.
///
/// # Errors
/// As the database.
pub async fn revoke_sessions_of(db: &mut Conn, user_id: i64, now: DateTime<Utc>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query =
        sqlx::query!("UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL", user_id, now);
    telemetry.run(DbOperation::UserSessionsRevoke, query.execute(pg)).await.map(drop)
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
