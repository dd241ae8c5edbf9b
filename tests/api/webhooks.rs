//! `POST /api/v1/webhooks/telephony/{provider}` and what the worker makes of it.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::{auth::Role, calls::providers::generic, config::Secret};

use crate::support::{
    GENERIC_SECRET, KAZAN_LINE, MANGO_SALT, MOSCOW, MOSCOW_LINE, TestApp,
    actor::Answer,
    config, morning,
    telephony::{Call, Event, form},
};

const OUTCOMES: &str = "switchboard_webhook_events_total";

fn outcome(name: &str) -> String {
    format!("{OUTCOMES}{{outcome=\"{name}\",provider=\"mango\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_copies_at_once_are_one_call_and_one_request() {
    let app = TestApp::start().await;
    let event = Call::new("entry", "79161234567", MOSCOW_LINE).appeared();
    let deliveries = (0..50).map(|_| async { app.stranger().deliver(&event).await.expect(200)["status"].clone() });
    let answers = futures_util::future::join_all(deliveries).await;
    assert_eq!(answers.iter().filter(|status| **status == "accepted").count(), 1);
    // Several workers at once, as several replicas would have them.
    tokio::join!(app.drain_inbox(), app.drain_inbox(), app.drain_inbox());
    assert_eq!(app.database.count("SELECT count(*) FROM calls").await, 1);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 1);
    let scrape = app.scrape().await;
    assert_eq!(scrape.value(&outcome("accepted")), 1.0);
    assert_eq!(scrape.value(&outcome("duplicate")), 49.0);
    assert_eq!(scrape.sum("switchboard_service_requests_created_total"), 1.0);
}

/// The call and its request, without what differs between two runs by nature.
async fn end_state(app: &TestApp) -> Value {
    let sql = "SELECT jsonb_build_object(
                   'call', to_jsonb(k) - '{id,call_key,request_id}'::text[],
                   'request', to_jsonb(r) - '{id,client_id}'::text[],
                   'history', (SELECT jsonb_agg(e.kind ORDER BY e.id) FROM request_events e WHERE e.request_id = r.id))
                 FROM calls k JOIN requests r ON r.id = k.request_id ORDER BY k.id DESC LIMIT 1";
    sqlx::query_scalar(sql).fetch_one(&mut app.database.connect().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_call_end_in_the_same_state_in_every_order() {
    let app = TestApp::start().await;
    let pbx = app.stranger();
    let mut ends = Vec::new();
    // 3 events in all 6 orders, and each of the 7 of an answered call first, last and reversed.
    let missed = |n: usize| Call::new(&format!("missed{n}"), &phone(n), MOSCOW_LINE).missed();
    for (n, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate() {
        let events = missed(n);
        for index in order {
            pbx.deliver(&events[index]).await.expect(200);
            app.drain_inbox().await;
        }
        ends.push(normalised(end_state(&app).await));
    }
    assert_eq!(ends.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), 1, "{ends:#?}");
    assert_eq!(ends[0]["call"]["result"], "missed");
    assert_eq!(ends[0]["call"]["wait_s"], 25);

    let mut ends = BTreeSet::new();
    for n in 10..25_usize {
        let mut events = Call::new(&format!("answered{n}"), &phone(n), MOSCOW_LINE).answered();
        match n % 3 {
            0 => events.rotate_left(n % 7),
            1 => events.reverse(),
            _ => events.swap(n % 7, (n * 5 + 1) % 7),
        }
        // Some of them twice.
        events.extend_from_within(n % 5..);
        for event in &events {
            pbx.deliver(event).await.expect(200);
            if n % 2 == 0 {
                app.drain_inbox().await;
            }
        }
        app.drain_inbox().await;
        ends.insert(normalised(end_state(&app).await).to_string());
    }
    assert_eq!(ends.len(), 1, "{ends:#?}");
    // Each call was counted once, whichever event told that it was over.
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("switchboard_calls_total{direction=\"incoming\",result=\"missed\"}"), 6.0);
    assert_eq!(scrape.value("switchboard_calls_total{direction=\"incoming\",result=\"answered\"}"), 15.0);
}

fn phone(n: usize) -> String {
    format!("7916{:07}", 1_000_000 + n)
}

