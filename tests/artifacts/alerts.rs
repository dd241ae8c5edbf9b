//! The alerts: each with its labels, annotations, runbook and dashboard.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    queries,
    rules::{self, Rule},
    slo::Statement,
    tree::Tree,
};

pub const OWNERS: &[&str] = &["platform", "call-centre", "security"];

/// Every alert there is: its severity, its objective or `none`, who owns it, and the receiver it reaches. amtool is
/// asked the last, and whoever renames one in the rules alone is told here.
pub const EXPECTED: &[(&str, &str, &str, &str, &str)] = &[
    ("AvailabilityBudgetBurnPage", "page", "availability", "platform", "pages"),
    ("AvailabilityBudgetBurnTicket", "ticket", "availability", "platform", "tickets"),
    ("LatencyBudgetBurnPage", "page", "latency", "platform", "pages"),
    ("LatencyBudgetBurnTicket", "ticket", "latency", "platform", "tickets"),
    ("LatencyLoginBudgetBurnPage", "page", "latency-login", "platform", "pages"),
    ("LatencyLoginBudgetBurnTicket", "ticket", "latency-login", "platform", "tickets"),
    ("ErrorsBudgetBurnPage", "page", "errors", "platform", "pages"),
    ("ErrorsBudgetBurnTicket", "ticket", "errors", "platform", "tickets"),
    ("ApiDown", "page", "none", "platform", "pages"),
    ("ApiMetricsAbsent", "page", "none", "platform", "pages"),
    ("PostgresDown", "page", "none", "platform", "pages"),
    ("NoTraffic", "page", "none", "platform", "pages"),
    ("WebhookIntakeStalled", "page", "none", "platform", "pages"),
    ("ReplicaDown", "ticket", "none", "platform", "tickets"),
    ("RedisFallbackActive", "ticket", "none", "platform", "tickets"),
    ("DbPoolSaturated", "ticket", "none", "platform", "tickets"),
    ("DbPoolTimeouts", "ticket", "none", "platform", "tickets"),
    ("CacheHitRatioLow", "ticket", "none", "platform", "tickets"),
    ("PasswordHashQueueHigh", "ticket", "none", "platform", "tickets"),
    ("EventLoopLag", "ticket", "none", "platform", "tickets"),
    ("FdUsageHigh", "ticket", "none", "platform", "tickets"),
    ("RestartLoop", "ticket", "none", "platform", "tickets"),
    ("BacklogTooOld", "ticket", "none", "call-centre", "tickets"),
    ("AssignSlow", "ticket", "none", "call-centre", "tickets"),
    ("SlaBreaches", "ticket", "none", "call-centre", "tickets"),
    ("MissedCallsHigh", "ticket", "none", "call-centre", "tickets"),
    ("UnknownLineCalls", "ticket", "none", "call-centre", "tickets"),
    ("LoginAttackSuspected", "ticket", "none", "security", "tickets"),
    ("RefreshTokenReuse", "ticket", "none", "security", "tickets"),
    ("CollectorStale", "ticket", "none", "platform", "tickets"),
    ("TracesDropped", "ticket", "none", "platform", "tickets"),
    ("CardinalityHigh", "ticket", "none", "platform", "tickets"),
    ("ErrorBudgetExhausted", "ticket", EACH, "platform", "tickets"),
    ("CertificateExpiring", "ticket", "none", "platform", "tickets"),
    ("DiskFilling", "ticket", "none", "platform", "tickets"),
    ("BackupStale", "ticket", "none", "platform", "tickets"),
    ("RuleEvaluationFailures", "ticket", "none", "platform", "tickets"),
    ("NotificationFailures", "ticket", "none", "platform", "tickets"),
    ("VersionSkew", "ticket", "none", "platform", "tickets"),
    ("Watchdog", "none", "none", "platform", "dead-mans-switch"),
];

/// One alert for each objective.
const EACH: &str = "{{ $labels.sloth_slo }}";
/// Nothing is measured when they fire, or nothing is wrong.
const WITHOUT_VALUE: &[&str] = &["ApiMetricsAbsent", "Watchdog"];
const ANNOTATIONS: &[&str] = &["action", "budget", "dashboard_url", "description", "runbook_url", "summary"];

