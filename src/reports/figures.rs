//! The business metrics as they are stored: plain sums by city, so that those of any set of cities are
//! their sums. A median has no sum; what is kept of durations is how many fell into which narrow step.
//!
//! While one version replaces another, each reads what the other wrote: what is new has a default.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{auth::Role, requests::state::Status};

/// Each step of a [`Spread`] is this much longer than the one before: a median is right within 2.5 %.
/// The statement that sorts durations into steps says it too.
pub const STEP: f64 = 1.05;

/// All of them, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// By city id.
    pub cities: BTreeMap<i64, CityFigures>,
    /// Users with a live session that they opened or refreshed lately.
    pub active_users: Vec<ActiveUsers>,
    /// Calls in triage that belong to no city, and so to everybody who handles calls.
    pub triage: Triage,
    /// The inbox, which knows no cities.
    pub webhooks: Webhooks,
}

/// Those of one city.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CityFigures {
    /// Its code.
    pub code: String,
    /// Of the day that it is there.
    pub today: Tally,
    /// Of the 29 days before.
    pub earlier: Tally,
    /// What is not finished, by state.
    pub open: BTreeMap<Status, Open>,
    /// What masters owe for finished requests whose income was taken back.
    pub handover_outstanding: Decimal,
    /// Calls in triage.
    pub triage: Triage,
}

/// What happened on some days.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub created_by_source: BTreeMap<String, i64>,
    pub created_by_type: BTreeMap<String, i64>,
    pub created_by_campaign: BTreeMap<String, i64>,
    pub first_response: Spread,
    pub assign: Spread,
    pub completion: Spread,
    pub done: i64,
    pub refused: i64,
    pub not_order: i64,
    /// What clients paid for those done.
    pub result: Decimal,
    pub calls: Calls,
    pub revenue: Decimal,
    pub refunds: Decimal,
    /// Broken promises by the code of the policy.
    pub sla_breaches: BTreeMap<String, i64>,
}

/// Incoming calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calls {
    pub incoming: i64,
    pub answered: i64,
    pub missed: i64,
    /// Seconds that callers waited for an answer, and how many calls say so.
    pub wait_s: i64,
    pub waits: i64,
    /// Seconds of talk, and how many calls say so.
    pub talk_s: i64,
    pub talks: i64,
    /// Calls that created a service request.
    pub created: i64,
    /// Calls that joined one.
    pub deduplicated: i64,
}

/// Service requests in one unfinished state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub count: i64,
    /// Of these, too long in it.
    pub stuck: i64,
    /// Creation of the oldest.
    pub oldest: DateTime<Utc>,
}

/// Users of one role with a live session and the same cities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveUsers {
    pub role: Role,
    /// City ids; none for those who see all.
    pub cities: Vec<i64>,
    pub count: i64,
}

/// Calls that wait in triage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Triage {
    pub unknown_line: i64,
    pub unknown_caller: i64,
}

/// The inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Webhooks {
    /// Events that wait.
    pub pending: i64,
    /// Intake of the oldest of them.
    pub oldest_pending: Option<DateTime<Utc>>,
    /// Events that were given up and wait for a person.
    pub failed: i64,
    /// Mean time from intake to effect in the last hour.
    pub mean_lag_s: Option<f64>,
}

/// How many durations fell into which step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spread(pub BTreeMap<i32, i64>);

fn add_up<K: Ord + Clone>(sum: &mut BTreeMap<K, i64>, other: &BTreeMap<K, i64>) {
    for (key, count) in other {
        *sum.entry(key.clone()).or_default() += count;
    }
}

impl Spread {
    /// The median in seconds, to the middle of its step.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let total: i64 = self.0.values().sum();
        let mut seen = 0;
        self.0.iter().find_map(|(step, count)| {
            seen += count;
            let seconds = STEP.powf(f64::from(*step) + 0.5) - 1.0;
            (seen * 2 >= total && total > 0).then_some((seconds * 10.0).round() / 10.0)
        })
    }
}

impl Tally {
    /// Adds other days or another city.
    pub fn add(&mut self, other: &Self) {
        add_up(&mut self.created_by_source, &other.created_by_source);
        add_up(&mut self.created_by_type, &other.created_by_type);
        add_up(&mut self.created_by_campaign, &other.created_by_campaign);
        add_up(&mut self.first_response.0, &other.first_response.0);
        add_up(&mut self.assign.0, &other.assign.0);
        add_up(&mut self.completion.0, &other.completion.0);
        add_up(&mut self.sla_breaches, &other.sla_breaches);
        self.done += other.done;
        self.refused += other.refused;
        self.not_order += other.not_order;
        self.result += other.result;
        self.revenue += other.revenue;
        self.refunds += other.refunds;
        let (calls, more) = (&mut self.calls, other.calls);
        calls.incoming += more.incoming;
        calls.answered += more.answered;
        calls.missed += more.missed;
        calls.wait_s += more.wait_s;
        calls.waits += more.waits;
        calls.talk_s += more.talk_s;
        calls.talks += more.talks;
        calls.created += more.created;
        calls.deduplicated += more.deduplicated;
    }

    /// Service requests created.
    #[must_use]
    pub fn created(&self) -> i64 {
        self.created_by_source.values().sum()
    }
}

impl Open {
    /// Together with those of another city.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, stuck: self.stuck + other.stuck, oldest: self.oldest.min(other.oldest) }
    }
}

impl Triage {
    /// Together with those of elsewhere.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            unknown_line: self.unknown_line + other.unknown_line,
            unknown_caller: self.unknown_caller + other.unknown_caller,
        }
    }
}

impl CityFigures {
    /// The days of `today`, or those before.
    pub fn tally(&mut self, today: bool) -> &mut Tally {
        if today { &mut self.today } else { &mut self.earlier }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_that_of_all_that_was_added() {
        let step = |seconds: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "a step is small")]
            let step = ((1.0 + seconds).ln() / STEP.ln()).floor() as i32;
            step
        };
        let mut sum = Tally { first_response: Spread([(step(60.0), 1)].into()), ..Tally::default() };
        assert_eq!(Tally::default().first_response.median(), None);
        for other in [600.0, 6_000.0] {
            sum.add(&Tally { first_response: Spread([(step(other), 1)].into()), ..Tally::default() });
        }
        let median = sum.first_response.median().unwrap();
        assert!((median / 600.0 - 1.0).abs() < 0.03, "{median}");
    }
}
