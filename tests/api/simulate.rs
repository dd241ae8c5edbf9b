//! `switchboard simulate` against a real server: what it saw succeed is what the server counted.

use crate::support::{
    database::TestDatabase,
    files::TempDir,
    found_demo,
    process::{self, Server},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_hour_agrees_with_the_servers_counts() {
    let (database, data) = (TestDatabase::create().await, TempDir::create());
    found_demo(&database, data.path()).await;
    let mut environment = vec![("DATABASE_URL", database.url()), ("SWITCHBOARD_DATA_DIR", data.text())];
    let serving = environment.clone();
    let server = tokio::task::spawn_blocking(move || Server::start(&["--demo"], &serving)).await.unwrap();
    environment.extend(process::addresses(server.public, server.ops));
    let day = ["simulate", "--seed", "3", "--hours", "1", "--rate", "800", "--speed", "3600"];
    let outcome = tokio::task::spawn_blocking(move || process::run(&day, &environment, b"")).await.unwrap();
    let said = outcome.success();
    assert!(said.ends_with("counts agree\n"), "{said}");
    let calls = database.count("SELECT count(*) FROM calls").await;
    assert!(calls > 20, "{calls} calls\n{said}");
    assert_eq!(database.count("SELECT count(*) FROM webhook_events WHERE status = 'pending'").await, 0);
    let offers = "SELECT count(*) FROM requests WHERE status = 'offered'";
    assert_eq!(database.count(offers).await, 0, "one that times out would be counted in the next run");
    let moves = "SELECT count(*) FROM request_events WHERE actor_id IS NOT NULL AND kind = 'transition'";
    let keys = "SELECT count(*) FROM idempotency_keys WHERE status = 200";
    assert!(database.count(keys).await >= database.count(moves).await, "whoever moves something can do so again");
}

#[test]
fn without_a_server_it_says_so_in_one_line() {
    let data = TempDir::create();
    let nowhere = "127.0.0.1:9".to_owned();
    let environment = [
        ("SWITCHBOARD_DATA_DIR", data.text()),
        ("SWITCHBOARD_HTTP_ADDR", nowhere.clone()),
        ("SWITCHBOARD_OPS_ADDR", nowhere),
    ];
    let said = process::run(&["simulate", "--hours", "1"], &environment, b"").failure(1);
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}