/// Labels and annotations of each, as expected.
pub fn complete(tree: &Tree) -> Vec<String> {
    let alerts = rules::alerts(tree);
    let mut complaints = Vec::new();
    let names: Vec<&str> = alerts.iter().map(|(_, rule)| rule.name()).collect();
    complaints.extend(
        EXPECTED
            .iter()
            .filter(|expected| !names.contains(&expected.0))
            .map(|expected| format!("no rule is called {}", expected.0)),
    );
    for name in names.iter().filter(|name| names.iter().filter(|other| other == name).count() > 1) {
        complaints.push(format!("{name} is there twice"));
    }
    let slos = Statement::read(tree).map_or_else(|_| Vec::new(), |statement| statement.slos);
    for (path, rule) in &alerts {
        let name = rule.name();
        let mut complain = |what: String| complaints.push(format!("{path}: {name}: {what}"));
        let Some((_, severity, slo, owner, _)) = EXPECTED.iter().find(|expected| expected.0 == name) else {
            complain("is not in the list of alerts (tests/artifacts/alerts.rs)".to_owned());
            continue;
        };
        let labels: BTreeMap<&str, &str> =
            BTreeMap::from([("severity", *severity), ("service", "switchboard"), ("slo", *slo), ("owner", *owner)]);
        let is: BTreeMap<&str, &str> =
            rule.labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
        if is != labels {
            complain(format!("labels are {is:?}, expected {labels:?}"));
        }
        if !OWNERS.contains(owner) || !(["none", EACH].contains(slo) || slos.iter().any(|known| known.name == *slo)) {
            complain(format!("owner {owner} or objective {slo} does not exist"));
        }
        for complaint in annotations(rule) {
            complain(complaint);
        }
        let keeps = rule.keep_firing_for.is_some();
        if keeps != (*severity == "page" && *slo != "none") {
            complain("keep_firing_for belongs to pages of objectives, and to nothing else".to_owned());
        }
    }
    complaints
}

fn annotations(rule: &Rule) -> Vec<String> {
    let mut complaints = Vec::new();
    let is: Vec<&str> = rule.annotations.keys().map(String::as_str).collect();
    if is != ANNOTATIONS {
        complaints.push(format!("annotations are {is:?}, expected {ANNOTATIONS:?}"));
        return complaints;
    }
    for (annotation, text) in &rule.annotations {
        if text.trim().is_empty() {
            complaints.push(format!("{annotation} is empty"));
        }
    }
    // What it says in one case, and what in the other.
    let mut said = rule.annotations["description"].split("{{- else -}}");
    if !said.all(|said| said.contains("$value")) && !WITHOUT_VALUE.contains(&rule.name()) {
        complaints.push("the description does not have the value".to_owned());
    }
    let runbook = format!("{{{{ $externalLabels.docs_url }}}}/runbooks/{}.md", rule.name());
    if rule.annotations["runbook_url"] != runbook {
        complaints.push(format!("runbook_url is not {runbook}"));
    }
    if dashboard(rule).is_none() {
        complaints.push("dashboard_url is not {{ $externalLabels.grafana_url }}/d/<uid>".to_owned());
    }
    complaints
}

/// The uid of an alert's dashboard.
fn dashboard(rule: &Rule) -> Option<&str> {
    let url = rule.annotations.get("dashboard_url")?;
    url.strip_prefix("{{ $externalLabels.grafana_url }}/d/").filter(|uid| !uid.is_empty())
}

