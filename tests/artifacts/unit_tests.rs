//! promtool's cases: every alert fires in one and is silent in another. The promtool run itself is in `tools`.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde::Deserialize;

use crate::{
    rules,
    tree::{Memo, Tree, yaml},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub rule_files: Vec<String>,
    #[serde(rename = "evaluation_interval")]
    _evaluation_interval: String,
    #[serde(default, rename = "group_eval_order")]
    _group_eval_order: Vec<String>,
    pub tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "promtool's names")]
pub struct Test {
    pub name: String,
    #[serde(rename = "interval")]
    _interval: String,
    #[serde(default, rename = "input_series")]
    _input_series: Vec<serde_json::Value>,
    #[serde(default, rename = "external_labels")]
    _external_labels: BTreeMap<String, String>,
    #[serde(default, rename = "start_timestamp")]
    _start_timestamp: serde_json::Value,
    #[serde(default)]
    pub promql_expr_test: Vec<ExprTest>,
    #[serde(default)]
    pub alert_rule_test: Vec<AlertTest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExprTest {
    pub expr: String,
    #[serde(rename = "eval_time")]
    _eval_time: String,
    #[serde(default)]
    pub exp_samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub labels: String,
    #[serde(rename = "value")]
    _value: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertTest {
    pub alertname: String,
    #[serde(rename = "eval_time")]
    _eval_time: String,
    #[serde(default)]
    pub exp_alerts: Vec<serde_json::Value>,
}

/// It looks at each minute of a week, which takes too long with the rules that are not about it.
const WEEK: &str = "prometheus/tests/week.yml";

/// A case asks for `ALERTS{alertname="X"}`, which has pending ones too: silent means neither.
pub fn both(tree: &Tree) -> Vec<String> {
    static ASKED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"^ALERTS\{alertname="(\w+)"\}$"#).unwrap());
    let (mut fires, mut silent, mut complaints) = (Vec::new(), Vec::new(), Vec::new());
    let names: Vec<String> = rules::alerts(tree).into_iter().map(|(_, rule)| rule.name().to_owned()).collect();
    thread_local! {
        static READ: Memo<Result<File, String>> = const { Memo::new() };
    }
    for (path, text) in tree.shared("prometheus/tests/", ".yml") {
        let read = READ.with(|read| read.of(path, text, || yaml::<File>(path, text)));
        let file = match &*read {
            Ok(file) => file,
            Err(error) => {
                complaints.push(error.clone());
                continue;
            }
        };
        let all = if path == WEEK { "../rules/business.yml" } else { "../rules/*.yml" };
        if file.rule_files != [all] {
            complaints.push(format!("{path}: tests other rules than {all}: {:?}", file.rule_files));
        }
        for test in &file.tests {
            for case in &test.promql_expr_test {
                let Some(name) = ASKED.captures(&case.expr).map(|found| found[1].to_owned()) else { continue };
                let firing = |sample: &Sample| sample.labels.contains(r#"alertstate="firing""#);
                match case.exp_samples.iter().any(firing) {
                    true => fires.push(name),
                    false if case.exp_samples.is_empty() => silent.push(name),
                    false => {}
                }
            }
            for case in &test.alert_rule_test {
                if !names.contains(&case.alertname) {
                    complaints.push(format!("{path}: {}: no alert is called {}", test.name, case.alertname));
                }
                if !case.exp_alerts.is_empty() {
                    fires.push(case.alertname.clone());
                }
            }
        }
    }
    for name in &names {
        if !fires.contains(name) {
            complaints.push(format!("prometheus/tests: {name} fires in no case"));
        }
        // It always fires, on purpose.
        if !silent.contains(name) && name != "Watchdog" {
            complaints.push(format!("prometheus/tests: {name} is silent in no case"));
        }
    }
    complaints
}
