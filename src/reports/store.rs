//! SQL of reports: one statement each, whose last row is the totals. The caller's scope is applied where
//! cities enter (`span`) and, for a master, where service requests and transactions do.

use super::{
    model::{CallCentreRow, CampaignRow, CityRow, MasterRow},
    range::Range,
};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation},
};

/// A statement that begins with the cities of the report, `span`, and for each the times at which the
/// range begins and ends there: a day may have 23 or 25 hours. Its first four parameters are those.
macro_rules! ranged {
    ($row:ident, $tail:literal, $range:ident, $caller:ident $(, $argument:expr)*) => {
        sqlx::query_as!(
            $row,
            "WITH span AS MATERIALIZED (
                 SELECT id, code, timezone, $1::date::timestamp AT TIME ZONE timezone AS since,
                        ($2::date + 1)::timestamp AT TIME ZONE timezone AS until
                   FROM cities
                  WHERE ($3::bigint[] IS NULL OR id = ANY($3)) AND ($4::text IS NULL OR code = $4)
             ), " + $tail,
            $range.from,
            $range.to,
            $caller.city_filter() as _,
            $range.city
            $(, $argument)*
        )
    };
}

/// Incoming calls by city and day. A call that no history entry attached to its service request is the
/// one that created it.
///
/// # Errors
/// As the database.
pub async fn call_centre(db: &mut Conn, caller: &Caller, range: &Range) -> Result<Vec<CallCentreRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = ranged!(
        CallCentreRow,
        r#"facts AS (
               SELECT s.code, (k.received_at AT TIME ZONE s.timezone)::date AS day, k.result,
                      CASE k.result WHEN 'answered' THEN k.wait_s END AS wait_s,
                      CASE k.result WHEN 'answered' THEN k.talk_s END AS talk_s,
                      r.source = 'call' AND a.entries = 0 AS created, r.id IS NOT NULL AND a.calls > 0 AS joined, r.status
                 FROM span s
                 JOIN calls k ON k.city_id = s.id AND k.received_at >= s.since AND k.received_at < s.until
                 LEFT JOIN requests r ON r.id = k.request_id AND r.deleted_at IS NULL
                CROSS JOIN LATERAL (
                     SELECT count(*) AS entries, count(e.diff -> 'call_key') AS calls FROM request_events e
                      WHERE e.request_id = k.request_id AND e.kind = 'call_attached'
                        AND (e.diff -> 'call_key' ->> 1 = k.call_key OR e.diff -> 'call_id' ->> 1 = k.id::text)) a
                WHERE k.direction = 'incoming'
           ), counts AS (
               SELECT code, day, grouping(code) AS total, count(*) AS incoming,
                      count(*) FILTER (WHERE result = 'answered') AS answered,
                      count(*) FILTER (WHERE result = 'missed') AS missed,
                      avg(wait_s) AS wait_s, avg(talk_s) AS talk_s,
                      count(*) FILTER (WHERE created) AS created, count(*) FILTER (WHERE joined) AS joined,
                      count(*) FILTER (WHERE created AND status IN ('done', 'refused', 'not_order')) AS finished,
                      count(*) FILTER (WHERE created AND status = 'done') AS done
                 FROM facts GROUP BY GROUPING SETS ((code, day), ())
           )
           SELECT code AS "city?", day AS "day?", incoming AS "incoming!", answered AS "answered!", missed AS "missed!",
                  round(missed::numeric / NULLIF(answered + missed, 0), 4)::float8 AS "missed_ratio?",
                  round(wait_s, 1)::float8 AS "mean_answer_wait_s?", round(talk_s, 1)::float8 AS "mean_talk_s?",
                  created AS "requests_created!", joined AS "deduplicated!",
                  round(created::numeric / NULLIF(incoming, 0), 4)::float8 AS "request_ratio?",
                  finished AS "requests_finished!", done AS "requests_done!",
                  round(done::numeric / NULLIF(finished, 0), 4)::float8 AS "conversion?"
             FROM counts ORDER BY total, day, code"#,
        range,
        caller
    );
    telemetry.run(DbOperation::ReportCallCentre, query.fetch_all(pg)).await
}

