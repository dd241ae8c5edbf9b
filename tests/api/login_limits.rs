//! What a flood of sign-ins meets: the limit of an address, the queue for a core, and their counters.

use futures_util::future::join_all;
use reqwest::{Method, header::HeaderValue};
use serde_json::json;
use sqlx::Executor;
use switchboard::{
    auth::{Role, passwords},
    config::Secret,
};

use crate::support::{
    MOSCOW, PASSWORD, PEPPER, TestApp,
    actor::{Actor, Answer},
    config, eventually,
};

async fn sign_in(client: &Actor, login: &str, password: &str, forwarded_for: Option<&str>) -> Answer {
    let body = json!({ "login": login, "password": password, "session": "token" });
    // The client's own header names its own address.
    let Some(address) = forwarded_for else { return client.post("/api/v1/auth/login", body).await };
    let url = client.request(Method::POST, "/api/v1/auth/login").build().unwrap().url().clone();
    client.send(reqwest::Client::new().post(url).header("x-forwarded-for", address).json(&body)).await
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_eleventh_sign_in_of_an_address_within_a_minute_is_turned_away() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let client = app.stranger();
    // At once: one of the ten comes back every six seconds. Each with a login of its own, of which one exists.
    let logins: Vec<String> = (0..10).map(|n| format!("nobody{n}")).chain([user.login.clone()]).collect();
    let answers = join_all(logins.iter().map(|login| sign_in(&client, login, PASSWORD, None))).await;
    assert_eq!((count(&answers, 200) + count(&answers, 401), count(&answers, 429)), (10, 1));
    let turned_away = answers.into_iter().find(|answer| answer.status == 429).unwrap();
    let seconds: u64 = turned_away.header("retry-after").parse().unwrap();
    assert!((1..=7).contains(&seconds), "{seconds}");
    turned_away.problem(429, "rate_limited");
    // Somebody else is not concerned, and neither is who is signed in.
    sign_in(&app.stranger(), &user.login, PASSWORD, None).await.expect(200);
    user.get("/api/v1/auth/me").await.expect(200);
    assert_eq!(app.scrape().await.value("rate_limited_total{scope=\"login_ip\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_with_many_ipv6_addresses_is_one_address() {
    let app = TestApp::start().await;
    let client = app.stranger();
    let addresses: Vec<String> = (0..11).map(|n| format!("2001:db8:1:2:{n:x}::{n:x}")).collect();
    let answers = join_all(addresses.iter().map(|address| sign_in(&client, address, PASSWORD, Some(address)))).await;
    assert_eq!((count(&answers, 401), count(&answers, 429)), (10, 1));
    sign_in(&client, "nobody", PASSWORD, Some("2001:db8:1:3::1")).await.problem(401, "bad_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_stranger_claims_to_have_is_not_believed() {
    let mut config = config();
    config.http.trusted_proxies = Vec::new();
    let app = TestApp::start_with(config).await;
    let client = app.stranger();
    let claims: Vec<String> = (1..=11).map(|n| format!("203.0.113.{n}")).collect();
    let answers = join_all(claims.iter().map(|address| sign_in(&client, address, PASSWORD, Some(address)))).await;
    assert_eq!((count(&answers, 401), count(&answers, 429)), (10, 1));

    // Nor does it help to write what is no text to the left of what a balancer has seen.
    let app = TestApp::over(crate::support::config(), app.database.clone()).await;
    let url = app.url("/api/v1/auth/login");
    let behind_a_balancer = async |claimed: &String| {
        let body = json!({ "login": claimed, "password": PASSWORD, "session": "token" });
        let seen = HeaderValue::from_bytes(b"\xff, 198.51.100.7:40000").unwrap();
        let request = reqwest::Client::new().post(&url).header("x-forwarded-for", claimed);
        client.send(request.header("x-forwarded-for", seen).json(&body)).await
    };
    let answers = join_all(claims.iter().map(behind_a_balancer)).await;
    assert_eq!((count(&answers, 401), count(&answers, 429)), (10, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sign_in_is_counted_by_its_result() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let before = app.scrape().await;
    let client = app.stranger();
    for password in [PASSWORD, PASSWORD, "wrong horse battery"] {
        sign_in(&client, &user.login, password, None).await;
    }
    sign_in(&client, "nobody", PASSWORD, None).await;
    for _ in 0..10 {
        sign_in(&client, &user.login, PASSWORD, None).await;
    }
    let changes = app.scrape().await.changes_since(&before);
    let change = |result: &str| changes.get(&format!("auth_attempts_total{{result=\"{result}\"}}")).copied();
    assert_eq!(change("success"), Some(8.0), "two, and six of the ten");
    assert_eq!(change("rejected"), Some(2.0));
    assert_eq!(change("rate_limited"), Some(4.0));
    assert_eq!((change("overloaded"), change("locked")), (None, None));
    assert_eq!(changes["rate_limited_total{scope=\"login_ip\"}"], 4.0);
    assert_eq!(changes["password_hash_duration_seconds_count"], 10.0, "the limit comes before the hash");
    assert_eq!(changes["db_client_operation_duration_seconds_count{operation=\"user_credentials\"}"], 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_finds_no_free_core_is_told_to_come_back() {
    let mut config = config();
    config.password.cost = 10;
    config.password.queue_timeout_ms = 1;
    let app = TestApp::start_with(config).await;
    // More than there are cores, so that some must wait for a hash to end, which takes far more than 1 ms.
    let cores = std::thread::available_parallelism().unwrap().get();
    let clients: Vec<Actor> = (0..2 * cores + 4).map(|_| app.stranger()).collect();
    let answers = join_all(clients.iter().map(|client| sign_in(client, "nobody", PASSWORD, None))).await;
    let (rejected, overloaded) = (count(&answers, 401), count(&answers, 503));
    assert_eq!(rejected + overloaded, clients.len());
    assert!(rejected > 0 && overloaded > 0, "{rejected} rejected, {overloaded} overloaded");
    let turned_away = answers.into_iter().find(|answer| answer.status == 503).unwrap();
    assert_eq!(turned_away.header("retry-after"), "1");
    turned_away.problem(503, "overloaded");
    let scrape = app.scrape().await;
    let number = |count: usize| f64::from(u32::try_from(count).unwrap());
    assert_eq!(scrape.value("auth_attempts_total{result=\"overloaded\"}"), number(overloaded));
    assert_eq!(scrape.value("auth_attempts_total{result=\"rejected\"}"), number(rejected));
    assert_eq!(scrape.value("password_hash_rejected_total"), number(overloaded));
    assert_eq!(scrape.value("password_hash_queue_depth"), 0.0);
    assert_eq!(scrape.value("password_hash_inflight"), 0.0);
    // Whom nobody looked at has not failed.
    let failures = app.database.count("SELECT sum(failures) FROM login_failures").await;
    assert_eq!(failures, i64::try_from(rejected).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_database_after_the_hash_is_in_nobodys_way() {
    const COST: u32 = 10;
    let mut config = config();
    config.password.cost = COST;
    config.password.queue_timeout_ms = 1;
    config.database.query_timeout_ms = 10_000;
    let app = TestApp::start_with(config).await;
    let cores = std::thread::available_parallelism().unwrap().get().min(7);
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    // As it would be now: else it is renewed, which takes a core.
    let hash = passwords::hash(&Secret::new(PEPPER), COST, PASSWORD).unwrap();
    app.database.execute(&format!("UPDATE users SET password_hash = '{hash}' WHERE id = {}", user.id)).await;
    let mut lock = app.database.connect().await;
    lock.execute("BEGIN; LOCK TABLE sessions").await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut signing_in = Vec::new();
    for n in 0..=cores {
        let (client, login) = (app.stranger(), user.login.clone());
        signing_in.push(tokio::spawn(async move { sign_in(&client, &login, PASSWORD, None).await }));
        eventually("it waits, and no core is taken", async || {
            let hashing = app.scrape().await.value("password_hash_inflight");
            let there = app.database.count(waiting).await == i64::try_from(n + 1).unwrap();
            (there && hashing == 0.0).then_some(())
        })
        .await;
    }
    sign_in(&app.stranger(), "nobody", PASSWORD, None).await.problem(401, "bad_credentials");
    lock.execute("ROLLBACK").await.unwrap();
    for one in signing_in {
        one.await.unwrap().expect(200);
    }
}
