//! SQL of calls and of the webhook inbox.

use chrono::{DateTime, Utc};

use super::{
    facts::{CallFacts, CallResult, Direction},
    model::{CallView, Triage},
    providers::{Identity, Provider},
};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation},
    http::cursor::Cursor,
};

/// `SELECT` of a [`CallView`] with the given tail. A call in triage that has no city belongs to everybody
/// who handles calls: if nobody saw it, the lead would be lost.
macro_rules! select_call {
    ($tail:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            CallView,
            r#"SELECT k.id, k.provider AS "provider: _", k.direction AS "direction: _",
                      COALESCE(k.from_e164, k.from_raw) AS "from", k.to_raw AS "to", COALESCE(k.line_e164, k.line_raw) AS line,
                      k.operator_extension, k.request_id, k.city_id, ca.code AS "campaign?", k.received_at, k.started_at,
                      k.answered_at, k.ended_at, k.talk_s, k.wait_s, k.result AS "result: _", k.cause, k.triage AS "triage: _",
                      COALESCE((SELECT jsonb_agg(jsonb_build_object('id', rc.id, 'status', rc.status, 'at', rc.at,
                                                                    'mime', rc.mime, 'bytes', rc.bytes) ORDER BY rc.at, rc.id)
                                  FROM recordings rc WHERE rc.provider = k.provider AND rc.call_key = k.call_key),
                               '[]') AS "recordings!: _"
                 FROM calls k LEFT JOIN advertising_campaigns ca ON ca.id = k.campaign_id
                WHERE ($1::bigint[] IS NULL OR k.city_id = ANY($1) OR (k.city_id IS NULL AND k.triage IS NOT NULL)) "# + $tail,
            $($argument),*
        )
    };
}

/// One call in the caller's scope.
///
/// # Errors
/// As the database.
pub async fn by_id(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<CallView>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_call!("AND k.id = $2", caller.city_filter() as _, id);
    telemetry.run(DbOperation::CallById, query.fetch_optional(pg)).await
}

/// The same, locked until the transaction ends; in two statements, as [`crate::requests::store::lock`].
///
/// # Errors
/// As the database.
pub async fn lock(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<CallView>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!("SELECT id FROM calls WHERE id = $1 FOR NO KEY UPDATE", id);
    match telemetry.run(DbOperation::CallLock, query.fetch_optional(pg)).await? {
        Some(id) => by_id(db, caller, id).await,
        None => Ok(None),
    }
}

/// Filters of a list of calls.
#[derive(Debug, Default)]
pub struct Filter {
    pub result: Option<CallResult>,
    pub direction: Option<Direction>,
    pub phone: Option<String>,
    pub request: Option<i64>,
    /// Only calls in triage.
    pub triage: bool,
    pub after: Option<Cursor>,
    pub limit: i64,
}

/// A page of calls in the caller's scope, newest first; one row more than the limit when there is
/// more.
///
/// # Errors
/// As the database.
pub async fn list(db: &mut Conn, caller: &Caller, filter: &Filter) -> Result<Vec<CallView>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_call!(
        "AND ($2::text IS NULL OR k.result = $2)
         AND ($3::text IS NULL OR k.direction = $3)
         AND ($4::text IS NULL OR k.from_e164 = $4)
         AND ($5::bigint IS NULL OR k.request_id = $5)
         AND (NOT $6 OR k.triage IS NOT NULL)
         AND ($7::timestamptz IS NULL OR (k.received_at, k.id) < ($7, $8))
         ORDER BY k.received_at DESC, k.id DESC LIMIT $9",
        caller.city_filter() as _,
        filter.result.map(CallResult::as_str),
        filter.direction.map(Direction::as_str),
        filter.phone,
        filter.request,
        filter.triage,
        filter.after.map(|cursor| cursor.at),
        filter.after.map(|cursor| cursor.id),
        filter.limit + 1
    );
    telemetry.run(DbOperation::CallList, query.fetch_all(pg)).await
}

/// Links a call to a service request, which takes it out of triage.
///
/// # Errors
/// As the database.
pub async fn link(db: &mut Conn, call_id: i64, request_id: i64, city_id: i64) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE calls SET request_id = $2, triage = NULL, city_id = COALESCE(city_id, $3) WHERE id = $1",
        call_id,
        request_id,
        city_id
    );
    telemetry.run(DbOperation::CallLink, query.execute(pg)).await.map(drop)
}

