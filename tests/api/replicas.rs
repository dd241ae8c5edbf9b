//! Two replicas over one database: what one does the other one's clients hear of, and what one does
//! for all the other one takes over.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use nix::sys::signal::Signal;
use serde_json::json;
use switchboard::{
    auth::{Role, passwords},
    config::Secret,
    sla,
    workers::elected::{self, Job},
};
use tokio::task::JoinHandle;

use crate::support::{
    JWT_SECRET, MOSCOW, PASSWORD, PEPPER, TestApp, actor::Actor, config, database::TestDatabase, eventually,
    found_company, metrics::Scrape, process::Server,
};

async fn replicas() -> [TestApp; 2] {
    let first = TestApp::start().await;
    let second = TestApp::over(config(), first.database.clone()).await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_commits_the_others_clients_hear() {
    let [first, second] = replicas().await;
    for replica in [&first, &second] {
        replica.tail();
    }
    let here = first.actor(Role::Operator, &[MOSCOW]).await;
    let there = second.actor(Role::Operator, &[MOSCOW]).await;
    let mut stream = there.listen().await;
    for n in 0..10 {
        let started = Instant::now();
        let id = here.create_request(MOSCOW, &format!("+7916123456{n}")).await["id"].as_i64().unwrap();
        assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "created"));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_resumes_on_another_replica_and_misses_nothing_that_was_committed_late() {
    let [first, second] = replicas().await;
    for replica in [&first, &second] {
        replica.tail();
    }
    let operator = first.actor(Role::Operator, &[MOSCOW]).await;
    let elsewhere = second.actor(Role::Operator, &[MOSCOW]).await;
    let id = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let mut stream = operator.listen().await;
    let mut slow = first.database.connect().await;
    let insert = format!(
        "BEGIN; INSERT INTO request_events (request_id, at, kind) VALUES ({id}, '2026-06-01T07:00:00Z', 'edited')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut slow).await.unwrap();
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    let last = stream.next().await.unwrap();
    assert_eq!((last.id.as_str(), &last.data["id"]), ("1", &json!(3)));
    drop(stream);
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    let (_, mut stream) = elsewhere.listen_since(Some(&last.id)).await;
    assert_eq!(
        stream.next().await.unwrap().data["id"],
        2,
        "it would be lost if the client resumed from the event's own number"
    );
    assert_eq!(stream.next().await.unwrap().data["id"], 3, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_soon_notices_that_a_replica_has_vanished_without_a_word() {
    // Else its jobs and its row locks would stay with it for as long as its operating system's default: two hours.
    let app = TestApp::start().await;
    let mut db = app.app.db.connect_alone().await.unwrap();
    // What the session asked for; by a local socket nobody can vanish, and the setting itself reads 0.
    let sql = "SELECT string_agg(name || '=' || reset_val, ' ' ORDER BY name) FROM pg_settings
                WHERE name LIKE 'tcp_keepalives%' OR name = 'tcp_user_timeout'";
    let asked: String = sqlx::query_scalar(sql).fetch_one(db.parts().0).await.unwrap();
    assert_eq!(asked, "tcp_keepalives_count=3 tcp_keepalives_idle=15 tcp_keepalives_interval=5 tcp_user_timeout=30000");
}

/// The SLA job of a replica, as the server runs it.
fn stand(replica: &TestApp, interval: Duration) -> JoinHandle<()> {
    tokio::spawn(elected::run(replica.app.clone(), Job::Sla, interval, |app, db| Box::pin(sla::job::round(app, db))))
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_elected_replica_dies_the_other_takes_over() {
    let [first, second] = replicas().await;
    let operator = first.actor(Role::Operator, &[MOSCOW]).await;
    let interval = Duration::from_millis(500);
    let leader = stand(&first, interval);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND granted
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("somebody is elected", async || (first.database.count(locks).await == 1).then_some(())).await;
    let follower = stand(&second, interval);
    let breaches = async |replica: &TestApp| {
        replica.scrape().await.value("switchboard_service_request_sla_breaches_total{policy=\"first_response\"}")
    };
    let late = async |phone: &str| {
        operator.create_request(MOSCOW, phone).await;
        for replica in [&first, &second] {
            replica.clock.advance(TimeDelta::minutes(16));
        }
    };
    late("+79161234567").await;
    eventually("it is recorded", async || (breaches(&first).await == 1.0).then_some(())).await;
    assert_eq!(breaches(&second).await, 0.0, "one does it for all");
    leader.abort();
    let _ = leader.await;
    let died = Instant::now();
    late("+79161234568").await;
    eventually("the other one records it", async || (breaches(&second).await == 1.0).then_some(())).await;
    assert!(died.elapsed() < interval * 3, "{:?}", died.elapsed());
    // A connection that breaks gives the office up; somebody has it again soon, and nothing is recorded twice.
    let broken =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(first.database.count(broken).await, 1);
    late("+79161234569").await;
    eventually("it goes on", async || (breaches(&second).await == 2.0).then_some(())).await;
    assert_eq!(breaches(&first).await, 1.0);
    assert_eq!(first.database.count("SELECT count(*) FROM request_events WHERE kind = 'sla_breached'").await, 3);
    follower.abort();
}

/// How often a round is due for the processes below.
const ROUND: Duration = Duration::from_secs(2);

/// A server of its own over `database`, in a process that can be killed.
async fn process(database: &TestDatabase) -> Server {
    let environment = [
        ("DATABASE_URL", database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
        ("SWITCHBOARD_COLLECTOR_INTERVAL_MS", ROUND.as_millis().to_string()),
    ];
    tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap()
}

/// Rounds of the collector that a process has made.
async fn rounds(server: &Server) -> f64 {
    Scrape::fetch(server.ops).await.value("switchboard_collector_duration_seconds_count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_replaced_within_one_interval_and_its_listeners_go_on_elsewhere() {
    let database = TestDatabase::create().await;
    found_company(&database).await;
    let hash = passwords::hash(&Secret::new(PEPPER), 4, PASSWORD).unwrap();
    let admin = format!(
        "INSERT INTO users (login, password_hash, name, role, created_at) VALUES ('admin', '{hash}', 'x', 'admin', now())"
    );
    database.execute(&admin).await;
    let [first, second] = [process(&database).await, process(&database).await];
    let at = |server: &Server| format!("http://{}", server.public);
    let here = Actor::sign_in(&at(&first), 0, "admin").await;
    let there = here.at(&at(&second));
    let mut stream = there.listen().await;
    let id = here.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let told = stream.next().await.unwrap();
    assert_eq!(told.gist(), ("request", id, "created"));
    drop(stream);

    // Exactly one of them makes rounds, and both export what it finds.
    eventually("a third round", async || (rounds(&first).await + rounds(&second).await >= 3.0).then_some(())).await;
    let (leader, other, other_actor) =
        if rounds(&first).await > 0.0 { (first, second, there) } else { (second, first, here) };
    assert_eq!(rounds(&other).await, 0.0, "two collectors at work");
    let (killed, _) = (Instant::now(), leader.stop_with(Signal::SIGKILL));
    eventually("the other makes rounds", async || (rounds(&other).await > 0.0).then_some(())).await;
    // It stands for election once an interval; the rest is for the round itself on a busy machine.
    assert!(killed.elapsed() < ROUND + Duration::from_secs(2), "{:?}", killed.elapsed());

    other_actor.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    let (_, mut stream) = other_actor.listen_since(Some(&told.id)).await;
    assert!(stream.until(id, "transition").await.len() <= 2);
}
