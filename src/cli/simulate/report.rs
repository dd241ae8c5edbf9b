//! What is printed in the end: what was done, and whether the server counted the same.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use rust_decimal::prelude::ToPrimitive;
use serde_json::{Map, Value, json};

use super::{metrics::Delta, tally::Counts, world::World};
use crate::{
    calls::facts::{CallResult, Direction},
    requests::{model::Source, state::Status},
};

/// Float sums of kopecks may differ by this much for each booking.
const ROUNDING: f64 = 0.005;

/// One compared count.
#[derive(Debug)]
pub struct Row {
    what: String,
    ours: f64,
    theirs: f64,
    tolerance: f64,
    decimals: usize,
}

impl Row {
    fn count(what: impl Into<String>, ours: u32, theirs: f64) -> Self {
        Self { what: what.into(), ours: ours.into(), theirs, tolerance: 0.0, decimals: 0 }
    }

    fn rubles(what: &str, ours: rust_decimal::Decimal, bookings: u32, theirs: f64) -> Self {
        let ours = ours.to_f64().unwrap_or(f64::NAN);
        Self { what: what.to_owned(), ours, theirs, tolerance: ROUNDING * f64::from(bookings), decimals: 2 }
    }

    /// Whether both counted the same.
    #[must_use]
    pub fn agrees(&self) -> bool {
        (self.ours - self.theirs).abs() <= self.tolerance + 1e-6
    }
}

/// Compares what the simulator saw succeed with what the server counted. `kept` is how many of the
/// links between calls and service requests the server still shows.
#[must_use]
pub fn compare(counts: &Counts, delta: &Delta, kept: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what: &str, ours: u32, name: &str, labels: &[(&str, &str)]| {
        rows.push(Row::count(what, ours, delta.rise(name, labels)));
    };
    add("sign-ins", counts.signed_in, "auth_attempts_total", &[("result", "success")]);
    add("refreshes", counts.refreshed, "auth_refreshes_total", &[("result", "success")]);
    for (outcome, ours) in [
        ("accepted", counts.accepted),
        ("duplicate", counts.duplicates),
        ("rejected", counts.rejected),
        ("processed", counts.accepted - counts.ignored),
        ("ignored", counts.ignored),
        ("failed", 0),
    ] {
        let labels = [("provider", "mango"), ("outcome", outcome)];
        add(&format!("events {outcome}"), ours, "switchboard_webhook_events_total", &labels);
    }
    for direction in Direction::ALL {
        for result in CallResult::ALL {
            let ours = counts.calls.get(&(*result, *direction)).copied().unwrap_or(0);
            let labels = [("direction", direction.as_str()), ("result", result.as_str())];
            if ours > 0 || delta.rise("switchboard_calls_total", &labels) > 0.0 {
                let what = format!("calls {} {}", direction.as_str(), result.as_str());
                add(&what, ours, "switchboard_calls_total", &labels);
            }
        }
    }
    add("calls deduplicated", counts.joined, "switchboard_calls_deduplicated_total", &[]);
    add("calls on unknown lines", counts.unknown_line, "switchboard_calls_unknown_line_total", &[]);
    add("calls of unknown callers", counts.unknown_caller, "switchboard_calls_unknown_caller_total", &[]);
    for source in Source::ALL {
        let what = format!("requests created, {}", source.as_str());
        let ours = counts.created.get(source).copied().unwrap_or(0);
        add(&what, ours, "switchboard_service_requests_created_total", &[("source", source.as_str())]);
    }
    add(
        "requests created, by city",
        counts.created.values().sum(),
        "switchboard_service_requests_created_by_city_total",
        &[],
    );
    compare_moves(counts, delta, &mut add);
    for (reason, ours) in [("stale", counts.stale_moves), ("not_allowed", counts.impossible_moves)] {
        let labels = [("reason", reason)];
        add(
            &format!("moves refused, {reason}"),
            ours,
            "switchboard_service_request_transition_rejections_total",
            &labels,
        );
    }
    let name = |what: &str| format!("switchboard_service_request_{what}_seconds_count");
    add("first responses", counts.first_responses, &name("first_response"), &[]);
    add("first offers to masters", counts.first_offers, &name("assign"), &[]);
    add("completions", counts.completions, &name("completion"), &[]);
    let revenue = delta.rise("switchboard_revenue_rubles_total", &[]);
    rows.push(Row::rubles("revenue, rubles", counts.revenue, counts.bookings, revenue));
    let refunds = delta.rise("switchboard_refunds_rubles_total", &[]);
    rows.push(Row::rubles("refunds, rubles", counts.refunds, counts.reversals, refunds));
    let links = u32::try_from(counts.links.len()).unwrap_or(u32::MAX);
    rows.push(Row::count("calls linked from triage", links, kept.into()));
    rows
}

fn compare_moves(counts: &Counts, delta: &Delta, add: &mut impl FnMut(&str, u32, &str, &[(&str, &str)])) {
    const NAME: &str = "switchboard_service_request_transitions_total";
    let ours = counts.moves.keys().map(|(from, to)| (from.as_str().to_owned(), to.as_str().to_owned()));
    let pairs: BTreeSet<(String, String)> = ours.chain(delta.risen(NAME, "from", "to")).collect();
    // In the order of the states, which is that of the work.
    for from in Status::ALL {
        for to in Status::ALL {
            if pairs.contains(&(from.as_str().to_owned(), to.as_str().to_owned())) {
                let ours = counts.moves.get(&(*from, *to)).copied().unwrap_or(0);
                let labels = [("from", from.as_str()), ("to", to.as_str())];
                add(&format!("{} → {}", from.as_str(), to.as_str()), ours, NAME, &labels);
            }
        }
    }
}

