//! What a search, a filter and a deep page cost when the company is old: a million service requests,
//! made by the generator. `make scale` runs it and prints a table and the plans.
//!
//! The figure is database time as the server itself measures it, the round trip included: the sum of
//! `db_client_operation_duration_seconds` over the requests of a case.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]

#[path = "../support/mod.rs"]
mod support;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::StreamExt;
use switchboard::{
    auth::Role,
    cli::generate::{self, Arguments},
};

use crate::support::{TestApp, actor::Actor, config, database::TestDatabase};

/// Rows unless `SCALE_REQUESTS` says otherwise.
const REQUESTS: i64 = 1_000_000;
/// What each case may take in the database, milliseconds.
const MOST_MS: f64 = 20.0;
/// Rows of the export, and the memory it may take.
const EXPORTED: i64 = 200_000;
const MOST_MIB: f64 = 32.0;
/// How often each case is asked.
const TIMES: usize = 15;
/// With which the generator draws; another seed is another company.
const SEED: i64 = 1;

/// Code, time zone and advertised line of each city, the largest first.
const CITIES: [(&str, &str, &str); 8] = [
    ("moscow", "Europe/Moscow", "+74950000101"),
    ("novosibirsk", "Asia/Novosibirsk", "+73830000101"),
    ("yekaterinburg", "Asia/Yekaterinburg", "+73430000101"),
    ("kazan", "Europe/Moscow", "+78430000101"),
    ("samara", "Europe/Samara", "+78460000101"),
    ("omsk", "Asia/Omsk", "+73810000101"),
    ("ufa", "Asia/Yekaterinburg", "+73470000101"),
    ("tomsk", "Asia/Tomsk", "+73820000101"),
];

/// The old company.
async fn company() -> TestDatabase {
    let database = TestDatabase::create().await;
    for (code, timezone, line) in CITIES {
        database.execute(&format!(
                    "WITH city AS (INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ('{code}', '{code}', '{code}', '{timezone}') RETURNING id),
                          campaign AS (INSERT INTO advertising_campaigns (city_id, code, name)
                                       SELECT id, '{code}_' || kind, kind FROM city, unnest(ARRAY['avito', 'maps']) AS kind RETURNING id),
                          line AS (INSERT INTO campaign_numbers (campaign_id, phone_e164)
                                   SELECT id, left('{line}', -1) || row_number() OVER () FROM campaign),
                          people AS (INSERT INTO users (login, password_hash, name, role, created_at)
                                     SELECT role || '.{code}' || n, '-', role || n, role, now()
                                       FROM (VALUES ('master', 12), ('operator', 3)) AS staff (role, count), generate_series(1, count) AS n
                                     RETURNING id, role),
                          profiles AS (INSERT INTO master_profiles (user_id, share) SELECT id, 0.5 FROM people WHERE role = 'master')
                     INSERT INTO user_cities (user_id, city_id) SELECT people.id, city.id FROM people, city"
                )).await;
    }
    let requests = std::env::var("SCALE_REQUESTS").map_or(REQUESTS, |count| count.parse().unwrap());
    let arguments = Arguments { requests, days: 730, seed: SEED };
    let done = AtomicU64::new(0);
    generate::fill(&mut database.connect().await, arguments, &|rows| {
        let done = done.fetch_add(rows, Ordering::Relaxed) + rows;
        if done.is_multiple_of(100_000) {
            eprintln!("generated {done} of {requests}");
        }
    })
    .await
    .unwrap();
    // As autovacuum would have done long ago.
    database.execute("VACUUM (ANALYZE) requests, request_events, clients, calls, transactions").await;
    database
}

struct Case {
    name: &'static str,
    path: String,
    actor: Role,
    /// Fewest rows the answer must have, or the case would measure nothing.
    rows: usize,
}

