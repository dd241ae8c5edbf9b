//! The two listeners and what every answer has in common: probes, problems, headers, CORS.

use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::{auth::Role, workers};

use crate::support::{MOSCOW, MOSCOW_LINE, TestApp, actor::Actor, eventually, morning, telephony::Call};

const ORIGIN: &str = "http://localhost:5173";

fn ops(app: &TestApp) -> Actor {
    Actor::stranger(&format!("http://{}", app.ops))
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_the_ops_listener_and_nowhere_else() {
    let app = TestApp::start().await;
    app.stranger().get("/metrics").await.problem(404, "not_found");
    let answer = ops(&app).get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    assert_eq!(answer.status, 200);
    // And the API is not on the ops listener.
    for path in ["/api/v1/auth/me", "/api/v1/requests", "/docs", "/openapi.json", "/"] {
        ops(&app).get(path).await.problem(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_tell_whether_requests_may_be_sent() {
    let app = TestApp::start().await;
    let probes = [app.stranger(), ops(&app)];
    let all = async |path: &str, status: u16, says: &str| {
        for probe in &probes {
            // An answer is good for half a second.
            let now = async || Some(probe.get(path).await).filter(|answer| answer.json() == json!({ "status": says }));
            let answer = eventually(&format!("{path} says {says}"), now).await;
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.status.as_u16(), status, "{path} {says}");
        }
    };
    all("/health/live", 200, "ok").await;
    all("/health/ready", 200, "ok").await;
    let last = "(SELECT max(version) FROM _sqlx_migrations)";
    app.database.execute(&format!("UPDATE _sqlx_migrations SET success = false WHERE version = {last}")).await;
    all("/health/ready", 503, "starting").await;
    app.database.execute("UPDATE _sqlx_migrations SET success = true").await;
    all("/health/ready", 200, "ok").await;
    // A newer release has migrated the database: this one keeps running on it.
    app.database
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT version + 1, 'newer', true, checksum, 0 FROM _sqlx_migrations ORDER BY version DESC LIMIT 1",
        )
        .await;
    all("/health/ready", 200, "ok").await;
    // On the way out it is not ready, and still serves what comes.
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    app.app.lifecycle.begin_draining();
    all("/health/ready", 503, "shutting_down").await;
    all("/health/live", 200, "ok").await;
    operator.create_request(MOSCOW, "+79161234567").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn business_hours_are_told_while_they_last() {
    const OPENED: &str = "switchboard_business_opened_timestamp_seconds";
    // Ten o'clock on a Monday in Moscow.
    let app = TestApp::start().await;
    let eight = morning() - TimeDelta::hours(2);
    let told = async || app.scrape().await.get(OPENED).map(|seconds| seconds.to_string());
    assert_eq!(told().await, Some(eight.timestamp().to_string()));
    app.clock.advance(TimeDelta::hours(10));
    assert_eq!(told().await, None);
    app.clock.advance(TimeDelta::hours(12));
    assert_eq!(told().await, Some((eight + TimeDelta::days(1)).timestamp().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_does_not_make_a_server_unready() {
    let mut config = crate::support::config();
    config.database.max_connections = 1;
    config.database.acquire_timeout_ms = 100;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let taken = app.app.db.acquire().await.unwrap();
    let turned_away = operator.get("/api/v1/requests").await;
    assert_eq!(turned_away.header("retry-after"), "1");
    turned_away.problem(503, "overloaded");
    ops(&app).get("/health/ready").await.expect(200);
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("db_pool_acquire_timeouts_total"), 1.0);
    assert_eq!(scrape.value("db_pool_connections{state=\"used\"}"), 1.0);
    assert_eq!(scrape.value("db_pool_max_connections"), 1.0);
    // That calls are not worked off is seen all the same.
    app.database
        .execute(
            "INSERT INTO webhook_events (provider, kind, event_key, payload, next_attempt_at, received_at)
             VALUES ('mango', 'call', 'late', '{}', 'infinity', now())",
        )
        .await;
    workers::sample_backlog(&app.app).await;
    assert_eq!(app.scrape().await.value("switchboard_webhook_backlog{provider=\"mango\"}"), 1.0);
    drop(taken);
    operator.get("/api/v1/requests").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_what_is_not_taken_are_problems() {
    let app = TestApp::start().await;
    let stranger = app.stranger();
    for path in ["/nothing", "/api", "/api/v2/requests", "/api/v1/requests/", "//", "/api/v1/../../etc/passwd"] {
        stranger.get(path).await.problem(404, "not_found");
    }
    let brew = Method::from_bytes(b"BREW").unwrap();
    for (method, path) in [
        (Method::PUT, "/api/v1/requests"),
        (Method::DELETE, "/api/v1/auth/login"),
        (Method::TRACE, "/api/v1/requests/1"),
        (brew.clone(), "/health/live"),
    ] {
        let answer = stranger.send(stranger.request(method.clone(), path)).await;
        assert!(!answer.header("allow").is_empty(), "{method} {path}: which methods, then?");
        answer.problem(405, "method_not_allowed");
    }
    let scrape = app.scrape().await;
    assert_eq!(scrape.served("GET", "unmatched", 404), 6.0);
    assert_eq!(scrape.served("PUT", "/api/v1/requests", 405), 1.0);
    assert_eq!(scrape.served("TRACE", "/api/v1/requests/{id}", 405), 1.0);
    assert_eq!(scrape.served("_OTHER", "/health/live", 405), 1.0);
    assert!(!scrape.text.contains("BREW"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_an_allowed_origin_may_read_answers() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let from = async |origin: &str| {
        operator.send(operator.request(Method::GET, "/api/v1/requests").header("origin", origin)).await
    };
    let allowed = from(ORIGIN).await;
    assert_eq!(allowed.header("access-control-allow-origin"), ORIGIN);
    assert_eq!(allowed.header("access-control-allow-credentials"), "true");
    assert_eq!(
        allowed.header("access-control-expose-headers"),
        "content-disposition,etag,location,retry-after,ratelimit,ratelimit-policy,idempotency-replayed"
    );
    assert!(
        allowed.header("vary").contains("origin"),
        "a cache must keep the answers apart: {:?}",
        allowed.header("vary")
    );
    for origin in ["https://evil.example", "null", "http://localhost:5174", "http://localhost:5173.evil.example"] {
        let answer = from(origin).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
    // An error can be read too, or the page would not know what went wrong.
    let stranger = app.stranger();
    let login = json!({ "login": "nobody", "password": "wrong horse battery", "session": "token" });
    join_all((0..10).map(|_| stranger.post("/api/v1/auth/login", login.clone()))).await;
    app.database.execute("ALTER TABLE requests RENAME TO mislaid").await;
    for (request, status) in [
        (stranger.request(Method::GET, "/api/v1/auth/me"), 401),
        (operator.request(Method::GET, "/api/v1/nowhere"), 404),
        (stranger.request(Method::POST, "/api/v1/auth/login").json(&login), 429),
        (operator.request(Method::GET, "/api/v1/requests"), 500),
    ] {
        let answer = operator.send(request.header("origin", ORIGIN)).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (status, ORIGIN));
    }

    let preflight = async |origin: &str| {
        let stranger = app.stranger();
        let request = stranger
            .request(Method::OPTIONS, "/api/v1/requests/1")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "if-match,content-type");
        stranger.send(request).await
    };
    let answer = preflight(ORIGIN).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, ORIGIN));
    assert_eq!(answer.header("access-control-allow-methods"), "GET,POST,PATCH,DELETE");
    let headers = answer.header("access-control-allow-headers");
    let expected = "content-type,authorization,cache-control,if-match,if-none-match,range,last-event-id,traceparent,idempotency-key,x-csrf-token";
    assert_eq!(headers, expected);
    assert!(!preflight("https://evil.example").await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_what_a_server_stands_on() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    app.stranger().deliver(&Call::new("entry", "+79161234567", MOSCOW_LINE).appeared()).await.expect(200);
    let health = admin.get("/health/detailed").await.expect(200);
    assert_eq!((&health["status"], &health["version"]), (&json!("ok"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(health["dependencies"]["postgresql"]["up"], true);
    assert_eq!(health["dependencies"]["redis"], Value::Null, "it is not configured");
    assert_eq!(health["inbox_waiting"], json!({ "mango": 1, "generic": 0 }));
    assert_eq!(health["pool"]["max"], 10);
    assert_eq!((&health["business_metrics_at"], &health["last_backup_at"]), (&Value::Null, &Value::Null));
}
