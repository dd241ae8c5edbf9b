//! Writes docs/ALERTS.md from the rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    alerts::EXPECTED,
    delivery, promql, queries,
    rules::{self, Rule},
    slo::Statement,
    slo_rules,
    tree::{self, Tree},
};

const HEAD: &str = "\
# Alerts

Generated from `prometheus/rules/` by `SWITCHBOARD_WRITE=1 cargo test --test artifacts`; do not edit.

A **page** reaches somebody at any hour; a **ticket** waits for working hours (08:00–20:00 in Moscow, Monday to
Saturday). The source is the job that Prometheus scrapes for it. Each alert has a [runbook](runbooks/README.md), and
cases in `prometheus/tests/` in which it fires and is silent.

";

pub fn current(tree: &Tree) -> Vec<String> {
    let mut tree = tree.clone();
    if let (true, Ok(statement)) = (tree::writes(), Statement::read(&tree)) {
        // The one on disk may be written at this moment.
        tree.files.insert("prometheus/rules/slo.yml".to_owned(), slo_rules::written(&statement).into());
    }
    let tree = &tree;
    match rules::all(tree) {
        Ok(rules) => tree::generated(tree, "docs/ALERTS.md", &written(tree, &rules)),
        Err(errors) => errors,
    }
}

pub fn written(tree: &Tree, all: &[(String, Rule)]) -> String {
    let sources = Sources::of(tree, all);
    let mut out = HEAD.to_owned();
    out.push_str("| alert | severity | objective | owner | threshold | for | source | says |\n");
    out.push_str("|---|---|---|---|---|---|---|---|\n");
    let mut alerts: Vec<&Rule> = all.iter().map(|(_, rule)| rule).filter(|rule| rule.alert.is_some()).collect();
    alerts.sort_by_key(|rule| EXPECTED.iter().position(|expected| expected.0 == rule.name()));
    let label = |rule: &Rule, name: &str| match rule.labels.get(name).map(String::as_str) {
        Some("none") | None => "–".to_owned(),
        Some(value) if value.starts_with("{{") => "each".to_owned(),
        Some(value) => value.to_owned(),
    };
    for rule in &alerts {
        let name = rule.name();
        let says = rule.annotations.get("summary").map_or("", String::as_str).replace('|', "\\|");
        let jobs: Vec<String> = sources.of_expr(&rule.expr).into_iter().collect();
        let _ = writeln!(
            out,
            "| [{name}](runbooks/{name}.md) | {} | {} | {} | {} | {} | {} | {} |",
            label(rule, "severity"),
            label(rule, "slo"),
            label(rule, "owner"),
            thresholds(&rule.expr),
            rule.r#for.as_deref().unwrap_or("–"),
            if jobs.is_empty() { "–".to_owned() } else { jobs.join(", ") },
            plain(&says),
        );
    }
    out.push_str("\n## Expressions\n");
    for rule in alerts {
        let _ = write!(out, "\n### {}\n\n```promql\n{}\n```\n", rule.name(), rule.expr.trim());
        if let Some(keep) = &rule.keep_firing_for {
            let _ = write!(out, "\nKeeps firing for {keep} after it is over.\n");
        }
    }
    out
}

/// Without template code: `{{ $labels.instance }}` becomes `<instance>`.
fn plain(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (code, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        if let Some(label) = code.trim().strip_prefix("$labels.") {
            let _ = write!(out, "`{label}`");
        }
        rest = after;
    }
    out.push_str(rest);
    out.replace(", )", ")")
}

fn thresholds(expr: &str) -> String {
    let found = promql::parse(expr).map(|expr| promql::thresholds(&expr)).unwrap_or_default();
    let mut once: Vec<String> = Vec::new();
    for threshold in found {
        let shown = format!("`{threshold}`");
        if !once.contains(&shown) {
            once.push(shown);
        }
    }
    if once.is_empty() { "–".to_owned() } else { once.join(", ") }
}

/// The rules of a record, by its name: labels and expression.
type Records = BTreeMap<String, Vec<Recorded>>;
type Recorded = (BTreeMap<String, String>, String);

/// From which jobs the series of an expression come, through the records.
struct Sources<'a> {
    tree: &'a Tree,
    names: queries::Names,
    records: Records,
}

impl<'a> Sources<'a> {
    fn of(tree: &'a Tree, all: &[(String, Rule)]) -> Self {
        let mut records = Records::new();
        for (_, rule) in all.iter().filter(|(_, rule)| rule.record.is_some()) {
            records.entry(rule.name().to_owned()).or_default().push((rule.labels.clone(), rule.expr.clone()));
        }
        Self { tree, names: queries::Names::of(tree), records }
    }

    fn of_expr(&self, expr: &str) -> BTreeSet<String> {
        let Ok(expr) = promql::parse(expr) else { return BTreeSet::new() };
        let mut jobs = BTreeSet::new();
        for selector in promql::selectors(&expr) {
            let value =
                |label: &str| selector.matchers.iter().find(|matcher| matcher.label == label && !matcher.is_regex);
            if let Some(job) = value("job") {
                jobs.insert(job.value.clone());
            } else if let Some(rules) = self.records.get(&selector.metric) {
                let asked = value("sloth_slo").map(|matcher| matcher.value.as_str());
                for (labels, expr) in rules {
                    if asked.is_none() || asked == labels.get("sloth_slo").map(String::as_str) {
                        jobs.extend(self.of_expr(expr));
                    }
                }
            } else if self.tree.metric(&selector.metric).is_some() {
                jobs.insert("switchboard".to_owned());
            } else {
                jobs.extend(self.names.exporters.jobs(&selector.metric).unwrap_or_default());
            }
        }
        jobs
    }
}

/// Every alert but the Watchdog comes from a job, and Prometheus scrapes it.
pub fn scraped(tree: &Tree) -> Vec<String> {
    let all = match rules::all(tree) {
        Ok(all) => all,
        Err(errors) => return errors,
    };
    let (sources, scraped) = (Sources::of(tree, &all), delivery::jobs(tree));
    let mut complaints = Vec::new();
    for (path, rule) in all.iter().filter(|(_, rule)| rule.alert.is_some()) {
        let jobs = sources.of_expr(&rule.expr);
        if jobs.is_empty() && rule.name() != "Watchdog" {
            complaints.push(format!("{path}: {}: its series come from no job", rule.name()));
        }
        for job in jobs.difference(&scraped) {
            complaints.push(format!("{path}: {}: prometheus.yml has no job {job}", rule.name()));
        }
    }
    complaints
}
