//! The catalogue is closed: what is declared is used, what is named is declared.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;
use switchboard::telemetry::{catalogue::Kind, labels::Values};

use crate::{promql, queries, tree::Tree};

/// Generated from the catalogue, so that naming a metric there is no use of it.
const PAGE: &str = "docs/METRICS.md";

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[A-Za-z_:][A-Za-z0-9_:]*").unwrap());

/// Documents written by hand.
fn documents_of(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let generated = [PAGE, "docs/ALERTS.md"];
    let docs = tree.under("docs/", ".md").filter(move |(path, _)| !generated.contains(path));
    docs.chain(tree.under("README.md", ".md")).chain(tree.under("prometheus/", ".md"))
}

pub fn used(tree: &Tree) -> Vec<String> {
    let (queries, _) = queries::all(tree);
    let mut names = BTreeSet::new();
    for query in &queries {
        let Ok(expr) = promql::parse(&query.text) else { continue };
        for selector in promql::selectors(&expr) {
            names.extend(tree.metric(&selector.metric).map(|metric| metric.name.clone()));
        }
    }
    for (_, text) in documents_of(tree) {
        names.extend(WORD.find_iter(text).map(|word| word.as_str().to_owned()));
    }
    let unused = tree.catalogue.iter().filter(|metric| !names.contains(&metric.name));
    unused.map(|metric| format!("{}: no rule, dashboard, runbook or document uses it", metric.name)).collect()
}

/// Words in documents that look like a metric of ours are one.
pub fn documents(tree: &Tree) -> Vec<String> {
    let records = queries::Names::of(tree).records;
    // Two words of a metric's name and an underscore begin like one: `db_pool_`.
    let beginnings: BTreeSet<String> = tree
        .catalogue
        .iter()
        .filter_map(|metric| {
            let end = metric.name.match_indices('_').nth(1).map_or(metric.name.len(), |(at, _)| at);
            Some(format!("{}_", metric.name.get(..end)?))
        })
        .collect();
    let is_ours = |word: &str| word.starts_with("slo:") || beginnings.iter().any(|start| word.starts_with(start));
    let is_known = |word: &str| {
        tree.metric(word).is_some()
            || tree.catalogue.iter().any(|metric| metric.name == word)
            || records.contains_key(word)
    };
    let mut complaints = Vec::new();
    // Rules speak of metrics in their annotations, cases in their series.
    for (path, text) in documents_of(tree).chain(tree.under("prometheus/", ".yml")) {
        for (number, line) in text.lines().enumerate() {
            for word in WORD.find_iter(line) {
                // `db_pool_*` and `db_pool_…` mean several.
                let is_part = word.as_str().ends_with('_') || word.as_str().ends_with(':');
                if !is_part && is_ours(word.as_str()) && !is_known(word.as_str()) {
                    complaints.push(format!("{path}:{}: no metric is called {}", number + 1, word.as_str()));
                }
            }
        }
    }
    complaints
}

/// Row by row, and byte by byte against what the program prints.
pub fn page(tree: &Tree) -> Vec<String> {
    let text = tree.text(PAGE);
    let mut complaints = Vec::new();
    for metric in &tree.catalogue {
        let row = format!("| `{}` | {} | ", metric.name, metric.kind.as_str());
        let Some(line) = text.lines().find(|line| line.starts_with(&row)) else {
            complaints.push(format!("{PAGE} has no row of {}: make docs", metric.name));
            continue;
        };
        for (label, values) in &metric.labels {
            let shown = match values {
                Values::Closed(values) if values.len() <= 12 => format!("`{label}` ({})", values.join(", ")),
                Values::Closed(_) | Values::Capped { .. } => format!("`{label}` ("),
            };
            if !line.contains(&shown) {
                complaints.push(format!("{PAGE}: the row of {} lacks {shown}: make docs", metric.name));
            }
        }
        if metric.kind == Kind::Histogram && !text.contains(&format!("\n| `{}` | {} ", metric.name, metric.buckets[0]))
        {
            complaints.push(format!("{PAGE} has no buckets of {}: make docs", metric.name));
        }
    }
    if text != switchboard::telemetry::metrics::reference() {
        complaints.push(format!("{PAGE} is not what `switchboard metrics` prints: make docs"));
    }
    complaints
}
