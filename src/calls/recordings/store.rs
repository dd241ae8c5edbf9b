//! SQL of recordings.

use chrono::{DateTime, Utc};

use crate::{
    calls::{
        model::RecordingStatus,
        providers::{Provider, RecordingNotice},
    },
    db::{Conn, DbError, DbOperation},
    files::{media::Media, storage::Stored},
};

/// Notes that the provider has a recording ready. Its call may not be known yet.
///
/// # Errors
/// As the database.
pub async fn note(
    db: &mut Conn,
    provider: Provider,
    notice: &RecordingNotice,
    traceparent: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO recordings (provider, call_key, recording_id, next_attempt_at, at, traceparent)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (provider, recording_id) DO NOTHING",
        provider.as_str(),
        notice.call_key,
        notice.recording_id,
        now,
        notice.at,
        traceparent
    );
    telemetry.run(DbOperation::RecordingNote, query.execute(pg)).await.map(drop)
}

/// A recording to be fetched.
#[derive(Debug)]
pub struct Due {
    pub id: i64,
    pub provider: Provider,
    /// As the provider calls it.
    pub recording_id: String,
    pub attempts: i32,
    pub traceparent: Option<String>,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    pub media: Media,
    pub stored: Stored,
}

/// Recordings whose time has come, the longest waiting first. They are not locked: one replica does
/// this for all, and whoever settles one asks that it is still pending.
///
/// # Errors
/// As the database.
pub async fn due(db: &mut Conn, limit: i64, now: DateTime<Utc>) -> Result<Vec<Due>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Due,
        r#"SELECT id, provider AS "provider: _", recording_id, attempts, traceparent FROM recordings
            WHERE status = 'pending' AND next_attempt_at <= $1 ORDER BY next_attempt_at, id LIMIT $2"#,
        now,
        limit
    );
    telemetry.run(DbOperation::RecordingsDue, query.fetch_all(pg)).await
}

/// Marks one as stored; `false` when it is not pending any more.
///
/// # Errors
/// As the database.
pub async fn stored(db: &mut Conn, id: i64, attempts: i32, fetched: &Fetched) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE recordings SET status = 'stored', attempts = $2, error = NULL, object = $3, mime = $4, bytes = $5, sha256 = $6
          WHERE id = $1 AND status = 'pending'",
        id,
        attempts,
        fetched.stored.object,
        fetched.media.mime,
        fetched.stored.bytes,
        fetched.stored.sha256
    );
    telemetry.run(DbOperation::RecordingUpdate, query.execute(pg)).await.map(|done| done.rows_affected() == 1)
}

/// Puts one off; `false` when it is not pending any more.
///
/// # Errors
/// As the database.
pub async fn postpone(
    db: &mut Conn,
    id: i64,
    attempts: i32,
    error: &str,
    until: DateTime<Utc>,
) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE recordings SET attempts = $2, error = $3, next_attempt_at = $4 WHERE id = $1 AND status = 'pending'",
        id,
        attempts,
        error,
        until
    );
    telemetry.run(DbOperation::RecordingUpdate, query.execute(pg)).await.map(|done| done.rows_affected() == 1)
}

/// Gives one up, as gone or as failed; `false` when it is not pending any more.
///
/// # Errors
/// As the database.
pub async fn give_up(db: &mut Conn, id: i64, gone: bool, attempts: i32, error: &str) -> Result<bool, DbError> {
    let status = if gone { RecordingStatus::Gone } else { RecordingStatus::Failed };
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE recordings SET status = $2, attempts = $3, error = $4 WHERE id = $1 AND status = 'pending'",
        id,
        status.as_str(),
        attempts,
        error
    );
    telemetry.run(DbOperation::RecordingUpdate, query.execute(pg)).await.map(|done| done.rows_affected() == 1)
}

/// A recording of a call, with where its content lies.
#[derive(Debug)]
pub struct OfCall {
    pub id: i64,
    pub status: RecordingStatus,
    pub object: Option<String>,
    pub mime: Option<String>,
    pub bytes: Option<i64>,
    pub sha256: Option<String>,
}

/// The recordings of a call, newest first. The caller's scope was applied to the call before.
///
/// # Errors
/// As the database.
pub async fn of_call(db: &mut Conn, call_id: i64) -> Result<Vec<OfCall>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        OfCall,
        r#"SELECT rc.id, rc.status AS "status: _", rc.object, rc.mime, rc.bytes, rc.sha256
             FROM calls k JOIN recordings rc ON rc.provider = k.provider AND rc.call_key = k.call_key
            WHERE k.id = $1 ORDER BY rc.at DESC, rc.id DESC"#,
        call_id
    );
    telemetry.run(DbOperation::RecordingsOfCall, query.fetch_all(pg)).await
}
