//! Alertmanager's routes as far as amtool cannot tell: hours, intervals, inhibitions.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde::Deserialize;

use crate::{
    rules,
    tree::{Tree, yaml},
};

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
    let route = |receiver: &str| root.routes.iter().find(|route| route.receiver == receiver);
    expect(root.receiver == "pages", "what no route knows goes to the pages");
    expect(root.group_by == ["alertname", "slo"], "grouped by alertname and slo");
    expect(root.routes.iter().all(|route| route.routes.is_empty()), "routes are one level deep, as these checks are");
    let matchers = |receiver: &str| route(receiver).map(|route| route.matchers.clone()).unwrap_or_default();
    expect(matchers("dead-mans-switch") == ["alertname = Watchdog"], "the Watchdog has a route of its own");
    expect(matchers("pages") == ["severity = page"], "pages have a route");
    expect(matchers("tickets") == ["severity = ticket"], "tickets have a route");
    let hours = |receiver: &str| route(receiver).map(|route| route.active_time_intervals.clone()).unwrap_or_default();
    expect(hours("tickets") == ["working-hours"], "tickets come in working hours");
    expect(hours("pages").is_empty() && root.active_time_intervals.is_empty(), "pages come at any hour");
    expect(hours("dead-mans-switch").is_empty(), "the Watchdog comes at any hour");
    let wait = route("pages").and_then(|route| route.group_wait.clone()).or_else(|| root.group_wait.clone());
    expect(wait.as_deref() == Some("10s"), "pages wait 10 s for others of their group");
    let timed = route("dead-mans-switch").is_some_and(|route| {
        route.group_interval.as_deref() == Some("30s") && route.repeat_interval.as_deref() == Some("1m")
    });
    expect(timed, "the Watchdog is repeated every minute or so");
    let own: Vec<&str> = config.receivers.iter().filter_map(|receiver| receiver["name"].as_str()).collect();
    expect(own == ["pages", "tickets", "dead-mans-switch"], "three receivers");
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

/// The hours of Alertmanager's interval are those that rules ask for.
pub fn hours(tree: &Tree) -> Vec<String> {
    static HOURS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"hour\(\) >= (\d+) and hour\(\) < (\d+)").unwrap());
    static DAYS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\(day_of_week\(\) >= 1\)").unwrap());
    let config = match read(tree) {
        Ok(config) => config,
        Err(error) => return vec![error],
    };
    let Some(interval) = config.time_intervals.iter().find(|interval| interval.name == "working-hours") else {
        return vec![format!("{PATH} has no interval working-hours")];
    };
    let mut complaints = Vec::new();
    let [Times { weekdays, times }] = interval.time_intervals.as_slice() else {
        return vec![format!("{PATH}: working-hours is not one span of one week")];
    };
    let hour = |text: &str| text.strip_suffix(":00").and_then(|hour| hour.parse::<u32>().ok());
    let span = match times.as_slice() {
        [Span { start_time, end_time }] => hour(start_time).zip(hour(end_time)),
        _ => None,
    };
    let Some((opens, closes)) = span else {
        return vec![format!("{PATH}: working-hours is not one span of whole hours")];
    };
    if weekdays != &["monday:saturday"] {
        complaints.push(format!("{PATH}: working-hours is not from Monday to Saturday, as day_of_week() >= 1 is"));
    }
    // Since opening, and since two hours after it, so that two hours of working time have passed.
    for (name, from) in [("NoTraffic", opens), ("BacklogTooOld", opens + 2)] {
        let rule = rules::alerts(tree).into_iter().find(|(_, rule)| rule.name() == name);
        let expr = rule.map(|(_, rule)| rule.expr).unwrap_or_default();
        let found = HOURS.captures(&expr).map(|found| (found[1].parse().unwrap_or(0), found[2].parse().unwrap_or(0)));
        if found != Some((from, closes)) || !DAYS.is_match(&expr) {
            complaints.push(format!("{name} asks for the hours {found:?}, working-hours says {from} to {closes}"));
        }
    }
    complaints
}
