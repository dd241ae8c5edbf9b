//! How many statements a request costs: one more is one more round trip for everybody.

use reqwest::Method;
use serde_json::json;
use switchboard::auth::Role;

use super::{REQUESTS, path};
use crate::support::{MOSCOW, TestApp, metrics::Scrape};

/// What ran between two scrapes: each operation as often as it did, in alphabetical order.
fn ran(before: &Scrape, after: &Scrape) -> String {
    let changes = after.changes_since(before);
    let operations = changes.iter().filter_map(|(series, times)| {
        let operation = series.strip_prefix("db_client_operation_duration_seconds_count{operation=\"")?;
        let operation = operation.strip_suffix("\"}").unwrap();
        Some(if *times > 1.0 { format!("{operation} {times}×") } else { operation.to_owned() })
    });
    operations.collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_costs_the_statements_it_needs_and_no_more() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" });
    let get = |path: &str| operator.request(Method::GET, path);
    let post = |path: &str| operator.request(Method::POST, path);
    let keyed = || post(REQUESTS).header("idempotency-key", "a").json(&body);
    // What everybody shares, such as the versions of what is cached, was asked for before.
    let first = operator.post(REQUESTS, body.clone()).await.expect(201);
    operator.get(REQUESTS).await.expect(200);
    let one = path(&first["id"]);
    let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
    let created = "begin, client_upsert, commit, request_by_id, request_insert, session_principal";
    let created_once = "begin, client_upsert, commit, idempotency_find, idempotency_insert, idempotency_lock, \
                        request_by_id, request_insert, session_principal";
    let replayed = "begin, commit, idempotency_find, idempotency_lock, session_principal";
    let moved = "begin, commit, request_by_id, request_event_insert, request_lock, request_update, session_principal";
    let cases = [
        (get("/health/live"), 200, ""),
        (get(&one), 200, "request_by_id, session_principal"),
        (get(&format!("{REQUESTS}?limit=50")), 200, "request_list, session_principal"),
        (get(&format!("{REQUESTS}?text=tap")), 200, "request_list, session_principal"),
        (post(REQUESTS).json(&body), 201, created),
        (keyed(), 201, created_once),
        (keyed(), 201, replayed),
        (post(&format!("{one}/transitions")).json(&visit), 200, moved),
    ];
    for (number, (request, status, expected)) in cases.into_iter().enumerate() {
        let before = app.scrape().await;
        operator.send(request).await.expect(status);
        assert_eq!(ran(&before, &app.scrape().await), expected, "case {number}");
    }
}
