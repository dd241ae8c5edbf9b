//! SQL of service requests. Every query that a caller's eyes or hands depend on takes the caller's
//! scope and applies it at the root: what lies outside does not exist.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder};

use super::{
    model::{Comment, Event, EventKind, RequestView, Source},
    query::{Filter, Search},
    state::Status,
};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation, Rows},
    http::cursor::Cursor,
    sla::{
        model::Policy,
        timers::{self, Change},
    },
};

/// What a [`RequestView`] is read from: what stands between the two is called `r`, with the columns of `requests`.
const VIEW: [&str; 2] = [
    "SELECT r.id, r.version, r.status, r.source, t.code AS type, d.code AS direction, r.city_id, ci.code AS city,
            ca.code AS campaign, c.phone_e164 AS client_phone, r.client_name, r.description, r.address,
            r.callback_at, r.meeting_at, r.resume_at, r.master_id, r.created_at, r.updated_at,
            r.first_response_at, r.assigned_at, r.escalated_at, r.closed_at,
            r.result, r.expenses, r.net, r.handover
       FROM ",
    " r
       JOIN clients c ON c.id = r.client_id
       JOIN cities ci ON ci.id = r.city_id
       JOIN request_types t ON t.id = r.type_id
       LEFT JOIN directions d ON d.id = r.direction_id
       LEFT JOIN advertising_campaigns ca ON ca.id = r.campaign_id ",
];

/// One request in the caller's scope.
///
/// # Errors
/// As the database.
pub async fn by_id(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<RequestView>, DbError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        VIEW.join("requests")
            + "WHERE r.id = $1 AND r.deleted_at IS NULL
                 AND ($2::bigint[] IS NULL OR r.city_id = ANY($2)) AND ($3::bigint IS NULL OR r.master_id = $3)"
    });
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as::<_, RequestView>(AssertSqlSafe(SQL.as_str()));
    let query = query.bind(id).bind(caller.city_filter()).bind(caller.master_filter());
    telemetry.run(DbOperation::RequestById, query.fetch_optional(pg)).await
}

/// The same, locked until the transaction ends.
///
/// Two statements: a locking read that has waited sees the new version of the row it locks, but of
/// the rows joined to it only the old ones. NO KEY: rows that refer to this one, such as the history
/// of a call that joins it, can be inserted meanwhile; else the inbox and an edit could wait for each
/// other.
///
/// # Errors
/// As the database.
pub async fn lock(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<RequestView>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM requests
          WHERE id = $1 AND deleted_at IS NULL
            AND ($2::bigint[] IS NULL OR city_id = ANY($2)) AND ($3::bigint IS NULL OR master_id = $3)
            FOR NO KEY UPDATE",
        id,
        caller.city_filter() as _,
        caller.master_filter()
    );
    match telemetry.run(DbOperation::RequestLock, query.fetch_optional(pg)).await? {
        Some(id) => by_id(db, caller, id).await,
        None => Ok(None),
    }
}

/// A request that was offered before `before` and not answered since, locked until the transaction
/// ends; `None` too when somebody else holds it. For the system, which has no scope.
///
/// # Errors
/// As the database.
pub async fn lock_unanswered(db: &mut Conn, id: i64, before: DateTime<Utc>) -> Result<Option<RequestView>, DbError> {
    static SQL: LazyLock<String> = LazyLock::new(|| VIEW.join("requests") + "WHERE r.id = $1");
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM requests
          WHERE id = $1 AND status = 'offered' AND deleted_at IS NULL AND state_changed_at <= $2
            FOR NO KEY UPDATE SKIP LOCKED",
        id,
        before
    );
    let Some(id) = telemetry.run(DbOperation::RequestLock, query.fetch_optional(pg)).await? else { return Ok(None) };
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as::<_, RequestView>(AssertSqlSafe(SQL.as_str())).bind(id);
    telemetry.run(DbOperation::RequestById, query.fetch_optional(pg)).await
}

