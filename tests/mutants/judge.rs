//! Who notices that something is broken.

use std::{collections::BTreeSet, fmt, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    Concern, Mutant,
    checks::CHECKS,
    dashboards, rules,
    scratch::Scratch,
    slo::Statement,
    tree::{Tree, yaml},
};

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A check that reads, by its name.
    Reading(&'static str),
    /// promtool, with a case.
    Case(String),
    /// It is not what its source makes.
    Source,
    Missed,
}

impl Verdict {
    pub const fn by(&self) -> &'static str {
        match self {
            Self::Reading(_) => "checks that read",
            Self::Case(_) => "promtool cases",
            Self::Source => "comparison with the source",
            Self::Missed => "nobody",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reading(check) => write!(f, "noticed by the check {check:?}"),
            Self::Case(case) => write!(f, "noticed by promtool, {case}"),
            Self::Source => write!(f, "noticed by scripts/dashboards --check"),
            Self::Missed => write!(f, "NOT NOTICED"),
        }
    }
}

pub fn judge(sound: &Tree, mutant: &Mutant, cases: &Cases, worker: usize) -> Verdict {
    let broken = (mutant.breaks)(sound);
    for (name, check) in CHECKS {
        if !check(&broken).is_empty() {
            return Verdict::Reading(name);
        }
    }
    let questions = match &mutant.concerns {
        Concern::Alert(name) => vec![Question::of_alert(&broken, name)],
        Concern::Objectives => Question::of_objectives(sound, &broken),
        Concern::Nothing => Vec::new(),
    };
    let case = questions.iter().find_map(|question| cases.ask(question, worker).err());
    match case {
        Some(case) => Verdict::Case(case),
        None if dashboards::differs(sound, &broken) => Verdict::Source,
        None => Verdict::Missed,
    }
}

/// Some of the rules, and the alerts and records that are asked about.
struct Question {
    /// As in a file of rules.
    groups: Vec<Value>,
    about: Vec<String>,
}

impl Question {
    /// One rule by itself is evaluated in no time.
    fn of_alert(tree: &Tree, name: &str) -> Self {
        let all: Vec<Value> =
            groups(tree).into_iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
        let rule = all.iter().find(|rule| rule["alert"] == name).cloned().unwrap();
        let needs_records = rule["expr"].as_str().is_some_and(|expr| expr.contains("slo:"));
        let records = groups(tree).into_iter().filter(|group| needs_records && is_of_objectives(group));
        // What asks whether rules have been evaluated asks for the alert that always fires.
        let needs_watchdog = rule["expr"].as_str().is_some_and(|expr| expr.contains("ALERTS"));
        let watchdog = all.iter().find(|rule| needs_watchdog && rule["alert"] == "Watchdog");
        let rules: Vec<&Value> = watchdog.into_iter().chain([&rule]).collect();
        let own = json!({ "name": "broken", "rules": rules });
        Self { groups: records.chain([own]).collect(), about: vec![format!("alertname=\"{name}\"")] }
    }

    /// For each objective that a break touches, its records and alerts.
    fn of_objectives(sound: &Tree, broken: &Tree) -> Vec<Self> {
        let statement = Statement::read(sound).unwrap();
        let of = |tree: &Tree, name: &str| -> Vec<Value> {
            let own = groups(tree).into_iter().filter(is_of_objectives).filter_map(|mut group| {
                let rules = group["rules"].as_array_mut()?;
                let is_own = |rule: &Value| {
                    rule["labels"]["sloth_slo"] == name || (!rule["alert"].is_null() && rule["labels"]["slo"] == name)
                };
                rules.retain(is_own);
                (!rules.is_empty()).then_some(group)
            });
            own.collect()
        };
        let touched = statement.slos.iter().filter(|slo| of(sound, &slo.name) != of(broken, &slo.name));
        touched
            .map(|slo| {
                let burns = ["Page", "Ticket"].map(|end| format!("alertname=\"{}BudgetBurn{end}\"", slo.alert));
                let records = format!("sloth_slo=\"{}\"", slo.name);
                Self { groups: of(broken, &slo.name), about: burns.into_iter().chain([records]).collect() }
            })
            .collect()
    }
}

fn is_of_objectives(group: &Value) -> bool {
    group["name"].as_str().is_some_and(|name| name == "slo" || name.starts_with("slo-"))
}

