//! `PATCH` and `DELETE /api/v1/requests/{id}`.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{REQUESTS, path, pointers};
use crate::support::{MOSCOW, TestApp};

const VISIT: &str = "2026-06-03T10:00:00+03:00";

/// The whole row, to see that nothing happened to it.
async fn row(app: &TestApp, id: &Value) -> Value {
    let sql = "SELECT to_jsonb(r) FROM requests r WHERE id = $1";
    sqlx::query_scalar(sql).bind(id.as_i64()).fetch_one(&mut app.database.connect().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_field_stays_and_null_clears_it() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let path = path(&request["id"]);
    app.clock.advance(TimeDelta::minutes(5));
    let full = json!({
        "type": "warranty", "direction": "locks", "client_name": "Olga", "description": "", "address": "Arbat 1",
        "meeting_at": VISIT,
    });
    let edited = operator.patch(&path, "\"1\"", full).await;
    assert_eq!(edited.header("etag"), "\"2\"");
    let edited = edited.expect(200);
    let expected = json!({
        "type": "warranty", "direction": "locks", "client_name": "Olga", "description": "", "address": "Arbat 1",
        "meeting_at": "2026-06-03T07:00:00Z", "version": 2, "status": "new", "updated_at": "2026-06-01T07:05:00Z",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&edited[field], value, "{field}");
    }
    assert_eq!(operator.get(&path).await.expect(200), edited);

    let partly = operator.patch(&path, "\"2\"", json!({ "address": "Arbat 2" })).await.expect(200);
    assert_eq!((&partly["address"], &partly["client_name"]), (&json!("Arbat 2"), &json!("Olga")));
    let nulls =
        json!({ "direction": null, "client_name": null, "description": null, "address": null, "meeting_at": null });
    let cleared = operator.patch(&path, "\"3\"", nulls.clone()).await.expect(200);
    for field in nulls.as_object().unwrap().keys() {
        assert_eq!(cleared[field], Value::Null, "{field}");
    }
    assert_eq!(cleared["version"], 4);
    assert_eq!(operator.get(&path).await.expect(200), cleared);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_meant_for_a_version() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let path = path(&operator.create_request(MOSCOW, "+79161234567").await["id"]);
    let body = |n: u32| json!({ "address": format!("Arbat {n}") });
    operator.send(operator.request(Method::PATCH, &path).json(&body(1))).await.problem(428, "if_match_required");
    // A weak tag never matches, and neither does what is no tag of ours.
    for tag in ["\"2\"", "\"0\"", "W/\"1\"", "\"\"", "\"one\"", "\"99999999999999999999\""] {
        operator.patch(&path, tag, body(1)).await.problem(412, "stale");
    }
    assert_eq!(operator.get(&path).await.header("etag"), "\"1\"");
    assert_eq!(operator.patch(&path, "\"1\"", body(1)).await.expect(200)["version"], 2);
    operator.patch(&path, "\"1\"", body(2)).await.problem(412, "stale");
    assert_eq!(operator.patch(&path, "\"7\", \"2\"", body(2)).await.expect(200)["version"], 3);
    assert_eq!(operator.patch(&path, "*", body(3)).await.expect(200)["version"], 4);
    // Where it is optional it is honoured.
    let id = operator.get(&path).await.expect(200)["id"].as_i64().unwrap();
    let moves = format!("{path}/transitions");
    // Without its quotes it is no ETag, and nobody else has changed anything.
    for tag in ["3", "\"3", "W/3", ""] {
        let unquoted =
            operator.request(Method::POST, &moves).header("if-match", tag).json(&json!({ "to": "no_answer" }));
        operator.send(unquoted).await.problem(400, "malformed");
    }
    let stale = operator.request(Method::POST, &moves).header("if-match", "\"3\"").json(&json!({ "to": "no_answer" }));
    operator.send(stale).await.problem(412, "stale");
    assert_eq!(
        app.scrape().await.value("switchboard_service_request_transition_rejections_total{reason=\"stale\"}"),
        1.0
    );
    let current =
        operator.request(Method::POST, &moves).header("if-match", "\"4\"").json(&json!({ "to": "no_answer" }));
    assert_eq!(operator.send(current).await.header("etag"), "\"5\"");
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_edit_the_same_version_one_has_to_look_again() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let path = path(&operator.create_request(MOSCOW, "+79161234567").await["id"]);
    for version in 1..=10 {
        let tag = format!("\"{version}\"");
        let (a, b) = tokio::join!(
            operator.patch(&path, &tag, json!({ "address": format!("A{version}") })),
            operator.patch(&path, &tag, json!({ "description": format!("B{version}") })),
        );
        let (won, lost) = if a.status == 200 { (a, b) } else { (b, a) };
        assert_eq!(won.expect(200)["version"], version + 1);
        lost.problem(412, "stale");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM request_events WHERE kind = 'edited'").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_changes_nothing_leaves_no_trace() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let path = path(&request["id"]);
    // Finer than the database can hold: what is stored must still count as the same.
    let fine = json!({ "address": "Arbat 1", "meeting_at": "2026-06-03T10:00:00.123456789+03:00" });
    let edited = operator.patch(&path, "*", fine.clone()).await.expect(200);
    assert_eq!(operator.get(&path).await.expect(200), edited, "the answer is what is stored");
    app.clock.advance(TimeDelta::minutes(5));
    for same in [json!({}), fine, json!({ "client_name": null, "type": "first_time" })] {
        let answer = operator.patch(&path, "*", same.clone()).await;
        assert_eq!(answer.header("etag"), "\"2\"", "{same}");
        assert_eq!(answer.expect(200), edited, "{same}");
    }
    let kinds = "SELECT count(*) FROM request_events WHERE kind = 'edited'";
    assert_eq!(app.database.count(kinds).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edit_may_not_touch_stays_as_it_is() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let (id, path) = (&request["id"], path(&request["id"]));
    let before = row(&app, id).await;
    for (field, value) in [
        ("status", json!("done")),
        ("master_id", json!(operator.id)),
        ("city", json!("kazan")),
        ("city_id", json!(2)),
        ("result", json!("100.00")),
        ("expenses", json!("0.00")),
        ("net", json!("100.00")),
        ("handover", json!("0.01")),
        ("version", json!(7)),
        ("id", json!(1)),
        ("client_phone", json!("+79160000000")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("closed_at", json!("2020-01-01T00:00:00Z")),
        ("deleted_at", json!("2020-01-01T00:00:00Z")),
        ("source", json!("call")),
    ] {
        let body = json!({ "address": "Arbat 1", field: value });
        let problem = operator.patch(&path, "*", body).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")]);
        // Nor may a move bring it, money aside, which belongs to "done" and is checked there.
        if !["result", "expenses"].contains(&field) {
            let body = json!({ "to": "no_answer", field: value });
            let problem = operator.move_to(id.as_i64().unwrap(), body).await.problem(422, "invalid");
            assert_eq!(pointers(&problem), [format!("/{field}")]);
        }
    }
    for (body, expected) in [
        (json!({ "type": "novel" }), "/type"),
        (json!({ "direction": "rockets" }), "/direction"),
        (json!({ "meeting_at": "tomorrow" }), "/meeting_at"),
        (json!({ "meeting_at": "1999-12-31T23:59:59Z" }), "/meeting_at"),
        (json!({ "address": "" }), "/address"),
        (json!({ "client_name": "x".repeat(101) }), "/client_name"),
    ] {
        assert_eq!(pointers(&operator.patch(&path, "*", body).await.problem(422, "invalid")), [expected]);
    }
    assert_eq!(row(&app, id).await, before);
    assert_eq!(app.database.count("SELECT count(*) FROM request_events").await, 1, "the creation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_edits_nothing_in_passing() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    let before = row(&app, &json!(id)).await;
    // A master may not edit what the client said, and a move is no way around it.
    for (field, value) in [
        ("address", json!("somewhere else")),
        ("meeting_at", json!(VISIT)),
        ("callback_at", json!(VISIT)),
        ("resume_at", json!(VISIT)),
        ("result", json!("1.00")),
        ("expenses", json!("0.00")),
    ] {
        let problem = master.move_to(id, json!({ "to": "accepted", field: value })).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")]);
    }
    assert_eq!(row(&app, &json!(id)).await, before);
    master.move_to(id, json!({ "to": "accepted", "reason": "on my way home" })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_visit_is_agreed_its_place_and_time_stay_known() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let id = operator.waiting_request(MOSCOW, "+79161234567").await;
    let path = path(&json!(id));
    for (body, expected) in [
        (json!({ "address": null }), vec!["/address"]),
        (json!({ "meeting_at": null }), vec!["/meeting_at"]),
        (json!({ "address": null, "meeting_at": null }), vec!["/address", "/meeting_at"]),
    ] {
        assert_eq!(pointers(&operator.patch(&path, "*", body).await.problem(422, "invalid")), expected);
    }
    let moved = operator.patch(&path, "*", json!({ "address": "Arbat 2", "meeting_at": VISIT })).await.expect(200);
    assert_eq!((&moved["address"], &moved["status"]), (&json!("Arbat 2"), &json!("waiting")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_not_edited_until_it_is_reopened() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    for end in ["refused", "not_order"] {
        let request = manager.create_request(MOSCOW, "+79161234567").await;
        let (id, path) = (request["id"].as_i64().unwrap(), path(&request["id"]));
        manager.move_to(id, json!({ "to": end })).await.expect(200);
        manager.patch(&path, "*", json!({ "address": "Arbat 1" })).await.problem(409, "conflict");
        let without_reason = manager.move_to(id, json!({ "to": "new" })).await.problem(422, "invalid");
        assert_eq!(pointers(&without_reason), ["/reason"]);
        let reopened = manager.move_to(id, json!({ "to": "new", "reason": "called again" })).await.expect(200);
        assert_eq!(reopened["closed_at"], Value::Null);
        manager.patch(&path, "*", json!({ "address": "Arbat 1" })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_request_is_kept_and_seen_by_nobody() {
    let app = TestApp::start().await;
    let (admin, operator) = (app.actor(Role::Admin, &[]).await, app.actor(Role::Operator, &[MOSCOW]).await);
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let path = path(&request["id"]);
    admin.send(admin.request(Method::DELETE, &path)).await.problem(428, "if_match_required");
    admin.delete(&path, "\"2\"").await.problem(412, "stale");
    let deleted = admin.delete(&path, "\"1\"").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    for actor in [&admin, &operator] {
        actor.get(&path).await.problem(404, "not_found");
        actor.get(&format!("{path}/history")).await.problem(404, "not_found");
        actor.get(&format!("{path}/comments")).await.problem(404, "not_found");
        actor.post(&format!("{path}/comments"), json!({ "body": "?" })).await.problem(404, "not_found");
        actor.patch(&path, "*", json!({ "address": "Arbat 1" })).await.problem(404, "not_found");
        actor.post(&format!("{path}/transitions"), json!({ "to": "no_answer" })).await.problem(404, "not_found");
        assert!(actor.all(REQUESTS).await.is_empty());
    }
    admin.delete(&path, "*").await.problem(404, "not_found");
    let kept = row(&app, &request["id"]).await;
    assert_eq!((&kept["version"], &kept["status"]), (&json!(2), &json!("new")));
    assert_eq!(kept["deleted_at"], "2026-06-01T07:00:00+00:00");
    let last = "SELECT count(*) FROM request_events e JOIN users u ON u.id = e.actor_id
                 WHERE e.kind = 'deleted' AND u.role = 'admin'";
    assert_eq!(app.database.count(last).await, 1);
}
