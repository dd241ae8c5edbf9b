//! Every PromQL expression that ships, in rules, dashboards and runbooks: that it parses, and that what it names
//! exists.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::LazyLock,
};

use promql_parser::parser::Expr;
use regex::Regex;
use serde_json::Value;
use switchboard::telemetry::{catalogue::Kind, labels::Values};

use crate::{
    exporters::Exporters,
    promql::{self, Matcher, Selector},
    rules,
    slo::Statement,
    tree::{Memo, Metric, Tree, yaml},
};

/// An expression and where it stands.
#[derive(Clone, Debug)]
pub struct Query {
    pub place: String,
    pub text: String,
    /// Labels of its answer that a legend or an annotation shows.
    pub shown: Vec<String>,
}

impl Query {
    fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into(), shown: Vec::new() }
    }
}

/// The queries of one file, and what could not be read.
type Found = (Vec<Query>, Vec<String>);

/// A folder, how its files end, and how they are read.
type Source = (&'static str, &'static str, fn(&str, &str) -> Found);

thread_local! {
    static OF_FILES: Memo<Found> = const { Memo::new() };
}

/// All of them, and what could not be read.
pub fn all(tree: &Tree) -> Found {
    let (mut queries, mut complaints) = (Vec::new(), Vec::new());
    match rules::all(tree) {
        Ok(rules) => queries.extend(rules.into_iter().flat_map(|(path, rule)| {
            let place = format!("{path}: {}", rule.name());
            let own = Query { shown: shown(&rule), ..Query::new(&place, rule.expr) };
            std::iter::once(own)
                .chain(embedded(&rule.annotations).into_iter().map(move |text| Query::new(&place, text)))
        })),
        Err(errors) => complaints.extend(errors),
    }
    let kinds: [Source; 3] = [
        ("grafana/dashboards/", ".json", of_dashboard_file),
        ("docs/", ".md", of_document),
        ("prometheus/tests/", ".yml", of_unit_tests),
    ];
    for (folder, end, read) in kinds {
        for (path, text) in tree.shared(folder, end) {
            let found = OF_FILES.with(|files| files.of(path, text, || read(path, text)));
            queries.extend(found.0.iter().cloned());
            complaints.extend(found.1.iter().cloned());
        }
    }
    (queries, complaints)
}

fn of_dashboard_file(path: &str, text: &str) -> Found {
    match serde_json::from_str::<Value>(text) {
        Ok(dashboard) => {
            let mut queries = Vec::new();
            of_dashboard(path, &dashboard, &mut queries);
            (queries, Vec::new())
        }
        Err(error) => (Vec::new(), vec![format!("{path}: {error}")]),
    }
}

fn of_document(path: &str, text: &str) -> Found {
    let mut queries = Vec::new();
    for (line, block) in blocks(text, "promql") {
        let place = format!("{path}:{line}");
        // A block is one query, or several with empty lines between them.
        let whole = promql::parse(&block).is_ok() || !block.contains("\n\n");
        let parts: Vec<String> = if whole { vec![block] } else { block.split("\n\n").map(str::to_owned).collect() };
        queries.extend(parts.into_iter().map(|text| Query::new(&place, text)));
    }
    (queries, Vec::new())
}

/// What the promtool cases ask.
fn of_unit_tests(path: &str, text: &str) -> Found {
    match yaml::<crate::unit_tests::File>(path, text) {
        Ok(file) => {
            let cases = file.tests.iter().flat_map(|test| &test.promql_expr_test);
            let queries = cases.map(|case| Query::new(path, &case.expr));
            (queries.collect(), Vec::new())
        }
        Err(error) => (Vec::new(), vec![error]),
    }
}

