//! SQL of the audit log.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{By, Entry};
use crate::db::{Conn, DbError, DbOperation};

/// Writes a row.
///
/// # Errors
/// As the database.
pub(super) async fn insert(
    db: &mut Conn,
    by: By,
    entry: Entry,
    trace_id: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO audit_log (at, via, actor_id, action, subject, subject_id, address, trace_id, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::inet, $8, $9)",
        now,
        by.via.as_str(),
        by.actor_id,
        entry.action.as_str(),
        entry.subject.as_str(),
        entry.subject_id,
        by.address.map(|address| address.to_canonical().to_string()),
        trace_id,
        Value::Object(entry.detail)
    );
    telemetry.run(DbOperation::AuditInsert, query.execute(pg)).await.map(drop)
}
