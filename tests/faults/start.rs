//! What keeps a server from starting: said in one line, at once, with the exit code that says so.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::{
    support::{
        database::TestDatabase,
        files::TempDir,
        process::{self, Outcome},
        proxy::Proxy,
    },
    table::{Row, ms},
};

const PORT: Row = Row {
    number: 19,
    fault: "The port is taken",
    promise: "exit 1 in ≤ 1 s before anything is touched; the message names the address",
    seen_in: "standard error",
};
const UNREACHABLE: Row = Row {
    number: 20,
    fault: "PostgreSQL is unreachable at start: refused, and dark",
    promise: "exit 1, one line; dark: in ≤ 6 s",
    seen_in: "standard error",
};
const READ_ONLY: Row = Row {
    number: 21,
    fault: "The data directory is read-only",
    promise: "exit 1, one line that names it and the way out",
    seen_in: "standard error",
};
const FULL: Row = Row {
    number: 22,
    fault: "The disk is full at start",
    promise: "exit 1, one line that names the place and the way out",
    seen_in: "standard error",
};

/// Runs `switchboard serve` to its end; how it ended and how long that took.
async fn serve(environment: Vec<(&'static str, String)>) -> (Outcome, Duration) {
    let started = Instant::now();
    (process::run_beside(&["serve"], &environment).await, started.elapsed())
}

/// What it said: one line, after those that tell what it is at.
fn said(outcome: &Outcome) -> String {
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let (last, before) = outcome.stderr.trim_end().rsplit_once('\n').map_or(("", ""), |(before, last)| (last, before));
    let last = if last.is_empty() { outcome.stderr.trim_end() } else { last };
    assert!(last.starts_with("switchboard: ") && !before.contains("switchboard: "), "{outcome:#?}");
    assert!(before.lines().count() <= 2 && outcome.stdout.is_empty(), "{outcome:#?}");
    last.to_owned()
}

fn free() -> [(&'static str, String); 2] {
    [("SWITCHBOARD_HTTP_ADDR", "127.0.0.1:0".to_owned()), ("SWITCHBOARD_OPS_ADDR", "127.0.0.1:0".to_owned())]
}

fn with(settings: impl IntoIterator<Item = (&'static str, String)>) -> Vec<(&'static str, String)> {
    process::secrets().into_iter().chain(settings).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said_within_a_second() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = TestDatabase::empty().await;
    let mut slowest = Duration::ZERO;
    for setting in ["SWITCHBOARD_HTTP_ADDR", "SWITCHBOARD_OPS_ADDR"] {
        let (outcome, took) =
            serve(with(free().into_iter().chain([("DATABASE_URL", database.url()), (setting, address.clone())]))).await;
        let line = said(&outcome);
        assert!(line.contains(&address) && line.contains("in use"), "{line}");
        assert!(took <= Duration::from_secs(1), "{took:?}");
        slowest = slowest.max(took);
    }
    let tables = database.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await;
    assert_eq!(tables, 0, "nothing was migrated");
    PORT.measured(format_args!("exit 1 in {}, nothing migrated", ms(slowest)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_said_in_one_line() {
    let database = TestDatabase::empty().await;
    let mut proxy = Proxy::before(&database).await;
    let settings = || with(free().into_iter().chain([("DATABASE_URL", proxy.url_over(&database))]));
    let environment = settings();
    proxy.freeze();
    let (outcome, dark) = serve(environment.clone()).await;
    let line = said(&outcome);
    assert!(line.contains("DATABASE_URL: the database did not answer within 5 s"), "{line}");
    assert!(!line.contains("elapsed"), "{line}");
    assert!(dark <= Duration::from_secs(6), "{dark:?}");
    proxy.cut().await;
    let (outcome, refused) = serve(environment).await;
    let line = said(&outcome);
    assert!(line.contains("DATABASE_URL: the database cannot be reached"), "{line}");
    assert!(refused <= Duration::from_secs(6), "{refused:?}");
    UNREACHABLE.measured(format_args!("refused: exit 1 in {}; dark: exit 1 in {}", ms(refused), ms(dark)));
}

/// Runs a server with a database of its own below `dir`, which is a file system with these options.
async fn serve_on(dir: &TempDir, options: &'static str) -> (String, Duration) {
    let dir = dir.text();
    let settings = with(free().into_iter().chain([("SWITCHBOARD_DATA_DIR", dir.clone())]));
    let started = Instant::now();
    let run = move || process::run_on_a_mount(&dir, options, &settings);
    let outcome = tokio::task::spawn_blocking(run).await.unwrap();
    (said(&outcome), started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_read_only_is_said_in_one_line() {
    let dir = TempDir::create();
    let (line, took) = serve_on(&dir, "ro,mode=755").await;
    assert!(line.contains(&dir.text()) && line.contains("SWITCHBOARD_DATA_DIR"), "{line}");
    assert_eq!(line.matches("Read-only file system").count(), 1, "{line}");
    READ_ONLY.measured(format_args!("exit 1 in {}", ms(took)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_start_is_said_in_one_line() {
    let dir = TempDir::create();
    // Room for the directories and not for a database.
    let (line, took) = serve_on(&dir, "size=4m,mode=755").await;
    assert!(line.contains(&dir.text()) && line.contains("disk space"), "{line}");
    FULL.measured(format_args!("exit 1 in {}", ms(took)));
}