/// Queries within the templates of annotations.
fn embedded(annotations: &BTreeMap<String, String>) -> Vec<String> {
    static QUERY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"query "((?:[^"\\]|\\.)*)""#).unwrap());
    let texts = annotations.values();
    texts.flat_map(|text| QUERY.captures_iter(text).map(|found| found[1].replace("\\\"", "\""))).collect()
}

/// Fenced blocks of a language: the line of the first one's text, and the text without its indentation.
pub fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), None::<(usize, usize, Vec<&str>)>);
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        match &mut open {
            None if trimmed.strip_prefix("```") == Some(language) => {
                open = Some((number + 2, line.len() - trimmed.len(), Vec::new()));
            }
            Some((at, _, lines)) if trimmed.starts_with("```") => {
                found.push((*at, lines.join("\n").trim().to_owned()));
                open = None;
            }
            Some((_, indent, lines)) => lines.push(line.get(*indent..).unwrap_or_else(|| line.trim_start())),
            None => {}
        }
    }
    found
}

/// Labels in the templates of an alert: `$labels.instance`.
fn shown(rule: &rules::Rule) -> Vec<String> {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$labels\.(\w+)").unwrap());
    let texts = rule.annotations.values().chain(rule.labels.values());
    texts.flat_map(|text| LABEL.captures_iter(text).map(|found| found[1].to_owned())).collect()
}

/// Labels in the legend of a panel.
static LEGEND: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{\{\s*(\w+)\s*\}\}").unwrap());

/// Panels' targets, annotations and variables of one dashboard, with its variables expanded.
fn of_dashboard(path: &str, dashboard: &Value, queries: &mut Vec<Query>) {
    let variables = variables(dashboard);
    let expand = |text: &str| expand(text, &variables);
    let mut add = |place: String, text: &str, shown| queries.push(Query { shown, ..Query::new(place, expand(text)) });
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            if let (Some(expr), true) =
                (target["expr"].as_str(), is_prometheus(&target["datasource"], &panel["datasource"]))
            {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                let shown = LEGEND.captures_iter(legend).map(|found| found[1].to_owned()).collect();
                add(format!("{path}: panel {title:?}"), expr, shown);
            }
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        let expr = annotation["expr"].as_str().or_else(|| annotation["target"]["expr"].as_str());
        if let Some(expr) = expr.filter(|expr| !expr.is_empty()) {
            let text = ["titleFormat", "textFormat"].map(|key| annotation[key].as_str().unwrap_or_default()).join(" ");
            let tags = annotation["tagKeys"].as_str().unwrap_or_default().split(',').map(str::trim);
            let titles = LEGEND.captures_iter(&text).map(|found| found[1].to_owned());
            let shown = titles.chain(tags.filter(|tag| !tag.is_empty()).map(str::to_owned)).collect();
            add(format!("{path}: annotation {}", annotation["name"]), expr, shown);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        let query = variable["query"]["query"].as_str().or_else(|| variable["query"].as_str());
        if let (Some("query"), Some(query)) = (variable["type"].as_str(), query) {
            add(format!("{path}: variable {}", variable["name"]), &selected(query), Vec::new());
        }
    }
}

/// Loki and Tempo have targets too; what says nothing is Prometheus.
fn is_prometheus(target: &Value, panel: &Value) -> bool {
    let kind = target["type"].as_str().or_else(|| panel["type"].as_str());
    kind.is_none_or(|kind| kind == "prometheus")
}

/// Every panel, those in collapsed rows too.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let own = dashboard["panels"].as_array().into_iter().flatten();
    own.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten())).collect()
}

/// `label_values(metric{…}, label)` asks for the label: as an expression, an aggregation by it.
fn selected(query: &str) -> String {
    let inner = |name: &str| query.trim().strip_prefix(name)?.trim().strip_prefix('(')?.strip_suffix(')');
    if let Some(inner) = inner("query_result") {
        return inner.to_owned();
    }
    match inner("label_values").and_then(|inner| inner.rsplit_once(',')) {
        Some((selector, label)) => format!("count by ({}) ({selector})", label.trim()),
        None => query.to_owned(),
    }
}