/// Stores a verified event; `false` when it was stored before.
///
/// # Errors
/// As the database; the provider must then be told to try again.
pub async fn insert_event(
    db: &mut Conn,
    provider: Provider,
    kind: &str,
    identity: &Identity,
    payload: &str,
    traceparent: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO webhook_events (provider, kind, event_key, call_key, payload, next_attempt_at, received_at, traceparent)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7) ON CONFLICT (provider, event_key) DO NOTHING",
        provider.as_str(),
        kind,
        identity.event_key,
        identity.call_key,
        payload,
        now,
        traceparent
    );
    telemetry.run(DbOperation::WebhookInsert, query.execute(pg)).await.map(|done| done.rows_affected() == 1)
}

/// An event taken from the inbox.
#[derive(Debug)]
pub struct InboxEvent {
    pub id: i64,
    pub provider: Provider,
    pub kind: String,
    pub payload: String,
    pub attempts: i32,
    pub received_at: DateTime<Utc>,
    pub traceparent: Option<String>,
}

/// Takes the oldest pending event that no other worker holds; it stays locked until the transaction
/// ends.
///
/// # Errors
/// As the database.
pub async fn claim_event(db: &mut Conn, now: DateTime<Utc>) -> Result<Option<InboxEvent>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        InboxEvent,
        r#"SELECT id, provider AS "provider: _", kind, payload, attempts, received_at, traceparent
             FROM webhook_events WHERE status = 'pending' AND next_attempt_at <= $1
            ORDER BY next_attempt_at, id LIMIT 1 FOR UPDATE SKIP LOCKED"#,
        now
    );
    telemetry.run(DbOperation::WebhookClaim, query.fetch_optional(pg)).await
}

/// Everything received about a call, whether processed or not: kind and payload.
///
/// # Errors
/// As the database.
pub async fn events_of_call(
    db: &mut Conn,
    provider: Provider,
    call_key: &str,
) -> Result<Vec<(String, String)>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "SELECT kind, payload FROM webhook_events WHERE provider = $1 AND call_key = $2 AND status <> 'failed'",
        provider.as_str(),
        call_key
    )
    .map(|row| (row.kind, row.payload));
    telemetry.run(DbOperation::WebhookOfCall, query.fetch_all(pg)).await
}

/// Marks an event as dealt with; `false` when another worker has done so meanwhile.
///
/// # Errors
/// As the database.
pub async fn finish_event(
    db: &mut Conn,
    id: i64,
    status: &str,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE webhook_events SET status = $2, error = $3, processed_at = $4 WHERE id = $1 AND status = 'pending'",
        id,
        status,
        error,
        now
    );
    telemetry.run(DbOperation::WebhookFinish, query.execute(pg)).await.map(|done| done.rows_affected() == 1)
}

/// Puts an event off after a failure; `attempts` is how many have failed by its own fault.
///
/// # Errors
/// As the database.
pub async fn postpone_event(
    db: &mut Conn,
    id: i64,
    attempts: i32,
    error: &str,
    until: DateTime<Utc>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE webhook_events SET attempts = $2, error = $3, next_attempt_at = $4 WHERE id = $1 AND status = 'pending'",
        id,
        attempts,
        error,
        until
    );
    telemetry.run(DbOperation::WebhookFinish, query.execute(pg)).await.map(drop)
}

/// Events waiting in the inbox, by provider.
///
/// # Errors
/// As the database.
pub async fn backlog(db: &mut Conn) -> Result<Vec<(Provider, i64)>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"SELECT provider AS "provider: Provider", count(*) AS "waiting!" FROM webhook_events WHERE status = 'pending' GROUP BY provider"#
    )
    .map(|row| (row.provider, row.waiting));
    telemetry.run(DbOperation::WebhookBacklog, query.fetch_all(pg)).await
}

/// What is already decided about a call.
#[derive(Debug, Default)]
pub struct Known {
    /// Its service request.
    pub request_id: Option<i64>,
    /// Why it waits in triage.
    pub triage: Option<Triage>,
    /// Whether it is known to be over.
    pub is_over: bool,
    /// When its first event came in; `None` when none has.
    pub received_at: Option<DateTime<Utc>>,
}