fn groups(tree: &Tree) -> Vec<Value> {
    let files = tree.under("prometheus/rules/", ".yml");
    let read = files.map(|(path, text)| yaml::<Value>(path, text).unwrap());
    read.flat_map(|file| file["groups"].as_array().cloned().unwrap_or_default()).collect()
}

/// The cases of prometheus/tests.
pub struct Cases {
    /// Path and content.
    files: Vec<(String, Value)>,
    scratch: Scratch,
}

impl Cases {
    pub fn read(tree: &Tree) -> Self {
        let files = tree.under("prometheus/tests/", ".yml");
        let files = files.map(|(path, text)| (path.to_owned(), yaml(path, text).unwrap())).collect();
        Self { files, scratch: Scratch::new("mutants") }
    }

    /// Else a break would be noticed that is none.
    pub fn pass_unbroken(&self, tree: &Tree) {
        let names: BTreeSet<String> = rules::alerts(tree).into_iter().map(|(_, rule)| rule.name().to_owned()).collect();
        let statement = Statement::read(tree).unwrap();
        let is_burn = |name: &str| statement.slos.iter().any(|slo| name.starts_with(&format!("{}Budget", slo.alert)));
        for name in names.iter().filter(|name| !is_burn(name)) {
            self.ask(&Question::of_alert(tree, name), 0).unwrap_or_else(|case| panic!("{name} is sound: {case}"));
        }
        let nothing = {
            let mut tree = tree.clone();
            tree.files.insert("prometheus/rules/slo.yml".to_owned(), "groups: []\n".into());
            tree
        };
        for mut question in Question::of_objectives(&nothing, tree) {
            assert!(!question.groups.is_empty(), "all of them are touched");
            question.groups.dedup();
            self.ask(&question, 0).unwrap_or_else(|case| panic!("{:?} is sound: {case}", question.about));
        }
    }

    /// Whether promtool is content with these rules; otherwise the file and the case that is not.
    fn ask(&self, question: &Question, worker: usize) -> Result<(), String> {
        let dir = self.scratch.path().join(worker.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("rules.json"), json!({ "groups": question.groups }).to_string()).unwrap();
        // What is evaluated most often comes last.
        for (path, file) in &self.files {
            let Some(mut asked) = about(file, &question.about) else { continue };
            asked["rule_files"] = json!(["rules.json"]);
            // Whatever the file's own order is of: records come before the alert that asks for them.
            asked["group_eval_order"] = question.groups.iter().map(|group| group["name"].clone()).collect();
            fs::write(dir.join("cases.json"), asked.to_string()).unwrap();
            promtool(&dir).map_err(|case| format!("{}, {case}", path.trim_start_matches("prometheus/tests/")))?;
        }
        Ok(())
    }
}

/// A file of cases with only what asks about these.
fn about(file: &Value, wanted: &[String]) -> Option<Value> {
    let mut file = file.clone();
    let tests = file["tests"].as_array_mut()?;
    for test in tests.iter_mut() {
        if let Some(asked) = test["promql_expr_test"].as_array_mut() {
            // What asks about all alerts asks about this one too, when it expects none.
            let is_about = |asked: &Value| {
                let expr = asked["expr"].as_str().unwrap_or_default();
                let all = expr.starts_with("ALERTS") && !expr.contains("alertname=\"");
                let none = asked["exp_samples"].as_array().is_none_or(Vec::is_empty);
                wanted.iter().any(|name| expr.contains(name.as_str())) || (all && none)
            };
            asked.retain(is_about);
        }
        // What a message says may follow from rules that are not among these; its words are read by other checks.
        test.as_object_mut()?.remove("alert_rule_test");
    }
    tests.retain(|test| test["promql_expr_test"].as_array().is_some_and(|asked| !asked.is_empty()));
    (!tests.is_empty()).then_some(file)
}

/// The name of the case that failed, as far as promtool tells.
fn promtool(dir: &Path) -> Result<(), String> {
    let run = Command::new("promtool").args(["test", "rules", "cases.json"]).current_dir(dir).output();
    let output =
        run.unwrap_or_else(|error| panic!("promtool (Debian's package prometheus) must be installed: {error}"));
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let line = said.lines().map(str::trim).find(|line| line.starts_with("name:") || line.starts_with("expr:"));
    Err(line.unwrap_or(said.trim()).chars().take(160).collect())
}
