//! SQL of live events.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::{
    gaps::{Seen, Writers},
    model::EventRow,
};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation, Rows},
};

/// How far below the newest event a transaction that is still running may have taken an id for the
/// tailer to know of it when it starts.
const LOOK_BACK: i64 = 100_000;

/// Who is writing to `request_events`: they may have taken ids that nobody can see yet.
///
/// # Errors
/// As the database.
pub async fn writers(db: &mut Conn) -> Result<HashSet<String>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT virtualtransaction AS "writer!" FROM pg_locks
            WHERE locktype = 'relation' AND relation = 'request_events'::regclass AND mode = 'RowExclusiveLock' AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"#
    );
    let writers = telemetry.run(DbOperation::EventWriters, query.fetch_all(pg)).await?;
    Ok(writers.into_iter().collect())
}

/// What there is now: the newest event, and what those who are writing may yet put below it.
///
/// # Errors
/// As the database.
pub async fn start(db: &mut Conn) -> Result<Seen, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(r#"SELECT COALESCE(max(id), 0) AS "newest!" FROM request_events"#);
    let newest = telemetry.run(DbOperation::EventStart, query.fetch_one(pg)).await?;
    // Asked after, so that whoever has taken a lower id is among them, or can be seen.
    let writers: Writers = writers(db).await?.into();
    if writers.is_empty() {
        return Ok(Seen::up_to(newest, [], &writers));
    }
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"SELECT before + 1 AS "low!", id - 1 AS "high!"
             FROM (SELECT id, lag(id, 1, GREATEST($1::bigint - $2::bigint, 0)) OVER (ORDER BY id) AS before
                     FROM request_events WHERE id > $1 - $2 AND id <= $1) AS seen
            WHERE id > before + 1 ORDER BY id"#,
        newest,
        LOOK_BACK
    );
    let gaps = telemetry.run(DbOperation::EventStart, query.fetch_all(pg)).await?;
    Ok(Seen::up_to(newest, gaps.into_iter().map(|gap| (gap.low, gap.high)), &writers))
}

/// Columns of an [`EventRow`] over events `e` and their requests `r`.
macro_rules! select_event {
    ($sql_before:literal, $sql_after:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            EventRow,
            $sql_before + r#"SELECT e.id AS "id!", e.request_id AS "request_id!", e.at AS "at!", e.actor_id, e.kind AS "kind!",
                      e.from_status AS "from", e.to_status AS "to", e.left_master, r.city_id AS "city_id!", r.master_id,
                      r.version AS "version!", r.status AS "status!", r.deleted_at IS NOT NULL AS "deleted!""# + $sql_after,
            $($argument),*
        )
    };
}

/// Events above the highest one seen, and in its gaps: at most `limit` of either, by id.
///
/// # Errors
/// As the database.
pub async fn tail(db: &mut Conn, seen: &Seen, limit: i64) -> Result<Vec<EventRow>, DbError> {
    let (low, high) = seen.gaps();
    let (pg, telemetry) = db.parts();
    let query = select_event!(
        "WITH found AS (
             (SELECT * FROM request_events WHERE id > $1 ORDER BY id LIMIT $4)
             UNION ALL
             (SELECT e.* FROM unnest($2::bigint[], $3::bigint[]) AS gap (low, high) CROSS JOIN LATERAL
                  (SELECT * FROM request_events WHERE id BETWEEN gap.low AND gap.high ORDER BY id LIMIT $4) AS e
               ORDER BY e.id LIMIT $4)
         ), told AS (
             SELECT *, CASE jsonb_typeof(diff #> '{master_id,0}')
                       WHEN 'number' THEN (diff #>> '{master_id,0}')::bigint END AS left_master FROM found
         ) ",
        " FROM told e JOIN requests r ON r.id = e.request_id ORDER BY e.id",
        seen.highest(),
        &low,
        &high,
        limit
    );
    telemetry.run(DbOperation::EventTail, query.fetch_all(pg)).await
}

/// A page of the events after `after` that the caller may know of, by id.
///
/// # Errors
/// As the database.
pub async fn backlog(db: &mut Conn, caller: &Caller, after: i64, limit: i64) -> Result<Vec<EventRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_event!(
        "WITH told AS (
             SELECT *, CASE jsonb_typeof(diff #> '{master_id,0}')
                       WHEN 'number' THEN (diff #>> '{master_id,0}')::bigint END AS left_master
               FROM request_events WHERE id > $1
         ) ",
        " FROM told e JOIN requests r ON r.id = e.request_id
         WHERE (r.deleted_at IS NULL OR e.kind = 'deleted')
           AND ($2::bigint[] IS NULL OR r.city_id = ANY($2))
           AND ($3::bigint IS NULL OR r.master_id = $3 OR e.left_master = $3)
         ORDER BY e.id LIMIT $4",
        after,
        caller.city_filter() as _,
        caller.master_filter(),
        limit
    );
    telemetry.run(DbOperation::EventBacklog, query.fetch_all(pg)).await
}

/// What somebody who was away has missed, whoever may see it.
#[derive(Debug)]
pub struct Missed {
    /// How many events, counted up to a limit.
    pub count: i64,
    /// When the first of them happened.
    pub oldest: Option<DateTime<Utc>>,
    /// The newest event there is.
    pub newest: i64,
}

impl Rows for Missed {}

/// Counts the events after `after`, up to `limit`.
///
/// # Errors
/// As the database.
pub async fn missed(db: &mut Conn, after: i64, limit: i64) -> Result<Missed, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Missed,
        r#"SELECT count(*) AS "count!", min(at) AS oldest, (SELECT COALESCE(max(id), 0) FROM request_events) AS "newest!"
             FROM (SELECT at FROM request_events WHERE id > $1 ORDER BY id LIMIT $2) AS missed"#,
        after,
        limit
    );
    telemetry.run(DbOperation::EventBacklog, query.fetch_one(pg)).await
}
