//! Alertmanager's routes as far as amtool cannot tell: hours, intervals, inhibitions.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::{DateTime, TimeDelta, Utc, Weekday};
use serde::Deserialize;
use switchboard::config::BusinessHours;

use crate::tree::{Tree, yaml};

const PATH: &str = "alertmanager/alertmanager.yml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(rename = "templates")]
    _templates: Vec<String>,
    route: Route,
    inhibit_rules: Vec<Inhibition>,
    time_intervals: Vec<Interval>,
    receivers: Vec<BTreeMap<String, serde_json::Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Route {
    receiver: String,
    group_by: Vec<String>,
    matchers: Vec<String>,
    group_wait: Option<String>,
    group_interval: Option<String>,
    repeat_interval: Option<String>,
    active_time_intervals: Vec<String>,
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Inhibition {
    source_matchers: Vec<String>,
    target_matchers: Vec<String>,
    equal: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interval {
    name: String,
    time_intervals: Vec<Times>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Times {
    weekdays: Vec<String>,
    times: Vec<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    start_time: String,
    end_time: String,
}

fn read(tree: &Tree) -> Result<Config, String> {
    yaml(PATH, tree.text(PATH))
}

/// Where some alerts go, and when.
#[derive(Debug, PartialEq)]
struct Way<'a> {
    receiver: &'a str,
    matcher: &'a str,
    /// Before the first message of a group, between two of it, and between two of the same.
    times: [&'a str; 3],
    hours: &'a str,
}

impl<'a> Way<'a> {
    fn of(route: &'a Route, root: &'a Route) -> Self {
        let one = |list: &'a [String]| match list {
            [only] => only.as_str(),
            [] => "",
            _ => "several",
        };
        let own = |of: fn(&Route) -> Option<&str>| of(route).or_else(|| of(root)).unwrap_or_default();
        Self {
            receiver: &route.receiver,
            matcher: one(&route.matchers),
            times: [
                own(|route| route.group_wait.as_deref()),
                own(|route| route.group_interval.as_deref()),
                own(|route| route.repeat_interval.as_deref()),
            ],
            hours: one(&route.active_time_intervals),
        }
    }
}

/// Its name, the address of its one webhook, and whether it is told what is over.
fn receiver(receiver: &BTreeMap<String, serde_json::Value>) -> (&str, &str, bool) {
    let name = receiver.get("name").and_then(|name| name.as_str()).unwrap_or_default();
    let hooks = receiver.get("webhook_configs").and_then(|hooks| hooks.as_array()).map_or(&[][..], Vec::as_slice);
    let [hook] = hooks else { return (name, "", false) };
    (name, hook["url"].as_str().unwrap_or_default(), hook["send_resolved"] != false)
}

/// Tickets in working hours, pages at any hour and soon, the Watchdog on its own; and a page silences no page.
pub fn structure(tree: &Tree) -> Vec<String> {
    let config = match read(tree) {
        Ok(config) => config,
        Err(error) => return vec![error],
    };
    let mut complaints = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            complaints.push(format!("{PATH}: {what}"));
        }
    };
    let root = &config.route;
    expect(root.receiver == "pages", "what no route knows goes to the pages");
    expect(root.group_by == ["alertname", "slo"], "grouped by alertname and slo");
    expect(root.matchers.is_empty() && root.active_time_intervals.is_empty(), "the root is for all alerts at any hour");
    expect(root.routes.iter().all(|route| route.routes.is_empty()), "routes are one level deep, as these checks are");
    // The Watchdog comes first: no other route must take it. Pages come at any hour, tickets in working hours.
    let routes: Vec<Way<'_>> = root.routes.iter().map(|route| Way::of(route, root)).collect();
    expect(
        routes
            == [
                Way {
                    receiver: "dead-mans-switch",
                    matcher: "alertname = Watchdog",
                    times: ["0s", "30s", "1m"],
                    hours: "",
                },
                Way { receiver: "pages", matcher: "severity = page", times: ["10s", "5m", "1h"], hours: "" },
                Way {
                    receiver: "tickets",
                    matcher: "severity = ticket",
                    times: ["1m", "5m", "1d"],
                    hours: "working-hours",
                },
            ],
        "the Watchdog, pages and tickets each have their way",
    );
    let receivers: Vec<(&str, &str, bool)> = config.receivers.iter().map(receiver).collect();
    expect(
        receivers
            == [
                ("pages", "http://127.0.0.1:9099/pages", true),
                ("tickets", "http://127.0.0.1:9099/tickets", true),
                ("dead-mans-switch", "http://127.0.0.1:9099/watchdog", false),
            ],
        "three receivers, each with an address of its own; all but the last are told what is over",
    );
    let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<String>>();
    let inhibition = |source: &[&str], equal: &[&str]| Inhibition {
        source_matchers: strings(source),
        target_matchers: strings(&["severity = ticket"]),
        equal: strings(equal),
    };
    let inhibitions = [
        inhibition(&["severity = page", "slo != none"], &["service", "slo"]),
        inhibition(&["alertname = ApiDown"], &["service"]),
    ];
    expect(config.inhibit_rules == inhibitions, "a page inhibits the ticket of its objective, ApiDown tickets only");
    complaints
}

/// The hours of Alertmanager's interval are the server's business hours, as it has them by default.
pub fn hours(tree: &Tree) -> Vec<String> {
    const DEFAULTS: &str = "src/config/defaults.toml";
    // A Monday.
    let midnight: DateTime<Utc> = "2026-11-23T00:00:00Z".parse().unwrap();
    let config = match read(tree) {
        Ok(config) => config,
        Err(error) => return vec![error],
    };
    let Some(interval) = config.time_intervals.iter().find(|interval| interval.name == "working-hours") else {
        return vec![format!("{PATH} has no interval working-hours")];
    };
    let [Times { weekdays, times }] = interval.time_intervals.as_slice() else {
        return vec![format!("{PATH}: working-hours is not one span of one week")];
    };
    let defaults: toml::Table = tree.text(DEFAULTS).parse().unwrap_or_default();
    let business = defaults.get("business").and_then(|section| section.get("hours")).and_then(toml::Value::as_str);
    let Some(Ok(business)) = business.map(str::parse::<BusinessHours>) else {
        return vec![format!("{DEFAULTS} has no business.hours")];
    };
    let minute = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        Some(60 * hour.parse::<i64>().ok()? + minute.parse::<i64>().ok()?)
    };
    let days: Vec<i64> = weekdays.iter().flat_map(|days| weekdays_of(days)).collect();
    let spans: Vec<_> =
        times.iter().filter_map(|span| Some(minute(&span.start_time)?..minute(&span.end_time)?)).collect();
    // Each minute of a week.
    let differs = (0..7 * 1440).find(|at| {
        let working = days.contains(&(at / 1440)) && spans.iter().any(|span| span.contains(&(at % 1440)));
        business.opened(midnight + TimeDelta::minutes(*at)).is_some() != working
    });
    let complaint = |at: i64| {
        let at = (midnight + TimeDelta::minutes(at)).format("%A %H:%M UTC");
        format!("{PATH}: working-hours and business.hours ({business}) differ on {at}")
    };
    differs.map(complaint).into_iter().collect()
}

/// Days since Monday of `monday:saturday`, or of one day.
fn weekdays_of(text: &str) -> RangeInclusive<i64> {
    let (from, until) = text.split_once(':').unwrap_or((text, text));
    let day = |name: &str| name.parse::<Weekday>().map_or(7, |day| i64::from(day.num_days_from_monday()));
    day(from)..=day(until)
}
