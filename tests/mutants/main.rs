//! Breaks rules, objectives, routes and dashboards one number, operator, matcher and label at a time, and lists who
//! noticed. Pages that are generated are generated anew from what is broken: that a copy went stale is no proof. First
//! the checks that read are asked, then promtool with the cases of the alert that was broken.
//!
//! `make mutants-ops` runs it; `SWITCHBOARD_MUTANTS=text` only those whose description contains the text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "the files are our own")]

mod alerting;
mod dashboards;
mod judge;
mod objectives;
mod text;

// What tests/artifacts knows of the files: breaks are held against the same checks.
#[path = "../artifacts/alertmanager.rs"]
mod alertmanager;
#[path = "../artifacts/alerts.rs"]
mod alerts;
#[path = "../artifacts/alerts_page.rs"]
mod alerts_page;
#[path = "../artifacts/catalogue.rs"]
mod catalogue;
#[path = "../artifacts/checks.rs"]
mod checks;
#[path = "../artifacts/delivery.rs"]
mod delivery;
#[path = "../artifacts/exporters.rs"]
mod exporters;
#[path = "../artifacts/promql.rs"]
mod promql;
#[path = "../artifacts/queries.rs"]
mod queries;
#[path = "../artifacts/rules.rs"]
mod rules;
#[path = "../artifacts/scratch.rs"]
mod scratch;
#[path = "../artifacts/slo.rs"]
mod slo;
#[path = "../artifacts/slo_rules.rs"]
mod slo_rules;
#[path = "../artifacts/tree.rs"]
mod tree;
#[path = "../artifacts/unit_tests.rs"]
mod unit_tests;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use checks::{CHECKS, none};
use judge::{Cases, Verdict};
use slo::Statement;
use tree::Tree;

/// One thing to break.
struct Mutant {
    /// What kind of thing, for the sums.
    kind: &'static str,
    /// Where, and what becomes of it.
    what: String,
    /// Breaks it in a tree. There are thousands, and each dashboard is large: so one at a time.
    breaks: Box<dyn Fn(&Tree) -> Tree + Send + Sync>,
    /// Whose cases could tell.
    concerns: Concern,
}

/// What promtool is to be asked about.
#[derive(Clone, Debug, PartialEq)]
enum Concern {
    Alert(String),
    /// All that follows from prometheus/slo.json.
    Objectives,
    /// No rule is broken.
    Nothing,
}

/// With this text in a file.
fn with(tree: &Tree, path: &str, text: String) -> Tree {
    let mut tree = tree.clone();
    tree.files.insert(path.to_owned(), text.into());
    tree
}

/// What is generated, from what is broken.
fn generated_anew(mut tree: Tree) -> Tree {
    if let Ok(statement) = Statement::read(&tree) {
        tree.files.insert("prometheus/rules/slo.yml".to_owned(), slo_rules::written(&statement).into());
    }
    if let Ok(rules) = rules::all(&tree) {
        let page = alerts_page::written(&tree, &rules);
        tree.files.insert("docs/ALERTS.md".to_owned(), page.into());
    }
    tree
}

fn all(tree: &Tree) -> Vec<Mutant> {
    let wanted = std::env::var("SWITCHBOARD_MUTANTS").unwrap_or_default();
    let mut mutants = alerting::of_rules(tree);
    mutants.extend(objectives::of_statement(tree));
    mutants.extend(alerting::of_alertmanager(tree));
    mutants.extend(dashboards::of_dashboards(tree));
    mutants.retain(|mutant| mutant.what.contains(&wanted));
    mutants
}

#[test]
fn every_break_is_noticed() {
    /// promtool is a process of its own; one more than that keeps both cores of a small machine busy.
    const AT_A_TIME: usize = 3;
    assert!(!tree::writes(), "what is generated from a broken tree must not be written");
    let started = Instant::now();
    let tree = Tree::load();
    for (name, check) in CHECKS {
        none(name, &check(&tree));
    }
    dashboards::are_made_from_their_sources();
    let cases = Cases::read(&tree);
    cases.pass_unbroken(&tree);
    let mutants = all(&tree);
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(vec![None; mutants.len()]));
    std::thread::scope(|scope| {
        for worker in 0..AT_A_TIME {
            let (next, verdicts, mutants, cases, tree) = (&next, &verdicts, &mutants, &cases, &tree);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(number) else { break };
                    let verdict = judge::judge(tree, mutant, cases, worker);
                    println!("{number:4} of {}: {}: {verdict}", mutants.len(), mutant.what);
                    verdicts.lock().unwrap()[number] = Some(verdict);
                }
            });
        }
    });
    let verdicts: Vec<Verdict> = verdicts.into_inner().unwrap().into_iter().flatten().collect();
    assert_eq!(verdicts.len(), mutants.len(), "each has a verdict");
    report(&mutants, &verdicts, started);
    let missed = mutants.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Missed);
    none("nobody noticed", &missed.map(|(mutant, _)| mutant.what.clone()).collect::<Vec<_>>());
}

/// By kind: how many there were, and who noticed them.
fn report(mutants: &[Mutant], verdicts: &[Verdict], started: Instant) {
    let mut kinds: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for (mutant, verdict) in mutants.iter().zip(verdicts) {
        *kinds.entry(mutant.kind).or_default().entry(verdict.by().to_owned()).or_default() += 1;
    }
    println!("\n| broken | breaks | noticed | by |\n|---|---|---|---|");
    for (kind, by) in &kinds {
        let all: usize = by.values().sum();
        let missed = by.get(Verdict::Missed.by()).copied().unwrap_or_default();
        let by: Vec<String> = by.iter().map(|(who, count)| format!("{who} {count}")).collect();
        println!("| {kind} | {all} | {} | {} |", all - missed, by.join(", "));
    }
    let missed = verdicts.iter().filter(|verdict| **verdict == Verdict::Missed).count();
    println!(
        "\nmutants-ops: {} of {} breaks noticed, {:.0} s",
        mutants.len() - missed,
        mutants.len(),
        started.elapsed().as_secs_f64()
    );
}
