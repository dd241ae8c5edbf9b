//! What can be told of a [`Tree`] by reading.

use crate::{
    alertmanager, alerts, alerts_page, catalogue, delivery, exporters, queries, slo, slo_rules, tree::Tree, unit_tests,
};

/// A check: what is wrong, a line each.
pub type Check = fn(&Tree) -> Vec<String>;

/// All that can be told by reading. The rest, in `tools`, runs promtool and amtool.
pub const CHECKS: &[(&str, Check)] = &[
    ("every query parses", queries::parse),
    ("metrics, labels and values in queries exist", queries::resolve),
    ("rules say whose series they mean", queries::scoped),
    ("every declared metric is used", catalogue::used),
    ("metrics named in documents exist", catalogue::documents),
    ("docs/METRICS.md is current", catalogue::page),
    ("exporters.json lists what is used and no more", exporters::used),
    ("rules/slo.yml is current", slo_rules::current),
    ("docs/ALERTS.md is current", alerts_page::current),
    ("objectives are stated once", slo::stated_once),
    ("alerts have what each needs", alerts::complete),
    ("runbooks and alerts match", alerts::runbooks),
    ("dashboards of alerts exist", alerts::dashboards),
    ("working hours are business hours", alertmanager::hours),
    ("routes and inhibitions", alertmanager::structure),
    ("source jobs are scraped", alerts_page::scraped),
    ("every alert has a firing and a silent case", unit_tests::both),
    ("Prometheus keeps and serves what the rules need", delivery::prometheus),
];

pub fn none(name: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{name}:\n  {}", complaints.join("\n  "));
}
