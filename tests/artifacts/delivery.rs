//! What Prometheus is started with, by compose and by `make stack`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use switchboard::telemetry::metrics::SERIES_CEILING;

use crate::{
    rules,
    slo::Statement,
    tree::{Tree, yaml},
};

const PATH: &str = "prometheus/prometheus.yml";

/// The jobs that prometheus.yml scrapes.
pub fn jobs(tree: &Tree) -> BTreeSet<String> {
    let config: Value = yaml(PATH, tree.text(PATH)).unwrap_or_default();
    let jobs = config["scrape_configs"].as_array().cloned().unwrap_or_default();
    jobs.iter().filter_map(|job| job["job_name"].as_str().map(str::to_owned)).collect()
}

pub fn prometheus(tree: &Tree) -> Vec<String> {
    const JOBS: &[&str] = &[
        "alertmanager",
        "blackbox",
        "blackbox-ready",
        "grafana",
        "loki",
        "node",
        "otel-collector",
        "postgres",
        "prometheus",
        "redis",
        "switchboard",
        "tempo",
    ];
    let statement = match Statement::read(tree) {
        Ok(statement) => statement,
        Err(error) => return vec![error],
    };
    let mut complaints = Vec::new();
    let config: Value = match yaml(PATH, tree.text(PATH)) {
        Ok(config) => config,
        Err(error) => return vec![error],
    };
    let jobs = jobs(tree);
    if jobs.iter().map(String::as_str).collect::<Vec<_>>() != JOBS {
        complaints.push(format!("{PATH}: the jobs are {jobs:?}, expected {JOBS:?}"));
    }
    for interval in ["scrape_interval", "evaluation_interval"] {
        if config["global"][interval] != "15s" {
            complaints.push(format!("{PATH}: {interval} is not 15s, which the floors of availability count in"));
        }
    }
    let dropped = &config["alerting"]["alert_relabel_configs"][0];
    let labels: BTreeMap<String, String> =
        serde_json::from_value(config["global"]["external_labels"].clone()).unwrap_or_default();
    if !labels.keys().map(String::as_str).eq(["docs_url", "grafana_url"])
        || dropped["action"] != "labeldrop"
        || dropped["regex"] != "docs_url|grafana_url"
    {
        complaints.push(format!("{PATH}: docs_url and grafana_url are external labels, and dropped from alerts"));
    }
    if statement.retention_days < statement.window_days + 5 {
        complaints.push("prometheus/slo.json: Prometheus must keep a few days more than the window".to_owned());
    }
    let retention = format!("--storage.tsdb.retention.time={}d", statement.retention_days);
    for flag in [retention.as_str(), "--web.user-assets=", "--web.enable-remote-write-receiver"] {
        for path in ["docker-compose.yml", "prometheus/README.md", "scripts/stack"] {
            let text = tree.text(path);
            // The script reads the days from slo.json.
            let reads = path == "scripts/stack" && flag == retention && text.contains("retention_days");
            let flag = if reads { "--storage.tsdb.retention.time=" } else { flag };
            if !text.contains(flag) {
                complaints.push(format!("{path}: Prometheus is not started with {flag}"));
            }
        }
    }
    // The ceiling on series, of which the rule takes four fifths.
    let rule = rules::alerts(tree).into_iter().find(|(_, rule)| rule.name() == "CardinalityHigh");
    let expr = rule.map(|(_, rule)| rule.expr).unwrap_or_default();
    if !expr.ends_with(&format!("> {}", SERIES_CEILING * 4 / 5)) {
        complaints.push(format!("CardinalityHigh is not at four fifths of {SERIES_CEILING}: {expr}"));
    }
    complaints
}
