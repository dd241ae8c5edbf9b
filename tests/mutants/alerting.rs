//! Breaks of alerts and of the ways they take.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

use crate::{
    Concern, Mutant, generated_anew,
    text::{Edit, in_expression, nearby, other_durations},
    with,
};
use crate::{rules, tree::Tree};

/// Objectives have alerts too: they are generated, and broken where they are stated.
const GENERATED: &str = "prometheus/rules/slo.yml";

pub fn of_rules(tree: &Tree) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (path, rule) in rules::alerts(tree).into_iter().filter(|(path, _)| path != GENERATED) {
        let (name, text) = (rule.name(), tree.text(&path));
        let block = block(text, name);
        let expression = part(text, &block, "expr");
        let mut edits = in_expression(text, &expression);
        edits.extend(hold(text, &block));
        edits.extend(labels(text, &block));
        edits.extend(annotations(text, &block));
        mutants.extend(edits.into_iter().map(|edit| {
            let path = path.clone();
            Mutant {
                kind: edit.kind,
                what: format!("{name}: {}", edit.what),
                breaks: Box::new(move |tree| generated_anew(with(tree, &path, edit.of(tree.text(&path))))),
                concerns: Concern::Alert(name.to_owned()),
            }
        }));
    }
    mutants
}

/// Where an alert stands: up to the next rule or group.
fn block(text: &str, name: &str) -> Range<usize> {
    static NEXT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\n(?:      - |  - name)").unwrap());
    let start = text.find(&format!("- alert: {name}\n")).unwrap();
    let end = NEXT.find(&text[start..]).map_or(text.len(), |next| start + next.start());
    start..end
}

/// Where the value of a field stands: up to the next field of the rule.
fn part(text: &str, block: &Range<usize>, field: &str) -> Range<usize> {
    static NEXT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\n        [a-z_]+:").unwrap());
    let start = block.start + text[block.clone()].find(&format!("\n        {field}:")).unwrap() + field.len() + 10;
    let end = NEXT.find(&text[start..block.end]).map_or(block.end, |next| start + next.start());
    start..end
}

/// How long it must last.
fn hold(text: &str, block: &Range<usize>) -> Vec<Edit> {
    static FOR: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\n        for: (\d+[smhd])").unwrap());
    let Some(found) = FOR.captures(&text[block.clone()]) else {
        let end = part(text, block, "expr").end;
        let (by, what) = ("\n        for: 1m".to_owned(), "waits a minute".to_owned());
        return vec![Edit { kind: "for", range: end..end, by, what }];
    };
    let value = found.get(1).unwrap();
    let range = block.start + value.start()..block.start + value.end();
    let others = other_durations(value.as_str()).into_iter();
    others
        .map(|by| Edit { kind: "for", range: range.clone(), what: format!("for: {} becomes {by}", value.as_str()), by })
        .collect()
}

fn labels(text: &str, block: &Range<usize>) -> Vec<Edit> {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(\w+): ("[^"]*"|[\w-]+)"#).unwrap());
    let within = part(text, block, "labels");
    let mut edits = Vec::new();
    for found in LABEL.captures_iter(&text[within.clone()]) {
        let (value, whole) = (found.get(2).unwrap(), found.get(0).unwrap());
        let by = match value.as_str() {
            "page" => "ticket",
            "ticket" => "page",
            _ => "other",
        };
        let range = within.start + value.start()..within.start + value.end();
        let what = format!("the label {} becomes {by}", &found[0]);
        edits.push(Edit { kind: "labels", range, by: by.to_owned(), what });
        let range = within.start + whole.start()..within.start + whole.end();
        let by = format!("{}_: {}", &found[1], &found[2]);
        edits.push(Edit {
            kind: "labels",
            what: format!("the label {} is called {}_", &found[0], &found[1]),
            range,
            by,
        });
    }
    edits
}

fn annotations(text: &str, block: &Range<usize>) -> Vec<Edit> {
    static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"/(\w+[.]md|switchboard-[\w-]+)\x22").unwrap());
    static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\n {10}([a-z_]+):").unwrap());
    static VALUE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$value").unwrap());
    let within = part(text, block, "annotations");
    let mut edits = Vec::new();
    let mut edit = |kind: &'static str, found: regex::Match<'_>, by: &str, what: String| {
        let range = within.start + found.start()..within.start + found.end();
        edits.push(Edit { kind, range, by: by.to_owned(), what });
    };
    for found in LINK.captures_iter(&text[within.clone()]) {
        edit("links", found.get(1).unwrap(), "elsewhere.md", format!("the link to {} leads elsewhere", &found[1]));
    }
    for found in NAME.captures_iter(&text[within.clone()]) {
        edit("annotations", found.get(1).unwrap(), "other", format!("the annotation {} is called other", &found[1]));
    }
    if let Some(found) = VALUE.find(&text[within.clone()]) {
        edit("annotations", found, "$labels", "the value is not told".to_owned());
    }
    edits
}

