//! SQL of SLA policies, timers and stuck requests. Timers start and move on in the statements of
//! [`crate::requests::store`] that write the history, so that neither is ever without the other.

use chrono::{DateTime, Utc};

use super::model::{Policy, SlaPolicy, StuckRequest, TimerRow};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation, Rows},
    http::cursor::Cursor,
};

impl Rows for SlaPolicy {}

/// All policies, by type.
///
/// # Errors
/// As the database.
pub async fn policies(db: &mut Conn) -> Result<Vec<SlaPolicy>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        SlaPolicy,
        r#"SELECT p.id, p.version, t.code AS "type", p.policy AS "policy: _", p.target_s
             FROM sla_policies p JOIN request_types t ON t.id = p.type_id ORDER BY p.type_id, p.id"#
    );
    telemetry.run(DbOperation::SlaPolicyList, query.fetch_all(pg)).await
}

/// A policy, locked until the transaction ends.
///
/// # Errors
/// As the database.
pub async fn lock_policy(db: &mut Conn, id: i64) -> Result<Option<SlaPolicy>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        SlaPolicy,
        r#"SELECT p.id, p.version, t.code AS "type", p.policy AS "policy: _", p.target_s
             FROM sla_policies p JOIN request_types t ON t.id = p.type_id WHERE p.id = $1 FOR NO KEY UPDATE OF p"#,
        id
    );
    telemetry.run(DbOperation::SlaPolicyLock, query.fetch_optional(pg)).await
}

/// Changes a policy. The row must be locked.
///
/// # Errors
/// As the database.
pub async fn save_policy(db: &mut Conn, id: i64, target_s: i32) -> Result<SlaPolicy, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        SlaPolicy,
        r#"UPDATE sla_policies p SET target_s = $2, version = p.version + 1 FROM request_types t
            WHERE p.id = $1 AND t.id = p.type_id
           RETURNING p.id, p.version, t.code AS "type", p.policy AS "policy: _", p.target_s"#,
        id,
        target_s
    );
    telemetry.run(DbOperation::SlaPolicyUpdate, query.fetch_one(pg)).await
}

/// The timers of a request, in the order of the promises. The caller's scope was applied to the
/// request before.
///
/// # Errors
/// As the database.
pub async fn timers(db: &mut Conn, request_id: i64) -> Result<Vec<TimerRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        TimerRow,
        r#"SELECT policy AS "policy: _", started_at, due_at, paused_at, extract(epoch FROM paused_total)::bigint AS "paused_s!",
                  met_at, cancelled_at, breached_at
             FROM sla_timers WHERE request_id = $1
            ORDER BY array_position(ARRAY['first_response', 'assignment', 'completion'], policy)"#,
        request_id
    );
    telemetry.run(DbOperation::SlaTimerList, query.fetch_all(pg)).await
}

/// How many timers of a policy were found late.
#[derive(Debug)]
pub struct Breaches {
    /// Which promise was broken
    pub policy: Policy,
    /// so many times.
    pub count: i64,
}

/// Marks up to `limit` timers that are late, or were when they stopped, each once, and notes it in the
/// histories. Whether a promise was kept must not depend on how often somebody looks.
///
/// # Errors
/// As the database.
pub async fn mark_breaches(db: &mut Conn, now: DateTime<Utc>, limit: i64) -> Result<Vec<Breaches>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Breaches,
        r#"WITH late AS (
               SELECT request_id, policy FROM sla_timers
                WHERE breached_at IS NULL AND COALESCE(met_at, cancelled_at, paused_at, 'infinity') > due_at AND due_at < $1
                ORDER BY due_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
           ), marked AS (
               UPDATE sla_timers t SET breached_at = $1 FROM late
                WHERE t.request_id = late.request_id AND t.policy = late.policy
               RETURNING t.request_id, t.policy
           ), noted AS (
               INSERT INTO request_events (request_id, at, kind, diff)
               SELECT request_id, $1, 'sla_breached', jsonb_build_object('policy', jsonb_build_array(NULL, policy)) FROM marked
           )
           SELECT policy AS "policy!: _", count(*) AS "count!" FROM marked GROUP BY policy"#,
        now,
        limit
    );
    telemetry.run(DbOperation::SlaBreach, query.fetch_all(pg)).await
}

/// Requests that were offered before `before` and not answered, the oldest first.
///
/// # Errors
/// As the database.
pub async fn unanswered_offers(db: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Vec<i64>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM requests WHERE status = 'offered' AND deleted_at IS NULL AND state_changed_at <= $1
          ORDER BY state_changed_at, id LIMIT $2",
        before,
        limit
    );
    telemetry.run(DbOperation::SlaUnansweredOffers, query.fetch_all(pg)).await
}

/// A page of requests that nobody moves, those stuck longest first; one row more than the limit when
/// there is more.
///
/// # Errors
/// As the database.
pub async fn stuck(
    db: &mut Conn,
    caller: &Caller,
    now: DateTime<Utc>,
    offer_timeout_s: u32,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<StuckRequest>, DbError> {
    let (pg, telemetry) = db.parts();
    // City by city, each in the order of its index: of a list of cities an index has no order.
    let query = sqlx::query_as!(
        StuckRequest,
        r#"WITH found AS (
               (SELECT s.* FROM stuck_requests($1, make_interval(secs => $2)) s
                 WHERE $3::bigint[] IS NULL AND ($4::bigint IS NULL OR s.master_id = $4)
                   AND ($5::timestamptz IS NULL OR (s.since, s.id) > ($5, $6))
                 ORDER BY s.since, s.id LIMIT $7)
               UNION ALL
               (SELECT s.* FROM unnest($3) AS own (city_id) CROSS JOIN LATERAL
                    (SELECT * FROM stuck_requests($1, make_interval(secs => $2)) s
                      WHERE s.city_id = own.city_id AND ($5::timestamptz IS NULL OR (s.since, s.id) > ($5, $6))
                      ORDER BY s.since, s.id LIMIT $7) AS s)
           )
           SELECT s.id AS "id!", s.version AS "version!", s.status AS "status!: _", t.code AS "type", s.city_id AS "city_id!",
                  ci.code AS city, s.master_id, s.why AS "why!: _", s.since AS "since!"
             FROM found s JOIN cities ci ON ci.id = s.city_id JOIN request_types t ON t.id = s.type_id
            ORDER BY s.since, s.id LIMIT $7"#,
        now,
        f64::from(offer_timeout_s),
        caller.city_filter() as _,
        caller.master_filter(),
        after.map(|cursor| cursor.at),
        after.map(|cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::RequestStuck, query.fetch_all(pg)).await
}
