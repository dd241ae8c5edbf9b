//! SQL of the collector. Every statement of a round sees the same snapshot. Days are business days: those
//! of each city in its own time zone.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};

use crate::{
    auth::Role,
    db::{Conn, DbError, DbOperation, Rows, pool::Statements},
    reports::figures::{ActiveUsers, Figures, Open, Triage, Webhooks},
    requests::state::Status,
};

/// What was computed last.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    /// When it was true.
    pub taken_at: DateTime<Utc>,
    /// All of it.
    pub figures: Json<Figures>,
}

impl Rows for Stored {}
impl Rows for Webhooks {}

/// The stored figures; `None` before the first round.
///
/// # Errors
/// As the database.
pub async fn latest(db: &mut Conn) -> Result<Option<Stored>, DbError> {
    let (pg, telemetry) = db.parts();
    let query =
        sqlx::query_as!(Stored, r#"SELECT taken_at, figures AS "figures: Json<Figures>" FROM collector_snapshots"#);
    telemetry.run(DbOperation::CollectorRead, query.fetch_optional(pg)).await
}

/// Stores a round's figures in place of the last ones.
///
/// # Errors
/// As the database.
pub async fn keep(db: &mut Conn, taken_at: DateTime<Utc>, duration_s: f64, figures: Value) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO collector_snapshots (taken_at, duration_s, backend_pid, figures)
         VALUES ($1, $2, pg_backend_pid(), $3)
         ON CONFLICT (id) DO UPDATE SET
             taken_at = excluded.taken_at, duration_s = excluded.duration_s, backend_pid = excluded.backend_pid,
             figures = excluded.figures, rounds = collector_snapshots.rounds + 1",
        taken_at,
        duration_s,
        figures
    );
    telemetry.run(DbOperation::CollectorKeep, query.execute(pg)).await.map(drop)
}

/// Reads everything in one snapshot; users are at work whose sessions were refreshed since. If it fails the connection is left in its transaction, and must be
/// dropped.
///
/// # Errors
/// As the database.
pub async fn compute(
    db: &mut Conn,
    now: DateTime<Utc>,
    refreshed_since: DateTime<Utc>,
    offer_timeout_s: u32,
) -> Result<Figures, DbError> {
    let (pg, telemetry) = db.parts();
    let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    telemetry.run(DbOperation::Begin, begin.execute(&mut *pg)).await?;
    let figures = read(pg, telemetry, now, refreshed_since, offer_timeout_s).await?;
    telemetry.run(DbOperation::Commit, sqlx::raw_sql("COMMIT").execute(pg)).await?;
    Ok(figures)
}

/// A statement that begins with the cities and, for each, when its day of `$1` and the thirty days that
/// end with it began. `$2` lies before all of that: a constant, from which the planner learns how little
/// of the tables is asked for.
macro_rules! days {
    ($tail:literal, $now:ident) => {
        sqlx::query!(
            "WITH span AS MATERIALIZED (
                 SELECT id, code, day::timestamp AT TIME ZONE timezone AS today,
                        (day - 29)::timestamp AT TIME ZONE timezone AS since
                   FROM (SELECT id, code, timezone, ($1::timestamptz AT TIME ZONE timezone)::date AS day FROM cities) AS here
             ) " + $tail,
            $now,
            $now - TimeDelta::days(32)
        )
    };
}