/// Locks a call, whether it is stored yet or not, until the transaction ends, and tells what is known.
/// Workers with events of one call queue here.
///
/// # Errors
/// As the database.
pub async fn lock_by_key(db: &mut Conn, provider: Provider, call_key: &str) -> Result<Option<Known>, DbError> {
    let (pg, telemetry) = db.parts();
    let key = format!("call:{}:{call_key}", provider.as_str());
    let query = sqlx::query_scalar!(
        r#"SELECT true AS "locked!" FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS held"#,
        key
    );
    telemetry.run(DbOperation::CallLock, query.fetch_one(pg)).await?;
    // A statement of its own: its snapshot must be younger than the lock. It locks the row too, because
    // a person who links the call takes only that.
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Known,
        r#"SELECT request_id, triage AS "triage: _", result IS NOT NULL AS "is_over!", received_at AS "received_at?"
             FROM calls WHERE provider = $1 AND call_key = $2 FOR NO KEY UPDATE"#,
        provider.as_str(),
        call_key
    );
    telemetry.run(DbOperation::CallLock, query.fetch_optional(pg)).await
}

/// The campaign that advertises a line.
#[derive(Debug)]
pub struct LineCampaign {
    /// Campaign id.
    pub id: i64,
    /// City id.
    pub city_id: i64,
    /// Code of the city.
    pub city: String,
}

/// Finds the campaign of a line.
///
/// # Errors
/// As the database.
pub async fn campaign_by_line(db: &mut Conn, line_e164: &str) -> Result<Option<LineCampaign>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        LineCampaign,
        "SELECT ca.id, ca.city_id, ci.code AS city
           FROM campaign_numbers n JOIN advertising_campaigns ca ON ca.id = n.campaign_id JOIN cities ci ON ci.id = ca.city_id
          WHERE n.phone_e164 = $1",
        line_e164
    );
    telemetry.run(DbOperation::CampaignByLine, query.fetch_optional(pg)).await
}

/// A call to be stored.
#[derive(Debug)]
pub struct CallRow<'a> {
    pub provider: Provider,
    pub call_key: &'a str,
    pub facts: &'a CallFacts,
    pub from_e164: Option<&'a str>,
    pub line_e164: Option<&'a str>,
    pub request_id: Option<i64>,
    pub city_id: Option<i64>,
    pub campaign_id: Option<i64>,
    pub triage: Option<Triage>,
    pub received_at: DateTime<Utc>,
}

/// Stores what is known of a call. What people decided (its request, its triage) is not undone.
///
/// # Errors
/// As the database.
pub async fn upsert(db: &mut Conn, row: &CallRow<'_>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let facts = row.facts;
    let query = sqlx::query!(
        "INSERT INTO calls (provider, call_key, request_id, city_id, campaign_id, direction, from_raw, from_e164, to_raw,
                            line_raw, line_e164, operator_extension, received_at, started_at, answered_at, ended_at,
                            talk_s, wait_s, result, cause, triage)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
         ON CONFLICT (provider, call_key) DO UPDATE SET
             request_id = excluded.request_id, city_id = COALESCE(excluded.city_id, calls.city_id),
             campaign_id = COALESCE(excluded.campaign_id, calls.campaign_id), direction = excluded.direction,
             from_raw = excluded.from_raw, from_e164 = excluded.from_e164, to_raw = excluded.to_raw,
             line_raw = excluded.line_raw, line_e164 = excluded.line_e164, operator_extension = excluded.operator_extension,
             received_at = LEAST(calls.received_at, excluded.received_at), started_at = excluded.started_at,
             answered_at = excluded.answered_at, ended_at = excluded.ended_at, talk_s = excluded.talk_s,
             wait_s = excluded.wait_s, result = excluded.result, cause = excluded.cause, triage = excluded.triage",
        row.provider.as_str(),
        row.call_key,
        row.request_id,
        row.city_id,
        row.campaign_id,
        facts.direction.as_str(),
        facts.from,
        row.from_e164,
        facts.to,
        facts.line,
        row.line_e164,
        facts.operator_extension,
        row.received_at,
        facts.started_at,
        facts.answered_at,
        facts.ended_at,
        facts.talk_seconds,
        facts.wait_seconds,
        facts.result.map(CallResult::as_str),
        facts.cause,
        row.triage.map(Triage::as_str)
    );
    telemetry.run(DbOperation::CallUpsert, query.execute(pg)).await.map(drop)
}
