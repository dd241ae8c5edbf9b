//! SIGKILL, again and again, while a simulated day is played: nothing of what anybody was told is lost, and nothing
//! happened twice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    support::{
        database::TestDatabase,
        files::TempDir,
        found_demo,
        metrics::Scrape,
        process::{self, Server, addresses, free_addresses},
        proxy::{Proxy, Weather},
    },
    table::{Row, within},
};

const KILLED: Row = Row {
    number: 17,
    fault: "kill -9, twenty times, while a day is simulated",
    promise: "calls, requests, history and ledger are exactly what was acknowledged; every accepted event is processed once",
    seen_in: "process_start_time_seconds, switchboard_idempotent_requests_total{outcome=\"replayed\"}",
};

const KILLS: u32 = 20;
/// How long an answer is on its way: long enough that some are lost when the server has done what it was asked.
const WAY: Duration = Duration::from_millis(40);
/// How long a server lives: another while each time, so that each dies at something else.
fn life(kill: u32) -> Duration {
    Duration::from_millis(600 + u64::from(kill * 397 % 1_400))
}

/// How many POSTs had this outcome at the server of these metrics.
async fn outcomes(ops: SocketAddr, outcome: &str) -> f64 {
    Scrape::fetch(ops).await.value(&format!("switchboard_idempotent_requests_total{{outcome=\"{outcome}\"}}"))
}

/// Waits, for a moment, until the server has just done something and the answer is still on its way.
async fn something_is_done(ops: SocketAddr) {
    let before = outcomes(ops, "executed").await;
    let until = Instant::now() + Duration::from_secs(1);
    while outcomes(ops, "executed").await == before && Instant::now() < until {}
}

/// What the database holds of something, beside what the simulator was told.
struct Comparison<'a> {
    database: &'a TestDatabase,
    told: &'a Value,
    differences: Vec<String>,
    compared: u32,
}

impl Comparison<'_> {
    async fn count(&mut self, what: &str, told: i64, sql: &str) {
        let held = self.database.count(sql).await;
        self.compared += 1;
        if held != told {
            self.differences.push(format!("{what}: told {told}, and there are {held}"));
        }
    }

    /// The same for a count that the report has by this name.
    async fn named(&mut self, name: &str, sql: &str) {
        let told = self.told[name].as_i64().unwrap_or_else(|| panic!("no {name} in {:#}", self.told));
        self.count(name, told, sql).await;
    }

    /// Kopecks; the report says rubles.
    async fn kopecks(&mut self, name: &str, sql: &str) {
        let told = self.told[name].as_str().unwrap().parse::<f64>().unwrap();
        self.count(name, (told * 100.0).round() as i64, sql).await;
    }

    /// The counts of a list of the report; `sum` counts all of its kind.
    async fn list(&mut self, name: &str, fields: [&str; 2], each: impl Fn(&str, &str) -> String, sum: &str) {
        let mut all = 0;
        for told in self.told[name].as_array().unwrap() {
            let [one, two] = fields.map(|field| told[field].as_str().unwrap());
            let count = told["count"].as_i64().unwrap();
            all += count;
            self.count(&format!("{name} {one} {two}"), count, &each(one, two)).await;
        }
        self.count(name, all, sum).await;
    }
}

const INCOMES: &str =
    "FROM transactions t JOIN transaction_types type ON type.id = t.type_id WHERE type.code = 'income'";
const REVERSALS: &str = "FROM transactions t WHERE t.reverses_id IS NOT NULL";
/// What the database holds of moves.
const MOVES: &str = "SELECT count(*) FROM request_events WHERE kind = 'transition'";
const CALLS: &str = "SELECT count(*) FROM calls WHERE result IS NOT NULL";

