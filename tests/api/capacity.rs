//! More requests than may be served at a time.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::Executor;
use switchboard::auth::Role;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{MOSCOW, MOSCOW_LINE, TestApp, config, eventually, telephony::Call};

const ORIGIN: &str = "http://localhost:5173";

async fn busy(app: &TestApp, method: &str, count: f64) {
    let series = format!("http_server_active_requests{{http_request_method=\"{method}\"}}");
    eventually("requests are being served", async || (app.scrape().await.get(&series) == Some(count)).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_at_once_while_probes_and_webhooks_get_through() {
    let mut config = config();
    config.http.max_in_flight = 2;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let before = app.scrape().await;
    // Until this lets go, whoever wants to read the service requests waits.
    let mut lock = app.database.connect().await;
    lock.execute("BEGIN; LOCK TABLE requests").await.unwrap();
    let waiting = join_all((0..2).map(|_| operator.get("/api/v1/requests")));
    let meanwhile = async {
        busy(&app, "GET", 2.0).await;
        let turned_away = operator.get("/api/v1/auth/me").await;
        assert_eq!(turned_away.header("retry-after"), "1");
        assert_eq!(turned_away.header("x-content-type-options"), "nosniff");
        turned_away.problem(503, "overloaded");
        operator.get("/health/detailed").await.problem(503, "overloaded");
        let preflight = operator.request(Method::OPTIONS, "/api/v1/requests").header("origin", ORIGIN);
        operator.send(preflight).await.problem(503, "overloaded");
        for probe in ["/health/live", "/health/ready"] {
            operator.get(probe).await.expect(200);
        }
        operator.deliver(&Call::new("one", "79161234567", MOSCOW_LINE).appeared()).await.expect(200);
        lock.execute("ROLLBACK").await.unwrap();
    };
    let (answers, ()) = tokio::join!(waiting, meanwhile);
    for answer in answers {
        answer.expect(200);
    }
    operator.get("/api/v1/auth/me").await.expect(200);
    let scrape = app.scrape().await;
    let changes = scrape.changes_since(&before);
    assert_eq!(changes["http_requests_shed_total{scope=\"api\"}"], 3.0);
    assert_eq!(scrape.served("GET", "/api/v1/auth/me", 503), 1.0, "it is observed like any other");

    // The other way round: webhooks have one place here, and the API has its own.
    let mut lock = app.database.connect().await;
    lock.execute("BEGIN; LOCK TABLE webhook_events").await.unwrap();
    let event = Call::new("two", "79161234567", MOSCOW_LINE).appeared();
    let meanwhile = async {
        busy(&app, "POST", 1.0).await;
        let turned_away = app.stranger().post("/api/v1/webhooks/telephony/generic", json!({})).await;
        turned_away.problem(503, "overloaded");
        operator.get("/api/v1/auth/me").await.expect(200);
        lock.execute("ROLLBACK").await.unwrap();
    };
    let (delivered, ()) = tokio::join!(operator.deliver(&event), meanwhile);
    delivered.expect(200);
    assert_eq!(app.scrape().await.value("http_requests_shed_total{scope=\"webhook\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_slowly_take_no_places() {
    let mut config = config();
    config.http.max_in_flight = 1;
    // They are to be there all at once, on a busy machine too.
    config.http.stall_timeout_ms = 60_000;
    config.http.request_timeout_ms = 60_000;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let body = json!({ "login": operator.login, "password": "wrong horse battery", "session": "token" }).to_string();
    let (first, second) = body.split_at(10);
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(app.public).await.unwrap();
        let head = format!(
            "POST /api/v1/auth/login HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    busy(&app, "POST", 3.0).await;
    operator.get("/api/v1/auth/me").await.expect(200);
    let finish = async |mut stream: TcpStream| {
        stream.write_all(second.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = finish(slow.pop().unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    // Who comes back from sending waits for a place, for a moment, and takes none that is not there.
    let mut lock = app.database.connect().await;
    lock.execute("BEGIN; LOCK TABLE requests").await.unwrap();
    let served = operator.get("/api/v1/requests");
    let meanwhile = async {
        busy(&app, "GET", 1.0).await;
        let answer = finish(slow.pop().unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("overloaded"), "{answer}");
        let release = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            lock.execute("ROLLBACK").await.unwrap();
        };
        let (answer, ()) = tokio::join!(finish(slow.pop().unwrap()), release);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    };
    let (served, ()) = tokio::join!(served, meanwhile);
    served.expect(200);
    operator.get("/api/v1/auth/me").await.expect(200);
    assert_eq!(app.scrape().await.value("http_requests_shed_total{scope=\"api\"}"), 1.0);
}
