//! The metrics of others that we use: exporters.json lists them by job, so that a misspelt one is noticed.

use std::collections::{BTreeMap, BTreeSet};

use crate::{promql, queries, tree::Tree};

const PATH: &str = "tests/artifacts/exporters.json";

pub struct Exporters {
    by_job: BTreeMap<String, Vec<String>>,
}

impl Exporters {
    pub fn read(tree: &Tree) -> Self {
        Self { by_job: serde_json::from_str(tree.text(PATH)).unwrap_or_default() }
    }

    /// Whether Prometheus makes it for every job.
    pub fn is_everywhere(&self, metric: &str) -> bool {
        self.by_job.get("*").is_some_and(|names| names.iter().any(|name| name == metric))
    }

    /// Which jobs have a metric; `None` when nobody has.
    pub fn jobs(&self, metric: &str) -> Option<Vec<String>> {
        let has = |names: &Vec<String>| names.iter().any(|name| name == metric);
        let jobs: Vec<String> =
            self.by_job.iter().filter(|(_, names)| has(names)).map(|(job, _)| job.clone()).collect();
        (!jobs.is_empty()).then_some(jobs)
    }
}

/// What is listed is used, by somebody.
pub fn used(tree: &Tree) -> Vec<String> {
    let exporters = Exporters::read(tree);
    if exporters.by_job.is_empty() {
        return vec![format!("{PATH} cannot be read")];
    }
    let (queries, _) = queries::all(tree);
    let parsed = queries.iter().filter_map(|query| promql::parse(&query.text).ok());
    let asked: BTreeSet<String> =
        parsed.flat_map(|expr| promql::selectors(&expr)).map(|selector| selector.metric).collect();
    let listed = exporters.by_job.values().flatten();
    listed.filter(|name| !asked.contains(*name)).map(|name| format!("{PATH}: nothing uses {name}")).collect()
}