/// Everything that is left in the database, against what was acknowledged; how many counts that were.
async fn compare(database: &TestDatabase, told: &Value) -> u32 {
    let mut comparison = Comparison { database, told, differences: Vec::new(), compared: 0 };
    comparison.named("webhook_events", "SELECT count(*) FROM webhook_events").await;
    let without_effect = "SELECT count(*) FROM webhook_events WHERE status = 'ignored'";
    comparison.named("webhook_events_without_effect", without_effect).await;
    let undone = "SELECT count(*) FROM webhook_events WHERE status NOT IN ('processed', 'ignored')";
    comparison.count("events that are not processed", 0, undone).await;
    let call = |direction: &str, result: &str| format!("{CALLS} AND direction = '{direction}' AND result = '{result}'");
    comparison.list("calls", ["direction", "result"], call, CALLS).await;
    let twice = "SELECT count(*) FROM (SELECT call_key FROM calls GROUP BY call_key HAVING count(*) > 1) AS twice";
    comparison.count("calls that are there twice", 0, twice).await;
    for source in ["call", "manual"] {
        let created = told["requests_created"][source].as_i64().unwrap_or(0);
        let sql = format!("SELECT count(*) FROM requests WHERE source = '{source}'");
        comparison.count(&format!("requests from {source}"), created, &sql).await;
    }
    let requests = told["requests_created"].as_object().unwrap().values().filter_map(Value::as_i64).sum();
    comparison.count("requests", requests, "SELECT count(*) FROM requests").await;
    comparison.count("births", requests, "SELECT count(*) FROM request_events WHERE kind = 'created'").await;
    let each = |from: &str, to: &str| format!("{MOVES} AND from_status = '{from}' AND to_status = '{to}'");
    comparison.list("transitions", ["from", "to"], each, MOVES).await;
    // Where a request stands is where its history ends.
    let astray = "SELECT count(*) FROM requests r WHERE r.status IS DISTINCT FROM
        (SELECT to_status FROM request_events e WHERE e.request_id = r.id AND to_status IS NOT NULL ORDER BY id DESC LIMIT 1)";
    comparison.count("requests that are not where their history ends", 0, astray).await;
    comparison.named("comments", "SELECT count(*) FROM request_comments").await;
    comparison.named("incomes", &format!("SELECT count(*) {INCOMES}")).await;
    comparison.kopecks("revenue_rubles", &format!("SELECT (COALESCE(sum(amount), 0) * 100)::bigint {INCOMES}")).await;
    comparison.named("reversals", &format!("SELECT count(*) {REVERSALS}")).await;
    comparison
        .kopecks("refunds_rubles", &format!("SELECT (COALESCE(-sum(amount), 0) * 100)::bigint {REVERSALS}"))
        .await;
    for link in told["links"].as_array().unwrap() {
        let (call, request) = (&link["call"], &link["request"]);
        let sql = format!("SELECT count(*) FROM calls WHERE id = {call} AND request_id = {request}");
        comparison.count("a link", 1, &sql).await;
    }
    // Whoever sends an edit again, and is told that it is of an older version, cannot tell whose edit was quicker.
    let held = database.count("SELECT count(*) FROM request_events WHERE kind = 'edited'").await;
    let [edits, conflicts] = ["edits", "conflicts"].map(|name| told[name].as_i64().unwrap());
    assert!((edits..=edits + conflicts).contains(&held), "{held} edits\n{told:#}");
    for name in ["webhook_events", "comments", "edits", "incomes"] {
        assert!(told[name].as_i64() > Some(0), "no {name}: this run proves little of them");
    }
    assert!(comparison.differences.is_empty(), "{:#?}\n{told:#}", comparison.differences);
    comparison.compared
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_twenty_kills() {
    let (database, data) = (TestDatabase::create().await, TempDir::create());
    found_demo(&database, data.path()).await;
    let report = data.path().join("report.json");
    let at = free_addresses();
    let environment = vec![("DATABASE_URL", database.url()), ("SWITCHBOARD_DATA_DIR", data.text())];
    let serving = environment.clone();
    let begin = move || {
        let mut server = Server::begin(&["--demo"], at, &serving);
        server.wait_for_line("ready", |line| line["message"] == "ready");
        server
    };
    let mut server = spawn_blocking(begin.clone()).await.unwrap();
    let mut network = Proxy::before_address(at[0]).await;
    network.turn(Weather::Slow(WAY));
    let mut playing = environment;
    playing.extend(addresses(network.address(), at[1]));
    let file = report.to_str().unwrap().to_owned();
    let simulator = spawn_blocking(move || {
        let day = ["simulate", "--seed", "5", "--hours", "3", "--rate", "1000", "--speed", "120", "--report", &file];
        process::run(&day, &playing, b"")
    });
    let begun = async || (database.count("SELECT count(*) FROM webhook_events").await > 20).then_some(());
    within("the day begins", Duration::from_mins(1), begun).await;
    let mut replayed = 0.0;
    for kill in 0..KILLS {
        sleep(life(kill)).await;
        assert!(!simulator.is_finished(), "the day is over after {kill} kills: {:?}", simulator.await);
        replayed += outcomes(at[1], "replayed").await;
        if kill % 2 == 0 {
            something_is_done(at[1]).await;
        }
        // What is on its way is lost, as it is with a machine that dies.
        network.cut().await;
        let (_, code) = spawn_blocking(move || server.stop_with(Signal::SIGKILL)).await.unwrap();
        assert_eq!(code, None);
        server = spawn_blocking(begin.clone()).await.unwrap();
        network.mend().await;
        network.turn(Weather::Slow(WAY));
    }
    let outcome = simulator.await.unwrap();
    println!("{}{}", outcome.stdout, outcome.stderr);
    outcome.success();
    let done = async || {
        let waiting = database.count("SELECT count(*) FROM webhook_events WHERE status = 'pending'").await;
        (waiting == 0).then_some(())
    };
    within("everything is processed", Duration::from_secs(30), done).await;
    let told: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let compared = compare(&database, &told).await;
    assert!(replayed > 0.0, "no answer was lost when its work was done: this run proves nothing");
    KILLED.measured(format_args!(
        "{KILLS} kills; {} events, {} requests, {} moves, {} incomes; {replayed} answers were lost \
         when the work was done, and given again; {compared} counts agree",
        told["webhook_events"],
        database.count("SELECT count(*) FROM requests").await,
        database.count(MOVES).await,
        told["incomes"],
    ));
    assert_eq!(spawn_blocking(move || server.stop()).await.unwrap().1, Some(0));
}
