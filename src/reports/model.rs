//! What reports give. Counts are counts; a mean, a ratio or a median without anything to take it from is
//! null, never 0. Ratios have four decimals, seconds one.

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;

use super::{csv::Table, range::Range};
use crate::bounds::{optional_rubles, rubles};

/// A report.
#[derive(Debug, Serialize, ToSchema)]
pub struct Report<T> {
    /// First day.
    #[schema(example = "2026-10-01")]
    pub from: NaiveDate,
    /// Last day, included.
    #[schema(example = "2026-10-31")]
    pub to: NaiveDate,
    /// The figures, line by line.
    pub rows: Vec<T>,
    /// The same figures over everything that the rows are about; without what names a row.
    pub totals: T,
}

impl<T> Report<T> {
    /// From rows of which the last is the totals, as the statements of [`super::store`] give them.
    pub fn new(range: &Range, mut rows: Vec<T>) -> Option<Self> {
        let totals = rows.pop()?;
        Some(Self { from: range.from, to: range.to, rows, totals })
    }
}

/// Calls of one day in one city.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CallCentreRow {
    /// Code of the city; not in the totals.
    #[schema(example = "novosibirsk")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// The day there; not in the totals. A call belongs to the day on which we first heard of it.
    #[schema(example = "2026-10-01")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<NaiveDate>,
    /// Incoming calls, those that are not over included.
    #[schema(example = 42)]
    pub incoming: i64,
    /// Of these, answered.
    #[schema(example = 38)]
    pub answered: i64,
    /// Of these, missed.
    #[schema(example = 3)]
    pub missed: i64,
    /// missed ÷ (answered + missed).
    #[schema(example = 0.0732)]
    pub missed_ratio: Option<f64>,
    /// Mean wait of answered calls.
    #[schema(example = 12.5)]
    pub mean_answer_wait_s: Option<f64>,
    /// Mean talk time of answered calls.
    #[schema(example = 143.2)]
    pub mean_talk_s: Option<f64>,
    /// Calls that created a service request.
    #[schema(example = 30)]
    pub requests_created: i64,
    /// Calls that joined an open service request of the same client.
    #[schema(example = 8)]
    pub deduplicated: i64,
    /// requests_created ÷ incoming.
    #[schema(example = 0.7143)]
    pub request_ratio: Option<f64>,
    /// Of the service requests created: ended by now, as done, refused or not_order.
    #[schema(example = 20)]
    pub requests_finished: i64,
    /// Of these, done.
    #[schema(example = 15)]
    pub requests_done: i64,
    /// requests_done ÷ requests_finished.
    #[schema(example = 0.75)]
    pub conversion: Option<f64>,
}

/// What happened in one city.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CityRow {
    /// Code of the city; not in the totals.
    #[schema(example = "novosibirsk")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Service requests created in the range.
    #[schema(example = 120)]
    pub created: i64,
    /// Of these, not ended by now.
    #[schema(example = 14)]
    pub open: i64,
    /// Ended in the range as done, whenever they were created.
    #[schema(example = 70)]
    pub done: i64,
    /// Ended in the range as refused.
    #[schema(example = 20)]
    pub refused: i64,
    /// Ended in the range as not_order.
    #[schema(example = 10)]
    pub not_order: i64,
    /// done ÷ (done + refused + not_order).
    #[schema(example = 0.7)]
    pub conversion: Option<f64>,
    /// Mean time from the creation to the first response, of those created in the range.
    #[schema(example = 95.5)]
    pub mean_first_response_s: Option<f64>,
    /// Mean time from the creation to done, of those done in the range.
    #[schema(example = 86400.0)]
    pub mean_processing_s: Option<f64>,
    /// Median of the same.
    #[schema(example = 79200.0)]
    pub median_processing_s: Option<f64>,
    /// Income booked in the range, rubles; expenses are no part of it.
    #[schema(value_type = String, example = "140000.00")]
    #[serde(serialize_with = "rubles")]
    pub revenue: Decimal,
    /// Income reversed in the range, rubles.
    #[schema(value_type = String, example = "2000.00")]
    #[serde(serialize_with = "rubles")]
    pub refunds: Decimal,
    /// Mean of what clients paid for those done in the range, rubles.
    #[schema(value_type = Option<String>, example = "5000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub average_ticket: Option<Decimal>,
    /// What masters hand over for those done in the range, rubles.
    #[schema(value_type = String, example = "140000.00")]
    #[serde(serialize_with = "rubles")]
    pub handover: Decimal,
}

