//! Breaks of dashboards. They are made from grafana/src, which is what tells most of them: whoever edits the JSON is
//! told that it is not what its source makes.

use std::{process::Command, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

use crate::tree::{Tree, root};
use crate::{
    Concern, Mutant,
    text::{Edit, in_expression, nearby},
    with,
};

/// So that each of them is compared with what its source makes, once is enough: what is broken differs from it.
pub fn are_made_from_their_sources() {
    let done = Command::new("scripts/dashboards").arg("--check").current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "scripts/dashboards --check: {said}");
}

pub fn of_dashboards(tree: &Tree) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (path, text) in tree.under("grafana/dashboards/", ".json") {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        let file = path.rsplit('/').next().unwrap_or_default();
        for (index, panel) in dashboard["panels"].as_array().into_iter().flatten().enumerate() {
            let title = panel["title"].as_str().unwrap_or_default();
            let mut add = |kind, pointer: &str, value: Value, what: &str| {
                let (path, pointer) = (path.to_owned(), format!("/panels/{index}/{pointer}"));
                let what = format!("{file}: {title}: {what}");
                let breaks = Box::new(move |tree: &Tree| edited(tree, &path, &pointer, &value));
                mutants.push(Mutant { kind, what, breaks, concerns: Concern::Nothing });
            };
            for (number, target) in panel["targets"].as_array().into_iter().flatten().enumerate() {
                let Some(expr) = target["expr"].as_str() else { continue };
                for edit in in_expression(expr, &(0..expr.len())).into_iter().chain(functions(expr)) {
                    add("queries of panels", &format!("targets/{number}/expr"), edit.of(expr).into(), &edit.what);
                }
            }
            let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
            for (number, step) in steps.into_iter().flatten().enumerate().filter(|(_, step)| !step["value"].is_null()) {
                let value = step["value"].to_string();
                for near in nearby(&value) {
                    let pointer = format!("fieldConfig/defaults/thresholds/steps/{number}/value");
                    let what = format!("the threshold {value} becomes {near}");
                    add("thresholds of panels", &pointer, near.parse().unwrap(), &what);
                }
            }
        }
    }
    mutants
}

/// With one value of a dashboard replaced.
fn edited(tree: &Tree, path: &str, pointer: &str, value: &Value) -> Tree {
    let mut dashboard: Value = serde_json::from_str(tree.text(path)).unwrap();
    *dashboard.pointer_mut(pointer).unwrap() = value.clone();
    with(tree, path, written(&dashboard))
}

/// What is computed of it.
fn functions(expr: &str) -> Vec<Edit> {
    static FUNCTION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b(rate|increase|sum|max|min|avg)\b\s*(?:by|\()").unwrap());
    let edit = |found: regex::Captures<'_>| {
        let function = found.get(1).unwrap();
        let by = match function.as_str() {
            "rate" => "increase",
            "increase" => "rate",
            "sum" => "max",
            "max" => "min",
            _ => "sum",
        };
        let what = format!("{} becomes {by}", function.as_str());
        Edit { kind: "queries of panels", range: function.range(), by: by.to_owned(), what }
    };
    FUNCTION.captures_iter(expr).map(edit).collect()
}

/// As scripts/dashboards writes them.
fn written(dashboard: &Value) -> String {
    serde_json::to_string_pretty(dashboard).unwrap() + "\n"
}

/// Whether a file is another than the one that its source makes.
pub fn differs(sound: &Tree, broken: &Tree) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    sound.under("grafana/dashboards/", ".json").any(|(path, text)| {
        let other = broken.text(path);
        other != text && read(other) != read(text)
    })
}
