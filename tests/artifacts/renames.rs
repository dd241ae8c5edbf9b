//! Breaks one thing at a time, in memory, and sees whether any check complains: a metric, a label, an alert or a
//! runbook that is renamed in one place only. All of them must be caught.

use std::collections::BTreeMap;

use crate::{
    checks::{CHECKS, none},
    promql, queries, rules,
    tree::{self, Tree},
};

/// A change of one place, and what it is for the report.
struct Mutation {
    what: String,
    tree: Tree,
}

/// Where a metric can stand that a check reads.
fn files(tree: &Tree) -> Vec<String> {
    let read = |path: &&String| {
        (path.starts_with("prometheus/") && path.ends_with(".yml"))
            || (path.starts_with("grafana/dashboards/") && path.ends_with(".json"))
            || (path.starts_with("docs/") && path.ends_with(".md"))
    };
    tree.files.keys().filter(read).cloned().collect()
}

/// With a file's words replaced; `None` when it does not have the word.
fn replaced(tree: &Tree, path: &str, word: &str, by: &str) -> Option<Tree> {
    let pattern = regex::Regex::new(&format!(r"\b{}\b", regex::escape(word))).unwrap();
    let text = tree.text(path);
    if !pattern.is_match(text) {
        return None;
    }
    let text = pattern.replace_all(text, by).into_owned();
    let mut tree = tree.clone();
    tree.files.insert(path.to_owned(), text.into());
    Some(tree)
}

/// Whether a legend in this file shows a label of our own metrics. Which labels exporters give is not known.
fn is_shown(tree: &Tree, path: &str, label: &str) -> bool {
    let (queries, _) = queries::all(tree);
    let ours = |text: &str| {
        promql::parse(text)
            .is_ok_and(|expr| promql::selectors(&expr).iter().all(|selector| tree.metric(&selector.metric).is_some()))
    };
    let of_file = queries.iter().filter(|query| query.place.starts_with(path));
    of_file.into_iter().any(|query| query.shown.iter().any(|shown| shown == label) && ours(&query.text))
}

fn mutations(tree: &Tree) -> BTreeMap<&'static str, Vec<Mutation>> {
    let mut all: BTreeMap<&str, Vec<Mutation>> = BTreeMap::new();
    let mut add =
        |kind: &'static str, what: String, tree: Tree| all.entry(kind).or_default().push(Mutation { what, tree });
    for (index, metric) in tree.catalogue.iter().enumerate() {
        let renamed = format!("{}_renamed", metric.name);
        let mut other = tree.clone();
        other.catalogue[index].name.clone_from(&renamed);
        add("metric", format!("{} in the catalogue", metric.name), other);
        let exposed: Vec<String> = if metric.buckets.is_empty() {
            vec![metric.name.clone()]
        } else {
            ["", "_bucket", "_sum", "_count"].iter().map(|end| format!("{}{end}", metric.name)).collect()
        };
        for path in files(tree) {
            for name in &exposed {
                let end = name.trim_start_matches(&metric.name);
                if let Some(other) = replaced(tree, &path, name, &format!("{renamed}{end}")) {
                    add("metric", format!("{name} in {path}"), other);
                }
            }
        }
        for (number, (label, _)) in metric.labels.iter().enumerate() {
            let mut other = tree.clone();
            other.catalogue[index].labels[number].0 = format!("{label}_renamed");
            add("label", format!("{label} of {} in the catalogue", metric.name), other);
        }
    }
    let mut labels: Vec<&str> =
        tree.catalogue.iter().flat_map(|metric| &metric.labels).map(|(label, _)| label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    // Within braces or brackets of a query, in rules: `type` and `to` are words elsewhere.
    for (path, text) in tree.under("prometheus/rules/", ".yml").chain(tree.under("grafana/dashboards/", ".json")) {
        for label in &labels {
            let pattern = regex::Regex::new(&format!(r#"([{{,]\s*){label}(\s*(?:=~|!~|!=|=)\s*\\?")"#)).unwrap();
            if pattern.is_match(text) {
                let mut other = tree.clone();
                let text = pattern.replace_all(text, format!("${{1}}{label}_renamed${{2}}")).into_owned();
                other.files.insert(path.to_owned(), text.into());
                add("label", format!("{label} in {path}"), other);
            }
            let legend = format!("{{{{{label}}}}}");
            if text.contains(&legend) && is_shown(tree, path, label) {
                let mut other = tree.clone();
                other.files.insert(path.to_owned(), text.replace(&legend, &format!("{{{{{label}_renamed}}}}")).into());
                add("label", format!("{legend} in {path}"), other);
            }
        }
    }
    for (rules_path, rule) in rules::alerts(tree) {
        let name = rule.name().to_owned();
        let renamed = format!("{name}Renamed");
        let mut other = tree.clone();
        let text = tree.text(&rules_path).replace(&format!("alert: {name}\n"), &format!("alert: {renamed}\n"));
        other.files.insert(rules_path.clone(), text.into());
        add("alert", format!("{name} in {rules_path}"), other);
        for (path, _) in tree.under("prometheus/tests/", ".yml") {
            let asked = |name: &str| format!(r#"ALERTS{{alertname="{name}"}}"#);
            let text = tree.text(path);
            if text.contains(&asked(&name)) {
                let mut other = tree.clone();
                other.files.insert(path.to_owned(), text.replace(&asked(&name), &asked(&renamed)).into());
                add("alert", format!("{name} in {path}"), other);
            }
        }
        for path in ["docs/ALERTS.md", "docs/runbooks/README.md"] {
            if let Some(other) = replaced(tree, path, &name, &renamed) {
                add("alert", format!("{name} in {path}"), other);
            }
        }
        let runbook = format!("docs/runbooks/{name}.md");
        let mut other = tree.clone();
        if let Some(text) = other.files.remove(&runbook) {
            other.files.insert(format!("docs/runbooks/{renamed}.md"), text);
            add("runbook", format!("{runbook} renamed"), other);
        }
        if let Some(other) = replaced(tree, &rules_path, &format!("{name}.md"), &format!("{renamed}.md")) {
            add("runbook", format!("{name}.md in {rules_path}"), other);
        }
    }
    all
}

#[test]
fn a_rename_in_one_place_is_noticed() {
    if tree::writes() {
        // What is generated from a broken tree must not be written.
        return;
    }
    let tree = Tree::load();
    // Complaints of the whole tree would hide what a rename adds.
    for (name, check) in CHECKS {
        none(name, &check(&tree));
    }
    let (mut missed, mut tried) = (Vec::new(), 0);
    for (kind, mutations) in mutations(&tree) {
        let mut caught = 0;
        for Mutation { what, tree } in &mutations {
            if CHECKS.iter().any(|(_, check)| !check(tree).is_empty()) {
                caught += 1;
            } else {
                missed.push(format!("{kind}: {what}"));
            }
        }
        println!("{kind}: {caught} of {} renames caught", mutations.len());
        tried += mutations.len();
    }
    println!("in all: {} of {tried} renames caught", tried - missed.len());
    assert!(tried > 500, "{tried} renames are few");
    none("nobody noticed", &missed);
}
