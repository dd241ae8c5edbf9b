//! prometheus/slo.json, and that its numbers stand nowhere else.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde::Deserialize;

use crate::tree::Tree;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub service: String,
    pub window_days: u32,
    pub retention_days: u32,
    /// Routes of probes, which no objective counts.
    pub not_requests: Vec<String>,
    pub slos: Vec<Slo>,
    pub burn_windows: Vec<Window>,
    pub r#for: String,
    pub page_keep_firing_for: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    pub name: String,
    /// What its alerts begin with.
    pub alert: String,
    pub description: String,
    /// Per cent.
    pub objective: f64,
    pub threshold_seconds: Option<f64>,
    /// Only these routes.
    #[serde(default)]
    pub routes: Vec<String>,
    /// All but these.
    #[serde(default)]
    pub exclude_routes: Vec<String>,
    /// Of probes instead of requests.
    pub probe_job: Option<String>,
    /// Fewer bad events than that in the long window raise nothing: by window.
    pub min_bad: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub name: String,
    pub severity: String,
    pub long: String,
    pub short: String,
    pub factor: f64,
}

impl Statement {
    pub fn read(tree: &Tree) -> Result<Self, String> {
        serde_json::from_str(tree.text("prometheus/slo.json")).map_err(|error| format!("prometheus/slo.json: {error}"))
    }

    pub fn slo(&self, name: &str) -> Option<&Slo> {
        self.slos.iter().find(|slo| slo.name == name)
    }
}

impl Slo {
    /// The share that may be bad.
    pub fn budget(&self) -> f64 {
        rounded(1.0 - self.objective / 100.0)
    }

    /// The objective as a share.
    pub fn share(&self) -> f64 {
        rounded(self.objective / 100.0)
    }

    /// The budget as time without service: `43 m 12 s`.
    pub fn budget_time(&self, days: u32) -> String {
        let seconds = self.budget() * f64::from(days) * 86_400.0;
        format!("{:.0} m {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}

/// 1 − 0.999 is not 0.001 in binary.
pub fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// Wherever documents and rules speak of an objective, a threshold or a budget, it is the one of slo.json, and the load
/// test reads it from there.
pub fn stated_once(tree: &Tree) -> Vec<String> {
    static PERCENT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(99(?:\.\d+)?)\s?%").unwrap());
    static TIME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b\d+ m \d+ s\b").unwrap());
    static LITERAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"p\((?:9\d|9\d\.\d)\)\s*<\s*\d").unwrap());
    let statement = match Statement::read(tree) {
        Ok(statement) => statement,
        Err(error) => return vec![error],
    };
    let mut complaints = Vec::new();
    let objectives: Vec<f64> = statement.slos.iter().map(|slo| slo.objective).collect();
    let Some(availability) = statement.slo("availability") else {
        return vec!["prometheus/slo.json has no objective availability".to_owned()];
    };
    let month = availability.budget_time(statement.window_days);
    let texts = [tree.under("docs/", ".md"), tree.under("prometheus/", ".yml"), tree.under("prometheus/", ".md")];
    for (path, text) in texts.into_iter().flatten() {
        for (number, line) in text.lines().enumerate() {
            let mut complain = |what: &str| complaints.push(format!("{path}:{}: {what}: {line}", number + 1));
            for found in PERCENT.captures_iter(line) {
                let stated: f64 = found[1].parse().unwrap_or_default();
                if !objectives.iter().any(|objective| (objective - stated).abs() < 1e-9) {
                    complain("no objective is");
                }
            }
            if TIME.find_iter(line).any(|found| found.as_str() != month) {
                complain("the availability budget is otherwise");
            }
        }
    }
    // The load test: it opens the statement, and holds nothing against a number of its own.
    let scripts: Vec<(&str, &str)> = tree.under("loadtests/", "s").filter(|(path, _)| is_script(path)).collect();
    if !scripts.iter().any(|(_, text)| text.contains("open(") && text.contains("slo.json")) {
        complaints.push("nothing in loadtests/ opens prometheus/slo.json".to_owned());
    }
    for (path, text) in scripts {
        if let Some(found) = LITERAL.find(text) {
            complaints.push(format!("{path}: a threshold of its own: {}", found.as_str()));
        }
    }
    complaints
}

fn is_script(path: &str) -> bool {
    ["js", "ts"].iter().any(|extension| path.rsplit('.').next() == Some(extension))
}