/// What each variable of a dashboard stands for.
fn variables(dashboard: &Value) -> BTreeMap<String, String> {
    let list = dashboard["templating"]["list"].as_array().into_iter().flatten();
    let of = |variable: &Value| {
        let current = variable["current"]["value"].as_str().map(str::to_owned);
        let first = variable["options"][0]["value"].as_str().map(str::to_owned);
        match variable["type"].as_str() {
            Some("custom" | "interval" | "textbox" | "constant") => current.or(first),
            _ => None,
        }
    };
    let known = list.filter_map(|variable| {
        Some((variable["name"].as_str()?.to_owned(), of(variable).unwrap_or_else(|| ".+".to_owned())))
    });
    let built_in = [("__rate_interval", "1m"), ("__interval", "1m"), ("__range", "1h"), ("__range_s", "3600")];
    known.chain(built_in.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    static VARIABLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)").unwrap());
    let value = |found: &regex::Captures<'_>| {
        let name = found.get(1).or_else(|| found.get(2)).map_or("", |name| name.as_str());
        variables.get(name).cloned().unwrap_or_else(|| found[0].to_owned())
    };
    VARIABLE.replace_all(text, value).into_owned()
}

pub fn parse(tree: &Tree) -> Vec<String> {
    let (queries, mut complaints) = all(tree);
    for query in &queries {
        if let Err(error) = promql::parse(&query.text) {
            complaints.push(format!("{}: {error}: {}", query.place, query.text));
        }
    }
    complaints
}

/// Every route template there is.
static ROUTES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let declared = switchboard::server::openapi().paths.paths.keys().cloned().collect::<Vec<_>>();
    // Served beside the operations of the document.
    let others = ["/", "/docs", "/docs/", "/docs/{*rest}", "/openapi.json", "unmatched"].map(str::to_owned);
    declared.into_iter().chain(others).collect()
});

/// What a name in a query can be.
pub struct Names {
    pub exporters: Exporters,
    /// Recorded series with the labels that their rules give them.
    pub records: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    alerts: BTreeSet<String>,
    slos: Vec<String>,
    jobs: BTreeSet<String>,
}

impl Names {
    pub fn of(tree: &Tree) -> Self {
        let rules = rules::all(tree).unwrap_or_default();
        let mut records: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (_, rule) in rules.iter().filter(|(_, rule)| rule.record.is_some()) {
            let labels = records.entry(rule.name().to_owned()).or_default();
            for (label, value) in &rule.labels {
                labels.entry(label.clone()).or_default().insert(value.clone());
            }
            if let Ok(expr) = promql::parse(&rule.expr)
                && let Expr::Aggregate(aggregate) = &*expr
                && let Some(modifier) = aggregate.modifier.as_ref().filter(|modifier| modifier.is_include())
            {
                for label in &modifier.labels().labels {
                    labels.entry(label.clone()).or_default();
                }
            }
        }
        // An aggregation within another expression gives its labels too.
        for (name, labels) in &mut records {
            if name.starts_with("instance:") {
                labels.entry("instance".to_owned()).or_default();
            }
        }
        let statement = Statement::read(tree);
        Self {
            exporters: Exporters::read(tree),
            records,
            alerts: rules.iter().filter_map(|(_, rule)| rule.alert.clone()).collect(),
            slos: statement.map_or_else(|_| Vec::new(), |s| s.slos.into_iter().map(|slo| slo.name).collect()),
            jobs: crate::delivery::jobs(tree),
        }
    }