/// A page of requests in the caller's scope, newest first; one row more than the limit when there
/// is more.
///
/// # Errors
/// As the database.
pub async fn list(db: &mut Conn, caller: &Caller, filter: &Filter) -> Result<Vec<RequestView>, DbError> {
    let (pg, telemetry) = db.parts();
    let mut query = newest(caller, filter);
    let query = query.build_query_as::<RequestView>();
    telemetry.run(DbOperation::RequestList, query.fetch_all(pg)).await
}

/// The statement has the conditions that there are and no others, so that a plan made once suits whoever asks for the
/// same. Only the page's rows are joined to what they refer to.
fn newest<'a>(caller: &'a Caller, filter: &'a Filter) -> QueryBuilder<Postgres> {
    const ORDER: &str = " ORDER BY r.created_at DESC, r.id DESC";
    let limit = filter.limit + 1;
    let mut query = QueryBuilder::new(VIEW[0]);
    match caller.city_filter() {
        // The newest of each city, and of these the newest: an index has either in order, whatever the city's size.
        Some(cities) if cities.len() > 1 && filter.is_plain() && filter.city.is_none() => {
            query.push("(SELECT r.* FROM unnest(").push_bind(cities.to_vec());
            query.push(
                "::bigint[]) AS own (city_id) CROSS JOIN LATERAL (SELECT r.* FROM requests r WHERE r.city_id = own.city_id",
            );
            conditions(&mut query, caller, filter);
            query.push(ORDER).push(" LIMIT ").push_bind(limit).push(") r");
        }
        cities => {
            query.push("(SELECT r.* FROM requests r WHERE ");
            match cities {
                None => query.push("true"),
                Some([city]) => query.push("r.city_id = ").push_bind(*city),
                Some(cities) => query.push("r.city_id = ANY(").push_bind(cities.to_vec()).push(")"),
            };
            conditions(&mut query, caller, filter);
        }
    }
    query.push(ORDER).push(" LIMIT ").push_bind(limit).push(")").push(VIEW[1]).push(ORDER);
    query
}

/// What the filter and the caller's scope ask of a row, but for the scope's cities.
fn conditions(query: &mut QueryBuilder<Postgres>, caller: &Caller, filter: &Filter) {
    /// Service requests of clients with such a phone.
    const OF_CLIENTS: &str =
        "r.client_id = ANY (ARRAY(SELECT id FROM clients WHERE anonymised_at IS NULL AND reverse(phone_e164) LIKE ";
    query.push(" AND r.deleted_at IS NULL");
    for (column, value) in [
        ("master_id", caller.master_filter()),
        ("city_id", filter.city),
        ("master_id", filter.master),
        ("type_id", filter.kind),
        ("campaign_id", filter.campaign),
    ] {
        if let Some(value) = value {
            query.push(format_args!(" AND r.{column} = ")).push_bind(value);
        }
    }
    if let Some(statuses) = &filter.statuses {
        query.push(" AND r.status = ANY(").push_bind(statuses.clone()).push(")");
    }
    for (limit, value) in [(">=", filter.created_from), ("<", filter.created_to)] {
        if let Some(value) = value {
            query.push(format_args!(" AND r.created_at {limit} ")).push_bind(value);
        }
    }
    if let Some(phone) = &filter.phone {
        query.push(" AND ").push(OF_CLIENTS).push_bind(phone.clone()).push(" LIMIT 500))");
    }
    let Search { given, words, number, phone } = &filter.search;
    if *given {
        query.push(" AND (false");
        if let Some(words) = words {
            query.push(" OR r.search @@ to_tsquery('simple', ").push_bind(words.clone()).push(")");
        }
        if let Some(number) = number {
            query.push(" OR r.id = ").push_bind(*number);
        }
        if let Some(phone) = phone {
            query.push(" OR ").push(OF_CLIENTS).push_bind(phone.clone()).push(" LIMIT 500))");
        }
        query.push(")");
    }
    if let Some(after) = &filter.after {
        query.push(" AND (r.created_at, r.id) < (").push_bind(after.at).push(", ").push_bind(after.id).push(")");
    }
}

