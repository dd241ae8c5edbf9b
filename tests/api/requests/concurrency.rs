//! Many hands on one request.

use futures_util::future::join_all;
use serde_json::json;
use switchboard::auth::Role;

use super::path;
use crate::support::{MOSCOW, TestApp, actor::Answer, config};

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

async fn patient() -> TestApp {
    let mut config = config();
    // Who waits for the row must not run out of connections: that would be another test.
    config.database.max_connections = 25;
    config.database.acquire_timeout_ms = 10_000;
    config.database.query_timeout_ms = 30_000;
    TestApp::start_with(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_who_accept_at_once_one_does() {
    let app = patient().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    let before = app.scrape().await;
    let answers = join_all((0..100).map(|_| master.move_to(id, json!({ "to": "accepted" })))).await;
    assert_eq!((count(&answers, 200), count(&answers, 409)), (1, 99));
    for answer in answers.into_iter().filter(|answer| answer.status == 409) {
        let problem = answer.problem(409, "transition_not_allowed");
        assert_eq!(problem["allowed"], json!(["en_route", "waiting"]), "what can be done instead");
    }
    assert_eq!(master.get(&path(&json!(id))).await.header("etag"), "\"4\"");
    let sql = "SELECT count(*) FROM request_events WHERE to_status = 'accepted'";
    assert_eq!(app.database.count(sql).await, 1);
    let changes = app.scrape().await.changes_since(&before);
    let moved = "switchboard_service_request_transitions_total{from=\"offered\",to=\"accepted\"}";
    let refused = "switchboard_service_request_transition_rejections_total{reason=\"not_allowed\"}";
    assert_eq!((changes[moved], changes[refused]), (1.0, 99.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_masters_offered_at_once_one_gets_it() {
    let app = patient().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    let mut masters = Vec::new();
    for _ in 0..10 {
        masters.push(app.actor(Role::Master, &[MOSCOW]).await);
    }
    let answers = join_all(masters.iter().map(|master| manager.assign(id, master.id))).await;
    assert_eq!((count(&answers, 200), count(&answers, 409)), (1, 9));
    let winner = answers.iter().find(|answer| answer.status == 200).unwrap().json()["master_id"].clone();
    let path = path(&json!(id));
    for master in &masters {
        assert_eq!(master.get(&path).await.status == 200, winner == master.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_who_finish_at_once_one_books_the_money() {
    let app = patient().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    let done = json!({ "to": "done", "result": "1000.00" });
    let answers = join_all((0..10).map(|_| master.move_to(id, done.clone()))).await;
    assert_eq!((count(&answers, 200), count(&answers, 409)), (1, 9));
    assert_eq!(app.database.count("SELECT count(*) FROM transactions").await, 1);
    assert_eq!(app.scrape().await.value("switchboard_revenue_rubles_total{city=\"moscow\"}"), 500.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_who_calls_on_many_lines_at_once_is_one_client() {
    let app = patient().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let requests = join_all((0..20).map(|_| operator.create_request(MOSCOW, "+79161234567"))).await;
    let first = requests.iter().filter(|request| request["type"] == "first_time").count();
    assert_eq!(first, 1, "the others see that somebody was there before them");
    assert_eq!(app.database.count("SELECT count(*) FROM clients").await, 1);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 20);
}
