//! Breaks of prometheus/slo.json, from which records and alerts of the objectives are generated.

use serde_json::Value;

use crate::tree::Tree;
use crate::{
    Concern, Mutant, generated_anew,
    text::{nearby, other_durations},
    with,
};

const PATH: &str = "prometheus/slo.json";

pub fn of_statement(tree: &Tree) -> Vec<Mutant> {
    let statement: Value = serde_json::from_str(tree.text(PATH)).unwrap();
    let mut found = Vec::new();
    places(&statement, &mut Vec::new(), &mut found);
    let mut mutants = Vec::new();
    for (place, value) in found {
        let pointer = format!("/{}", place.iter().map(|part| part.replace('/', "~1")).collect::<Vec<_>>().join("/"));
        let said = spoken(&statement, &place);
        let mut add = |what: String, broken: &Value| {
            let text = serde_json::to_string_pretty(broken).unwrap() + "\n";
            let breaks = Box::new(move |tree: &Tree| generated_anew(with(tree, PATH, text.clone())));
            mutants.push(Mutant { kind: "objectives", what, breaks, concerns: Concern::Objectives });
        };
        for other in others(&place, &value) {
            let mut broken = statement.clone();
            *broken.pointer_mut(&pointer).unwrap() = other.clone();
            add(format!("slo.json: {said}: {value} becomes {other}"), &broken);
        }
        // An entry of a list can be missing.
        if let Some(index) = place.last().and_then(|last| last.parse::<usize>().ok()) {
            let mut broken = statement.clone();
            let list = pointer.rsplit_once('/').map_or("", |(list, _)| list).to_owned();
            broken.pointer_mut(&list).and_then(Value::as_array_mut).unwrap().remove(index);
            add(format!("slo.json: {said}: {value} is left out"), &broken);
        }
    }
    mutants
}

/// Every number and every text, with the way to it.
fn places(value: &Value, way: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => {
            found.push((way.clone(), value.clone()));
            return;
        }
    };
    for (name, child) in children {
        way.push(name);
        places(child, way, found);
        way.pop();
    }
}

/// The way with names instead of numbers: `latency, min_bad, fast`.
fn spoken(statement: &Value, way: &[String]) -> String {
    let (mut at, mut parts) = (statement, Vec::new());
    for part in way {
        at = part.parse::<usize>().map_or_else(|_| &at[part], |index| &at[index]);
        match at["name"].as_str() {
            Some(name) => parts.push(name.to_owned()),
            None if part.parse::<usize>().is_err() && at.as_array().is_none_or(|_| way.len() < 4) => {
                parts.push(part.clone());
            }
            None => {}
        }
    }
    parts.join(", ")
}

fn others(way: &[String], value: &Value) -> Vec<Value> {
    let field = way.last().map_or("", String::as_str);
    match value {
        // Of per cent, the ninth more or less of what may be bad.
        Value::Number(number) if field == "objective" => {
            let budget = 100.0 - number.as_f64().unwrap();
            [1.2, 0.8].map(|times| Value::from(crate::slo::rounded(100.0 - budget * times))).to_vec()
        }
        Value::Number(_) if field == "threshold_seconds" => [0.25, 0.05].map(Value::from).to_vec(),
        Value::Number(number) => {
            let is_count = number.is_u64() && field != "factor";
            let near = nearby(&number.to_string()).into_iter();
            near.map(|near| if is_count { Value::from(near.parse::<u64>().unwrap()) } else { near.parse().unwrap() })
                .collect()
        }
        Value::String(text) => match field {
            "for" | "page_keep_firing_for" => other_durations(text).into_iter().map(Value::from).collect(),
            "long" | "short" => {
                let windows = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];
                let at = windows.iter().position(|window| window == text).unwrap();
                let near = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
                near.filter_map(|at| windows.get(at)).map(|window| Value::from(*window)).collect()
            }
            "severity" => vec![Value::from(if text == "page" { "ticket" } else { "page" })],
            "description" => Vec::new(),
            // Names, routes, jobs.
            _ => vec![Value::from(format!("{text}x"))],
        },
        _ => Vec::new(),
    }
}
