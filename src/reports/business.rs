//! The business metrics for the console: the stored figures of the caller's cities, added up.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    collector::store::Stored,
    figures::{Open, Tally},
};
use crate::bounds::{optional_rubles, rubles};
use crate::{auth::Caller, requests::state::Status};

/// The business metrics of one's cities, as they were at `computed_at`.
#[derive(Debug, Serialize, ToSchema)]
pub struct BusinessMetrics {
    /// When they were true.
    pub computed_at: DateTime<Utc>,
    /// How long ago that was.
    #[schema(example = 7.2)]
    pub age_s: f64,
    /// Of the day that it is in each city, so far.
    pub today: Period,
    /// Of the thirty days that end with today.
    pub last_30_days: Period,
    /// Service requests that are not finished, by state.
    pub open: Vec<OpenRequests>,
    /// What masters owe: the handover of service requests that are done, as far as its income was taken
    /// back; rubles.
    #[schema(value_type = String, example = "0.00")]
    #[serde(serialize_with = "rubles")]
    pub handover_outstanding: Decimal,
    /// Users who signed in or refreshed their session within the lifetime of an access token and work in one's
    /// cities, by role.
    #[schema(example = json!({"manager": 1, "operator": 2}))]
    pub active_users: BTreeMap<&'static str, i64>,
    /// Calls that wait in triage, by reason; those without a city are everybody's.
    #[schema(example = json!({"unknown_line": 1, "unknown_caller": 0}))]
    pub triage: BTreeMap<&'static str, i64>,
    /// The inbox of telephony events, which knows no cities.
    pub webhooks: WebhookFigures,
}

/// What happened in some days.
#[derive(Debug, Serialize, ToSchema)]
pub struct Period {
    /// Service requests created.
    #[schema(example = 42)]
    pub created: i64,
    /// The same by how they came about.
    #[schema(example = json!({"call": 40, "manual": 2}))]
    pub created_by_source: BTreeMap<String, i64>,
    /// The same by the code of their type.
    #[schema(example = json!({"first_time": 30, "repeat": 12}))]
    pub created_by_type: BTreeMap<String, i64>,
    /// The same by the code of their city.
    #[schema(example = json!({"novosibirsk": 42}))]
    pub created_by_city: BTreeMap<String, i64>,
    /// The same by the code of their campaign, where they have one.
    #[schema(example = json!({"nsk_avito": 40}))]
    pub created_by_campaign: BTreeMap<String, i64>,
    /// Ended as done.
    #[schema(example = 21)]
    pub done: i64,
    /// Ended as refused.
    #[schema(example = 6)]
    pub refused: i64,
    /// Ended as not_order.
    #[schema(example = 3)]
    pub not_order: i64,
    /// done ÷ (done + refused + not_order).
    #[schema(example = 0.7)]
    pub conversion: Option<f64>,
    /// refused ÷ (done + refused + not_order).
    #[schema(example = 0.2)]
    pub refusal_rate: Option<f64>,
    /// not_order ÷ (done + refused + not_order).
    #[schema(example = 0.1)]
    pub not_order_rate: Option<f64>,
    /// Median time to the first response, within 3 %, of those created.
    #[schema(example = 92.4)]
    pub median_first_response_s: Option<f64>,
    /// Median time to the first offer to a master, within 3 %, of those created.
    #[schema(example = 1260.0)]
    pub median_assign_s: Option<f64>,
    /// Median time from the creation to done, within 3 %, of those done.
    #[schema(example = 80200.0)]
    pub median_completion_s: Option<f64>,
    /// Incoming calls.
    #[schema(example = 60)]
    pub calls: i64,
    /// Incoming calls that are over, by result.
    #[schema(example = json!({"answered": 52, "missed": 8}))]
    pub calls_by_result: BTreeMap<&'static str, i64>,
    /// missed ÷ (answered + missed).
    #[schema(example = 0.1333)]
    pub missed_ratio: Option<f64>,
    /// Mean wait of answered calls.
    #[schema(example = 11.3)]
    pub mean_answer_wait_s: Option<f64>,
    /// Mean talk time of answered calls.
    #[schema(example = 140.0)]
    pub mean_talk_s: Option<f64>,
    /// Calls that created a service request ÷ incoming calls.
    #[schema(example = 0.6667)]
    pub request_ratio: Option<f64>,
    /// Calls that joined an open service request of the same client.
    #[schema(example = 14)]
    pub deduplicated: i64,
    /// Income booked, rubles; expenses are no part of it.
    #[schema(value_type = String, example = "42000.00")]
    #[serde(serialize_with = "rubles")]
    pub revenue: Decimal,
    /// Income reversed, rubles.
    #[schema(value_type = String, example = "0.00")]
    #[serde(serialize_with = "rubles")]
    pub refunds: Decimal,
    /// Mean of what clients paid for those done, rubles.
    #[schema(value_type = Option<String>, example = "4000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub average_ticket: Option<Decimal>,
    /// Promises to clients that were broken, by the code of the policy.
    #[schema(example = json!({"first_response": 1}))]
    pub sla_breaches: BTreeMap<String, i64>,
}

/// Service requests in one unfinished state.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenRequests {
    /// The state.
    pub status: Status,
    /// How many.
    #[schema(example = 4)]
    pub count: i64,
    /// Of these, in it for longer than they should be.
    #[schema(example = 1)]
    pub stuck: i64,
    /// Creation of the oldest; null when there is none.
    pub oldest_created_at: Option<DateTime<Utc>>,
}