/// Service requests and money by city. A master sees the cities in which they have something.
///
/// # Errors
/// As the database.
pub async fn cities(db: &mut Conn, caller: &Caller, range: &Range) -> Result<Vec<CityRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = ranged!(
        CityRow,
        r#"facts AS (
               SELECT s.id AS city_id, true AS created, r.closed_at IS NULL AS open, NULL::text AS outcome,
                      extract(epoch FROM r.first_response_at - r.created_at)::float8 AS response_s,
                      NULL::float8 AS processing_s, NULL::numeric AS result, NULL::numeric AS handover,
                      NULL::numeric AS revenue, NULL::numeric AS refund
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.created_at >= s.since AND r.created_at < s.until
                WHERE r.deleted_at IS NULL AND ($5::bigint IS NULL OR r.master_id = $5)
               UNION ALL
               SELECT s.id, false, false, r.status, NULL,
                      CASE r.status WHEN 'done' THEN extract(epoch FROM r.closed_at - r.created_at)::float8 END,
                      r.result, r.handover, NULL, NULL
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at < s.until
                WHERE r.deleted_at IS NULL AND ($5::bigint IS NULL OR r.master_id = $5)
               UNION ALL
               SELECT s.id, false, false, NULL, NULL, NULL, NULL, NULL,
                      CASE WHEN tt.code = 'income' AND t.reverses_id IS NULL THEN t.amount END,
                      CASE WHEN ot.code = 'income' THEN -t.amount END
                 FROM span s
                 JOIN transactions t ON t.city_id = s.id AND t.at >= s.since AND t.at < s.until
                 JOIN transaction_types tt ON tt.id = t.type_id
                 LEFT JOIN transactions o ON o.id = t.reverses_id
                 LEFT JOIN transaction_types ot ON ot.id = o.type_id
                WHERE $5::bigint IS NULL OR t.master_id = $5
           ), counts AS (
               SELECT s.code, grouping(s.code) AS total, count(*) FILTER (WHERE f.created) AS created,
                      count(*) FILTER (WHERE f.open) AS open, count(*) FILTER (WHERE f.outcome = 'done') AS done,
                      count(*) FILTER (WHERE f.outcome = 'refused') AS refused,
                      count(*) FILTER (WHERE f.outcome = 'not_order') AS not_order, count(f.outcome) AS finished,
                      avg(f.response_s) AS response_s, avg(f.processing_s) AS processing_s,
                      percentile_cont(0.5) WITHIN GROUP (ORDER BY f.processing_s) AS median_s,
                      sum(f.revenue) AS revenue, sum(f.refund) AS refunds, avg(f.result) AS ticket, sum(f.handover) AS handover
                 FROM span s LEFT JOIN facts f ON f.city_id = s.id
                WHERE $5::bigint IS NULL OR f.city_id IS NOT NULL
                GROUP BY GROUPING SETS ((s.code), ())
           )
           SELECT code AS "city?", created AS "created!", open AS "open!", done AS "done!", refused AS "refused!",
                  not_order AS "not_order!", round(done::numeric / NULLIF(finished, 0), 4)::float8 AS "conversion?",
                  round(response_s::numeric, 1)::float8 AS "mean_first_response_s?",
                  round(processing_s::numeric, 1)::float8 AS "mean_processing_s?",
                  round(median_s::numeric, 1)::float8 AS "median_processing_s?",
                  COALESCE(revenue, 0) AS "revenue!", COALESCE(refunds, 0) AS "refunds!",
                  round(ticket, 2) AS "average_ticket?", COALESCE(handover, 0) AS "handover!"
             FROM counts ORDER BY total, code"#,
        range,
        caller,
        caller.master_filter()
    );
    telemetry.run(DbOperation::ReportCities, query.fetch_all(pg)).await
}

/// The work of masters: of those of the report's cities, and of whoever did something there.
///
/// # Errors
/// As the database.
pub async fn masters(db: &mut Conn, caller: &Caller, range: &Range) -> Result<Vec<MasterRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = ranged!(
        MasterRow,
        r#"facts AS (
               SELECT (e.diff -> 'master_id' ->> 1)::bigint AS master_id, true AS assigned, NULL::text AS outcome,
                      NULL::numeric AS result, NULL::numeric AS net, NULL::numeric AS handover, NULL::float8 AS work_s
                 FROM request_events e
                 JOIN requests r ON r.id = e.request_id AND r.deleted_at IS NULL
                 JOIN span s ON s.id = r.city_id AND e.at >= s.since AND e.at < s.until
                WHERE e.kind = 'transition' AND e.to_status = 'offered'
                  AND e.at >= (SELECT min(since) FROM span) AND e.at < (SELECT max(until) FROM span)
               UNION ALL
               SELECT r.master_id, false, r.status, r.result, r.net, r.handover,
                      CASE r.status WHEN 'done' THEN extract(epoch FROM r.closed_at - (
                          SELECT max(e.at) FROM request_events e
                           WHERE e.request_id = r.id AND e.kind = 'transition' AND e.to_status = 'accepted'))::float8 END
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at < s.until
                WHERE r.deleted_at IS NULL AND r.master_id IS NOT NULL
           ), people AS (
               SELECT u.id, u.name FROM users u
                WHERE ($5::bigint IS NULL OR u.id = $5)
                  AND (u.role = 'master' AND EXISTS (SELECT FROM user_cities uc JOIN span s ON s.id = uc.city_id WHERE uc.user_id = u.id)
                       OR EXISTS (SELECT FROM facts f WHERE f.master_id = u.id))
           ), counts AS (
               SELECT p.id, p.name, grouping(p.id) AS total, count(*) FILTER (WHERE f.assigned) AS assigned,
                      count(*) FILTER (WHERE f.outcome = 'done') AS done,
                      count(*) FILTER (WHERE f.outcome = 'refused') AS refused,
                      sum(f.result) AS result, sum(f.net) AS net, sum(f.handover) AS handover,
                      avg(f.result) AS ticket, avg(f.work_s) AS work_s
                 FROM people p LEFT JOIN facts f ON f.master_id = p.id
                GROUP BY GROUPING SETS ((p.id, p.name), ())
           )
           SELECT id AS "master_id?", name AS "name?", assigned AS "assigned!", done AS "done!", refused AS "refused!",
                  round(done::numeric / NULLIF(done + refused, 0), 4)::float8 AS "conversion?",
                  COALESCE(result, 0) AS "result!", COALESCE(net, 0) AS "net!", COALESCE(handover, 0) AS "handover!",
                  round(ticket, 2) AS "average_ticket?", round(work_s::numeric, 1)::float8 AS "mean_work_s?"
             FROM counts ORDER BY total, name, id"#,
        range,
        caller,
        caller.master_filter()
    );
    telemetry.run(DbOperation::ReportMasters, query.fetch_all(pg)).await
}

