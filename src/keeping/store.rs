//! SQL of retention and of the last backup.
//!
//! Each function removes one batch and is one transaction. Locks are taken in the house's order (calls,
//! client, request), and a row that somebody holds is left for the next round.

use chrono::{DateTime, Utc};

use crate::{
    db::{Conn, DbError, DbOperation},
    telemetry::labels::RetentionTable,
};

/// Stands for a text that was personal data.
const REMOVED: &str = "[removed]";

/// What one batch removed.
#[derive(Debug)]
pub struct Removed {
    /// Rows deleted or anonymised, by table.
    pub rows: Vec<(RetentionTable, u64)>,
    /// Whether it was a full batch, so that another one may follow.
    pub more: bool,
}

impl Removed {
    fn of(table: RetentionTable, rows: u64, limit: i64) -> Self {
        Self { rows: vec![(table, rows)], more: rows >= limit.unsigned_abs() }
    }
}

/// Deletes events of the inbox that came in before; pending ones stay.
///
/// # Errors
/// As the database.
pub async fn delete_webhook_events(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM webhook_events WHERE id IN (
             SELECT id FROM webhook_events WHERE received_at < $1 AND status <> 'pending'
              ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::WebhookEvents, done.rows_affected(), limit))
}

/// Deletes refresh tokens of sessions that were over before.
///
/// # Errors
/// As the database.
pub async fn delete_refresh_tokens(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM refresh_tokens WHERE hash IN (
             SELECT t.hash FROM sessions s JOIN refresh_tokens t ON t.session_id = s.id
              WHERE s.expires_at < $1 LIMIT $2 FOR UPDATE OF t SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::RefreshTokens, done.rows_affected(), limit))
}

/// Deletes tries to sign in from before.
///
/// # Errors
/// As the database.
pub async fn delete_login_attempts(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM login_attempts WHERE id IN (
             SELECT id FROM login_attempts WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::LoginAttempts, done.rows_affected(), limit))
}

/// Deletes failures to sign in whose last was before.
///
/// # Errors
/// As the database.
pub async fn delete_login_failures(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM login_failures WHERE (login_key, address) IN (
             SELECT login_key, address FROM login_failures WHERE last_at < $1 ORDER BY last_at LIMIT $2
                FOR UPDATE SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::LoginFailures, done.rows_affected(), limit))
}

/// Deletes answers from before that were kept for whoever sends the same again.
///
/// # Errors
/// As the database.
pub async fn delete_idempotency_keys(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (user_id, key) IN (
             SELECT user_id, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2
                FOR UPDATE SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::IdempotencyKeys, done.rows_affected(), limit))
}

/// Deletes entries of the audit log from before. That they are a year old the database insists on, and
/// counts for itself: a clock of ours that is ahead must not stop the job.
///
/// # Errors
/// As the database.
pub async fn delete_audit_log(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM audit_log WHERE id IN (
             SELECT id FROM audit_log WHERE at < LEAST($1, now() - interval '1 year') ORDER BY at LIMIT $2
                FOR UPDATE SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::AuditLog, done.rows_affected(), limit))
}

/// Deletes sessions that were over before.
///
/// # Errors
/// As the database.
pub async fn delete_sessions(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "DELETE FROM sessions WHERE id IN (
             SELECT id FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::Sessions, done.rows_affected(), limit))
}

