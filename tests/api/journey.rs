//! The main job, end to end, in a real process: a PBX posts signed events, a service request
//! appears, staff work it to done, and every step is seen in /metrics, in a trace at an OTLP
//! receiver and in one log line.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use switchboard::{auth::passwords, config::Secret};

use crate::support::{
    JWT_SECRET, MANGO_KEY, MANGO_SALT, MOSCOW, MOSCOW_LINE, PASSWORD, PEPPER,
    actor::Actor,
    database::TestDatabase,
    metrics::Scrape,
    otlp::{Collector, attribute, hex},
    process::Server,
    telephony::Call,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// One that its beginner does not keep.
const UNKEPT: &str = "4bf92f3577b34da6a3ce929d0e0e4737";

/// A company in the database before the server starts: one city, one line, one of each role.
async fn found(database: &TestDatabase) {
    let mut connection = database.connect().await;
    let hash = passwords::hash(&Secret::new(PEPPER), 4, PASSWORD).unwrap();
    sqlx::query(
        "WITH city AS (INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ($1, 'Москва', 'Moscow', 'Europe/Moscow') RETURNING id),
              campaign AS (INSERT INTO advertising_campaigns (city_id, code, name) SELECT id, 'ads', 'Ads' FROM city RETURNING id),
              line AS (INSERT INTO campaign_numbers (campaign_id, phone_e164) SELECT id, '+' || $2 FROM campaign),
              staff AS (INSERT INTO users (login, password_hash, name, role, created_at)
                        SELECT role, $3, role, role, now() FROM unnest(ARRAY['operator', 'manager', 'master']) AS role RETURNING id, role),
              places AS (INSERT INTO user_cities (user_id, city_id) SELECT staff.id, city.id FROM staff, city)
         INSERT INTO master_profiles (user_id, share) SELECT id, 0.5 FROM staff WHERE role = 'master'",
    )
    .bind(MOSCOW)
    .bind(MOSCOW_LINE)
    .bind(hash)
    .execute(&mut connection)
    .await
    .unwrap();
}

async fn staff(base: &str, login: &str) -> Actor {
    let mut actor = Actor::sign_in(base, 0, login).await;
    actor.id = actor.get("/api/v1/auth/me").await.expect(200)["id"].as_i64().unwrap();
    actor
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_ringing_phone_to_done() {
    let database = TestDatabase::create().await;
    found(&database).await;
    let (collector, otlp) = Collector::start().await;
    let environment = [
        ("DATABASE_URL", database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
        ("SWITCHBOARD_MANGO_API_KEY", MANGO_KEY.to_owned()),
        ("SWITCHBOARD_MANGO_API_SALT", MANGO_SALT.to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}")),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
    let base = format!("http://{}", server.public);
    let (operator, manager, master) =
        (staff(&base, "operator").await, staff(&base, "manager").await, staff(&base, "master").await);
    let before = Scrape::fetch(server.ops).await;

    let id = phone_rings(&base, &operator).await;
    work(id, &operator, &manager, &master).await;

    let after = Scrape::fetch(server.ops).await;
    assert_eq!(business(&after.changes_since(&before)), expected_changes());
    assert_traces(&collector, id).await;
    let (log, code) = tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
    assert_eq!(code, Some(0));
    assert_log(&log, operator.id);
    let history = database.count("SELECT count(*) FROM request_events").await;
    assert_eq!(history, 8, "created, edited and six moves");
    let ledger = database.count("SELECT sum(amount)::bigint FROM transactions").await;
    assert_eq!(ledger, 2000);
}

/// The PBX's events of one answered call, and the request that comes of them.
async fn phone_rings(base: &str, operator: &Actor) -> i64 {
    let pbx = Actor::stranger(base);
    for event in Call::new("entry-1", "79161234567", MOSCOW_LINE).answered() {
        pbx.deliver(&event).await.expect(200);
    }
    for _ in 0..100 {
        let page = operator.get("/api/v1/calls?result=answered").await.expect(200);
        if let Some(call) = page["items"].as_array().unwrap().first() {
            assert_eq!(call["from"], "+79161234567");
            assert_eq!((call["wait_s"].as_i64(), call["talk_s"].as_i64()), (Some(8), Some(52)));
            return call["request_id"].as_i64().unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the call was not processed");
}

async fn work(id: i64, operator: &Actor, manager: &Actor, master: &Actor) {
    let path = format!("/api/v1/requests/{id}");
    let unkept = format!("00-{UNKEPT}-00f067aa0ba902b7-00");
    let answer = operator.send(operator.request(reqwest::Method::GET, &path).header("traceparent", unkept)).await;
    let etag = answer.header("etag").to_owned();
    assert_eq!(answer.expect(200)["status"], "new");
    operator.patch(&path, &etag, json!({ "client_name": "Olga", "direction": "plumbing" })).await.expect(200);
    let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-12-01T10:00:00+03:00" });
    let moved = operator
        .send(
            operator
                .request(reqwest::Method::POST, &format!("{path}/transitions"))
                .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
                .json(&visit),
        )
        .await;
    assert_eq!(moved.expect(200)["status"], "waiting");
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    let rejected = master.move_to(id, json!({ "to": "waiting" })).await.problem(409, "transition_not_allowed");
    assert_eq!(rejected["allowed"], json!(["done", "deferred", "refused"]));
    let money = json!({ "to": "done", "result": "5000.00", "expenses": "1000.00" });
    let done = master.move_to(id, money).await.expect(200);
    assert_eq!((&done["net"], &done["handover"]), (&json!("4000.00"), &json!("2000.00")));
}

/// The business counters among all changes.
fn business(changes: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let counted = |series: &str| {
        let name = series.split('{').next().unwrap();
        name.starts_with("switchboard_") && (name.ends_with("_total") || name.ends_with("_count"))
            || name == "auth_attempts_total"
    };
    changes.iter().filter(|(series, _)| counted(series)).map(|(series, change)| (series.clone(), *change)).collect()
}

fn expected_changes() -> BTreeMap<String, f64> {
    let transition =
        |from: &str, to: &str| format!("switchboard_service_request_transitions_total{{from=\"{from}\",to=\"{to}\"}}");
    let mut expected: BTreeMap<String, f64> = [
        ("switchboard_webhook_events_total{outcome=\"accepted\",provider=\"mango\"}", 7.0),
        ("switchboard_webhook_events_total{outcome=\"processed\",provider=\"mango\"}", 7.0),
        ("switchboard_webhook_processing_lag_seconds_count{provider=\"mango\"}", 7.0),
        ("switchboard_calls_total{direction=\"incoming\",result=\"answered\"}", 1.0),
        ("switchboard_call_talk_seconds_count{direction=\"incoming\",result=\"answered\"}", 1.0),
        ("switchboard_call_answer_wait_seconds_count{direction=\"incoming\",result=\"answered\"}", 1.0),
        ("switchboard_service_requests_created_total{source=\"call\",type=\"first_time\"}", 1.0),
        ("switchboard_service_requests_created_by_city_total{city=\"moscow\"}", 1.0),
        ("switchboard_service_request_first_response_seconds_count{type=\"first_time\"}", 1.0),
        ("switchboard_service_request_assign_seconds_count{type=\"first_time\"}", 1.0),
        ("switchboard_service_request_completion_seconds_count{type=\"first_time\"}", 1.0),
        ("switchboard_service_request_transition_rejections_total{reason=\"not_allowed\"}", 1.0),
        ("switchboard_revenue_rubles_total{city=\"moscow\"}", 2000.0),
    ]
    .into_iter()
    .map(|(series, change)| (series.to_owned(), change))
    .collect();
    let path = ["new", "waiting", "offered", "accepted", "en_route", "in_progress", "done"];
    expected.extend(path.windows(2).map(|pair| (transition(pair[0], pair[1]), 1.0)));
    expected
}

fn named<'a>(spans: &'a [Span], trace: &str, name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| hex(&span.trace_id) == trace && span.name == name).collect()
}

async fn assert_traces(collector: &Collector, id: i64) {
    const SERVER: i32 = 2;
    const CLIENT: i32 = 3;
    const CONSUMER: i32 = 5;
    let name = "POST /api/v1/requests/{id}/transitions";
    // The operator's move joined the trace that its traceparent named.
    let server =
        collector.wait_for("server span", |spans| named(spans, TRACE, name).first().map(|span| (*span).clone())).await;
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(server.kind, SERVER);
    assert_eq!(attribute(&server, "http.request.method").as_deref(), Some("POST"));
    assert_eq!(attribute(&server, "http.route").as_deref(), Some("/api/v1/requests/{id}/transitions"));
    assert_eq!(attribute(&server, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(server.status.clone().unwrap_or_default().code, 0, "no error");
    let children = [
        "SELECT sessions",
        "BEGIN transaction",
        "SELECT requests",
        "UPDATE requests",
        "INSERT request_events",
        "COMMIT transaction",
    ];
    for child in children {
        let span =
            collector.wait_for(child, |spans| named(spans, TRACE, child).first().map(|span| (*span).clone())).await;
        assert_eq!(span.parent_span_id, server.span_id, "{child}");
        assert_eq!(span.kind, CLIENT, "{child}");
        assert_eq!(attribute(&span, "db.system.name").as_deref(), Some("postgresql"), "{child}");
        assert_eq!(attribute(&span, "db.query.summary").as_deref(), Some(child));
    }
    // 4xx is the client's error, not the span's.
    let refused = |span: &&Span| attribute(span, "http.response.status_code").as_deref() == Some("409");
    let conflict = collector.wait_for("refused move", |spans| spans.iter().find(refused).cloned()).await;
    assert_eq!(conflict.status.clone().unwrap_or_default().code, 0);

    // The worker's span links to the request that stored the event.
    let linked = |spans: &[Span]| {
        let worker = spans.iter().find(|span| span.name == "process mango summary")?.clone();
        let link = worker.links.first()?.clone();
        let origin = spans.iter().find(|span| span.span_id == link.span_id && span.trace_id == link.trace_id)?.clone();
        Some((worker, origin))
    };
    let (worker, origin) = collector.wait_for("worker span with its link", linked).await;
    assert_eq!(worker.kind, CONSUMER);
    assert_eq!(origin.name, "POST /api/v1/webhooks/telephony/{provider}/events/{kind}");
    let effects = collector.spans();
    assert!(effects.iter().any(|span| span.name == "INSERT calls" && span.trace_id == worker.trace_id));
    // What came after it is here, so would it be.
    assert!(effects.iter().all(|span| hex(&span.trace_id) != UNKEPT));
    // Values stay out of traces.
    let everything = format!("{effects:?}");
    for secret in ["79161234567", "Olga", "Tverskaya", PASSWORD, JWT_SECRET, PEPPER, MANGO_SALT] {
        assert!(!everything.contains(secret), "{secret} is in a span; request {id}");
    }
}

fn assert_log(log: &[Value], operator: i64) {
    let is_line = |line: &&Value| line["trace_id"] == TRACE && line["message"] == "request";
    let line = log.iter().find(is_line).expect("the log line of the traced request");
    assert_eq!(line["level"], "info");
    assert_eq!(line["route"], "/api/v1/requests/{id}/transitions");
    assert_eq!(line["method"], "POST");
    assert_eq!(line["status"], 200);
    assert_eq!(line["user_id"], operator);
    assert_eq!(line["role"], "operator");
    assert_eq!(line["db_queries"], 7);
    assert!(line["db_ms"].as_f64().unwrap() > 0.0 && line["duration_ms"].as_f64() >= line["db_ms"].as_f64());
    assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    assert_eq!(log.iter().filter(is_line).count(), 1, "one line a request");
    let is_unkept = |line: &&Value| line["trace_id"] == UNKEPT && line["message"] == "request";
    let unkept = log.iter().find(is_unkept).expect("the line of a request nobody traces");
    assert_eq!((&unkept["route"], &unkept["db_queries"]), (&json!("/api/v1/requests/{id}"), &json!(2)));
    let conflict = log.iter().find(|line| line["status"] == 409).unwrap();
    assert_eq!(conflict["error_code"], "transition_not_allowed");
    let text = format!("{log:?}");
    for secret in ["79161234567", "Olga", "Tverskaya", PASSWORD, JWT_SECRET, PEPPER, MANGO_SALT, "Bearer"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}
