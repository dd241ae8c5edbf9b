//! Promises to clients: policies, timers, breaches, offers that nobody answers, and stuck requests.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join;
use serde_json::{Value, json};
use switchboard::{auth::Role, reports::collector::collect, sla};

use crate::support::{KAZAN, MOSCOW, MOSCOW_LINE, TestApp, actor::Actor, config, morning, telephony::Call};

/// One round of the job, on a connection as the elected replica has it.
async fn run_job(app: &TestApp) {
    let mut db = app.app.db.connect_alone().await.unwrap();
    sla::job::round(&app.app, &mut db).await.unwrap();
}

async fn timers(actor: &Actor, id: i64) -> [Value; 3] {
    let list = actor.get(&format!("/api/v1/requests/{id}/sla")).await.expect(200);
    let list: Vec<Value> = list.as_array().unwrap().clone();
    let names: Vec<&Value> = list.iter().map(|timer| &timer["policy"]).collect();
    assert_eq!(names, ["first_response", "assignment", "completion"]);
    list.try_into().unwrap()
}

async fn states(actor: &Actor, id: i64) -> [String; 3] {
    timers(actor, id).await.map(|timer| timer["state"].as_str().unwrap().to_owned())
}

fn at(minutes: i64) -> String {
    let at: DateTime<Utc> = morning() + TimeDelta::minutes(minutes);
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn history(actor: &Actor, id: i64, kind: &str) -> Vec<Value> {
    let mut entries = actor.all(&format!("/api/v1/requests/{id}/history")).await;
    entries.retain(|entry| entry["kind"] == kind);
    entries
}

const VISIT: &str = "2026-06-03T10:00:00+03:00";

fn breaches(policy: &str) -> String {
    format!("switchboard_service_request_sla_breaches_total{{policy=\"{policy}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_read_by_all_and_changed_by_an_admin_for_what_comes() {
    let app = TestApp::start().await;
    let (admin, operator) = (app.actor(Role::Admin, &[]).await, app.actor(Role::Operator, &[MOSCOW]).await);
    let before = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let policies = operator.get("/api/v1/sla/policies").await.expect(200);
    let targets = |kind: &str| -> Vec<(String, i64)> {
        let of_type = policies.as_array().unwrap().iter().filter(|policy| policy["type"] == kind);
        of_type
            .map(|policy| (policy["policy"].as_str().unwrap().to_owned(), policy["target_s"].as_i64().unwrap()))
            .collect()
    };
    for kind in ["first_time", "repeat", "warranty"] {
        let expected = [("first_response", 900), ("assignment", 7_200), ("completion", 259_200)];
        assert_eq!(targets(kind), expected.map(|(name, seconds)| (name.to_owned(), seconds)), "{kind}");
    }
    let policy = &policies[0];
    assert_eq!(
        policy,
        &json!({ "id": policy["id"], "version": 1, "type": "first_time", "policy": "first_response", "target_s": 900 })
    );
    let path = format!("/api/v1/sla/policies/{}", policy["id"]);
    let change = |seconds: i64| json!({ "target_s": seconds });
    for role in [Role::Director, Role::Operator, Role::Master] {
        app.actor(role, &[MOSCOW]).await.patch(&path, "\"1\"", change(60)).await.problem(403, "forbidden");
    }
    admin.send(admin.request(reqwest::Method::PATCH, &path).json(&change(60))).await.problem(428, "if_match_required");
    admin.patch(&path, "\"2\"", change(60)).await.problem(412, "stale");
    admin.patch("/api/v1/sla/policies/999999", "\"1\"", change(60)).await.problem(404, "not_found");
    for wrong in
        [json!({}), change(0), change(-5), change(31_536_001), json!({ "target_s": "60" }), json!({ "target_s": null })]
    {
        let problem = admin.patch(&path, "\"1\"", wrong.clone()).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/target_s", "{wrong}");
    }
    admin.patch(&path, "\"1\"", json!({ "target_s": 60, "policy": "completion" })).await.problem(422, "invalid");
    let answer = admin.patch(&path, "\"1\"", change(60)).await;
    assert_eq!(answer.header("etag"), "\"2\"");
    assert_eq!((&answer.json()["target_s"], &answer.json()["version"]), (&json!(60), &json!(2)));

    let after = operator.create_request(MOSCOW, "+79161234568").await["id"].as_i64().unwrap();
    assert_eq!(timers(&operator, before).await[0]["due_at"], at(15), "as it was promised then");
    assert_eq!(timers(&operator, after).await[0]["due_at"], at(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_start_with_the_request_however_it_came_about() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let typed = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    app.stranger().deliver(&Call::new("one", "+79161234568", MOSCOW_LINE).appeared()).await.expect(200);
    // The client does not care for how long the worker was down.
    app.clock.advance(TimeDelta::minutes(5));
    app.drain_inbox().await;
    for id in [typed, typed + 1] {
        let [first, assignment, completion] = timers(&operator, id).await;
        let expected = json!({
            "policy": "first_response", "state": "running", "started_at": at(0), "due_at": at(15), "remaining_s": 600,
            "paused_at": null, "paused_s": 0, "met_at": null, "cancelled_at": null, "breached_at": null,
        });
        assert_eq!(first, expected);
        assert_eq!((&assignment["due_at"], &completion["due_at"]), (&json!(at(120)), &json!(at(3 * 24 * 60))));
    }
    app.actor(Role::Operator, &[KAZAN])
        .await
        .get(&format!("/api/v1/requests/{typed}/sla"))
        .await
        .problem(404, "not_found");
    operator.get("/api/v1/requests/999999/sla").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_stops_with_what_was_promised_and_stands_still_while_it_is_the_clients_turn() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let id = manager.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let pass = |minutes: i64| app.clock.advance(TimeDelta::minutes(minutes));
    pass(10);
    manager.move_to(id, json!({ "to": "callback", "callback_at": at(40) })).await.expect(200);
    let [first, assignment, completion] = timers(&manager, id).await;
    assert_eq!(
        (&first["state"], &first["met_at"], &first["remaining_s"]),
        (&json!("met"), &json!(at(10)), &Value::Null)
    );
    assert_eq!((&assignment["state"], &assignment["paused_at"]), (&json!("paused"), &json!(at(10))));
    assert_eq!((&assignment["remaining_s"], &completion["state"]), (&json!(110 * 60), &json!("paused")));
    pass(20);
    // From one kind of waiting to another: still the client's turn.
    manager.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    pass(10);
    assert_eq!(timers(&manager, id).await[1]["remaining_s"], 110 * 60);
    manager.move_to(id, json!({ "to": "waiting", "address": "Arbat 1", "meeting_at": VISIT })).await.expect(200);
    let [_, assignment, completion] = timers(&manager, id).await;
    assert_eq!(
        (&assignment["due_at"], &assignment["paused_s"]),
        (&json!(at(150)), &json!(1_800)),
        "half an hour later"
    );
    assert_eq!((&completion["due_at"], &completion["state"]), (&json!(at(3 * 24 * 60 + 30)), &json!("running")));
    manager.assign(id, master.id).await.expect(200);
    assert_eq!(states(&manager, id).await, ["met", "met", "running"]);
    // Given back and offered again: the promise was to find somebody, and somebody was found.
    master.move_to(id, json!({ "to": "waiting" })).await.expect(200);
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    master.move_to(id, json!({ "to": "deferred", "resume_at": VISIT })).await.expect(200);
    assert_eq!(states(&master, id).await, ["met", "met", "paused"]);
    pass(60);
    master.move_to(id, json!({ "to": "done", "result": "100.00" })).await.expect(200);
    let completion = timers(&master, id).await[2].clone();
    assert_eq!((&completion["met_at"], &completion["due_at"]), (&json!(at(100)), &json!(at(3 * 24 * 60 + 90))));
    pass(100);
    director.move_to(id, json!({ "to": "in_progress", "reason": "it drips again" })).await.expect(200);
    let [first, assignment, completion] = timers(&manager, id).await;
    assert_eq!((&first["state"], &assignment["state"]), (&json!("met"), &json!("met")));
    let restarted = (&completion["state"], &completion["started_at"], &completion["due_at"], &completion["paused_s"]);
    assert_eq!(restarted, (&json!("running"), &json!(at(200)), &json!(at(200 + 3 * 24 * 60)), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_happen_is_promised_no_more_until_it_is_opened_again() {
    let app = TestApp::start().await;
    let (manager, admin) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Admin, &[]).await);
    for to in ["refused", "not_order"] {
        let id = manager.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
        manager.move_to(id, json!({ "to": to })).await.expect(200);
        assert_eq!(states(&manager, id).await, ["met", "cancelled", "cancelled"], "{to}");
        app.clock.advance(TimeDelta::minutes(300));
        manager.move_to(id, json!({ "to": "new", "reason": "changed their mind" })).await.expect(200);
        let [first, assignment, completion] = timers(&manager, id).await;
        assert_eq!(first["state"], "met");
        assert_eq!((&assignment["remaining_s"], &completion["remaining_s"]), (&json!(7_200), &json!(259_200)));
    }
    let id = manager.create_request(MOSCOW, "+79161234568").await["id"].as_i64().unwrap();
    admin.delete(&format!("/api/v1/requests/{id}"), "\"1\"").await.expect(204);
    app.clock.advance(TimeDelta::days(30));
    run_job(&app).await;
    assert_eq!(app.database.count(&format!("SELECT count(*) FROM sla_timers WHERE request_id = {id} AND cancelled_at IS NOT NULL AND breached_at IS NULL")).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_promise_is_recorded_once_whenever_somebody_looks() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let [late, paused, in_time, nobody] = {
        let mut ids = [0; 4];
        for (n, id) in ids.iter_mut().enumerate() {
            *id = manager.create_request(MOSCOW, &format!("+7916123456{n}")).await["id"].as_i64().unwrap();
        }
        ids
    };
    let before = app.scrape().await;
    for policy in ["first_response", "assignment", "completion"] {
        assert_eq!(before.value(&breaches(policy)), 0.0);
    }
    manager.move_to(in_time, json!({ "to": "no_answer" })).await.expect(200);
    app.clock.advance(TimeDelta::seconds(900));
    run_job(&app).await;
    assert_eq!(app.scrape().await.value(&breaches("first_response")), 0.0, "in the last second is in time");
    app.clock.advance(TimeDelta::seconds(1));
    // Answered, but too late, before anybody looked.
    manager.move_to(late, json!({ "to": "callback", "callback_at": at(600) })).await.expect(200);
    manager.move_to(paused, json!({ "to": "callback", "callback_at": at(600) })).await.expect(200);
    run_job(&app).await;
    run_job(&app).await;
    assert_eq!(app.scrape().await.value(&breaches("first_response")), 3.0);
    for (id, count) in [(late, 1), (paused, 1), (in_time, 0), (nobody, 1)] {
        let entries = history(&manager, id, "sla_breached").await;
        assert_eq!(entries.len(), count, "{id}");
        for entry in entries {
            assert_eq!(
                (&entry["diff"], &entry["actor_id"]),
                (&json!({ "policy": [null, "first_response"] }), &Value::Null)
            );
        }
        let breached = &timers(&manager, id).await[0]["breached_at"];
        assert_eq!(breached.is_string(), count == 1, "{breached}");
    }
    app.clock.advance(TimeDelta::hours(3));
    run_job(&app).await;
    assert_eq!(app.scrape().await.value(&breaches("assignment")), 1.0, "the others wait for their clients");
    assert_eq!(timers(&manager, nobody).await[0]["remaining_s"], -3 * 3_600 - 1);
    // A promise that is made anew can be broken anew.
    manager.move_to(nobody, json!({ "to": "refused" })).await.expect(200);
    manager.move_to(nobody, json!({ "to": "new", "reason": "again" })).await.expect(200);
    assert_eq!(timers(&manager, nobody).await[1]["breached_at"], Value::Null);
    app.clock.advance(TimeDelta::hours(3));
    run_job(&app).await;
    assert_eq!(app.scrape().await.value(&breaches("assignment")), 2.0);
    assert_eq!(app.scrape().await.value(&breaches("first_response")), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_breaches_than_one_batch_are_all_recorded() {
    let app = TestApp::start().await;
    app.database
        .execute(
            "INSERT INTO clients (phone_e164, created_at) VALUES ('+79161234567', now());
             INSERT INTO requests (client_id, city_id, type_id, source, status, created_at, updated_at)
                 SELECT 1, 1, 1, 'manual', 'new', '2026-05-01T00:00:00Z', '2026-05-01T00:00:00Z' FROM generate_series(1, 1201);
             INSERT INTO sla_timers (request_id, policy, started_at, due_at)
                 SELECT id, 'completion', created_at, created_at + interval '3 days' FROM requests",
        )
        .await;
    let (first, second) = (app.app.db.connect_alone().await, app.app.db.connect_alone().await);
    let (mut first, mut second) = (first.unwrap(), second.unwrap());
    let (one, other) = join(sla::job::round(&app.app, &mut first), sla::job::round(&app.app, &mut second)).await;
    one.and(other).unwrap();
    run_job(&app).await;
    assert_eq!(app.scrape().await.value(&breaches("completion")), 1_201.0);
    assert_eq!(app.database.count("SELECT count(*) FROM request_events WHERE kind = 'sla_breached'").await, 1_201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_answers_goes_back() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    let transitions = "switchboard_service_request_transitions_total{from=\"offered\",to=\"waiting\"}";
    app.clock.advance(TimeDelta::seconds(899));
    run_job(&app).await;
    assert_eq!(manager.get(&format!("/api/v1/requests/{id}")).await.expect(200)["status"], "offered");
    app.clock.advance(TimeDelta::seconds(1));
    run_job(&app).await;
    run_job(&app).await;
    let request = manager.get(&format!("/api/v1/requests/{id}")).await.expect(200);
    assert_eq!((&request["status"], &request["master_id"]), (&json!("waiting"), &Value::Null));
    assert_eq!((&request["escalated_at"], &request["updated_at"]), (&json!(at(15)), &json!(at(15))));
    assert_eq!(request["version"], 4);
    assert_eq!(app.scrape().await.value(transitions), 1.0);
    let moves = history(&manager, id, "transition").await;
    let last = moves.last().unwrap();
    assert_eq!((&last["from"], &last["to"], &last["actor_id"]), (&json!("offered"), &json!("waiting"), &Value::Null));
    assert_eq!(last["reason"], "The master did not answer in time.");
    assert_eq!(last["diff"]["master_id"], json!([master.id, null]));
    assert_eq!(history(&manager, id, "escalated").await.len(), 1);
    // The master is too late.
    master.move_to(id, json!({ "to": "accepted" })).await.problem(404, "not_found");
    // And the next one has the whole time again.
    manager.assign(id, master.id).await.expect(200);
    run_job(&app).await;
    master.move_to(id, json!({ "to": "accepted" })).await.expect(200);
    app.clock.advance(TimeDelta::hours(1));
    run_job(&app).await;
    assert_eq!(manager.get(&format!("/api/v1/requests/{id}")).await.expect(200)["status"], "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_answer_and_its_deadline_exactly_one_wins() {
    let mut settings = config();
    settings.database.max_connections = 20;
    let app = TestApp::start_with(settings).await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let mut ids = Vec::new();
    for n in 0..30 {
        let id = manager.waiting_request(MOSCOW, &format!("+791612345{n:02}")).await;
        manager.assign(id, master.id).await.expect(200);
        ids.push(id);
    }
    app.clock.advance(TimeDelta::minutes(16));
    let accepting = async {
        let mut accepted = Vec::new();
        // From the other end than the job.
        for id in ids.iter().rev() {
            accepted.push((*id, master.move_to(*id, json!({ "to": "accepted" })).await.status.as_u16()));
        }
        accepted
    };
    let ((), answers) = join(run_job(&app), accepting).await;
    for (id, status) in answers {
        let request = manager.get(&format!("/api/v1/requests/{id}")).await.expect(200);
        let escalations = history(&manager, id, "escalated").await.len();
        let expected = if status == 200 { ("accepted", 0) } else { ("waiting", 1) };
        assert_eq!((request["status"].as_str().unwrap(), escalations), expected, "{id}: {status}");
        assert!(status == 200 || status == 404, "{status}");
        assert_eq!(history(&manager, id, "transition").await.len(), 3, "one of the two");
    }
    // A row that somebody holds is left to them.
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    app.clock.advance(TimeDelta::minutes(16));
    let mut holder = app.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM requests FOR NO KEY UPDATE").execute(&mut holder).await.unwrap();
    run_job(&app).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    assert_eq!(manager.get(&format!("/api/v1/requests/{id}")).await.expect(200)["status"], "offered");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_nobody_moves_are_found_with_why_and_since_when() {
    let mut settings = config();
    settings.jwt.ttl_s = 604_800;
    let app = TestApp::start_with(settings).await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let admin = app.actor(Role::Admin, &[]).await;
    // State, times in minutes after the morning (changed, callback, meeting, resume), why, since.
    let cases = [
        ("new", 0, None, None, None, Some(("not_answered", 60))),
        ("new", 1_000, None, None, None, None),
        ("callback", 0, Some(100), None, None, Some(("callback_overdue", 115))),
        ("callback", 0, Some(999), None, None, None),
        ("no_answer", 0, None, None, None, None),
        ("waiting", 10, None, Some(5_000), None, Some(("not_offered", 250))),
        ("waiting", 900, None, Some(950), None, Some(("meeting_passed", 950))),
        ("waiting", 900, None, Some(5_000), None, None),
        ("offered", 500, None, Some(5_000), None, Some(("offer_unanswered", 500))),
        ("offered", 990, None, Some(5_000), None, None),
        ("accepted", 0, None, Some(600), None, Some(("meeting_passed", 720))),
        ("en_route", 0, None, Some(601), None, Some(("meeting_passed", 721))),
        ("accepted", 0, None, Some(900), None, None),
        ("in_progress", -1_000, None, Some(0), None, Some(("not_finished", 440))),
        ("in_progress", 0, None, Some(0), None, None),
        ("deferred", 0, None, Some(0), Some(300), Some(("not_resumed", 300))),
        ("deferred", 0, None, Some(0), Some(1_001), None),
        ("refused", 0, None, None, None, None),
    ];
    let time =
        |minutes: Option<i64>| minutes.map_or("NULL".to_owned(), |minutes| format!("'{}'::timestamptz", at(minutes)));
    app.database.execute("INSERT INTO clients (phone_e164, created_at) VALUES ('+79161234567', now())").await;
    let mut expected = Vec::new();
    for (n, (status, changed, callback, meeting, resume, stuck)) in cases.into_iter().enumerate() {
        let (changed, city) = (time(Some(changed)), if n % 3 == 0 { KAZAN } else { MOSCOW });
        app.database
            .execute(&format!(
                "INSERT INTO requests (client_id, city_id, type_id, source, status, address, callback_at, meeting_at, resume_at,
                                       master_id, created_at, updated_at, state_changed_at, closed_at)
                     SELECT 1, id, 1, 'manual', '{status}', 'Arbat 1', {}, {}, {}, {}, {changed}, {changed}, {changed},
                            CASE WHEN '{status}' = 'refused' THEN {changed} END
                       FROM cities WHERE code = '{city}'",
                time(callback),
                time(meeting),
                time(resume),
                if meeting.is_some() && status != "waiting" { master.id.to_string() } else { "NULL".to_owned() },
            ))
            .await;
        if let Some((why, since)) = stuck {
            expected.push((since, status, why, city));
        }
    }
    app.database
        .execute(
            "INSERT INTO requests (client_id, city_id, type_id, source, status, created_at, updated_at, deleted_at)
                          SELECT 1, 1, 1, 'manual', 'new', '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z', now()",
        )
        .await;
    expected.sort_unstable();
    app.clock.advance(TimeDelta::minutes(1_000));
    let shown = |rows: Vec<Value>| -> Vec<(String, String, String, String)> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(row, "since"), text(row, "status"), text(row, "why"), text(row, "city"))).collect()
    };
    let wanted = |of_city: Option<&str>| -> Vec<(String, String, String, String)> {
        let rows = expected.iter().filter(|row| of_city.is_none_or(|city| row.3 == city));
        rows.map(|(since, status, why, city)| (at(*since), (*status).into(), (*why).into(), (*city).into())).collect()
    };
    assert_eq!(expected.len(), 9);
    for limit in [1, 2, 200] {
        let path = format!("/api/v1/requests/stuck?limit={limit}");
        assert_eq!(shown(admin.all(&path).await), wanted(None), "{limit}");
        assert_eq!(shown(manager.all(&path).await), wanted(Some(MOSCOW)), "{limit}");
    }
    let of_master = admin.all("/api/v1/requests/stuck").await.into_iter().filter(|row| row["master_id"] == master.id);
    let of_master: Vec<Value> = of_master.collect();
    assert!(!of_master.is_empty());
    assert_eq!(master.all("/api/v1/requests/stuck").await, of_master);
    let counted = app.database.count(&format!("SELECT count(*) FROM stuck_requests('{}', '900 s')", at(1_000))).await;
    assert_eq!(counted, 9);
    manager.get("/api/v1/requests/stuck?limit=0").await.problem(422, "invalid");
    app.stranger().get("/api/v1/requests/stuck").await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_release_and_a_hand_written_update_keep_the_time_of_the_state() {
    let app = TestApp::start().await;
    let changed = async || {
        app.database.count("SELECT extract(epoch FROM state_changed_at - '2026-06-01')::bigint FROM requests").await
    };
    app.database
        .execute(
            "INSERT INTO clients (phone_e164, created_at) VALUES ('+79161234567', now());
             INSERT INTO requests (client_id, city_id, type_id, source, status, created_at, updated_at)
                 VALUES (1, 1, 1, 'manual', 'new', '2026-06-01T00:00:07Z', '2026-06-01T00:00:09Z')",
        )
        .await;
    assert_eq!(changed().await, 7);
    app.database
        .execute("UPDATE requests SET description = 'x', status = 'new', updated_at = '2026-06-01T00:01:00Z'")
        .await;
    assert_eq!(changed().await, 7, "an edit is no move");
    app.database.execute("UPDATE requests SET status = 'no_answer', updated_at = '2026-06-01T00:02:00Z'").await;
    assert_eq!(changed().await, 120);
    app.database
        .execute("INSERT INTO request_types (code, name_ru, name_en) VALUES ('urgent', 'Срочно', 'Urgent')")
        .await;
    let promised =
        "SELECT count(*) FROM sla_policies p JOIN request_types t ON t.id = p.type_id WHERE t.code = 'urgent'";
    assert_eq!(app.database.count(promised).await, 3, "no type is without promises");
    for (statement, constraint) in [
        ("UPDATE sla_policies SET target_s = 0", "sla_policies_target_s_check"),
        ("INSERT INTO sla_policies (type_id, policy, target_s) VALUES (1, 'completion', 1)", "sla_policies_key"),
        (
            "INSERT INTO sla_timers (request_id, policy, started_at, due_at) VALUES (1, 'completion', now(), now())",
            "sla_timers_due_after_start",
        ),
        (
            "INSERT INTO sla_timers (request_id, policy, started_at, due_at, met_at, paused_at)
          VALUES (1, 'completion', now(), 'infinity', now(), now())",
            "sla_timers_in_one_state",
        ),
    ] {
        assert_eq!(app.database.refusal(statement).await, constraint, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_promise_still_counts_when_the_request_is_opened_again() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let id = manager.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    app.clock.advance(TimeDelta::hours(3));
    run_job(&app).await;
    let breaches = async || {
        collect(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await.unwrap();
        manager.get_anew("/api/v1/metrics/business").await.expect(200)["today"]["sla_breaches"].clone()
    };
    let expected = json!({ "assignment": 1, "first_response": 1 });
    assert_eq!(breaches().await, expected);
    manager.move_to(id, json!({ "to": "refused" })).await.expect(200);
    manager.move_to(id, json!({ "to": "new", "reason": "they called again" })).await.expect(200);
    assert_eq!(breaches().await, expected);
}