/// What people do all day, and what hurts: rare and common words, words that nobody wrote, a small
/// city, the oldest page.
async fn cases(database: &TestDatabase, master: i64) -> Vec<Case> {
    let case = |name, actor, rows, query: &str| Case { name, path: format!("/api/v1/requests?{query}"), actor, rows };
    let text = async |sql: &str| {
        let query = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql.to_owned()));
        query.fetch_one(&mut database.connect().await).await.unwrap()
    };
    let phone =
        text("SELECT c.phone_e164 FROM clients c JOIN requests r ON r.client_id = c.id OFFSET 4242 LIMIT 1").await;
    let number = text("SELECT max(id)::text FROM requests").await;
    // A page in the middle and one near the end: by cursor, wherever it points it costs the same.
    let cursor = |at: String| switchboard::http::cursor::Cursor { at: at.parse().unwrap(), id: i64::MAX }.encode();
    let at = "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM requests ORDER BY id LIMIT 1 OFFSET ";
    let deep = cursor(text(&format!("{at}(SELECT count(*) / 10 FROM requests)")).await);
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    vec![
        case("newest, all cities", Role::Admin, 50, ""),
        case("newest, 200", Role::Admin, 200, "limit=200"),
        case("newest, two cities", Role::Operator, 50, ""),
        case("newest, the smallest city", Role::Marketer, 50, ""),
        case("a master's own", Role::Master, 50, ""),
        case("of one master", Role::Admin, 50, &format!("master={master}")),
        case("deep page", Role::Admin, 50, &format!("cursor={deep}")),
        case("deep page, two cities", Role::Operator, 50, &format!("cursor={deep}")),
        case("deep page, the smallest city", Role::Marketer, 50, &format!("cursor={deep}")),
        case("open", Role::Operator, 50, "status=new,callback,no_answer,waiting"),
        case("rare state", Role::Admin, 50, "status=deferred"),
        case("rare state, the smallest city", Role::Marketer, 1, "status=deferred"),
        case("common state", Role::Admin, 50, "status=done"),
        case("campaign", Role::Admin, 50, "campaign=tomsk_maps"),
        case("type and city", Role::Admin, 50, "type=warranty&city=kazan"),
        case("a past week", Role::Operator, 50, &format!("created_to={}&status=refused", "2026-03-01T00:00:00Z")),
        case("phone", Role::Admin, 1, &format!("phone={}", encoded(&phone))),
        case("phone, nobody's", Role::Admin, 0, "phone=%2B79999999999"),
        case("last digits of a phone", Role::Admin, 1, &format!("phone={}", &phone[phone.len() - 5..])),
        case("number", Role::Admin, 1, &format!("text=%23{number}")),
        case("common word", Role::Admin, 50, &format!("text={}", encoded("кран"))),
        case("rare word", Role::Admin, 0, &format!("text={}", encoded("Ксения Школьная 142"))),
        case("rare word, the smallest city", Role::Marketer, 0, &format!("text={}", encoded("Виктор 149 кв 299"))),
        case("word of one in a thousand", Role::Admin, 50, &format!("text={}", encoded("Новая 97"))),
        case("word that nobody wrote", Role::Admin, 0, &format!("text={}", encoded("цитадель"))),
        case("words and a state", Role::Operator, 1, &format!("status=done&text={}", encoded("Ленина замок"))),
        case("a number that is also a house", Role::Admin, 1, "text=1042"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_searches_stay_quick_among_a_million_requests() {
    let database = Arc::new(company().await);
    let app = TestApp::over(config(), database.clone()).await;
    let smallest = CITIES[CITIES.len() - 1].0;
    let actors = [
        (Role::Admin, app.actor(Role::Admin, &[]).await),
        (Role::Operator, app.actor(Role::Operator, &["moscow", "kazan"]).await),
        (Role::Marketer, app.actor(Role::Marketer, &[smallest]).await),
        (Role::Master, app.actor(Role::Master, &[smallest]).await),
    ];
    let actor = |role: Role| &actors.iter().find(|(of, _)| *of == role).unwrap().1;
    // A new master has nothing; one with a past lends it.
    let busy = database
        .count("SELECT master_id FROM requests WHERE master_id IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
        .await;
    database
        .execute(&format!(
            "UPDATE requests SET master_id = {} WHERE master_id = {busy} AND id % 2 = 0",
            actor(Role::Master).id
        ))
        .await;
    database.execute("VACUUM (ANALYZE) requests").await;

    let (mut table, mut failures) = (String::new(), Vec::new());
    let cases = cases(&database, busy).await;
    for case in &cases {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let before = app.scrape().await;
            let page = actor(case.actor).get(&case.path).await.expect(200);
            let rows = page["items"].as_array().unwrap().len();
            if rows < case.rows && !failures.contains(&format!("{}: {rows} rows", case.name)) {
                failures.push(format!("{}: {rows} rows", case.name));
            }
            let spent = app.scrape().await.value(SPENT) - before.value(SPENT);
            times.push(spent * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[TIMES / 2], times[TIMES - 1]);
        writeln!(table, "{:<34} {median:>8.2} {worst:>8.2}", case.name).unwrap();
        if median >= MOST_MS {
            failures.push(format!("{}: over {MOST_MS} ms", case.name));
        }
    }
    let plans = plans(&database, &cases, &actors).await;
    let export = export(&database, actor(Role::Admin), &mut failures).await;
    println!("{plans}\n{:<34} {:>8} {:>8}\n{table}\n{export}", "database time, ms", "median", "worst");
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Resident memory of this process, server included, in MiB.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Streams the newest rows as CSV and watches the memory.
async fn export(database: &TestDatabase, admin: &Actor, failures: &mut Vec<String>) -> String {
    let rows = (database.count("SELECT count(*) FROM requests").await / 5).min(EXPORTED);
    let since = "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM requests ORDER BY created_at DESC, id DESC OFFSET";
    let since: String = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{since} {} LIMIT 1", rows - 1)))
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    let (before, started) = (resident_mib(), Instant::now());
    let path = format!("/api/v1/requests.csv?created_from={since}");
    let response = admin.request(reqwest::Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut body, mut bytes, mut lines, mut peak) = (response.bytes_stream(), 0, 0, before);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.unwrap();
        bytes += chunk.len();
        lines += i64::try_from(chunk.split(|byte| *byte == b'\n').count() - 1).unwrap();
        peak = peak.max(resident_mib());
    }
    let grown = peak - before;
    if lines != rows + 1 || grown > MOST_MIB {
        failures.push(format!("export: {lines} lines, {grown:.1} MiB"));
    }
    let (sent, seconds) = (bytes / 1_048_576, started.elapsed().as_secs_f64());
    format!("CSV of {rows} rows: {sent} MiB sent in {seconds:.1} s, {grown:.1} MiB of memory taken, client included")
}

const SPENT: &str = "db_client_operation_duration_seconds_sum{operation=\"request_list\"}";

/// Asks every case once more of a server whose sessions explain what they do, and reads the plans in
/// PostgreSQL's log.
async fn plans(database: &Arc<TestDatabase>, cases: &[Case], actors: &[(Role, Actor)]) -> String {
    let explaining = database.options().options([
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_timing", "off"),
    ]);
    let app = TestApp::reaching(config(), database.clone(), explaining).await;
    let mut plans = String::new();
    for case in cases {
        let before = database.log_length();
        let asking = actors.iter().find(|(role, _)| *role == case.actor).unwrap().1.at(&app.url(""));
        asking.get(&case.path).await.expect(200);
        let log = database.log_since(before);
        let plan: Vec<&str> = log
            .split("LOG:  duration:")
            .find(|entry| entry.contains("FROM requests r"))
            .map(|entry| entry.lines().skip_while(|line| !line.trim_start().starts_with("Limit")).collect())
            .unwrap_or_default();
        assert!(!plan.is_empty(), "{}: no plan in the log", case.name);
        writeln!(plans, "── {} ── GET {}\n{}\n", case.name, case.path, plan.join("\n")).unwrap();
    }
    plans
}