async fn read(
    pg: &mut PgConnection,
    telemetry: Statements<'_>,
    now: DateTime<Utc>,
    refreshed_since: DateTime<Utc>,
    offer_timeout_s: u32,
) -> Result<Figures, DbError> {
    let mut figures = Figures::default();
    let operation = DbOperation::CollectorCompute;

    let query = sqlx::query!("SELECT id, code FROM cities");
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        figures.cities.entry(row.id).or_default().code = row.code;
    }

    let query = days!(
        r#"SELECT s.id AS "id!", r.created_at >= s.today AS "today!", r.source AS "source?", t.code AS "kind?", ca.code AS "campaign?",
                  count(*) AS "count!"
             FROM span s
             JOIN requests r ON r.city_id = s.id AND r.created_at >= s.since AND r.created_at >= $2 AND r.deleted_at IS NULL
             JOIN request_types t ON t.id = r.type_id
             LEFT JOIN advertising_campaigns ca ON ca.id = r.campaign_id
            GROUP BY s.id, 2, GROUPING SETS ((r.source), (t.code), (ca.code))"#,
        now
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let tally = figures.cities.entry(row.id).or_default().tally(row.today);
        let (group, key) = match (row.source, row.kind, row.campaign) {
            (Some(source), ..) => (&mut tally.created_by_source, source),
            (_, Some(kind), _) => (&mut tally.created_by_type, kind),
            (.., Some(campaign)) => (&mut tally.created_by_campaign, campaign),
            // Those without a campaign.
            (None, None, None) => continue,
        };
        group.insert(key, row.count);
    }

    // ln(1.05) is `figures::STEP`.
    let query = days!(
        r#"SELECT id AS "id!", today AS "today!", what AS "what!",
                  floor(ln(1 + GREATEST(extract(epoch FROM took)::float8, 0)) / ln(1.05::float8))::integer AS "step!", count(*) AS "count!"
             FROM (SELECT s.id, r.created_at >= s.today AS today, v.what, v.took
                     FROM span s
                     JOIN requests r ON r.city_id = s.id AND r.created_at >= s.since AND r.created_at >= $2 AND r.deleted_at IS NULL
                    CROSS JOIN LATERAL (VALUES ('first_response', r.first_response_at - r.created_at),
                                               ('assign', r.assigned_at - r.created_at)) AS v (what, took)
                   UNION ALL
                   SELECT s.id, r.closed_at >= s.today, 'completion', r.closed_at - r.created_at
                     FROM span s
                     JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at >= $2 AND r.deleted_at IS NULL
                    WHERE r.status = 'done') AS durations
            WHERE took IS NOT NULL
            GROUP BY id, today, what, 4"#,
        now
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let tally = figures.cities.entry(row.id).or_default().tally(row.today);
        let spread = match row.what.as_str() {
            "first_response" => &mut tally.first_response,
            "assign" => &mut tally.assign,
            _ => &mut tally.completion,
        };
        spread.0.insert(row.step, row.count);
    }

    let query = days!(
        r#"SELECT s.id, r.closed_at >= s.today AS "today!", count(*) FILTER (WHERE r.status = 'done') AS "done!",
                  count(*) FILTER (WHERE r.status = 'refused') AS "refused!",
                  count(*) FILTER (WHERE r.status = 'not_order') AS "not_order!", COALESCE(sum(r.result), 0) AS "result!"
             FROM span s
             JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at >= $2 AND r.deleted_at IS NULL
            GROUP BY s.id, 2"#,
        now
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let tally = figures.cities.entry(row.id).or_default().tally(row.today);
        (tally.done, tally.refused, tally.not_order) = (row.done, row.refused, row.not_order);
        tally.result = row.result;
    }
    // By the history: a timer of a request that is opened again starts anew and forgets.
    let query = days!(
        r#"SELECT s.id AS "id!", e.at >= s.today AS "today!", e.diff #>> '{policy,1}' AS "policy!", count(*) AS "count!"
             FROM request_events e
             JOIN requests r ON r.id = e.request_id AND r.deleted_at IS NULL
             JOIN span s ON s.id = r.city_id AND e.at >= s.since
            WHERE e.kind = 'sla_breached' AND e.at >= $2
            GROUP BY s.id, 2, 3"#,
        now
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        figures.cities.entry(row.id).or_default().tally(row.today).sla_breaches.insert(row.policy, row.count);
    }
    money(pg, telemetry, now, &mut figures).await?;
    calls(pg, telemetry, now, &mut figures).await?;
    present(pg, telemetry, now, refreshed_since, offer_timeout_s, &mut figures).await?;
    Ok(figures)
}