/// Removes what requests that ended before say about their clients.
///
/// # Errors
/// As the database; the batch is then undone.
pub async fn anonymise_requests(
    db: &mut Conn,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Removed, DbError> {
    begin(db).await?;
    let outcome = anonymise_requests_begun(db, before, now, limit).await;
    end(db, outcome).await
}

async fn anonymise_requests_begun(
    db: &mut Conn,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "SELECT id, client_id FROM requests
          WHERE anonymised_at IS NULL AND COALESCE(closed_at, deleted_at) < $1
          ORDER BY COALESCE(closed_at, deleted_at), id LIMIT $2",
        before,
        limit
    );
    let due = telemetry.run(DbOperation::Retention, query.fetch_all(&mut *pg)).await?;
    if due.is_empty() {
        return Ok(Removed { rows: Vec::new(), more: false });
    }
    let (ids, clients): (Vec<i64>, Vec<i64>) = due.iter().map(|row| (row.id, row.client_id)).unzip();
    // A call of the client waits here, or is waited for: no request can join while the number goes.
    let query =
        sqlx::query_scalar!("SELECT id FROM clients WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED", &clients);
    let clients = telemetry.run(DbOperation::Retention, query.fetch_all(&mut *pg)).await?;
    // Looked at again now that it is locked: somebody may have reopened it.
    let query = sqlx::query_scalar!(
        "SELECT id FROM requests
          WHERE id = ANY($1) AND client_id = ANY($2) AND anonymised_at IS NULL AND COALESCE(closed_at, deleted_at) < $3
          ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
        &ids,
        &clients,
        before
    );
    let ids = telemetry.run(DbOperation::Retention, query.fetch_all(&mut *pg)).await?;
    let query = sqlx::query!(
        "UPDATE requests SET client_name = NULL, address = NULL, description = NULL, anonymised_at = $2, version = version + 1
          WHERE id = ANY($1)",
        &ids,
        now
    );
    let requests = telemetry.run(DbOperation::Retention, query.execute(&mut *pg)).await?.rows_affected();
    let query = sqlx::query!("UPDATE request_comments SET body = $2 WHERE request_id = ANY($1)", &ids, REMOVED);
    let comments = telemetry.run(DbOperation::Retention, query.execute(&mut *pg)).await?.rows_affected();
    // However young: somebody may have written about the client long after the end.
    let query = sqlx::query!("DELETE FROM idempotency_keys WHERE request_id = ANY($1)", &ids);
    let answers = telemetry.run(DbOperation::Retention, query.execute(&mut *pg)).await?.rows_affected();
    // What the history's trigger asks for; it ends with the transaction.
    let query =
        sqlx::query_scalar!(r#"SELECT set_config('switchboard.anonymising', 'on', true) IS NOT NULL AS "set!""#);
    telemetry.run(DbOperation::Retention, query.fetch_one(&mut *pg)).await?;
    let query = sqlx::query!(
        "UPDATE request_events SET diff = request_diff_without_person(diff), reason = CASE WHEN reason IS NULL THEN NULL ELSE $2 END
          WHERE request_id = ANY($1) AND (reason <> $2 OR diff <> request_diff_without_person(diff))",
        &ids,
        REMOVED
    );
    let events = telemetry.run(DbOperation::Retention, query.execute(&mut *pg)).await?.rows_affected();
    let query = sqlx::query!(
        "UPDATE clients SET phone_e164 = 'anonymised-' || id, anonymised_at = $2
          WHERE id = ANY($1) AND anonymised_at IS NULL
            AND NOT EXISTS (SELECT FROM requests WHERE client_id = clients.id AND anonymised_at IS NULL)",
        &clients,
        now
    );
    let numbers = telemetry.run(DbOperation::Retention, query.execute(pg)).await?.rows_affected();
    Ok(Removed {
        rows: vec![
            (RetentionTable::Requests, requests),
            (RetentionTable::RequestComments, comments),
            (RetentionTable::IdempotencyKeys, answers),
            (RetentionTable::RequestEvents, events),
            (RetentionTable::Clients, numbers),
        ],
        // A batch of which everything was held by others would be found again and again.
        more: due.len() as u64 >= limit.unsigned_abs() && requests > 0,
    })
}

/// Removes the numbers of calls that came in before, unless they belong to a request that keeps them.
///
/// # Errors
/// As the database.
pub async fn anonymise_calls(
    db: &mut Conn,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Removed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE calls SET from_raw = NULL, from_e164 = NULL, to_raw = NULL, anonymised_at = $2
          WHERE id IN (
             SELECT c.id FROM calls c LEFT JOIN requests r ON r.id = c.request_id
              WHERE c.received_at < $1 AND c.anonymised_at IS NULL AND (r.id IS NULL OR r.anonymised_at IS NOT NULL)
              ORDER BY c.received_at, c.id LIMIT $3 FOR NO KEY UPDATE OF c SKIP LOCKED)",
        before,
        now,
        limit
    );
    let done = telemetry.run(DbOperation::Retention, query.execute(pg)).await?;
    Ok(Removed::of(RetentionTable::Calls, done.rows_affected(), limit))
}

/// Objects from before: those of files whose service request has been anonymised, and of recordings
/// whose call has, or was never heard of; each with the id of its row. Their age leads to them, so that
/// a look costs nothing where nothing is due, however many there are.
///
/// # Errors
/// As the database.
pub async fn objects_of_the_anonymised(
    db: &mut Conn,
    table: RetentionTable,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(i64, String)>, DbError> {
    let (pg, telemetry) = db.parts();
    if table == RetentionTable::Files {
        let query = sqlx::query!(
            "SELECT f.id, f.object FROM files f JOIN requests r ON r.id = f.request_id
              WHERE f.at < $1 AND r.anonymised_at IS NOT NULL ORDER BY f.at, f.id LIMIT $2",
            before,
            limit
        );
        return telemetry.run(DbOperation::Retention, query.map(|row| (row.id, row.object)).fetch_all(pg)).await;
    }
    let query = sqlx::query!(
        r#"SELECT n.id, n.object AS "object!"
             FROM recordings n LEFT JOIN calls k ON k.provider = n.provider AND k.call_key = n.call_key
            WHERE n.at < $1 AND n.object IS NOT NULL AND (k.id IS NULL OR k.anonymised_at IS NOT NULL)
            ORDER BY n.at, n.id LIMIT $2"#,
        before,
        limit
    );
    telemetry.run(DbOperation::Retention, query.map(|row| (row.id, row.object)).fetch_all(pg)).await
}

/// Forgets rows whose objects are gone.
///
/// # Errors
/// As the database.
pub async fn forget_objects(db: &mut Conn, table: RetentionTable, ids: &[i64]) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = if table == RetentionTable::Files {
        sqlx::query!("DELETE FROM files WHERE id = ANY($1)", ids)
    } else {
        sqlx::query!("DELETE FROM recordings WHERE id = ANY($1)", ids)
    };
    telemetry.run(DbOperation::Retention, query.execute(pg)).await.map(drop)
}

async fn begin(db: &mut Conn) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    telemetry.run(DbOperation::Begin, sqlx::query("BEGIN").execute(pg)).await.map(drop)
}

async fn end<T>(db: &mut Conn, outcome: Result<T, DbError>) -> Result<T, DbError> {
    let (pg, telemetry) = db.parts();
    match outcome {
        Ok(value) => telemetry.run(DbOperation::Commit, sqlx::query("COMMIT").execute(pg)).await.map(|_| value),
        Err(error) => {
            // Where this fails too, the connection is broken and the server rolls back by itself.
            let _ = telemetry.run(DbOperation::Retention, sqlx::query("ROLLBACK").execute(pg)).await;
            Err(error)
        }
    }
}

/// When the last backup was finished; `None` when there has been none.
///
/// # Errors
/// As the database.
pub async fn last_backup(db: &mut Conn) -> Result<Option<DateTime<Utc>>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT finished_at FROM maintenance_runs WHERE kind = 'backup' ORDER BY finished_at DESC LIMIT 1"
    );
    telemetry.run(DbOperation::LastBackup, query.fetch_optional(pg)).await
}
