//! SQL of reports: one statement each, whose last row is the totals. The caller's scope is applied where
//! cities enter (`span`) and, for a master, where service requests and transactions do.
//!
//! Each source is added up by itself and as sums, before the sums meet: a year of a large company is a
//! million rows in each of them.

use super::{
    model::{CallCentreRow, CampaignRow, CityRow, MasterRow},
    range::Range,
};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation},
};

/// A statement that begins with the cities of the report, `span`, and for each the times at which the
/// range begins and ends there: a day may have 23 or 25 hours. `$1` to `$6` are its own; `$5` and `$6`
/// hold the range of every city, as constants, from which the planner learns how many rows there will be.
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
            $range.city,
            $range.begins_anywhere(),
            $range.has_ended_everywhere()
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
        r#"attached AS (
               SELECT k.id, bool_or(e.diff ? 'call_key') AS joined
                 FROM request_events e
                 JOIN calls k ON k.request_id = e.request_id
                             AND (e.diff -> 'call_key' ->> 1 = k.call_key OR e.diff -> 'call_id' ->> 1 = k.id::text)
                WHERE e.kind = 'call_attached' AND e.at >= $5 AND k.received_at >= $5 AND k.received_at < $6
                GROUP BY k.id
           ), counts AS (
               SELECT s.code, (k.received_at AT TIME ZONE s.timezone)::date AS day, count(*) AS incoming,
                      count(*) FILTER (WHERE k.result = 'answered') AS answered,
                      count(*) FILTER (WHERE k.result = 'missed') AS missed,
                      sum(k.wait_s) FILTER (WHERE k.result = 'answered') AS wait_s,
                      count(k.wait_s) FILTER (WHERE k.result = 'answered') AS waits,
                      sum(k.talk_s) FILTER (WHERE k.result = 'answered') AS talk_s,
                      count(k.talk_s) FILTER (WHERE k.result = 'answered') AS talks,
                      count(*) FILTER (WHERE r.source = 'call' AND a.id IS NULL) AS created,
                      count(r.id) FILTER (WHERE a.joined) AS joined,
                      count(r.closed_at) FILTER (WHERE r.source = 'call' AND a.id IS NULL) AS finished,
                      count(*) FILTER (WHERE r.source = 'call' AND a.id IS NULL AND r.status = 'done') AS done
                 FROM span s
                 JOIN calls k ON k.city_id = s.id AND k.received_at >= s.since AND k.received_at < s.until
                             AND k.received_at >= $5 AND k.received_at < $6
                 LEFT JOIN requests r ON r.id = k.request_id AND r.deleted_at IS NULL
                 LEFT JOIN attached a ON a.id = k.id
                WHERE k.direction = 'incoming'
                GROUP BY s.code, day
           ), sums AS (
               SELECT code, day, grouping(code) AS total, COALESCE(sum(incoming), 0) AS incoming,
                      COALESCE(sum(answered), 0) AS answered, COALESCE(sum(missed), 0) AS missed,
                      sum(wait_s) / NULLIF(sum(waits), 0) AS wait_s, sum(talk_s) / NULLIF(sum(talks), 0) AS talk_s,
                      COALESCE(sum(created), 0) AS created, COALESCE(sum(joined), 0) AS joined,
                      COALESCE(sum(finished), 0) AS finished, COALESCE(sum(done), 0) AS done
                 FROM counts GROUP BY GROUPING SETS ((code, day), ())
           )
           SELECT code AS "city?", day AS "day?", incoming::bigint AS "incoming!", answered::bigint AS "answered!",
                  missed::bigint AS "missed!", round(missed / NULLIF(answered + missed, 0), 4)::float8 AS "missed_ratio?",
                  round(wait_s, 1)::float8 AS "mean_answer_wait_s?", round(talk_s, 1)::float8 AS "mean_talk_s?",
                  created::bigint AS "requests_created!", joined::bigint AS "deduplicated!",
                  round(created / NULLIF(incoming, 0), 4)::float8 AS "request_ratio?",
                  finished::bigint AS "requests_finished!", done::bigint AS "requests_done!",
                  round(done / NULLIF(finished, 0), 4)::float8 AS "conversion?"
             FROM sums ORDER BY total, day, code"#,
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
        r#"created AS (
               SELECT s.id, count(*) AS created, count(*) FILTER (WHERE r.closed_at IS NULL) AS open,
                      sum(extract(epoch FROM r.first_response_at - r.created_at)::float8) AS response_s,
                      count(r.first_response_at) AS responses
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.created_at >= s.since AND r.created_at < s.until
                                AND r.created_at >= $5 AND r.created_at < $6
                WHERE r.deleted_at IS NULL AND ($7::bigint IS NULL OR r.master_id = $7)
                GROUP BY s.id
           ), closed AS (
               SELECT s.id, r.status, r.result, r.handover,
                      CASE r.status WHEN 'done' THEN extract(epoch FROM r.closed_at - r.created_at)::float8 END AS took_s
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at < s.until
                                AND r.closed_at >= $5 AND r.closed_at < $6
                WHERE r.deleted_at IS NULL AND ($7::bigint IS NULL OR r.master_id = $7)
           ), ended AS (
               SELECT id, count(*) FILTER (WHERE status = 'done') AS done, count(*) FILTER (WHERE status = 'refused') AS refused,
                      count(*) FILTER (WHERE status = 'not_order') AS not_order, count(*) AS finished,
                      sum(took_s) AS took_s, sum(result) AS result, sum(handover) AS handover
                 FROM closed GROUP BY id
           ), medians AS (
               SELECT id, percentile_cont(0.5) WITHIN GROUP (ORDER BY took_s) AS median_s
                 FROM closed WHERE took_s IS NOT NULL GROUP BY GROUPING SETS ((id), ())
           ), ledger AS (
               SELECT s.id, sum(CASE WHEN t.reverses_id IS NULL AND t.type_id = (SELECT id FROM transaction_types WHERE code = 'income')
                                     THEN t.amount END) AS revenue,
                      sum(CASE WHEN t.reverses_id IS NOT NULL
                                AND (SELECT tt.code FROM transactions o JOIN transaction_types tt ON tt.id = o.type_id
                                      WHERE o.id = t.reverses_id) = 'income'
                               THEN -t.amount END) AS refunds
                 FROM span s
                 JOIN transactions t ON t.city_id = s.id AND t.at >= s.since AND t.at < s.until AND t.at >= $5 AND t.at < $6
                WHERE $7::bigint IS NULL OR t.master_id = $7
                GROUP BY s.id
           ), sums AS (
               SELECT s.code, s.id, grouping(s.code) AS total, COALESCE(sum(c.created), 0) AS created,
                      COALESCE(sum(c.open), 0) AS open, COALESCE(sum(e.done), 0) AS done,
                      COALESCE(sum(e.refused), 0) AS refused, COALESCE(sum(e.not_order), 0) AS not_order,
                      sum(e.finished) AS finished, sum(c.response_s) / NULLIF(sum(c.responses), 0)::float8 AS response_s,
                      sum(e.took_s) / NULLIF(sum(e.done), 0)::float8 AS took_s, COALESCE(sum(l.revenue), 0) AS revenue,
                      COALESCE(sum(l.refunds), 0) AS refunds, sum(e.result) AS result, COALESCE(sum(e.handover), 0) AS handover
                 FROM span s
                 LEFT JOIN created c ON c.id = s.id
                 LEFT JOIN ended e ON e.id = s.id
                 LEFT JOIN ledger l ON l.id = s.id
                WHERE $7::bigint IS NULL OR COALESCE(c.id, e.id, l.id) IS NOT NULL
                GROUP BY GROUPING SETS ((s.code, s.id), ())
           )
           SELECT u.code AS "city?", u.created::bigint AS "created!", u.open::bigint AS "open!", u.done::bigint AS "done!",
                  u.refused::bigint AS "refused!", u.not_order::bigint AS "not_order!",
                  round(u.done / NULLIF(u.finished, 0), 4)::float8 AS "conversion?",
                  round(u.response_s::numeric, 1)::float8 AS "mean_first_response_s?",
                  round(u.took_s::numeric, 1)::float8 AS "mean_processing_s?",
                  round(m.median_s::numeric, 1)::float8 AS "median_processing_s?",
                  u.revenue AS "revenue!", u.refunds AS "refunds!",
                  round(u.result / NULLIF(u.done, 0), 2) AS "average_ticket?", u.handover AS "handover!"
             FROM sums u LEFT JOIN medians m ON m.id IS NOT DISTINCT FROM u.id
            ORDER BY u.total, u.code"#,
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
        r#"offers AS (
               SELECT (e.diff -> 'master_id' ->> 1)::bigint AS master_id, count(*) AS assigned
                 FROM request_events e
                 JOIN requests r ON r.id = e.request_id AND r.deleted_at IS NULL
                 JOIN span s ON s.id = r.city_id AND e.at >= s.since AND e.at < s.until
                WHERE e.kind = 'transition' AND e.to_status = 'offered' AND e.at >= $5 AND e.at < $6
                  AND ($7::bigint IS NULL OR (e.diff -> 'master_id' ->> 1)::bigint = $7)
                GROUP BY 1
           ), ended AS (
               SELECT r.master_id, count(*) FILTER (WHERE r.status = 'done') AS done,
                      count(*) FILTER (WHERE r.status = 'refused') AS refused, sum(r.result) AS result, sum(r.net) AS net,
                      sum(r.handover) AS handover, sum(extract(epoch FROM w.took)) AS work_s, count(w.took) AS works
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at < s.until
                                AND r.closed_at >= $5 AND r.closed_at < $6
                CROSS JOIN LATERAL (
                     SELECT CASE r.status WHEN 'done' THEN r.closed_at - (
                                SELECT max(e.at) FROM request_events e
                                 WHERE e.request_id = r.id AND e.kind = 'transition' AND e.to_status = 'accepted') END AS took) w
                WHERE r.deleted_at IS NULL AND r.master_id IS NOT NULL AND ($7::bigint IS NULL OR r.master_id = $7)
                GROUP BY r.master_id
           ), sums AS (
               SELECT u.id, u.name, grouping(u.id) AS total, COALESCE(sum(o.assigned), 0) AS assigned,
                      COALESCE(sum(e.done), 0) AS done, COALESCE(sum(e.refused), 0) AS refused,
                      COALESCE(sum(e.result), 0) AS result, COALESCE(sum(e.net), 0) AS net,
                      COALESCE(sum(e.handover), 0) AS handover, sum(e.work_s) / NULLIF(sum(e.works), 0) AS work_s
                 FROM users u
                 LEFT JOIN offers o ON o.master_id = u.id
                 LEFT JOIN ended e ON e.master_id = u.id
                WHERE ($7::bigint IS NULL OR u.id = $7)
                  AND (o.master_id IS NOT NULL OR e.master_id IS NOT NULL
                       OR u.role = 'master'
                          AND EXISTS (SELECT FROM user_cities uc JOIN span s ON s.id = uc.city_id WHERE uc.user_id = u.id))
                GROUP BY GROUPING SETS ((u.id, u.name), ())
           )
           SELECT id AS "master_id?", name AS "name?", assigned::bigint AS "assigned!", done::bigint AS "done!",
                  refused::bigint AS "refused!", round(done / NULLIF(done + refused, 0), 4)::float8 AS "conversion?",
                  result AS "result!", net AS "net!", handover AS "handover!",
                  round(result / NULLIF(done, 0), 2) AS "average_ticket?", round(work_s, 1)::float8 AS "mean_work_s?"
             FROM sums ORDER BY total, name, id"#,
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
        r#"heard AS (
               SELECT k.campaign_id, count(*) AS calls
                 FROM span s
                 JOIN calls k ON k.city_id = s.id AND k.received_at >= s.since AND k.received_at < s.until
                             AND k.received_at >= $5 AND k.received_at < $6
                WHERE k.direction = 'incoming' AND $7::bigint IS NULL
                GROUP BY k.campaign_id
           ), created AS (
               SELECT r.campaign_id, count(*) AS requests
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.created_at >= s.since AND r.created_at < s.until
                                AND r.created_at >= $5 AND r.created_at < $6
                WHERE r.deleted_at IS NULL AND ($7::bigint IS NULL OR r.master_id = $7)
                GROUP BY r.campaign_id
           ), ended AS (
               SELECT r.campaign_id, count(*) FILTER (WHERE r.status = 'done') AS done, count(*) AS finished
                 FROM span s
                 JOIN requests r ON r.city_id = s.id AND r.closed_at >= s.since AND r.closed_at < s.until
                                AND r.closed_at >= $5 AND r.closed_at < $6
                WHERE r.deleted_at IS NULL AND ($7::bigint IS NULL OR r.master_id = $7)
                GROUP BY r.campaign_id
           ), ledger AS (
               SELECT r.campaign_id,
                      sum(CASE WHEN t.reverses_id IS NULL AND t.type_id = (SELECT id FROM transaction_types WHERE code = 'income')
                               THEN t.amount END) AS revenue,
                      sum(CASE WHEN t.reverses_id IS NOT NULL
                                AND (SELECT tt.code FROM transactions o JOIN transaction_types tt ON tt.id = o.type_id
                                      WHERE o.id = t.reverses_id) = 'income'
                               THEN -t.amount END) AS refunds
                 FROM span s
                 JOIN transactions t ON t.city_id = s.id AND t.at >= s.since AND t.at < s.until AND t.at >= $5 AND t.at < $6
                 JOIN requests r ON r.id = t.request_id
                WHERE $7::bigint IS NULL OR t.master_id = $7
                GROUP BY r.campaign_id
           ), sums AS (
               SELECT s.code, ca.code AS campaign, grouping(ca.code) AS total, COALESCE(sum(h.calls), 0) AS calls,
                      COALESCE(sum(c.requests), 0) AS requests, COALESCE(sum(e.done), 0) AS done,
                      COALESCE(sum(e.finished), 0) AS finished, COALESCE(sum(l.revenue), 0) AS revenue,
                      COALESCE(sum(l.refunds), 0) AS refunds
                 FROM span s
                 JOIN advertising_campaigns ca ON ca.city_id = s.id
                 LEFT JOIN heard h ON h.campaign_id = ca.id
                 LEFT JOIN created c ON c.campaign_id = ca.id
                 LEFT JOIN ended e ON e.campaign_id = ca.id
                 LEFT JOIN ledger l ON l.campaign_id = ca.id
                WHERE $7::bigint IS NULL OR COALESCE(c.campaign_id, e.campaign_id, l.campaign_id) IS NOT NULL
                GROUP BY GROUPING SETS ((s.code, ca.code), ())
           )
           SELECT code AS "city?", campaign AS "campaign?", CASE WHEN $7::bigint IS NULL THEN calls::bigint END AS "calls?",
                  requests::bigint AS "requests!", done::bigint AS "done!", finished::bigint AS "finished!",
                  round(done / NULLIF(finished, 0), 4)::float8 AS "conversion?",
                  revenue AS "revenue!", refunds AS "refunds!"
             FROM sums ORDER BY total, code, campaign"#,
        range,
        caller,
        caller.master_filter()
    );
    telemetry.run(DbOperation::ReportCampaigns, query.fetch_all(pg)).await
}