/// A service request to be created.
#[derive(Debug)]
pub struct NewRow<'a> {
    /// Of [`upsert_client`].
    pub client_id: i64,
    /// Code of the city.
    pub city: &'a str,
    /// Code of the request type; by the client's history when missing.
    pub kind: Option<&'a str>,
    /// Code of the field of work.
    pub direction: Option<&'a str>,
    /// Advertising campaign.
    pub campaign_id: Option<i64>,
    /// How it came about.
    pub source: Source,
    /// The client's name; that of their last request in this city when missing.
    pub client_name: Option<&'a str>,
    /// What is broken.
    pub description: Option<&'a str>,
    /// Where to go.
    pub address: Option<&'a str>,
    /// Who typed it in.
    pub created_by: Option<i64>,
    /// When it came into being.
    pub at: DateTime<Utc>,
}

/// What of a created request its metrics and its creator need.
#[derive(Clone, Debug)]
pub struct CreatedRow {
    /// Its number.
    pub id: i64,
    /// Code of its type.
    pub kind: String,
}

impl Rows for CreatedRow {}
impl Rows for Comment {}

/// Creates a request in state `new`, with its history entry and its SLA timers.
///
/// # Errors
/// As the database.
pub async fn insert(db: &mut Conn, row: &NewRow<'_>) -> Result<CreatedRow, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        CreatedRow,
        r#"WITH kind AS (
               SELECT id, code FROM request_types
                WHERE code = COALESCE($3, CASE WHEN EXISTS (SELECT FROM requests WHERE client_id = $1) THEN 'repeat' ELSE 'first_time' END)
           ), created AS (
               INSERT INTO requests (client_id, city_id, type_id, direction_id, campaign_id, source, status,
                                     description, address, created_by, created_at, updated_at, client_name)
               SELECT $1, ci.id, kind.id, (SELECT id FROM directions WHERE code = $4), $5, $6, 'new', $7, $8, $9, $10, $10,
                      COALESCE($11, (SELECT known.client_name FROM requests known
                                      WHERE known.client_id = $1 AND known.city_id = ci.id AND known.deleted_at IS NULL
                                        AND known.client_name IS NOT NULL
                                      ORDER BY known.created_at DESC, known.id DESC LIMIT 1))
                 FROM cities ci, kind WHERE ci.code = $2
               RETURNING id
           ), noted AS (
               INSERT INTO request_events (request_id, at, actor_id, kind, to_status)
               SELECT id, $10, $9, 'created', 'new' FROM created
           ), promised AS (
               INSERT INTO sla_timers (request_id, policy, started_at, due_at)
               SELECT created.id, p.policy, $10, $10 + p.target_s * interval '1 second'
                 FROM created, kind JOIN sla_policies p ON p.type_id = kind.id
           )
           SELECT created.id, kind.code AS kind FROM created, kind"#,
        row.client_id,
        row.city,
        row.kind,
        row.direction,
        row.campaign_id,
        row.source.as_str(),
        row.description,
        row.address,
        row.created_by,
        row.at,
        row.client_name
    );
    telemetry.run(DbOperation::RequestInsert, query.fetch_one(pg)).await
}

/// The client with this phone, created if new, and *locked* until the transaction ends: calls of one
/// client queue here.
///
/// # Errors
/// As the database.
pub async fn upsert_client(db: &mut Conn, phone_e164: &str, now: DateTime<Utc>) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    // An update that changes nothing: DO NOTHING would return no row, and lock none.
    let query = sqlx::query_scalar!(
        "INSERT INTO clients (phone_e164, created_at) VALUES ($1, $2)
         ON CONFLICT (phone_e164) DO UPDATE SET phone_e164 = excluded.phone_e164 RETURNING id",
        phone_e164,
        now
    );
    telemetry.run(DbOperation::ClientUpsert, query.fetch_one(pg)).await
}

