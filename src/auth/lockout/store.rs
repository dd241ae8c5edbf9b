//! SQL of failures to sign in.

use chrono::{DateTime, Utc};

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
    /// When the lock ends that is in the way; as of a moment ago, if another try is just ahead.
    pub locked_until: Option<DateTime<Utc>>,
}

impl Rows for Reservation {}

/// Counts a try as a failure, unless there is a lock. The user is looked up in here, so that the statement
/// is the same for a login that nobody has. `delays[n]` is the lock after n failures, in seconds.
pub(super) async fn reserve(
    db: &mut Conn,
    who: Who<'_>,
    login: &str,
    delays: &[i32],
    forget_before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Reservation, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Reservation,
        r#"WITH reserved AS (
               INSERT INTO login_failures AS known (login_key, address, failures, last_at, user_id)
               VALUES ($1, $2, 1, $3, (SELECT id FROM users WHERE login = $4))
               ON CONFLICT (login_key, address) DO UPDATE SET (failures, last_at, locked_until, user_id) = (
                   SELECT n, $3, $3 + ($5::int[])[least(n, cardinality($5) - 1) + 1] * interval '1 second', EXCLUDED.user_id
                     FROM (SELECT CASE WHEN known.last_at < $6 THEN 1 ELSE known.failures + 1 END AS n) AS counted
               )
               WHERE known.locked_until IS NULL OR known.locked_until <= $3
               RETURNING failures
           )
           SELECT EXISTS (SELECT FROM reserved) AS "made!",
                  (SELECT locked_until FROM login_failures WHERE login_key = $1 AND address = $2) AS locked_until"#,
        who.key,
        who.bucket,
        now,
        login,
        delays,
        forget_before
    );
    telemetry.run(DbOperation::LoginReserve, query.fetch_one(pg)).await
}

/// Takes one failure back, with the lock that came of it: there was none before, or there would have been
/// no try.
pub(super) async fn release(db: &mut Conn, who: Who<'_>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE login_failures SET failures = failures - 1, locked_until = NULL
          WHERE login_key = $1 AND address = $2 AND failures > 0",
        who.key,
        who.bucket
    );
    telemetry.run(DbOperation::LoginRelease, query.execute(pg)).await.map(drop)
}

/// Writes down how a try ended; a success forgets the failures before.
pub(super) async fn record(
    db: &mut Conn,
    who: Who<'_>,
    user_id: Option<i64>,
    address: &str,
    result: AuthResult,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "WITH forgotten AS (
             DELETE FROM login_failures WHERE login_key = $1 AND address = $2 AND $6 = 'success'
         )
         INSERT INTO login_attempts (at, user_id, address, result)
         VALUES ($3, coalesce($4, (SELECT user_id FROM login_failures WHERE login_key = $1 AND address = $2)),
                 $5::text::inet, $6)",
        who.key,
        who.bucket,
        now,
        user_id,
        address,
        result.as_str()
    );
    telemetry.run(DbOperation::LoginRecord, query.execute(pg)).await.map(drop)
}

/// Lifts the locks of a user, at all addresses; how many addresses had failed.
///
/// # Errors
/// As the database.
pub async fn unlock(db: &mut Conn, user_id: i64) -> Result<u64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("DELETE FROM login_failures WHERE user_id = $1", user_id);
    telemetry.run(DbOperation::LoginUnlock, query.execute(pg)).await.map(|done| done.rows_affected())
}