/// What campaigns brought. A master sees those that brought them something, without their calls.
///
/// # Errors
/// As the database.
pub async fn campaigns(db: &mut Conn, caller: &Caller, range: &Range) -> Result<Vec<CampaignRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = ranged!(
        CampaignRow,
        r#"facts AS (
               SELECT k.campaign_id, 1 AS call, 0 AS request, NULL::text AS outcome, NULL::numeric AS revenue,
                      NULL::numeric AS refund
                 FROM span s JOIN calls k ON k.city_id = s.id AND k.received_at >= s.since AND k.received_at < s.until
                WHERE $5::bigint IS NULL AND k.direction = 'incoming' AND k.campaign_id IS NOT NULL
               UNION ALL
               SELECT r.campaign_id, 0, 1, NULL, NULL, NULL
                 FROM span s JOIN requests r ON r.city_id = s.id AND r.created_at >= s.since AND r.created_at < s.until
                WHERE r.deleted_at IS NULL AND r.campaign_id IS NOT NULL AND ($5::bigint IS NULL OR r.master_id = $5)
               UNION ALL
               SELECT r.campaign_id, 0, 0, r.status, NULL, NULL
                 FROM span s JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at < s.until
                WHERE r.deleted_at IS NULL AND r.campaign_id IS NOT NULL AND ($5::bigint IS NULL OR r.master_id = $5)
               UNION ALL
               SELECT r.campaign_id, 0, 0, NULL, CASE WHEN tt.code = 'income' AND t.reverses_id IS NULL THEN t.amount END,
                      CASE WHEN ot.code = 'income' THEN -t.amount END
                 FROM span s
                 JOIN transactions t ON t.city_id = s.id AND t.at >= s.since AND t.at < s.until
                 JOIN requests r ON r.id = t.request_id AND r.campaign_id IS NOT NULL
                 JOIN transaction_types tt ON tt.id = t.type_id
                 LEFT JOIN transactions o ON o.id = t.reverses_id
                 LEFT JOIN transaction_types ot ON ot.id = o.type_id
                WHERE $5::bigint IS NULL OR t.master_id = $5
           ), counts AS (
               SELECT s.code, ca.code AS campaign, grouping(ca.code) AS total, sum(f.call) AS calls, sum(f.request) AS requests,
                      count(*) FILTER (WHERE f.outcome = 'done') AS done, count(f.outcome) AS finished,
                      sum(f.revenue) AS revenue, sum(f.refund) AS refunds
                 FROM span s
                 JOIN advertising_campaigns ca ON ca.city_id = s.id
                 LEFT JOIN facts f ON f.campaign_id = ca.id
                WHERE $5::bigint IS NULL OR f.campaign_id IS NOT NULL
                GROUP BY GROUPING SETS ((s.code, ca.code), ())
           )
           SELECT code AS "city?", campaign AS "campaign?",
                  CASE WHEN $5::bigint IS NULL THEN COALESCE(calls, 0) END AS "calls?",
                  COALESCE(requests, 0) AS "requests!", done AS "done!", finished AS "finished!",
                  round(done::numeric / NULLIF(finished, 0), 4)::float8 AS "conversion?",
                  COALESCE(revenue, 0) AS "revenue!", COALESCE(refunds, 0) AS "refunds!"
             FROM counts ORDER BY total, code, campaign"#,
        range,
        caller,
        caller.master_filter()
    );
    telemetry.run(DbOperation::ReportCampaigns, query.fetch_all(pg)).await
}