/// The newest unfinished request of a client that was created after `since`. It is not locked: a
/// person may be working on it.
///
/// # Errors
/// As the database.
pub async fn open_of_client(db: &mut Conn, client_id: i64, since: DateTime<Utc>) -> Result<Option<i64>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM requests
          WHERE client_id = $1 AND created_at > $2 AND deleted_at IS NULL AND closed_at IS NULL
          ORDER BY created_at DESC, id DESC LIMIT 1",
        client_id,
        since
    );
    telemetry.run(DbOperation::RequestOpenOfClient, query.fetch_optional(pg)).await
}

/// Writes everything that can change, and raises the version. The row must be locked.
///
/// # Errors
/// As the database; a state without what it needs violates a `requests_*` constraint.
pub async fn save(db: &mut Conn, request: &RequestView) -> Result<i32, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "UPDATE requests SET version = version + 1, status = $2,
                type_id = (SELECT id FROM request_types WHERE code = $3),
                direction_id = (SELECT id FROM directions WHERE code = $4),
                description = $5, address = $6, callback_at = $7, meeting_at = $8, resume_at = $9, master_id = $10,
                updated_at = $11, first_response_at = $12, assigned_at = $13, escalated_at = $14, closed_at = $15,
                result = $16, expenses = $17, net = $18, handover = $19, client_name = $20
          WHERE id = $1 RETURNING version",
        request.id,
        request.status.as_str(),
        request.r#type,
        request.direction,
        request.description,
        request.address,
        request.callback_at,
        request.meeting_at,
        request.resume_at,
        request.master_id,
        request.updated_at,
        request.first_response_at,
        request.assigned_at,
        request.escalated_at,
        request.closed_at,
        request.result,
        request.expenses,
        request.net,
        request.handover,
        request.client_name
    );
    let version = telemetry.run(DbOperation::RequestUpdate, query.fetch_optional(pg)).await?;
    version.ok_or(DbError::Sql(sqlx::Error::RowNotFound))
}

/// Deletes softly. The row must be locked.
///
/// # Errors
/// As the database.
pub async fn delete(db: &mut Conn, id: i64, now: DateTime<Utc>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE requests SET version = version + 1, deleted_at = $2, updated_at = $2 WHERE id = $1",
        id,
        now
    );
    telemetry.run(DbOperation::RequestUpdate, query.execute(pg)).await.map(drop)
}

/// A history entry to be written.
#[derive(Debug)]
pub struct NewEvent<'a> {
    /// Whose history.
    pub request_id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; `None` is the system.
    pub actor_id: Option<i64>,
    /// What.
    pub kind: EventKind,
    /// For transitions.
    pub moved: Option<(Status, Status)>,
    /// Why.
    pub reason: Option<&'a str>,
    /// Changed fields.
    pub diff: Value,
}

/// Appends to a history, and does to the SLA timers what the event does to them.
///
/// # Errors
/// As the database.
pub async fn append_event(db: &mut Conn, event: &NewEvent<'_>) -> Result<(), DbError> {
    let change = match event.moved {
        Some((from, to)) => timers::change(from, to),
        None if event.kind == EventKind::Deleted => Some(Change::CANCEL),
        None => None,
    };
    let (meets, cancels, pauses) = match change {
        Some(Change::Running { meets, cancels, pauses }) => (meets, cancels, pauses),
        Some(Change::Restart) | None => (None, false, false),
    };
    let (pg, telemetry) = db.parts();
    // Another replica's clock may be a little ahead of ours: a pause is never negative.
    let query = sqlx::query!(
        "WITH running AS (
             UPDATE sla_timers SET
                    due_at = due_at + GREATEST(COALESCE($2 - paused_at, '0'), '0'),
                    paused_total = paused_total + GREATEST(COALESCE($2 - paused_at, '0'), '0'),
                    met_at = CASE WHEN policy IS NOT DISTINCT FROM $10 THEN $2 END,
                    cancelled_at = CASE WHEN policy IS DISTINCT FROM $10 AND $11 THEN $2 END,
                    paused_at = CASE WHEN policy IS DISTINCT FROM $10 AND $12 THEN $2 END
              WHERE $9 AND request_id = $1 AND met_at IS NULL AND cancelled_at IS NULL
         ), restarted AS (
             UPDATE sla_timers t SET
                    started_at = $2, due_at = $2 + p.target_s * interval '1 second', paused_total = '0',
                    paused_at = NULL, met_at = NULL, cancelled_at = NULL, breached_at = NULL
               FROM requests r JOIN sla_policies p ON p.type_id = r.type_id
              WHERE $13 AND t.request_id = $1 AND r.id = $1 AND p.policy = t.policy
                AND (t.policy = 'completion' OR t.cancelled_at IS NOT NULL)
         )
         INSERT INTO request_events (request_id, at, actor_id, kind, from_status, to_status, reason, diff)
         VALUES ($1, $2::timestamptz, $3, $4, $5, $6, $7, $8)",
        event.request_id,
        event.at,
        event.actor_id,
        event.kind.as_str(),
        event.moved.map(|(from, _)| from.as_str()),
        event.moved.map(|(_, to)| to.as_str()),
        event.reason,
        event.diff,
        matches!(change, Some(Change::Running { .. })),
        meets.map(Policy::as_str),
        cancels,
        pauses,
        change == Some(Change::Restart)
    );
    telemetry.run(DbOperation::RequestEventInsert, query.execute(pg)).await.map(drop)
}