/// Routes, inhibitions, receivers and hours.
pub fn of_alertmanager(tree: &Tree) -> Vec<Mutant> {
    const PATH: &str = "alertmanager/alertmanager.yml";
    static LINE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?m)^( +)(?:- )?(\w+): (.+)$").unwrap());
    let text = tree.text(PATH);
    let mut edits = Vec::new();
    for found in LINE.captures_iter(text) {
        let (indent, field, value) = (&found[1], &found[2], found.get(3).unwrap());
        if value.as_str().contains("#~") {
            continue;
        }
        for by in others(field, value.as_str()) {
            let what = format!("{field}: {} becomes {by}", value.as_str());
            edits.push(Edit { kind: "routes and inhibitions", range: value.range(), by, what });
        }
        // A field by itself can be missing; one that begins an entry takes the entry with it.
        let whole = found.get(0).unwrap();
        let (range, said) = if whole.as_str().trim_start().starts_with("- ") {
            (whole.start()..entry_end(text, whole.end(), indent.len()), "the entry of")
        } else {
            (whole.start()..whole.end(), "")
        };
        let what = format!("{said} {field}: {} is left out", value.as_str()).trim().to_owned();
        edits.push(Edit { kind: "routes and inhibitions", range, by: String::new(), what });
    }
    let mutant = |edit: Edit| Mutant {
        kind: edit.kind,
        what: format!("alertmanager.yml: {}", edit.what),
        breaks: Box::new(move |tree| with(tree, PATH, edit.of(tree.text(PATH)))),
        concerns: Concern::Nothing,
    };
    edits.into_iter().map(mutant).collect()
}

/// Where the entry ends that begins before `from`.
fn entry_end(text: &str, from: usize, indent: usize) -> usize {
    let mut end = from;
    for line in text[from..].split_inclusive('\n').skip(1) {
        let depth = line.len() - line.trim_start().len();
        if depth <= indent && !line.trim().is_empty() {
            break;
        }
        end += line.len();
    }
    end.min(text.len())
}

/// What else could stand there.
fn others(field: &str, value: &str) -> Vec<String> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(\d+)([smhd])$").unwrap());
    let listed: Vec<&str> = value.trim_matches(['[', ']']).split(", ").collect();
    match field {
        "matchers" | "source_matchers" | "target_matchers" => {
            let turned = |matcher: &str| match matcher.split_once(" != ") {
                Some((label, value)) => format!("{label} = {value}"),
                None => matcher.replace(" = ", " != "),
            };
            let misspelt = |matcher: &str| format!("{matcher}s");
            (0..listed.len())
                .flat_map(|at| {
                    let but = |by: Option<String>| {
                        let mut list: Vec<String> = listed.iter().map(|one| (*one).to_owned()).collect();
                        match by {
                            Some(by) => list[at] = by,
                            None => drop(list.remove(at)),
                        }
                        format!("[{}]", list.join(", "))
                    };
                    [but(Some(turned(listed[at]))), but(Some(misspelt(listed[at]))), but(None)]
                })
                .collect()
        }
        "equal" | "group_by" => (0..listed.len())
            .map(|at| {
                let mut list = listed.clone();
                list.remove(at);
                format!("[{}]", list.join(", "))
            })
            .collect(),
        "receiver" => {
            let known = ["pages", "tickets", "dead-mans-switch"].into_iter();
            known.filter(|name| *name != value).map(str::to_owned).collect()
        }
        "url" => {
            let known = ["pages", "tickets", "watchdog"].into_iter().filter(|end| !value.ends_with(end));
            known.map(|end| format!("{}/{end}", value.rsplit_once('/').map_or("", |(base, _)| base))).collect()
        }
        "start_time" | "end_time" => {
            let hour: u32 = value.split(':').next().and_then(|hour| hour.parse().ok()).unwrap();
            [hour + 1, hour - 1].map(|hour| format!("{hour:02}:00")).to_vec()
        }
        "weekdays" => vec!["[monday:friday]".to_owned(), "[monday:sunday]".to_owned()],
        "send_resolved" => vec![(value != "true").to_string()],
        _ => {
            let Some(found) = NUMBER.captures(value) else { return Vec::new() };
            nearby(&found[1]).into_iter().map(|number| format!("{number}{}", &found[2])).collect()
        }
    }
}