/// What was seen to succeed and stays in the database, for who compares it.
#[must_use]
pub fn seen(counts: &Counts) -> Value {
    let calls = counts.calls.iter().map(|((result, direction), count)| {
        json!({ "direction": direction.as_str(), "result": result.as_str(), "count": count })
    });
    let moves = counts
        .moves
        .iter()
        .map(|((from, to), count)| json!({ "from": from.as_str(), "to": to.as_str(), "count": count }));
    let created = counts.created.iter().map(|(source, count)| (source.as_str().to_owned(), json!(count)));
    json!({
        "webhook_events": counts.accepted,
        "webhook_events_without_effect": counts.ignored,
        "calls": calls.collect::<Vec<_>>(),
        "calls_joined": counts.joined,
        "calls_in_triage": counts.unknown_line + counts.unknown_caller,
        "links": counts.links.iter().map(|(call, request)| json!({ "call": call, "request": request })).collect::<Vec<_>>(),
        "requests_created": created.collect::<Map<_, _>>(),
        "transitions": moves.collect::<Vec<_>>(),
        "comments": counts.comments,
        "edits": counts.edits,
        "conflicts": counts.stale_moves + counts.impossible_moves + counts.other_conflicts,
        "incomes": counts.bookings,
        "revenue_rubles": counts.revenue,
        "reversals": counts.reversals,
        "refunds_rubles": counts.refunds,
        "errors": counts.errors,
        "sent_again": counts.sent_again,
    })
}

/// What was done, as a table.
#[must_use]
pub fn what_was_done(world: &World, counts: &mut Counts, took: Duration) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, value: String| lines.push((what.to_owned(), value));
    add("calls", counts.calls_by_kind.values().sum::<u32>().to_string());
    for (kind, count) in &counts.calls_by_kind {
        add(&format!("  {}", kind.name()), count.to_string());
    }
    add("deliveries", (counts.accepted + counts.duplicates + counts.rejected).to_string());
    let deliveries = [("new", counts.accepted), ("repeated", counts.duplicates), ("forged, refused", counts.rejected)];
    for (what, count) in deliveries {
        add(&format!("  {what}"), count.to_string());
    }
    let created = |source| counts.created.get(&source).copied().unwrap_or(0);
    add("service requests", counts.created.values().sum::<u32>().to_string());
    add("  from calls", created(Source::Call).to_string());
    add("  typed in", created(Source::Manual).to_string());
    add("calls that joined one", counts.joined.to_string());
    add("calls in triage", (counts.unknown_line + counts.unknown_caller).to_string());
    add("  linked by an operator", counts.links.len().to_string());
    add("moves", counts.moves.values().sum::<u32>().to_string());
    add("edits", counts.edits.to_string());
    add("comments", counts.comments.to_string());
    add("conflicts", (counts.stale_moves + counts.impossible_moves + counts.other_conflicts).to_string());
    add("done", world.jobs.count(|status| status == Status::Done).to_string());
    add("refused", world.jobs.count(|status| status == Status::Refused).to_string());
    add("not an order", world.jobs.count(|status| status == Status::NotOrder).to_string());
    add("still open", world.jobs.count(|status| !status.is_finished()).to_string());
    add("revenue, rubles", format!("{:.2}", counts.revenue));
    add("refunds, rubles", format!("{:.2}", counts.refunds));
    add("HTTP requests", (counts.api.len() + counts.webhooks.len()).to_string());
    add("  people, p50 / p99", quantiles(&mut counts.api));
    add("  webhooks, p50 / p99", quantiles(&mut counts.webhooks));
    add("  sent again", counts.sent_again.to_string());
    add("errors", counts.errors.to_string());
    add("real time", format!("{:.1} s", took.as_secs_f64()));

    let mut text = String::from("What was done\n");
    for (what, value) in lines {
        let _ = writeln!(text, "  {what:<32}{value:>24}");
    }
    text
}

/// The comparison, as a table, and its verdict.
#[must_use]
pub fn comparison(rows: &[Row]) -> String {
    let mut text = format!("\n{:<40}{:>14}{:>14}\n", "Count", "simulator", "server");
    for row in rows {
        let Row { what, ours, theirs, decimals, .. } = row;
        let verdict = if row.agrees() { "ok" } else { "DIFFERS" };
        let _ = writeln!(text, "  {what:<38}{ours:>14.decimals$}{theirs:>14.decimals$}  {verdict}");
    }
    text.push_str(if rows.iter().all(Row::agrees) { "\ncounts agree" } else { "\ncounts differ" });
    text
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    format!("{:.1} / {:.1} ms", at(50), at(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_may_differ_by_rounding_and_counts_by_nothing() {
        let row = |ours, theirs, tolerance| Row { what: String::new(), ours, theirs, tolerance, decimals: 0 };
        assert!(row(3.0, 3.0, 0.0).agrees());
        assert!(!row(3.0, 4.0, 0.0).agrees());
        assert!(row(100.0, 100.009, 0.01).agrees());
        assert!(!row(100.0, 100.02, 0.01).agrees());
        assert!(!row(f64::NAN, 1.0, 0.0).agrees());
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        let rows = vec![Row::count("a", 1, 1.0), Row::count("b", 1, 2.0)];
        let text = comparison(&rows);
        assert!(text.contains("DIFFERS") && text.ends_with("counts differ"), "{text}");
        assert!(comparison(&rows[..1]).ends_with("counts agree"));
    }
}
