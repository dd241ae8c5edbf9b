//! What ships beside the program, held against it: rules, alerts, dashboards, runbooks, Alertmanager, and the pages
//! generated from them. Each check is a function of a [`Tree`] that returns its complaints, so that `renames` can
//! break a tree in memory and see whether anybody complains.
//!
//! `SWITCHBOARD_WRITE=1 cargo test --test artifacts` writes what is generated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "the files are our own")]

mod alertmanager;
mod alerts;
mod alerts_page;
mod catalogue;
mod checks;
mod delivery;
mod exporters;
mod promql;
mod queries;
mod renames;
mod rules;
mod scratch;
mod slo;
mod slo_rules;
mod tools;
mod tree;
mod unit_tests;

use checks::{CHECKS, none};
use tree::Tree;

macro_rules! checks {
    ($($test:ident = $name:literal;)*) => {
        $(#[test]
        fn $test() {
            let (name, check) = CHECKS.iter().find(|(name, _)| *name == $name).expect("is in the list");
            none(name, &check(&Tree::load()));
        })*

        #[test]
        fn every_check_is_a_test() {
            let tested: &[&str] = &[$($name),*];
            assert_eq!(CHECKS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), tested);
        }
    };
}

checks! {
    queries_parse = "every query parses";
    queries_resolve = "metrics, labels and values in queries exist";
    rules_are_scoped = "rules say whose series they mean";
    catalogue_is_used = "every declared metric is used";
    documents_name_what_exists = "metrics named in documents exist";
    metrics_page_is_current = "docs/METRICS.md is current";
    exporters_are_used = "exporters.json lists what is used and no more";
    slo_rules_are_current = "rules/slo.yml is current";
    alerts_page_is_current = "docs/ALERTS.md is current";
    objectives_are_stated_once = "objectives are stated once";
    alerts_are_complete = "alerts have what each needs";
    runbooks_match = "runbooks and alerts match";
    dashboards_exist = "dashboards of alerts exist";
    hours_agree = "working hours are business hours";
    routes_and_inhibitions = "routes and inhibitions";
    sources_are_scraped = "source jobs are scraped";
    alerts_have_both_cases = "every alert has a firing and a silent case";
    prometheus_is_set_up = "Prometheus keeps and serves what the rules need";
}