/// Each run has a caller of its own; the rest must be equal.
fn normalised(mut end: Value) -> Value {
    for field in ["from_raw", "from_e164"] {
        assert!(end["call"][field].is_string());
        end["call"][field] = Value::Null;
    }
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_call_within_half_an_hour_joins_the_open_request() {
    let app = TestApp::start().await;
    let (pbx, operator) = (app.stranger(), app.actor(Role::Operator, &[MOSCOW]).await);
    let call = |entry: &str| Call::new(entry, "8 (916) 123-45-67", MOSCOW_LINE).appeared();
    let before = app.scrape().await;
    for (entry, minutes, requests) in [("a", 0, 1), ("b", 29, 1), ("c", 2, 2)] {
        app.clock.advance(TimeDelta::minutes(minutes));
        pbx.deliver(&call(entry)).await.expect(200);
        app.drain_inbox().await;
        assert_eq!(app.database.count("SELECT count(*) FROM requests").await, requests, "call {entry}");
    }
    // Ended requests take no calls, however young.
    let newest = operator.get("/api/v1/requests?limit=1").await.expect(200)["items"][0].clone();
    assert_eq!(newest["type"], "repeat");
    assert_eq!(newest["client_phone"], "+79161234567");
    operator.move_to(newest["id"].as_i64().unwrap(), json!({ "to": "not_order" })).await.expect(200);
    pbx.deliver(&call("d")).await.expect(200);
    app.drain_inbox().await;
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 3);
    assert_eq!(app.database.count("SELECT count(*) FROM calls WHERE request_id IS NOT NULL").await, 4);
    let changes = app.scrape().await.changes_since(&before);
    assert_eq!(changes["switchboard_calls_deduplicated_total{provider=\"mango\"}"], 1.0);
    assert_eq!(changes["switchboard_service_requests_created_total{source=\"call\",type=\"first_time\"}"], 1.0);
    assert_eq!(changes["switchboard_service_requests_created_total{source=\"call\",type=\"repeat\"}"], 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_of_one_client_at_once_make_one_request() {
    let app = TestApp::start().await;
    let pbx = app.stranger();
    for n in 0..20 {
        pbx.deliver(&Call::new(&format!("entry{n}"), "79161234567", MOSCOW_LINE).appeared()).await.expect(200);
    }
    tokio::join!(app.drain_inbox(), app.drain_inbox(), app.drain_inbox(), app.drain_inbox());
    assert_eq!(app.database.count("SELECT count(*) FROM calls").await, 20);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_always_stored_and_an_unclear_one_waits_in_triage() {
    let app = TestApp::start().await;
    let (pbx, operator) = (app.stranger(), app.actor(Role::Operator, &[MOSCOW]).await);
    pbx.deliver(&Call::new("stray", "79161234567", "74959999999").appeared()).await.expect(200);
    pbx.deliver(&Call::new("anonymous", "anonymous", MOSCOW_LINE).appeared()).await.expect(200);
    pbx.deliver(&Call::new("elsewhere", "79161234568", KAZAN_LINE).appeared()).await.expect(200);
    app.drain_inbox().await;
    assert_eq!(app.database.count("SELECT count(*) FROM calls").await, 3);
    let triage = operator.get("/api/v1/calls/triage").await.expect(200)["items"].clone();
    let reasons: Vec<&str> = triage.as_array().unwrap().iter().map(|call| call["triage"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["unknown_caller", "unknown_line"], "newest first; the call of another city is not ours");
    assert_eq!(triage[0]["from"], "anonymous");
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("switchboard_calls_unknown_line_total{provider=\"mango\"}"), 1.0);
    assert_eq!(scrape.value("switchboard_calls_unknown_caller_total{provider=\"mango\"}"), 1.0);
    // A person decides.
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let link = format!("/api/v1/calls/{}/link", triage[1]["id"]);
    let linked = operator.post(&link, json!({ "request_id": request["id"] })).await.expect(200);
    assert_eq!((&linked["request_id"], &linked["triage"]), (&request["id"], &Value::Null));
    // A late event of that call does not undo it.
    let late = Call::new("stray", "79161234567", "74959999999").missed();
    for event in &late {
        pbx.deliver(event).await.expect(200);
    }
    app.drain_inbox().await;
    let call = operator.get(&format!("/api/v1/calls/{}", triage[1]["id"])).await.expect(200);
    assert_eq!(
        (&call["request_id"], &call["triage"], &call["result"]),
        (&request["id"], &Value::Null, &json!("missed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_well_is_counted_and_not_stored() {
    let app = TestApp::start().await;
    let pbx = app.stranger();
    let json = Call::new("entry", "79161234567", MOSCOW_LINE).appeared().json;
    let good = form(&json, MANGO_SALT);
    let with = |field: usize, value: &str| {
        let mut form = good.clone();
        form[field].1 = value.to_owned();
        form
    };
    pbx.deliver_raw("/events/call", &form(&json, "another salt")).await.problem(401, "bad_signature");
    pbx.deliver_raw("/events/call", &with(0, "another key")).await.problem(401, "bad_signature");
    pbx.deliver_raw("/events/call", &with(1, "")).await.problem(401, "bad_signature");
    pbx.deliver_raw("/events/call", &with(2, &json.replace("79161234567", "79161234568")))
        .await
        .problem(401, "bad_signature");
    pbx.deliver_raw("/events/call", &good[..2]).await.problem(400, "malformed");
    pbx.deliver_raw("/events/call", &[]).await.problem(400, "malformed");
    pbx.deliver_raw("/events/call", &with(2, &"x".repeat(300_000))).await.problem(413, "too_large");
    pbx.deliver_raw("/events/nonsense", &good).await.problem(404, "not_found");
    assert_eq!(app.database.count("SELECT count(*) FROM webhook_events").await, 0);
    assert_eq!(app.scrape().await.value(&outcome("rejected")), 8.0);
    // The same form as it should be.
    pbx.deliver_raw("/events/call", &good).await.expect(200);
    // To the address without a kind, the content tells; it is then the same event.
    assert_eq!(pbx.deliver_raw("", &good).await.expect(200)["status"], "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_the_provider_is_off() {
    let mut config = config();
    config.mango.api_key = switchboard::config::Secret::default();
    let app = TestApp::start_with(config).await;
    let pbx = app.stranger();
    pbx.deliver(&Call::new("entry", "79161234567", MOSCOW_LINE).appeared()).await.problem(404, "not_found");
    let body = form("{}", MANGO_SALT);
    let unknown = pbx.request(reqwest::Method::POST, "/api/v1/webhooks/telephony/unknown").form(&body);
    pbx.send(unknown).await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_event_that_cannot_be_read_is_kept_as_failed_and_counted() {
    let app = TestApp::start().await;
    let pbx = app.stranger();
    for json in ["not json at all", "{}", r#"{"entry_id": "e", "call_id": "c", "seq": "many"}"#, "[1, 2", "\"\\u0000\""]
    {
        pbx.deliver(&Event { kind: "call", json: json.to_owned() }).await.expect(200);
    }
    app.drain_inbox().await;
    let failed =
        app.database.count("SELECT count(*) FROM webhook_events WHERE status = 'failed' AND error <> ''").await;
    assert_eq!(failed, 5);
    assert_eq!(app.database.count("SELECT count(*) FROM calls").await, 0);
    assert_eq!(app.scrape().await.value(&outcome("failed")), 5.0);
    // A recording is understood, and nothing is done with it yet.
    let recording = json!({ "entry_id": "e", "call_id": "c", "recording_id": "r", "timestamp": 1_780_000_000, "recording_state": "Completed", "seq": 1 });
    pbx.deliver(&Event { kind: "recording", json: recording.to_string() }).await.expect(200);
    app.drain_inbox().await;
    assert_eq!(app.scrape().await.value(&outcome("ignored")), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_joins_a_request_while_somebody_renames_its_client() {
    let app = TestApp::start().await;
    let (pbx, operator) = (app.stranger(), app.actor(Role::Operator, &[MOSCOW]).await);
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let path = format!("/api/v1/requests/{}", request["id"]);
    for n in 0..40 {
        pbx.deliver(&Call::new(&format!("entry{n}"), "79161234567", MOSCOW_LINE).appeared()).await.expect(200);
        // One holds the client and writes to the request's history, the other holds the request and
        // writes to the client.
        let rename = operator.patch(&path, "*", json!({ "client_name": format!("Olga {n}") }));
        let ((), renamed) = tokio::join!(app.drain_inbox(), rename);
        renamed.expect(200);
    }
    assert_eq!(app.database.count("SELECT count(*) FROM calls WHERE request_id IS NOT NULL").await, 40);
    assert_eq!(app.scrape().await.sum("db_client_errors_total"), 0.0, "no deadlock, no retry");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_one_event_tells_is_not_lost_when_it_comes_last() {
    let app = TestApp::start().await;
    let pbx = app.stranger();
    let mut ends = BTreeSet::new();
    for (n, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate() {
        let mut events = Call::new(&format!("entry{n}"), &phone(n), MOSCOW_LINE).missed();
        // The summary does not know the line.
        let mut summary: Value = serde_json::from_str(&events[2].json).unwrap();
        summary.as_object_mut().unwrap().remove("line_number");
        summary["to"] = json!({ "extension": "101" });
        events[2].json = summary.to_string();
        for index in order {
            pbx.deliver(&events[index]).await.expect(200);
            app.drain_inbox().await;
        }
        ends.insert(normalised(end_state(&app).await).to_string());
    }
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 6);
    assert_eq!(app.database.count("SELECT count(*) FROM calls WHERE triage IS NOT NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_a_number_that_no_column_can_hold_still_leaves_a_call() {
    let app = TestApp::start().await;
    // The phone library takes both for numbers; E.164 has no room for them.
    for (n, from) in ["+491698", "+4918094313306246"].into_iter().enumerate() {
        app.stranger().deliver(&Call::new(&format!("entry{n}"), from, MOSCOW_LINE).appeared()).await.expect(200);
    }
    app.drain_inbox().await;
    assert_eq!(app.database.count("SELECT count(*) FROM calls WHERE triage = 'unknown_caller'").await, 2);
    assert_eq!(app.scrape().await.value(&outcome("processed")), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_linked_while_an_event_came_stays_linked() {
    let app = TestApp::start().await;
    let (pbx, operator) = (app.stranger(), app.actor(Role::Operator, &[MOSCOW]).await);
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    for n in 0..20 {
        let events = Call::new(&format!("entry{n}"), "anonymous", MOSCOW_LINE).missed();
        pbx.deliver(&events[0]).await.expect(200);
        app.drain_inbox().await;
        let call = operator.get("/api/v1/calls/triage").await.expect(200)["items"][0]["id"].clone();
        pbx.deliver(&events[1]).await.expect(200);
        let path = format!("/api/v1/calls/{call}/link");
        let link = operator.post(&path, json!({ "request_id": request["id"] }));
        let ((), linked) = tokio::join!(app.drain_inbox(), link);
        linked.expect(200);
        let call = operator.get(&format!("/api/v1/calls/{call}")).await.expect(200);
        assert_eq!((&call["request_id"], &call["triage"]), (&request["id"], &Value::Null), "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_waited_for_an_edit_keeps_what_was_edited() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    for round in 0..20 {
        let id = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
        let path = format!("/api/v1/requests/{id}");
        // Both change the row, the edit what is joined to it; whoever comes second sees the first.
        let edit = operator.patch(&path, "*", json!({ "direction": "plumbing", "type": "warranty" }));
        let (edited, moved) = tokio::join!(edit, operator.move_to(id, json!({ "to": "no_answer" })));
        edited.expect(200);
        moved.expect(200);
        let view = operator.get(&path).await.expect(200);
        let found = [&view["direction"], &view["type"], &view["status"], &view["version"]];
        assert_eq!(found, [&json!("plumbing"), &json!("warranty"), &json!("no_answer"), &json!(3)], "round {round}");
    }
}

/// A delivery of the generic provider, signed now or at another time.
async fn deliver_generic(app: &TestApp, id: &str, body: &Value, sent: chrono::DateTime<chrono::Utc>) -> Answer {
    let (body, timestamp) = (body.to_string(), sent.timestamp().to_string());
    let secret = STANDARD.decode(GENERIC_SECRET.trim_start_matches("whsec_")).unwrap();
    let signature = format!("v1,{}", generic::sign(&secret, id, &timestamp, body.as_bytes()));
    let pbx = app.stranger();
    let request = pbx.request(Method::POST, "/api/v1/webhooks/telephony/generic").body(body);
    let headers =
        [("webhook-id", id), ("webhook-timestamp", timestamp.as_str()), ("webhook-signature", signature.as_str())];
    let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    pbx.send(request.header("content-type", "application/json")).await
}

fn generic_event(kind: &str, second: u32, more: &Value) -> Value {
    let mut data = json!({ "call_id": "c-1", "direction": "incoming", "from": "8 916 123-45-67", "line": MOSCOW_LINE });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "type": kind, "timestamp": format!("2026-06-01T07:00:{second:02}Z"), "data": data })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_another_pbx_becomes_a_request_too() {
    let app = TestApp::start().await;
    let events = [
        generic_event(
            "call.ended",
            58,
            &json!({
                "operator": "101", "result": "answered", "started_at": "2026-06-01T07:00:00Z", "answered_at": "2026-06-01T07:00:08Z"
            }),
        ),
        generic_event("call.started", 0, &json!({})),
        generic_event("call.answered", 8, &json!({ "operator": "101" })),
    ];
    for (n, event) in events.iter().enumerate() {
        for expected in ["accepted", "duplicate"] {
            let receipt = deliver_generic(&app, &format!("msg_{n}"), event, morning()).await.expect(200);
            assert_eq!(receipt["status"], expected);
        }
        app.drain_inbox().await;
    }
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let calls = operator.all("/api/v1/calls").await;
    assert_eq!(calls.len(), 1);
    let told = ["provider", "direction", "from", "line", "operator_extension", "result", "campaign"];
    assert_eq!(
        told.map(|field| calls[0][field].as_str().unwrap()),
        ["generic", "incoming", "+79161234567", "+74950000101", "101", "answered", "moscow_ads"]
    );
    assert_eq!((&calls[0]["wait_s"], &calls[0]["talk_s"]), (&json!(8), &json!(50)));
    let requests = operator.all("/api/v1/requests").await;
    assert_eq!((requests.len(), &requests[0]["id"]), (1, &calls[0]["request_id"]));
    let scrape = app.scrape().await;
    let outcome = |name: &str| format!("switchboard_webhook_events_total{{outcome=\"{name}\",provider=\"generic\"}}");
    for (name, count) in [("accepted", 3.0), ("duplicate", 3.0), ("processed", 3.0), ("rejected", 0.0)] {
        assert_eq!(scrape.value(&outcome(name)), count, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_event_that_is_stale_forged_or_unreadable_does_nothing() {
    let app = TestApp::start().await;
    let event = generic_event("call.started", 0, &json!({}));
    for minutes in [-6, 6] {
        let sent = morning() + chrono::TimeDelta::minutes(minutes);
        let problem = deliver_generic(&app, "msg_stale", &event, sent).await.problem(401, "bad_signature");
        assert!(problem["detail"].as_str().unwrap().contains("five minutes"), "{problem}");
    }
    let pbx = app.stranger();
    let path = "/api/v1/webhooks/telephony/generic";
    pbx.post(path, event.clone()).await.problem(400, "malformed");
    pbx.post(&format!("{path}/events/call"), event.clone()).await.problem(400, "malformed");
    assert_eq!(app.database.count("SELECT count(*) FROM webhook_events").await, 0);
    // Signed, so it is kept for a person, and nothing of it is quoted.
    let unreadable =
        json!({ "type": "call.started", "timestamp": "2026-06-01T07:00:00Z", "data": { "call_id": "+79161234567" } });
    deliver_generic(&app, "msg_odd", &unreadable, morning()).await.expect(200);
    app.drain_inbox().await;
    let kept =
        "SELECT count(*) FROM webhook_events WHERE status = 'failed' AND error LIKE 'data%' AND error NOT LIKE '%916%'";
    assert_eq!(app.database.count(kept).await, 1);
    // Not configured, it is not there.
    let mut config = config();
    config.generic.secret = Secret::new("");
    let without = TestApp::start_with(config).await;
    deliver_generic(&without, "msg_1", &event, morning()).await.problem(404, "not_found");
}