    /// What is wrong with a selector.
    fn complaint(&self, tree: &Tree, selector: &Selector) -> Option<String> {
        let name = &selector.metric;
        if let Some(metric) = tree.metric(name) {
            let mut matchers = selector.matchers.iter();
            return matchers.find_map(|matcher| self.declared(metric, name, matcher));
        }
        if let Some(labels) = self.records.get(name) {
            return selector.matchers.iter().find_map(|matcher| match labels.get(&matcher.label) {
                None => Some(format!("{name} has no label {}", matcher.label)),
                Some(values) if values.is_empty() => None,
                Some(values) => unknown(matcher, values.iter().map(String::as_str)),
            });
        }
        if name == "ALERTS" || name == "ALERTS_FOR_STATE" {
            return selector.matchers.iter().find_map(|matcher| self.of_alerts(matcher));
        }
        if name.is_empty() || self.exporters.is_everywhere(name) {
            return selector.matchers.iter().find_map(|matcher| self.of_targets(matcher).unwrap_or(None));
        }
        if let Some(jobs) = self.exporters.jobs(name) {
            // What k6 writes has no job.
            let asked = selector.matchers.iter().find(|matcher| matcher.label == "job");
            return asked.and_then(|matcher| unknown(matcher, jobs.iter().map(String::as_str)));
        }
        Some(format!("no metric is called {name}"))
    }

    fn declared(&self, metric: &Metric, exposed: &str, matcher: &Matcher) -> Option<String> {
        if let Some(known) = self.of_targets(matcher) {
            // Only Switchboard exposes them.
            return known
                .or_else(|| (matcher.label == "job").then(|| unknown(matcher, ["switchboard"].into_iter()))?);
        }
        if matcher.label == "le" && exposed.ends_with("_bucket") {
            let bounds: Vec<String> = metric.buckets.iter().map(ToString::to_string).collect();
            // 2.x and 3.x write whole numbers differently.
            if !matcher.is_regex && !matcher.value.contains('.') {
                return Some(format!("{exposed}: le={:?} is written otherwise by Prometheus 3", matcher.value));
            }
            return unknown(matcher, bounds.iter().map(String::as_str));
        }
        let Some((_, values)) = metric.labels.iter().find(|(label, _)| *label == matcher.label) else {
            return Some(format!("{} has no label {}", metric.name, matcher.label));
        };
        match values {
            Values::Closed(values) => unknown(matcher, values.iter().copied()),
            Values::Capped { .. } if matcher.label == "http_route" => {
                unknown(matcher, ROUTES.iter().map(String::as_str))
            }
            Values::Capped { .. } => None,
        }
    }

    /// Labels that Prometheus gives: `None` when it is none of them.
    #[expect(clippy::option_option, reason = "whether it is one, and what is wrong with it")]
    fn of_targets(&self, matcher: &Matcher) -> Option<Option<String>> {
        match matcher.label.as_str() {
            "job" => Some(unknown(matcher, self.jobs.iter().map(String::as_str))),
            "instance" => Some(None),
            _ => None,
        }
    }

    fn of_alerts(&self, matcher: &Matcher) -> Option<String> {
        let slos: Vec<&str> = self.slos.iter().map(String::as_str).chain(["none"]).collect();
        let known: Vec<&str> = match matcher.label.as_str() {
            "alertname" => self.alerts.iter().map(String::as_str).collect(),
            "alertstate" => vec!["pending", "firing"],
            "severity" => vec!["page", "ticket", "none"],
            "service" => vec!["switchboard"],
            "slo" | "sloth_slo" => slos,
            "owner" => crate::alerts::OWNERS.to_vec(),
            "instance" | "job" => return None,
            label => return Some(format!("alerts have no label {label}")),
        };
        unknown(matcher, known.into_iter())
    }

    /// Whether a series can have this label.
    fn has_label(&self, tree: &Tree, selector: &Selector, label: &str) -> bool {
        if let Some(metric) = tree.metric(&selector.metric) {
            return ["job", "instance"].contains(&label)
                || (label == "le" && metric.kind == Kind::Histogram)
                || metric.labels.iter().any(|(known, _)| known == label);
        }
        if let Some(labels) = self.records.get(&selector.metric) {
            return labels.contains_key(label);
        }
        // An exporter's, an alert's: any.
        true
    }
}