/// A runbook for each alert, no runbook without one, and in each what the template asks for.
pub fn runbooks(tree: &Tree) -> Vec<String> {
    const SECTIONS: &[&str] = &[
        "Meaning",
        "Impact",
        "Dashboards",
        "Diagnosis",
        "Mitigation",
        "Verify recovery",
        "False positives",
        "How it is tested",
    ];
    /// Not of an alert.
    const OTHERS: &[&str] = &["README", "restore"];
    let mut complaints = Vec::new();
    let alerts: BTreeMap<String, Rule> =
        rules::alerts(tree).into_iter().map(|(_, rule)| (rule.name().to_owned(), rule)).collect();
    let mut found = BTreeSet::new();
    for (path, text) in tree.under("docs/runbooks/", ".md") {
        let name = path.trim_start_matches("docs/runbooks/").trim_end_matches(".md");
        if OTHERS.contains(&name) {
            continue;
        }
        found.insert(name);
        let Some(rule) = alerts.get(name) else {
            complaints.push(format!("{path}: no alert is called {name}"));
            continue;
        };
        if text.lines().next() != Some(&format!("# {name}")) {
            complaints.push(format!("{path}: the first line is not # {name}"));
        }
        let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        if sections != SECTIONS {
            complaints.push(format!("{path}: the sections are {sections:?}, expected {SECTIONS:?}"));
        }
        if let Some(uid) = dashboard(rule).filter(|uid| !text.contains(&format!("/d/{uid}"))) {
            complaints.push(format!("{path}: does not name the dashboard of the alert, /d/{uid}"));
        }
        for label in ["severity", "owner"] {
            let value = &rule.labels[label];
            if !text.lines().take(4).any(|line| line.contains(value.as_str())) {
                complaints.push(format!("{path}: the head does not say that {label} is {value}"));
            }
        }
    }
    complaints.extend(
        alerts
            .keys()
            .filter(|name| !found.contains(name.as_str()))
            .map(|name| format!("docs/runbooks/{name}.md is missing")),
    );
    // The index names each, and links lead somewhere.
    let index = tree.text("docs/runbooks/README.md");
    complaints.extend(
        alerts
            .keys()
            .filter(|name| !index.contains(&format!("({name}.md")))
            .map(|name| format!("docs/runbooks/README.md does not link {name}.md")),
    );
    for (path, text) in tree.under("docs/runbooks/", ".md") {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !link.contains('/')
                && link.ends_with(".md")
                && !tree.files.contains_key(&format!("docs/runbooks/{link}"))
            {
                complaints.push(format!("{path}: links {link}, which is not there"));
            }
        }
    }
    complaints
}

/// Dashboards that alerts and runbooks name are there, under the uid that their file's name says.
pub fn dashboards(tree: &Tree) -> Vec<String> {
    const FILES: &[&str] =
        &["overview", "slo", "business", "calls", "dependencies", "runtime", "alerting", "load-test"];
    let mut complaints = Vec::new();
    for name in FILES {
        let path = format!("grafana/dashboards/{name}.json");
        let dashboard: Value = serde_json::from_str(tree.text(&path)).unwrap_or_default();
        if dashboard["uid"] != format!("switchboard-{name}") {
            complaints.push(format!("{path}: is missing, or its uid is not switchboard-{name}"));
        }
        for panel in queries::panels(&dashboard) {
            let is_row = panel["type"] == "row";
            if panel["title"].as_str().unwrap_or_default().is_empty()
                || (!is_row && panel["description"].as_str().unwrap_or_default().is_empty())
            {
                complaints.push(format!("{path}: the panel {} has no title or no description", panel["id"]));
            }
        }
    }
    let known: Vec<String> = FILES.iter().map(|name| format!("switchboard-{name}")).collect();
    let mut named: Vec<(String, String)> = Vec::new();
    for (path, rule) in rules::alerts(tree) {
        let uid = dashboard(&rule).unwrap_or_default().to_owned();
        named.push((format!("{path}: {}", rule.name()), uid));
    }
    for (path, text) in tree.under("docs/runbooks/", ".md").chain(tree.under("grafana/dashboards/", ".json")) {
        for rest in text.split("/d/switchboard-").skip(1) {
            let end = rest
                .find(|character: char| !character.is_ascii_alphanumeric() && character != '-')
                .unwrap_or(rest.len());
            named.push((path.to_owned(), format!("switchboard-{}", &rest[..end])));
        }
        // Panels link to runbooks.
        for rest in text.split("/runbooks/").skip(1).filter(|_| path.ends_with(".json")) {
            let file = rest.split(".md").next().unwrap_or_default();
            if !file.contains(['$', '"', ' ']) && !tree.files.contains_key(&format!("docs/runbooks/{file}.md")) {
                complaints.push(format!("{path}: links runbooks/{file}.md, which is not there"));
            }
        }
    }
    let wrong = named.iter().filter(|(_, uid)| !known.contains(uid));
    complaints.extend(wrong.map(|(place, uid)| format!("{place}: no dashboard has the uid {uid:?}")));
    complaints
}
