//! What each side has counted.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;
use switchboard::telemetry::labels::Method;

use super::{
    client::{Answer, Question},
    support::metrics::Scrape,
};

/// Requests by route, method and status.
pub type Counts = BTreeMap<(String, String, u16), u64>;
/// Bodies of answers by route: how many, and their bytes.
pub type Bodies = BTreeMap<String, (u64, u64)>;

/// What a client has seen of one replica.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub counts: Counts,
    pub bodies: Bodies,
}

impl Tally {
    pub fn add(&mut self, question: &Question, answer: Answer) {
        *self.counts.entry(key(question, answer.status)).or_default() += 1;
        if let Some(bytes) = answer.bytes {
            let (count, sum) = self.bodies.entry(question.route.clone()).or_default();
            (*count, *sum) = (*count + 1, *sum + bytes);
        }
    }

    /// One that was hung up on, which nginx' number stands for.
    pub fn hang_up(&mut self, question: &Question) {
        *self.counts.entry(key(question, 499)).or_default() += 1;
    }

    pub fn merge(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        for (route, (count, bytes)) in other.bodies {
            let mine = self.bodies.entry(route).or_default();
            *mine = (mine.0 + count, mine.1 + bytes);
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Methods that the standard does not know are counted as one.
fn key(question: &Question, status: u16) -> (String, String, u16) {
    (question.route.clone(), Method::from(&question.method).as_str().to_owned(), status)
}

/// What a replica has counted between two scrapes.
pub fn of_metrics(before: &Scrape, after: &Scrape) -> Tally {
    let mut tally = Tally::default();
    for (series, change) in after.changes_since(before) {
        let Some((name, labels)) = series.split_once('{') else { continue };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap_or_else(|| panic!("{series}: no {name}"));
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        match name {
            "http_server_request_duration_seconds_count" => {
                let key = (
                    label("http_route"),
                    label("http_request_method"),
                    label("http_response_status_code").parse().unwrap(),
                );
                tally.counts.insert(key, whole(change));
            }
            "http_server_response_body_size_bytes_count" => {
                tally.bodies.entry(label("http_route")).or_default().0 = whole(change);
            }
            "http_server_response_body_size_bytes_sum" => {
                tally.bodies.entry(label("http_route")).or_default().1 = whole(change);
            }
            _ => {}
        }
    }
    tally
}

/// What a replica's log says: one line a request.
pub fn of_log<'a>(lines: impl IntoIterator<Item = &'a Value>) -> Counts {
    let mut counts = Counts::new();
    for line in lines.into_iter().filter(|line| is_request(line)) {
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}")).to_owned();
        let status = line["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let key = (text("route"), text("method"), status.unwrap_or_else(|| panic!("no status: {line}")));
        *counts.entry(key).or_default() += 1;
    }
    counts
}

pub fn is_request(line: &Value) -> bool {
    line["target"] == "switchboard::http" && line["message"] == "request"
}

/// Where two sides differ, a line each.
pub fn differences<K: Ord + Clone + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> String {
    let mut keys: Vec<&K> = one.keys().chain(other.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut said = String::new();
    for key in keys.into_iter().filter(|key| one.get(key) != other.get(key)) {
        let _ = writeln!(said, "  {key:?}: {:?} and {:?}", one.get(key), other.get(key));
    }
    said
}

/// Counters hold whole numbers, far below where a float would lose one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked here")]
fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract() == 0.0 && value < 9e15, "{value} is no count");
    value as u64
}