/// A page of a request's history, oldest first; one row more than the limit when there is more. The
/// caller's scope was applied to the request before.
///
/// # Errors
/// As the database.
pub async fn history(db: &mut Conn, request_id: i64, after: Option<Cursor>, limit: i64) -> Result<Vec<Event>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Event,
        r#"SELECT id, at, actor_id, kind AS "kind: _", from_status AS "from: _", to_status AS "to: _", reason, diff
             FROM request_events WHERE request_id = $1 AND id > $2 ORDER BY id LIMIT $3"#,
        request_id,
        after.map_or(0, |cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::RequestEventList, query.fetch_all(pg)).await
}

/// Writes a comment.
///
/// # Errors
/// As the database.
pub async fn insert_comment(
    db: &mut Conn,
    request_id: i64,
    author_id: i64,
    body: &str,
    now: DateTime<Utc>,
) -> Result<Comment, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Comment,
        "INSERT INTO request_comments (request_id, author_id, at, body) VALUES ($1, $2, $3, $4) RETURNING id, author_id, at, body",
        request_id,
        author_id,
        now,
        body
    );
    telemetry.run(DbOperation::CommentInsert, query.fetch_one(pg)).await
}

/// A page of the comments on a request, oldest first; one row more than the limit when there is more.
///
/// # Errors
/// As the database.
pub async fn comments(
    db: &mut Conn,
    request_id: i64,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Comment>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Comment,
        "SELECT id, author_id, at, body FROM request_comments WHERE request_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        request_id,
        after.map_or(0, |cursor| cursor.id),
        limit + 1
    );
    telemetry.run(DbOperation::CommentList, query.fetch_all(pg)).await
}

/// Whether a user is an active master of a city, which they then stay until the transaction ends.
///
/// # Errors
/// As the database.
pub async fn is_master_of_city(db: &mut Conn, user_id: i64, city_id: i64) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    // Whoever removes a master holds the row while counting what the master holds: see users::flow.
    let lock = sqlx::query_scalar!("SELECT id FROM users WHERE id = $1 FOR SHARE", user_id);
    telemetry.run(DbOperation::MasterLock, lock.fetch_optional(&mut *pg)).await?;
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM users u JOIN user_cities uc ON uc.user_id = u.id JOIN master_profiles p ON p.user_id = u.id
                           WHERE u.id = $1 AND u.role = 'master' AND u.status = 'active' AND uc.city_id = $2) AS "is!""#,
        user_id,
        city_id
    );
    telemetry.run(DbOperation::MasterForAssignment, query.fetch_one(pg)).await
}

/// The part of a net that a master hands over.
///
/// # Errors
/// As the database.
pub async fn master_share(db: &mut Conn, user_id: i64) -> Result<Option<Decimal>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!("SELECT share FROM master_profiles WHERE user_id = $1", user_id);
    telemetry.run(DbOperation::MasterShare, query.fetch_optional(pg)).await
}
