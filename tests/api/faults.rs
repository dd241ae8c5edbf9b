//! PostgreSQL away, dark or gone: what the API promises then, and that it recovers by itself.

use std::sync::Arc;

use serde_json::json;
use switchboard::auth::Role;

use crate::support::{
    MOSCOW, MOSCOW_LINE, PASSWORD, TestApp,
    actor::{Actor, Answer},
    config,
    database::TestDatabase,
    eventually, found_company,
    proxy::Proxy,
    telephony::Call,
};

/// A server that reaches its database through a proxy.
async fn behind_a_proxy() -> (TestApp, Proxy) {
    let mut config = config();
    config.database.acquire_timeout_ms = 300;
    config.database.query_timeout_ms = 300;
    config.database.max_connections = 4;
    let database = Arc::new(TestDatabase::create().await);
    found_company(&database).await;
    let proxy = Proxy::before(&database).await;
    let options = proxy.options_over(&database);
    let app = TestApp::reaching(config, database, options).await;
    (app, proxy)
}

/// Waits until a probe says this: an answer is good for half a second.
async fn probes(app: &TestApp, path: &str, status: u16, says: &str) {
    let prober = Actor::stranger(&format!("http://{}", app.ops));
    let now = async || Some(prober.get(path).await).filter(|answer| answer.json() == json!({ "status": says }));
    assert_eq!(eventually(&format!("{path} says {says}"), now).await.status.as_u16(), status);
}

/// One of everything that needs the database.
async fn try_everything(app: &TestApp, operator: &Actor) -> Vec<Answer> {
    let stranger = app.stranger();
    vec![
        operator.get("/api/v1/requests").await,
        operator.post("/api/v1/requests", json!({ "city": MOSCOW, "phone": "+79161234567" })).await,
        operator.get("/api/v1/auth/me").await,
        stranger
            .post("/api/v1/auth/login", json!({ "login": operator.login, "password": PASSWORD, "session": "token" }))
            .await,
        stranger.deliver(&Call::new("entry", "79161234567", MOSCOW_LINE).appeared()).await,
    ]
}

async fn recovers(app: &TestApp, operator: &Actor) {
    let works = async || (operator.get("/api/v1/requests").await.status == 200).then_some(());
    eventually("requests are served again", works).await;
    probes(app, "/health/ready", 200, "ok").await;
    app.stranger().deliver(&Call::new("entry", "79161234567", MOSCOW_LINE).appeared()).await.expect(200);
    app.drain_inbox().await;
    assert_eq!(operator.all("/api/v1/requests").await.len(), 1, "of the call that was sent again");
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("dependency_up{dependency=\"postgresql\"}"), 1.0);
    let free = async || (app.scrape().await.value("db_pool_connections{state=\"used\"}") == 0.0).then_some(());
    eventually("every connection is back in the pool", free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_api_says_so_and_recovers() {
    let (app, mut proxy) = behind_a_proxy().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    probes(&app, "/health/ready", 200, "ok").await;
    proxy.cut().await;
    // The connections that broke show themselves at their next use, the others refuse to open.
    for _ in 0..2 {
        for answer in try_everything(&app, &operator).await {
            assert_eq!(answer.header("retry-after"), "1", "{} {}", answer.status, answer.text);
            answer.problem(503, "database_unavailable");
        }
    }
    probes(&app, "/health/live", 200, "ok").await;
    probes(&app, "/health/ready", 503, "database_unavailable").await;
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("dependency_up{dependency=\"postgresql\"}"), 0.0);
    assert!(scrape.value("db_client_errors_total{sqlstate_class=\"08\"}") >= 6.0);
    assert_eq!(scrape.value("db_pool_acquire_timeouts_total"), 0.0, "the pool is not too small");
    assert_eq!(scrape.answered(503), 10.0);
    assert_eq!(scrape.answered(500), 0.0);
    proxy.mend().await;
    recovers(&app, &operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_dark_is_given_up_on_and_the_pool_recovers() {
    let (app, mut proxy) = behind_a_proxy().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    probes(&app, "/health/ready", 200, "ok").await;
    proxy.freeze();
    for answer in try_everything(&app, &operator).await {
        assert!([503, 504].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    probes(&app, "/health/live", 200, "ok").await;
    probes(&app, "/health/ready", 503, "database_unavailable").await;
    let scrape = app.scrape().await;
    assert!(scrape.value("db_client_errors_total{sqlstate_class=\"timeout\"}") > 0.0);
    assert_eq!(scrape.answered(500), 0.0);
    proxy.mend().await;
    recovers(&app, &operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_dropped_is_unavailable_too() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    probes(&app, "/health/ready", 200, "ok").await;
    app.database.vanish().await;
    for _ in 0..2 {
        for answer in try_everything(&app, &operator).await {
            assert_eq!(answer.header("retry-after"), "1", "{} {}", answer.status, answer.text);
            answer.problem(503, "database_unavailable");
        }
    }
    app.stranger().get("/health/live").await.expect(200);
    probes(&app, "/health/ready", 503, "database_unavailable").await;
    assert_eq!(app.scrape().await.value("dependency_up{dependency=\"postgresql\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_database_only_what_was_in_flight_fails() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    operator.create_request(MOSCOW, "+79161234567").await;
    // What a restart does to connections, without a restart for the other tests of this process.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'switchboard'";
    let ended = app.database.count(end).await;
    assert!(ended > 0);
    let mut failed = 0;
    loop {
        let answer = operator.get("/api/v1/requests").await;
        if answer.status == 200 {
            break;
        }
        answer.problem(503, "database_unavailable");
        failed += 1;
        assert!(failed <= ended, "one for each connection that broke at most");
    }
    assert_eq!(operator.all("/api/v1/requests").await.len(), 1);
}
