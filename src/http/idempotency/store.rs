//! SQL of answers that are kept for whoever sends the same again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use crate::db::{Conn, DbError, DbOperation, Rows};

/// An answer, as it is kept.
#[derive(Debug)]
pub struct Kept {
    /// Of what it answers.
    pub fingerprint: Vec<u8>,
    /// HTTP status.
    pub status: i16,
    /// HTTP header fields.
    pub headers: Json<BTreeMap<String, String>>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Rows for Kept {}

/// Takes a user's key until the end of the transaction; `false` when another one has it.
///
/// # Errors
/// As the database.
pub async fn try_lock(db: &mut Conn, user_id: i64, key: &str) -> Result<bool, DbError> {
    let name = format!("idempotency:{user_id}:{key}");
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS "locked!""#, name);
    telemetry.run(DbOperation::IdempotencyLock, query.fetch_one(pg)).await
}

/// The answer that a user's key was given. Not in the statement that locks, which would not see what was committed
/// while it began.
///
/// # Errors
/// As the database.
pub async fn find(db: &mut Conn, user_id: i64, key: &str) -> Result<Option<Kept>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Kept,
        r#"SELECT fingerprint, status, headers AS "headers: _", body
             FROM idempotency_keys WHERE user_id = $1 AND key = $2"#,
        user_id,
        key
    );
    telemetry.run(DbOperation::IdempotencyFind, query.fetch_optional(pg)).await
}

/// Keeps an answer.
///
/// # Errors
/// As the database.
pub async fn insert(
    db: &mut Conn,
    user_id: i64,
    key: &str,
    kept: &Kept,
    request_id: Option<i64>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, status, headers, body, request_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        user_id,
        key,
        kept.fingerprint,
        kept.status,
        &kept.headers as _,
        kept.body,
        request_id,
        now
    );
    telemetry.run(DbOperation::IdempotencyInsert, query.execute(pg)).await.map(drop)
}