/// A complaint when a matcher can match nothing, or excludes what does not exist.
#[expect(clippy::needless_pass_by_value, reason = "a reference would be cloned too")]
fn unknown<'a>(matcher: &Matcher, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let Matcher { label, value, is_regex, is_positive } = matcher;
    let complaint = |what: &str| Some(format!("{label} is never {what:?}"));
    if !is_regex {
        // `label!=""` asks whether there is one.
        let asks = value.is_empty() && !is_positive;
        return if asks || known.clone().any(|known| known == value) { None } else { complaint(value) };
    }
    // Each alternative for itself: one that is misspelt must not hide behind the others.
    alternatives(value).into_iter().find_map(|alternative| match pattern(alternative) {
        Ok(pattern) if known.clone().any(|known| pattern.is_match(known)) => None,
        Ok(_) => complaint(alternative),
        Err(error) => Some(format!("{label}: {error}")),
    })
}

/// Compiled once.
fn pattern(alternative: &str) -> Result<Rc<Regex>, String> {
    type Known = RefCell<BTreeMap<String, Result<Rc<Regex>, String>>>;
    thread_local! {
        static KNOWN: Known = const { RefCell::new(BTreeMap::new()) };
    }
    if let Some(known) = KNOWN.with_borrow(|known| known.get(alternative).cloned()) {
        return known;
    }
    let made =
        Regex::new(&format!("^(?:{})$", rust_regex(alternative))).map(Rc::new).map_err(|error| error.to_string());
    KNOWN.with_borrow_mut(|known| known.insert(alternative.to_owned(), made.clone()));
    made
}

/// The alternatives on the outermost level.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0_usize, 0, Vec::new());
    for (at, character) in pattern.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                found.push(&pattern[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&pattern[from..]);
    found
}

/// In Go's syntax braces that are no repetition stand for themselves, in Rust's they are an error.
fn rust_regex(pattern: &str) -> String {
    let (mut out, mut characters, mut open) = (String::new(), pattern.chars().peekable(), false);
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                out.push(character);
                out.extend(characters.next());
            }
            '{' if !characters.peek().is_some_and(char::is_ascii_digit) => {
                open = true;
                out.push_str("\\{");
            }
            '}' if open => {
                open = false;
                out.push_str("\\}");
            }
            _ => out.push(character),
        }
    }
    out
}

pub fn resolve(tree: &Tree) -> Vec<String> {
    let names = Names::of(tree);
    let (queries, _) = all(tree);
    let mut complaints = Vec::new();
    for query in &queries {
        let Ok(expr) = promql::parse(&query.text) else { continue };
        let selectors = promql::selectors(&expr);
        for selector in &selectors {
            if let Some(complaint) = names.complaint(tree, selector) {
                complaints.push(format!("{}: {complaint}", query.place));
            }
        }
        let shown = query.shown.iter().map(|label| (label.clone(), selectors.clone()));
        for (label, selectors) in promql::groupings(&expr).into_iter().chain(shown) {
            // One of no selector is of a number or a time.
            if !selectors.is_empty() && !selectors.iter().any(|selector| names.has_label(tree, selector, &label)) {
                let among: Vec<&str> = selectors.iter().map(|selector| selector.metric.as_str()).collect();
                complaints.push(format!("{}: none of {} has a label {label}", query.place, among.join(", ")));
            }
        }
    }
    complaints
}

/// Every selector of a rule says whose series it means: another job may have a metric of the same name. One of alerts
/// says which alert.
pub fn scoped(tree: &Tree) -> Vec<String> {
    let records = Names::of(tree).records;
    let mut complaints = Vec::new();
    for (path, rule) in rules::all(tree).unwrap_or_default() {
        let Ok(expr) = promql::parse(&rule.expr) else { continue };
        let loose = promql::selectors(&expr).into_iter().filter(|selector| {
            let wanted = if selector.metric == "ALERTS" { "alertname" } else { "job" };
            let says = |matcher: &Matcher| matcher.label == wanted && matcher.is_positive && !matcher.is_regex;
            !records.contains_key(&selector.metric) && !selector.matchers.iter().any(says)
        });
        complaints.extend(loose.map(|selector| format!("{path}: {}: {} of which?", rule.name(), selector.metric)));
    }
    complaints
}
