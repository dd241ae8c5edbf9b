//! SQL of files. A file is seen by whoever sees its owner, so each query knows both scopes.

use chrono::{DateTime, Utc};

use super::{
    model::{FileKind, FileView},
    upload::Received,
};
use crate::{
    auth::{
        Caller,
        policy::{self, Action},
    },
    db::{Conn, DbError, DbOperation, Rows},
    http::cursor::Cursor,
};

/// What a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Number of a service request.
    Request(i64),
    /// Number of a transaction.
    Transaction(i64),
}

impl Owner {
    fn ids(self) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Request(id) => (Some(id), None),
            Self::Transaction(id) => (None, Some(id)),
        }
    }
}

/// A file with where its content lies.
#[derive(Debug)]
pub struct Found {
    pub view: FileView,
    pub object: String,
}

impl Rows for FileView {}

/// One file whose owner the caller may see: a service request in their scope, or a transaction if they
/// may read those at all.
///
/// # Errors
/// As the database.
pub async fn by_id(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<Found>, DbError> {
    let money = policy::scope(caller.principal.role, Action::ReadTransactions)
        .map(|scope| Caller { principal: caller.principal.clone(), scope });
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"SELECT f.id, f.request_id, f.transaction_id, f.kind AS "kind: FileKind", f.name, f.mime, f.bytes, f.sha256,
                  f.uploaded_by, f.at, f.object
             FROM files f
             LEFT JOIN requests r ON r.id = f.request_id AND r.deleted_at IS NULL
             LEFT JOIN transactions t ON t.id = f.transaction_id
            WHERE f.id = $1 AND f.deleted_at IS NULL AND (
                  (r.id IS NOT NULL
                   AND ($2::bigint[] IS NULL OR r.city_id = ANY($2)) AND ($3::bigint IS NULL OR r.master_id = $3))
               OR (t.id IS NOT NULL AND $4
                   AND ($5::bigint[] IS NULL OR t.city_id = ANY($5)) AND ($6::bigint IS NULL OR t.master_id = $6)))"#,
        id,
        caller.city_filter() as _,
        caller.master_filter(),
        money.is_some(),
        money.as_ref().and_then(Caller::city_filter) as _,
        money.as_ref().and_then(Caller::master_filter)
    )
    .map(|row| Found {
        view: FileView {
            id: row.id,
            request_id: row.request_id,
            transaction_id: row.transaction_id,
            kind: row.kind,
            name: row.name,
            mime: row.mime,
            bytes: row.bytes,
            sha256: row.sha256,
            uploaded_by: row.uploaded_by,
            at: row.at,
        },
        object: row.object,
    });
    telemetry.run(DbOperation::FileById, query.fetch_optional(pg)).await
}

/// A page of an owner's files, oldest first; one row more than the limit when there is more. The
/// caller's scope was applied to the owner before.
///
/// # Errors
/// As the database.
pub async fn list(db: &mut Conn, owner: Owner, after: Option<Cursor>, limit: i64) -> Result<Vec<FileView>, DbError> {
    let (request_id, transaction_id) = owner.ids();
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        FileView,
        r#"SELECT id, request_id, transaction_id, kind AS "kind: _", name, mime, bytes, sha256, uploaded_by, at
             FROM files
            WHERE (request_id = $1 OR transaction_id = $2) AND deleted_at IS NULL AND id > $3 ORDER BY id LIMIT $4"#,
        request_id,
        transaction_id,
        after.map_or(0, |cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::FileList, query.fetch_all(pg)).await
}

/// How many files an owner has.
///
/// # Errors
/// As the database.
pub async fn count(db: &mut Conn, owner: Owner) -> Result<i64, DbError> {
    let (request_id, transaction_id) = owner.ids();
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM files WHERE (request_id = $1 OR transaction_id = $2) AND deleted_at IS NULL"#,
        request_id,
        transaction_id
    );
    telemetry.run(DbOperation::FileCount, query.fetch_one(pg)).await
}

/// Locks a transaction until the end of this one, so that its files can be counted.
///
/// # Errors
/// As the database.
pub async fn lock_transaction(db: &mut Conn, id: i64) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!("SELECT id FROM transactions WHERE id = $1 FOR NO KEY UPDATE", id);
    telemetry.run(DbOperation::TransactionLock, query.fetch_optional(pg)).await.map(|found| found.is_some())
}

/// Writes the row of a whole object.
///
/// # Errors
/// As the database.
pub async fn insert(
    db: &mut Conn,
    owner: Owner,
    received: &Received,
    uploaded_by: i64,
    now: DateTime<Utc>,
) -> Result<FileView, DbError> {
    let (request_id, transaction_id) = owner.ids();
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        FileView,
        r#"INSERT INTO files (request_id, transaction_id, kind, object, name, mime, bytes, sha256, uploaded_by, at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           RETURNING id, request_id, transaction_id, kind AS "kind: _", name, mime, bytes, sha256, uploaded_by, at"#,
        request_id,
        transaction_id,
        received.kind.as_str(),
        received.stored.object,
        received.name,
        received.media.mime,
        received.stored.bytes,
        received.stored.sha256,
        uploaded_by,
        now
    );
    telemetry.run(DbOperation::FileInsert, query.fetch_one(pg)).await
}

/// Marks a file as deleted; `false` when somebody was faster.
///
/// # Errors
/// As the database.
pub async fn delete(db: &mut Conn, id: i64, deleted_by: i64, now: DateTime<Utc>) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE files SET deleted_at = $2, deleted_by = $3 WHERE id = $1 AND deleted_at IS NULL",
        id,
        now,
        deleted_by
    );
    telemetry.run(DbOperation::FileDelete, query.execute(pg)).await.map(|done| done.rows_affected() == 1)
}