async fn money(
    pg: &mut PgConnection,
    telemetry: Statements<'_>,
    now: DateTime<Utc>,
    figures: &mut Figures,
) -> Result<(), DbError> {
    let operation = DbOperation::CollectorCompute;
    let query = days!(
        r#"SELECT s.id, t.at >= s.today AS "today!",
                  COALESCE(sum(t.amount) FILTER (WHERE tt.code = 'income' AND t.reverses_id IS NULL), 0) AS "revenue!",
                  COALESCE(-sum(t.amount) FILTER (WHERE ot.code = 'income'), 0) AS "refunds!"
             FROM span s
             JOIN transactions t ON t.city_id = s.id AND t.at >= s.since AND t.at >= $2
             JOIN transaction_types tt ON tt.id = t.type_id
             LEFT JOIN transactions o ON o.id = t.reverses_id
             LEFT JOIN transaction_types ot ON ot.id = o.type_id
            GROUP BY s.id, 2"#,
        now
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let tally = figures.cities.entry(row.id).or_default().tally(row.today);
        (tally.revenue, tally.refunds) = (row.revenue, row.refunds);
    }

    // Closing books the handover as income, so only where a person has reversed that is anything owed.
    let query = sqlx::query!(
        r#"SELECT r.city_id, sum(r.handover - booked.amount) AS "owed!: Decimal"
             FROM requests r
            CROSS JOIN LATERAL (
                 SELECT COALESCE(sum(t.amount), 0) AS amount
                   FROM transactions t
                   JOIN transaction_types tt ON tt.id = t.type_id
                   LEFT JOIN transactions o ON o.id = t.reverses_id
                   LEFT JOIN transaction_types ot ON ot.id = o.type_id
                  WHERE t.request_id = r.id AND COALESCE(ot.code, tt.code) = 'income') AS booked
            WHERE r.id IN (SELECT request_id FROM transactions WHERE reverses_id IS NOT NULL)
              AND r.status = 'done' AND r.deleted_at IS NULL
            GROUP BY r.city_id"#
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        figures.cities.entry(row.city_id).or_default().handover_outstanding = row.owed;
    }
    Ok(())
}

async fn calls(
    pg: &mut PgConnection,
    telemetry: Statements<'_>,
    now: DateTime<Utc>,
    figures: &mut Figures,
) -> Result<(), DbError> {
    let operation = DbOperation::CollectorCompute;
    // As the report on the call centre has it.
    let query = days!(
        r#", attached AS (
               SELECT k.id, bool_or(e.diff ? 'call_key') AS joined
                 FROM request_events e
                 JOIN calls k ON k.request_id = e.request_id
                             AND (e.diff -> 'call_key' ->> 1 = k.call_key OR e.diff -> 'call_id' ->> 1 = k.id::text)
                WHERE e.kind = 'call_attached' AND e.at >= $2
                GROUP BY k.id
           )
           SELECT s.id, k.received_at >= s.today AS "today!", count(*) AS "incoming!",
                  count(*) FILTER (WHERE k.result = 'answered') AS "answered!",
                  count(*) FILTER (WHERE k.result = 'missed') AS "missed!",
                  COALESCE(sum(k.wait_s) FILTER (WHERE k.result = 'answered'), 0)::bigint AS "wait_s!",
                  count(k.wait_s) FILTER (WHERE k.result = 'answered') AS "waits!",
                  COALESCE(sum(k.talk_s) FILTER (WHERE k.result = 'answered'), 0)::bigint AS "talk_s!",
                  count(k.talk_s) FILTER (WHERE k.result = 'answered') AS "talks!",
                  count(*) FILTER (WHERE r.source = 'call' AND a.id IS NULL) AS "created!",
                  count(r.id) FILTER (WHERE a.joined) AS "deduplicated!"
             FROM span s
             JOIN calls k ON k.city_id = s.id AND k.received_at >= s.since AND k.received_at >= $2
             LEFT JOIN requests r ON r.id = k.request_id AND r.deleted_at IS NULL
             LEFT JOIN attached a ON a.id = k.id
            WHERE k.direction = 'incoming'
            GROUP BY s.id, 2"#,
        now
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let calls = &mut figures.cities.entry(row.id).or_default().tally(row.today).calls;
        (calls.incoming, calls.answered, calls.missed) = (row.incoming, row.answered, row.missed);
        (calls.wait_s, calls.waits, calls.talk_s, calls.talks) = (row.wait_s, row.waits, row.talk_s, row.talks);
        (calls.created, calls.deduplicated) = (row.created, row.deduplicated);
    }

    let query = sqlx::query!(
        r#"SELECT city_id, count(*) FILTER (WHERE triage = 'unknown_line') AS "unknown_line!",
                  count(*) FILTER (WHERE triage = 'unknown_caller') AS "unknown_caller!"
             FROM calls WHERE triage IS NOT NULL GROUP BY city_id"#
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let waiting = Triage { unknown_line: row.unknown_line, unknown_caller: row.unknown_caller };
        match row.city_id {
            Some(city) => figures.cities.entry(city).or_default().triage = waiting,
            None => figures.triage = waiting,
        }
    }
    Ok(())
}

