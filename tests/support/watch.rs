//! What the servers of a run say, kept for a search through all of it: with `SWITCHBOARD_TEST_WATCH=DIR` every span and
//! event at TRACE, every error body, every scrape and the logs of spawned servers are appended to files in DIR,
//! beside the secrets that were handed out meanwhile. Without the variable nothing happens. `tests/security/leaks.rs`
//! does the search.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use serde_json::Value;
use tracing_subscriber::{fmt::format::FmtSpan, layer::SubscriberExt, util::SubscriberInitExt};

use super::actor::Answer;

/// Names the directory.
pub const VARIABLE: &str = "SWITCHBOARD_TEST_WATCH";

/// Spans and events.
pub const TRACE: &str = "trace";
/// Answers with a status of 400 or more.
pub const BODIES: &str = "bodies";
/// `/metrics`.
pub const METRICS: &str = "metrics";
/// Lines of servers in processes of their own.
pub const LOGS: &str = "logs";
/// Secrets that tests were given, one a line.
pub const PLANTED: &str = "planted";

/// Fields of answers that hold secrets.
const SECRET_FIELDS: [&str; 3] = ["access_token", "refresh_token", "csrf_token"];

fn dir() -> Option<&'static PathBuf> {
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    DIR.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)).as_ref()
}

/// Whether this run is watched.
pub fn on() -> bool {
    dir().is_some()
}

/// A file that is appended to line by line, by several processes.
fn open(kind: &str) -> File {
    OpenOptions::new().create(true).append(true).open(dir().unwrap().join(kind)).unwrap()
}

/// Notes lines of a kind.
pub fn note(kind: &str, text: &str) {
    if on() {
        let line = format!("{}\n", text.trim_end());
        // One write: lines of other tests must not end up inside.
        open(kind).write_all(line.as_bytes()).unwrap();
    }
}

/// Notes what a scrape names: its series, each once a process. Their values are numbers.
pub fn metrics(scrape: &str) {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if on() {
        let mut known = KNOWN.lock().unwrap();
        for series in scrape.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)) {
            if known.insert(series.to_owned()) {
                note(METRICS, series);
            }
        }
    }
}

/// Notes a secret that must not turn up.
pub fn plant(secret: &str) {
    note(PLANTED, secret);
}

/// Notes what an answer gives away: its body when it is an error, and the secrets in it when it is none.
pub fn answer(answer: &Answer) {
    if !on() {
        return;
    }
    if answer.status.as_u16() >= 400 {
        note(BODIES, &answer.text);
    }
    let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    SECRET_FIELDS.iter().filter_map(|field| body[*field].as_str()).for_each(plant);
    for cookie in answer.headers.get_all("set-cookie") {
        let value = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap().1;
        // One that is being removed is empty.
        if !value.is_empty() {
            plant(value);
        }
    }
}

/// Listens to everything that this process's servers trace.
pub fn install() {
    static ONCE: OnceLock<()> = OnceLock::new();
    if !on() {
        return;
    }
    ONCE.get_or_init(|| {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_writer(Mutex::new(open(TRACE)));
        tracing_subscriber::registry().with(layer).init();
    });
}
