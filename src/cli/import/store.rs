//! SQL that all imports have in common: the run with its cursor, the keys of what is there, rejects.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use crate::db::{Conn, DbError, DbOperation, Rows, Tx};

/// Class of Switchboard's advisory locks, as in [`crate::workers::elected`], and the lock of imports.
const LOCK: (i32, i32) = (0x7377_6264, 100);

/// One pass over one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub id: i64,
    pub rows_done: i64,
    pub accepted: i64,
    pub present: i64,
    pub rejected: i64,
}

impl Rows for Run {}

/// Takes the lock of imports for as long as the connection lives; false when another one has it.
///
/// # Errors
/// As the database.
pub(super) async fn lock(db: &mut Conn) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1, $2) AS "locked!""#, LOCK.0, LOCK.1);
    telemetry.run(DbOperation::Election, query.fetch_one(pg)).await
}

/// The unfinished run over this file, or a new one.
///
/// # Errors
/// As the database.
pub(super) async fn open_run(
    db: &mut Conn,
    kind: &str,
    sha256: &str,
    rows: usize,
    now: DateTime<Utc>,
) -> Result<Run, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Run,
        "INSERT INTO import_runs (kind, file_sha256, rows_total, started_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (kind, file_sha256) WHERE finished_at IS NULL DO UPDATE SET rows_total = excluded.rows_total
         RETURNING id, rows_done, accepted, present, rejected",
        kind,
        sha256,
        i64::try_from(rows).unwrap_or(i64::MAX),
        now
    );
    telemetry.run(DbOperation::Import, query.fetch_one(pg)).await
}

/// Moves the cursor of a run; to be called in the transaction that stores the rows.
///
/// # Errors
/// As the database.
pub(super) async fn advance(db: &mut Conn, run: &Run) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE import_runs SET rows_done = $2, accepted = $3, present = $4, rejected = $5 WHERE id = $1",
        run.id,
        run.rows_done,
        run.accepted,
        run.present,
        run.rejected
    );
    telemetry.run(DbOperation::Import, query.execute(pg)).await.map(drop)
}

/// Closes a run.
///
/// # Errors
/// As the database.
pub(super) async fn finish(db: &mut Conn, run: &Run, now: DateTime<Utc>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("UPDATE import_runs SET finished_at = $2 WHERE id = $1", run.id, now);
    telemetry.run(DbOperation::Import, query.execute(pg)).await.map(drop)
}

/// Notes why lines were not taken.
///
/// # Errors
/// As the database.
pub(super) async fn reject(db: &mut Conn, run: &Run, rejects: &[(u64, String)]) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let lines: Vec<i64> = rejects.iter().map(|(line, _)| i64::try_from(*line).unwrap_or(i64::MAX)).collect();
    let reasons: Vec<&str> = rejects.iter().map(|(_, reason)| reason.as_str()).collect();
    let query = sqlx::query!(
        "INSERT INTO import_rejects (run_id, line, reason) SELECT $1, * FROM UNNEST($2::bigint[], $3::text[])",
        run.id,
        &lines,
        &reasons as _
    );
    telemetry.run(DbOperation::Import, query.execute(pg)).await.map(drop)
}

/// The lines of a run that were not taken, in their order.
///
/// # Errors
/// As the database.
pub(super) async fn rejects(db: &mut Conn, run: &Run) -> Result<Vec<(u64, String)>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("SELECT line, reason FROM import_rejects WHERE run_id = $1 ORDER BY line", run.id);
    let rows = telemetry.run(DbOperation::Import, query.fetch_all(pg)).await?;
    Ok(rows.into_iter().map(|row| (row.line.unsigned_abs(), row.reason)).collect())
}

/// Which of these numbers were imported before, with the id that they have here.
///
/// # Errors
/// As the database.
pub(super) async fn known(db: &mut Conn, kind: &str, numbers: &[&str]) -> Result<Vec<(String, i64)>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "SELECT external_id, id FROM imported_keys WHERE kind = $1 AND external_id = ANY($2)",
        kind,
        numbers as _
    );
    let rows = telemetry.run(DbOperation::Import, query.fetch_all(pg)).await?;
    Ok(rows.into_iter().map(|row| (row.external_id, row.id)).collect())
}

/// Remembers the numbers of what has just been stored.
///
/// # Errors
/// As the database.
pub(super) async fn keep_keys<'a>(
    db: &mut Conn,
    kind: &str,
    numbers: impl Iterator<Item = &'a str>,
    ids: &[i64],
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let numbers: Vec<&str> = numbers.collect();
    let query = sqlx::query!(
        "INSERT INTO imported_keys (kind, external_id, id) SELECT $1, * FROM UNNEST($2::text[], $3::bigint[])",
        kind,
        &numbers as _,
        ids
    );
    telemetry.run(DbOperation::Import, query.execute(pg)).await.map(drop)
}

/// As many new ids of a table, in ascending order. They are drawn before the rows are inserted, since
/// an INSERT does not say which row got which.
///
/// # Errors
/// As the database.
pub(super) async fn new_ids(db: &mut Conn, table: &'static str, count: usize) -> Result<Vec<i64>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT nextval(pg_get_serial_sequence($1, 'id')) AS "id!" FROM generate_series(1, $2::bigint)"#,
        table,
        i64::try_from(count).unwrap_or(i64::MAX)
    );
    telemetry.run(DbOperation::Import, query.fetch_all(pg)).await
}

/// SAVEPOINT, RELEASE and ROLLBACK TO of the one savepoint that imports use.
///
/// # Errors
/// As the database.
pub(super) async fn savepoint(tx: &mut Tx, verb: &'static str) -> Result<(), DbError> {
    let (pg, telemetry) = tx.parts();
    let statement = sqlx::query(AssertSqlSafe(format!("{verb} imported_rows")));
    telemetry.run(DbOperation::Import, statement.execute(pg)).await.map(drop)
}