/// What is the case now.
async fn present(
    pg: &mut PgConnection,
    telemetry: Statements<'_>,
    now: DateTime<Utc>,
    refreshed_since: DateTime<Utc>,
    offer_timeout_s: u32,
    figures: &mut Figures,
) -> Result<(), DbError> {
    let operation = DbOperation::CollectorCompute;
    let query = sqlx::query!(
        r#"SELECT city_id, status AS "status: Status", count(*) AS "count!", min(created_at) AS "oldest!"
             FROM requests WHERE closed_at IS NULL AND deleted_at IS NULL GROUP BY city_id, status"#
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        let open = Open { count: row.count, stuck: 0, oldest: row.oldest };
        figures.cities.entry(row.city_id).or_default().open.insert(row.status, open);
    }

    let query = sqlx::query!(
        r#"SELECT city_id AS "city_id!", status AS "status!: Status", count(*) AS "count!"
             FROM stuck_requests($1, make_interval(secs => $2)) GROUP BY city_id, status"#,
        now,
        f64::from(offer_timeout_s)
    );
    for row in telemetry.run(operation, query.fetch_all(&mut *pg)).await? {
        if let Some(open) = figures.cities.entry(row.city_id).or_default().open.get_mut(&row.status) {
            open.stuck = row.count;
        }
    }

    let query = sqlx::query_as!(
        ActiveUsers,
        r#"SELECT role AS "role: Role", cities AS "cities!", count(*) AS "count!"
             FROM (SELECT u.role, ARRAY(SELECT city_id FROM user_cities WHERE user_id = u.id ORDER BY city_id) AS cities
                     FROM users u
                    WHERE u.status = 'active'
                      AND EXISTS (SELECT FROM sessions s
                                   WHERE s.user_id = u.id AND s.revoked_at IS NULL AND s.expires_at > $1
                                     AND s.refreshed_at > $2 AND s.token_version = u.token_version)) AS active
            GROUP BY role, cities"#,
        now,
        refreshed_since
    );
    figures.active_users = telemetry.run(operation, query.fetch_all(&mut *pg)).await?;

    let query = sqlx::query_as!(
        Webhooks,
        r#"SELECT (SELECT count(*) FROM webhook_events WHERE status = 'pending') AS "pending!",
                  (SELECT min(received_at) FROM webhook_events WHERE status = 'pending') AS oldest_pending,
                  (SELECT count(*) FROM webhook_events WHERE status = 'failed') AS "failed!",
                  (SELECT round(avg(extract(epoch FROM processed_at - received_at)), 3)::float8 FROM webhook_events
                    WHERE status = 'processed' AND processed_at > $1::timestamptz - interval '1 hour') AS mean_lag_s"#,
        now
    );
    figures.webhooks = telemetry.run(operation, query.fetch_one(&mut *pg)).await?;
    Ok(())
}
