//! SQL of sign-ins, locks and the audit log, for administrators: there is no scope to apply.

use super::model::{AttemptParams, AttemptResult, AuditEntry, AuditParams, LockedAccount, LoginAttempt, network};
use crate::{
    audit::{AuditAction, AuditSubject},
    db::{Conn, DbError, DbOperation},
    http::cursor::Cursor,
};

/// A page of tries to sign in, newest first; one row more than the limit when there is more.
///
/// # Errors
/// As the database.
pub async fn login_attempts(
    db: &mut Conn,
    params: &AttemptParams,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<LoginAttempt>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        LoginAttempt,
        r#"SELECT a.id, a.at, a.user_id, u.login AS "login?", host(a.address) AS "address!", a.result AS "result: _"
             FROM login_attempts a LEFT JOIN users u ON u.id = a.user_id
            WHERE ($1::bigint IS NULL OR a.user_id = $1)
              AND ($2::text IS NULL OR a.user_id = (SELECT id FROM users WHERE login = $2))
              AND ($3::text IS NULL OR a.result = $3)
              AND ($4::text IS NULL OR a.address <<= $4::inet)
              AND ($5::timestamptz IS NULL OR a.at >= $5)
              AND ($6::timestamptz IS NULL OR a.at < $6)
              AND ($7::timestamptz IS NULL OR (a.at, a.id) < ($7, $8))
            ORDER BY a.at DESC, a.id DESC LIMIT $9"#,
        params.user_id,
        params.login.as_ref().map(|login| login.to_lowercase()),
        params.result.map(AttemptResult::as_str),
        params.address.as_deref().and_then(network).map(|network| network.trunc().to_string()),
        params.from,
        params.to,
        after.map(|cursor| cursor.at),
        after.map(|cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::LoginAttemptList, query.fetch_all(pg)).await
}

/// A page of logins that are locked, those locked longest first; one row more than the limit when there
/// is more. A login that nobody has is nobody's account.
///
/// # Errors
/// As the database.
pub async fn locked_accounts(db: &mut Conn, after: Option<Cursor>, limit: i64) -> Result<Vec<LockedAccount>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        LockedAccount,
        r#"SELECT f.id, u.id AS user_id, u.login, f.address, f.failures, f.last_at AS last_failure_at,
                  f.locked_until AS "locked_until!"
             FROM login_failures f JOIN users u ON u.id = f.user_id
            WHERE f.locked_until > now() AND ($1::timestamptz IS NULL OR (f.locked_until, f.id) < ($1, $2))
            ORDER BY f.locked_until DESC, f.id DESC LIMIT $3"#,
        after.map(|cursor| cursor.at),
        after.map(|cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::LockedAccountList, query.fetch_all(pg)).await
}

/// The id of the user who has a login.
///
/// # Errors
/// As the database.
pub async fn user_by_login(db: &mut Conn, login: &str) -> Result<Option<i64>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!("SELECT id FROM users WHERE login = $1", login);
    telemetry.run(DbOperation::UserByLogin, query.fetch_optional(pg)).await
}

/// A page of the audit log, newest first; one row more than the limit when there is more.
///
/// # Errors
/// As the database.
pub async fn audit_log(
    db: &mut Conn,
    params: &AuditParams,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<AuditEntry>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        AuditEntry,
        r#"SELECT a.id, a.at, a.via AS "via: _", a.actor_id, u.login AS "actor?", a.action, a.subject, a.subject_id,
                  host(a.address) AS address, a.trace_id, a.detail
             FROM audit_log a LEFT JOIN users u ON u.id = a.actor_id
            WHERE ($1::bigint IS NULL OR a.actor_id = $1)
              AND ($2::text IS NULL OR a.action = $2)
              AND ($3::text IS NULL OR a.subject = $3)
              AND ($4::bigint IS NULL OR a.subject_id = $4)
              AND ($5::timestamptz IS NULL OR a.at >= $5)
              AND ($6::timestamptz IS NULL OR a.at < $6)
              AND ($7::timestamptz IS NULL OR (a.at, a.id) < ($7, $8))
            ORDER BY a.at DESC, a.id DESC LIMIT $9"#,
        params.actor_id,
        params.action.map(AuditAction::as_str),
        params.subject.map(AuditSubject::as_str),
        params.subject_id,
        params.from,
        params.to,
        after.map(|cursor| cursor.at),
        after.map(|cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::AuditList, query.fetch_all(pg)).await
}