/// What one master did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MasterRow {
    /// User id; not in the totals.
    #[schema(example = 12)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_id: Option<i64>,
    /// Their name; not in the totals.
    #[schema(example = "Ivan Petrov")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Offers made to them in the range.
    #[schema(example = 30)]
    pub assigned: i64,
    /// Service requests of theirs done in the range.
    #[schema(example = 24)]
    pub done: i64,
    /// Service requests of theirs refused in the range.
    #[schema(example = 4)]
    pub refused: i64,
    /// done ÷ (done + refused).
    #[schema(example = 0.8571)]
    pub conversion: Option<f64>,
    /// What clients paid, rubles.
    #[schema(value_type = String, example = "120000.00")]
    #[serde(serialize_with = "rubles")]
    pub result: Decimal,
    /// The same less expenses, rubles.
    #[schema(value_type = String, example = "100000.00")]
    #[serde(serialize_with = "rubles")]
    pub net: Decimal,
    /// What they hand over, rubles.
    #[schema(value_type = String, example = "50000.00")]
    #[serde(serialize_with = "rubles")]
    pub handover: Decimal,
    /// Mean of what clients paid, rubles.
    #[schema(value_type = Option<String>, example = "5000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub average_ticket: Option<Decimal>,
    /// Mean time from their last acceptance to done.
    #[schema(example = 10800.0)]
    pub mean_work_s: Option<f64>,
}

/// What one advertising campaign brought.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CampaignRow {
    /// Code of the city; not in the totals.
    #[schema(example = "novosibirsk")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Code of the campaign; not in the totals.
    #[schema(example = "nsk_avito")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// Incoming calls on its lines in the range; null for a master, who sees no calls.
    #[schema(example = 80)]
    pub calls: Option<i64>,
    /// Service requests created in the range.
    #[schema(example = 60)]
    pub requests: i64,
    /// Ended in the range as done.
    #[schema(example = 35)]
    pub done: i64,
    /// Ended in the range as done, refused or not_order.
    #[schema(example = 50)]
    pub finished: i64,
    /// done ÷ finished.
    #[schema(example = 0.7)]
    pub conversion: Option<f64>,
    /// Income booked in the range for its service requests, rubles.
    #[schema(value_type = String, example = "70000.00")]
    #[serde(serialize_with = "rubles")]
    pub revenue: Decimal,
    /// Income reversed in the range, rubles.
    #[schema(value_type = String, example = "2000.00")]
    #[serde(serialize_with = "rubles")]
    pub refunds: Decimal,
}

impl Table for CallCentreRow {
    const COLUMNS: &'static [&'static str] = &[
        "city",
        "day",
        "incoming",
        "answered",
        "missed",
        "missed_ratio",
        "mean_answer_wait_s",
        "mean_talk_s",
        "requests_created",
        "deduplicated",
        "request_ratio",
        "requests_finished",
        "requests_done",
        "conversion",
    ];
}

impl Table for CityRow {
    const COLUMNS: &'static [&'static str] = &[
        "city",
        "created",
        "open",
        "done",
        "refused",
        "not_order",
        "conversion",
        "mean_first_response_s",
        "mean_processing_s",
        "median_processing_s",
        "revenue",
        "refunds",
        "average_ticket",
        "handover",
    ];
}

impl Table for MasterRow {
    const COLUMNS: &'static [&'static str] = &[
        "master_id",
        "name",
        "assigned",
        "done",
        "refused",
        "conversion",
        "result",
        "net",
        "handover",
        "average_ticket",
        "mean_work_s",
    ];
}

impl Table for CampaignRow {
    const COLUMNS: &'static [&'static str] =
        &["city", "campaign", "calls", "requests", "done", "finished", "conversion", "revenue", "refunds"];
}