/// The inbox of telephony events.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookFigures {
    /// Events that wait to be processed.
    #[schema(example = 0)]
    pub pending: i64,
    /// Intake of the oldest of them.
    pub oldest_pending_at: Option<DateTime<Utc>>,
    /// Events that were given up and wait for a person.
    #[schema(example = 0)]
    pub failed: i64,
    /// Mean time from intake to effect in the hour before `computed_at`.
    #[schema(example = 0.041)]
    pub mean_lag_s: Option<f64>,
    /// Deliveries turned away: badly signed, malformed or too large. They are not stored, so this is the
    /// count of the replica that answers, since it was started.
    #[schema(example = 0)]
    pub rejected_here: u64,
}

/// The caller's part of what was computed.
#[must_use]
pub fn view(stored: &Stored, caller: &Caller, now: DateTime<Utc>, rejected_here: u64) -> BusinessMetrics {
    let figures = &stored.figures.0;
    let (mut today, mut all) = (Tally::default(), Tally::default());
    let (mut today_by_city, mut all_by_city) = (BTreeMap::new(), BTreeMap::new());
    let mut open: BTreeMap<Status, Open> = BTreeMap::new();
    let mut handover_outstanding = Decimal::ZERO;
    let mut triage = figures.triage;
    for (_, city) in figures.cities.iter().filter(|(id, _)| caller.may_act_in(**id)) {
        let (new, before) = (city.today.created(), city.earlier.created());
        let counted = [(&mut today_by_city, new), (&mut all_by_city, new + before)];
        for (by_city, count) in counted.into_iter().filter(|(_, count)| *count > 0) {
            by_city.insert(city.code.clone(), count);
        }
        today.add(&city.today);
        all.add(&city.today);
        all.add(&city.earlier);
        for (status, here) in &city.open {
            open.entry(*status).and_modify(|sum| *sum = sum.and(*here)).or_insert(*here);
        }
        handover_outstanding += city.handover_outstanding;
        triage = triage.and(city.triage);
    }
    let mut active_users = BTreeMap::new();
    for users in &figures.active_users {
        if caller.city_filter().is_none_or(|cities| cities.iter().any(|city| users.cities.contains(city))) {
            *active_users.entry(users.role.as_str()).or_default() += users.count;
        }
    }
    let unfinished = Status::ALL.iter().filter(|status| !status.is_finished());
    BusinessMetrics {
        computed_at: stored.taken_at,
        age_s: (now - stored.taken_at).as_seconds_f64().max(0.0),
        today: Period::new(today, today_by_city),
        last_30_days: Period::new(all, all_by_city),
        open: unfinished.map(|status| OpenRequests::new(*status, open.get(status))).collect(),
        handover_outstanding,
        active_users,
        triage: BTreeMap::from([("unknown_line", triage.unknown_line), ("unknown_caller", triage.unknown_caller)]),
        webhooks: WebhookFigures {
            pending: figures.webhooks.pending,
            oldest_pending_at: figures.webhooks.oldest_pending,
            failed: figures.webhooks.failed,
            mean_lag_s: figures.webhooks.mean_lag_s,
            rejected_here,
        },
    }
}

impl OpenRequests {
    fn new(status: Status, open: Option<&Open>) -> Self {
        Self {
            status,
            count: open.map_or(0, |open| open.count),
            stuck: open.map_or(0, |open| open.stuck),
            oldest_created_at: open.map(|open| open.oldest),
        }
    }
}

impl Period {
    fn new(tally: Tally, created_by_city: BTreeMap<String, i64>) -> Self {
        let finished = tally.done + tally.refused + tally.not_order;
        let calls = tally.calls;
        let over = calls.answered + calls.missed;
        Self {
            created: tally.created(),
            created_by_city,
            done: tally.done,
            refused: tally.refused,
            not_order: tally.not_order,
            conversion: ratio(tally.done, finished),
            refusal_rate: ratio(tally.refused, finished),
            not_order_rate: ratio(tally.not_order, finished),
            median_first_response_s: tally.first_response.median(),
            median_assign_s: tally.assign.median(),
            median_completion_s: tally.completion.median(),
            calls: calls.incoming,
            calls_by_result: BTreeMap::from([("answered", calls.answered), ("missed", calls.missed)]),
            missed_ratio: ratio(calls.missed, over),
            mean_answer_wait_s: mean(calls.wait_s, calls.waits),
            mean_talk_s: mean(calls.talk_s, calls.talks),
            request_ratio: ratio(calls.created, calls.incoming),
            deduplicated: calls.deduplicated,
            revenue: tally.revenue,
            refunds: tally.refunds,
            average_ticket: (tally.done > 0).then(|| {
                (tally.result / Decimal::from(tally.done))
                    .round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
            }),
            created_by_source: tally.created_by_source,
            created_by_type: tally.created_by_type,
            created_by_campaign: tally.created_by_campaign,
            sla_breaches: tally.sla_breaches,
        }
    }
}

/// To four decimals; `None` of nothing.
fn ratio(part: i64, whole: i64) -> Option<f64> {
    quotient(part, whole, 1e4)
}

/// To one decimal; `None` of nothing.
fn mean(sum: i64, count: i64) -> Option<f64> {
    quotient(sum, count, 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts and seconds are far below 2^53")]
fn quotient(part: i64, whole: i64, scale: f64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * scale).round() / scale)
}
