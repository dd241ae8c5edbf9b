//! How a server starts and stops: what it says before it is ready, and what it does when told to end, once,
//! twice, or too early.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{Connection, Executor};

use crate::support::{
    actor::{Actor, Answer},
    database::TestDatabase,
    eventually,
    process::{self, Server, free_addresses},
};

/// What a migration takes: the ASCII codes of `swbd`.
const MIGRATING: &str = "SELECT pg_advisory_lock(x'73776264'::bigint)";

fn environment(database: &TestDatabase) -> Vec<(&'static str, String)> {
    let mut environment = vec![("DATABASE_URL", database.url())];
    environment.extend(process::secrets());
    environment
}

/// A server that cannot migrate its database, because somebody else seems to.
async fn waiting(database: &TestDatabase) -> (Server, sqlx::PgConnection) {
    let mut lock = database.connect().await;
    lock.execute(MIGRATING).await.unwrap();
    let [public, ops] = free_addresses();
    let server = Server::begin(&[], [public, ops], &environment(database));
    eventually("it listens", async || tokio::net::TcpStream::connect(ops).await.ok()).await;
    (server, lock)
}

async fn ask(address: SocketAddr, path: &str) -> Answer {
    Actor::stranger(&format!("http://{address}")).get(path).await
}

async fn stop(server: Server, signal: Signal) -> (Vec<Value>, Option<i32>) {
    tokio::task::spawn_blocking(move || server.stop_with(signal)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn before_it_is_ready_a_server_says_so_and_then_serves() {
    let database = TestDatabase::empty().await;
    let (server, lock) = waiting(&database).await;
    for address in [server.public, server.ops] {
        assert_eq!(ask(address, "/health/live").await.expect(200), json!({ "status": "ok" }));
        assert_eq!(ask(address, "/health/ready").await.expect(503), json!({ "status": "starting" }));
    }
    for (address, path) in [(server.public, "/api/v1/requests"), (server.public, "/docs"), (server.ops, "/metrics")] {
        let answer = ask(address, path).await;
        assert_eq!(answer.header("retry-after"), "1");
        answer.problem(503, "starting");
    }
    lock.close().await.unwrap();
    let ready = async || (ask(server.public, "/health/ready").await.status == 200).then_some(());
    eventually("it is ready", ready).await;
    ask(server.public, "/api/v1/requests").await.problem(401, "unauthenticated");
    assert_eq!(stop(server, Signal::SIGTERM).await.1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_before_it_is_ready_stops() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let database = TestDatabase::empty().await;
        let (server, _lock) = waiting(&database).await;
        let told = Instant::now();
        let (log, code) = stop(server, signal).await;
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(told.elapsed() < Duration::from_secs(5));
        assert!(log.iter().any(|line| line["message"] == "told to stop before it was ready"), "{log:#?}");
        let tables = database.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await;
        assert_eq!(tables, 0, "nothing was begun");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_twice_stops_at_once() {
    for (signal, expected) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let database = TestDatabase::create().await;
        let [public, ops] = free_addresses();
        let mut environment = environment(&database);
        environment.push(("SWITCHBOARD_SHUTDOWN_DELAY_MS", "60000".to_owned()));
        let server = Server::begin(&[], [public, ops], &environment);
        let says = async |status: &str| {
            let answers = async || {
                tokio::net::TcpStream::connect(public).await.ok()?;
                (ask(public, "/health/ready").await.json() == json!({ "status": status })).then_some(())
            };
            eventually(status, answers).await;
        };
        says("ok").await;
        server.signal(signal);
        says("shutting_down").await;
        // It still serves.
        ask(public, "/api/v1/requests").await.problem(401, "unauthenticated");
        let (log, code) = stop(server, signal).await;
        assert_eq!(code, Some(expected), "{log:#?}");
        assert!(!log.iter().any(|line| line["level"] == "error"), "a probe that says no is no error: {log:#?}");
        assert!(log.iter().any(|line| line["level"] == "warn" && line["reason"] == signal.as_str()), "{log:#?}");
    }
}
