//! SQL of failures to sign in.

use chrono::{DateTime, Utc};

use super::{ABANDONED_AFTER, COUNTED, FORGOTTEN_AFTER, FREE, delay};
use crate::{
    db::{Conn, DbError, DbOperation, Rows},
    telemetry::labels::AuthResult,
};

/// Who tries what from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    /// HMAC of the login.
    pub key: &'a [u8],
    /// The bucket of the address.
    pub bucket: &'a str,
}

/// What became of a reservation.
#[derive(Debug)]
pub(super) struct Reservation {
    pub made: bool,
    /// For how long there is a lock, in milliseconds. Without one it was the other tries that were in the way,
    /// or a lock that had not been there a moment before.
    pub locked_ms: Option<i64>,
}

impl Rows for Reservation {}

/// Gives a try one of the places that are left, unless there is a lock. The user is looked up in here, so
/// that the statement is the same for a login that nobody has. All of it on the database's clock, on which
/// replicas agree.
pub(super) async fn reserve(db: &mut Conn, who: Who<'_>, login: &str) -> Result<Reservation, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Reservation,
        r#"WITH reserved AS (
               INSERT INTO login_failures AS known (login_key, address, failures, pending, last_at, user_id)
               VALUES ($1, $2, 0, 1, clock_timestamp(), (SELECT id FROM users WHERE login = $3))
               ON CONFLICT (login_key, address) DO UPDATE SET (failures, pending, last_at, user_id) = (
                   SELECT CASE WHEN age > $5::int * interval '1 second' THEN 0
                               WHEN age > $6::int * interval '1 second' THEN known.failures + known.pending
                               ELSE known.failures END,
                          CASE WHEN age > $6::int * interval '1 second' THEN 1 ELSE known.pending + 1 END,
                          clock_timestamp(), coalesce(EXCLUDED.user_id, known.user_id)
                     FROM (SELECT clock_timestamp() - known.last_at AS age) AS since
               )
               WHERE (known.locked_until IS NULL OR known.locked_until <= clock_timestamp())
                 AND (known.pending < greatest(1, $4::int - known.failures)
                      OR clock_timestamp() - known.last_at > $6::int * interval '1 second')
               RETURNING failures
           )
           SELECT EXISTS (SELECT FROM reserved) AS "made!",
                  (SELECT (extract(epoch FROM locked_until - clock_timestamp()) * 1000)::bigint
                     FROM login_failures WHERE login_key = $1 AND address = $2) AS locked_ms"#,
        who.key,
        who.bucket,
        login,
        FREE.cast_signed(),
        FORGOTTEN_AFTER,
        ABANDONED_AFTER
    );
    telemetry.run(DbOperation::LoginReserve, query.fetch_one(pg)).await
}

/// Gives a place back.
pub(super) async fn release(db: &mut Conn, who: Who<'_>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE login_failures SET pending = pending - 1 WHERE login_key = $1 AND address = $2 AND pending > 0",
        who.key,
        who.bucket
    );
    telemetry.run(DbOperation::LoginRelease, query.execute(pg)).await.map(drop)
}

/// Writes down how a try ended. A failure counts, and locks if there were enough before; a success forgets
/// them.
pub(super) async fn record(
    db: &mut Conn,
    who: Who<'_>,
    user_id: Option<i64>,
    address: &str,
    result: AuthResult,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let delays: Vec<i32> = (0..=COUNTED).map(delay).collect();
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "WITH forgotten AS (
             DELETE FROM login_failures WHERE login_key = $1 AND address = $2 AND $6 = 'success'
         ), failed AS (
             INSERT INTO login_failures AS known (login_key, address, failures, last_at, user_id)
             SELECT $1::bytea, $2::text, 1, clock_timestamp(), $4::bigint WHERE $6 = 'rejected'
             ON CONFLICT (login_key, address) DO UPDATE SET (failures, pending, last_at, locked_until) = (
                 SELECT n, greatest(known.pending - 1, 0), clock_timestamp(),
                        clock_timestamp() + ($7::int[])[least(n, cardinality($7) - 1) + 1] * interval '1 second'
                   FROM (SELECT known.failures + 1 AS n) AS counted
             )
         )
         INSERT INTO login_attempts (at, user_id, address, result)
         VALUES ($3, coalesce($4, (SELECT user_id FROM login_failures WHERE login_key = $1 AND address = $2)),
                 $5::text::inet, $6)",
        who.key,
        who.bucket,
        now,
        user_id,
        address,
        result.as_str(),
        &delays
    );
    telemetry.run(DbOperation::LoginRecord, query.execute(pg)).await.map(drop)
}

/// Says whose failures of a login those are that nobody had.
pub(super) async fn adopt(db: &mut Conn, key: &[u8], user_id: i64) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("UPDATE login_failures SET user_id = $2 WHERE login_key = $1", key, user_id);
    telemetry.run(DbOperation::LoginAdopt, query.execute(pg)).await.map(drop)
}

/// Forgets the failures of a user, at all addresses; how many there were.
pub(super) async fn unlock(db: &mut Conn, user_id: i64) -> Result<u64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("DELETE FROM login_failures WHERE user_id = $1", user_id);
    telemetry.run(DbOperation::LoginUnlock, query.execute(pg)).await.map(|done| done.rows_affected())
}
