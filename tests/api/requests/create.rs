//! `POST /api/v1/requests`, comments and history.

use chrono::TimeDelta;
use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{REQUESTS, path, pointers};
use crate::support::{KAZAN, MOSCOW, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn a_created_request_says_where_it_is_and_which_version_it_has() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let body = json!({
        "city": MOSCOW, "phone": "8 (916) 123-45-67", "type": "warranty", "direction": "plumbing",
        "client_name": "Ольга", "description": "the tap drips", "address": "Tverskaya 1",
    });
    let created = operator.post(REQUESTS, body).await;
    let location = created.header("location").to_owned();
    assert_eq!(created.header("etag"), "\"1\"");
    let request = created.expect(201);
    assert_eq!(location, path(&request["id"]));
    let city_id = app.database.count("SELECT id FROM cities WHERE code = 'moscow'").await;
    let expected = json!({
        "id": request["id"], "version": 1, "status": "new", "source": "manual", "type": "warranty",
        "direction": "plumbing", "city_id": city_id, "city": MOSCOW, "campaign": null,
        "client_phone": "+79161234567", "client_name": "Ольга", "description": "the tap drips",
        "address": "Tverskaya 1", "callback_at": null, "meeting_at": null, "resume_at": null, "master_id": null,
        "created_at": "2026-06-01T07:00:00Z", "updated_at": "2026-06-01T07:00:00Z", "first_response_at": null,
        "assigned_at": null, "escalated_at": null, "closed_at": null, "result": null, "expenses": null,
        "net": null, "handover": null,
    });
    assert_eq!(request, expected);
    let read = operator.get(&location).await;
    assert_eq!(read.header("etag"), "\"1\"");
    assert_eq!(read.expect(200), expected);
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("switchboard_service_requests_created_total{source=\"manual\",type=\"warranty\"}"), 1.0);
    assert_eq!(scrape.value("switchboard_service_requests_created_by_city_total{city=\"moscow\"}"), 1.0);
    assert_eq!(scrape.value("switchboard_service_requests_created_by_city_total{city=\"kazan\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_usual_form_of_a_phone_is_one_client() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let forms = ["+79161234567", "79161234567", "89161234567", "8 (916) 123-45-67", "+7 916 123 45 67", "9161234567"];
    for (n, form) in forms.into_iter().enumerate() {
        let request = operator.create_request(MOSCOW, form).await;
        assert_eq!(request["client_phone"], "+79161234567", "{form}");
        assert_eq!(request["type"], if n == 0 { "first_time" } else { "repeat" }, "{form}");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM clients").await, 1);
    for no_phone in ["112", "anonymous", "+7", "00000000000", "+799999999999999999"] {
        let answer = operator.post(REQUESTS, json!({ "city": MOSCOW, "phone": no_phone })).await;
        assert_eq!(pointers(&answer.problem(422, "invalid")), ["/phone"], "{no_phone}");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM clients").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_the_name_of_their_last_request() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let create = async |name: Value| {
        let body = json!({ "city": MOSCOW, "phone": "+79161234567", "client_name": name });
        operator.post(REQUESTS, body).await.expect(201)
    };
    assert_eq!(create(Value::Null).await["client_name"], Value::Null);
    let first = create(json!("Olga")).await;
    assert_eq!(create(Value::Null).await["client_name"], "Olga", "as known");
    assert_eq!(create(json!("Olga P.")).await["client_name"], "Olga P.", "as said");
    assert_eq!(create(Value::Null).await["client_name"], "Olga P.");
    // What an earlier request says of its client is its own.
    assert_eq!(operator.get(&path(&first["id"])).await.expect(200), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_known_in_another_city_is_told_to_nobody_here() {
    let app = TestApp::start().await;
    let (moscow, kazan) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Operator, &[KAZAN]).await);
    let admin = app.actor(Role::Admin, &[]).await;
    let phone = "+79161234567";
    let olga = json!({ "city": MOSCOW, "phone": phone, "client_name": "Olga" });
    let hers = moscow.post(REQUESTS, olga).await.expect(201);
    assert_eq!(kazan.create_request(KAZAN, phone).await["client_name"], Value::Null, "whoever types in her number");
    assert_eq!(moscow.create_request(MOSCOW, phone).await["client_name"], "Olga");
    // What was deleted is seen by nobody.
    for request in moscow.all(REQUESTS).await {
        admin.delete(&path(&request["id"]), "*").await.expect(204);
    }
    moscow.get(&path(&hers["id"])).await.problem(404, "not_found");
    assert_eq!(moscow.create_request(MOSCOW, phone).await["client_name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_reported_under_its_pointer() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    app.database
        .execute(
            "INSERT INTO cities (code, name_ru, name_en, timezone, active) VALUES ('omsk', 'О', 'O', 'Asia/Omsk', false);
             INSERT INTO user_cities SELECT u.id, c.id FROM users u, cities c WHERE c.code = 'omsk'",
        )
        .await;
    app.catch_up().await;
    let good = json!({ "city": MOSCOW, "phone": "+79161234567" });
    let with = |changes: Value| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({ "city": "atlantis" }), &["/city"]),
        (json!({ "city": KAZAN }), &["/city"]),
        (json!({ "city": "omsk" }), &["/city"]),
        (json!({ "city": "" }), &["/city"]),
        (json!({ "city": null }), &["/city"]),
        (json!({ "type": "novel" }), &["/type"]),
        (json!({ "direction": "rockets" }), &["/direction"]),
        (json!({ "type": "novel", "direction": "rockets" }), &["/direction", "/type"]),
        (json!({ "colour": "red" }), &["/colour"]),
        (json!({ "status": "done" }), &["/status"]),
        (json!({ "master_id": 1 }), &["/master_id"]),
        (json!({ "a/b~c": 1 }), &["/a~1b~0c"]),
        (json!({ "phone": 79_161_234_567_i64 }), &["/phone"]),
        (json!({ "client_name": "  " }), &["/client_name"]),
        (json!({ "description": ["a"] }), &["/description"]),
        (
            json!({
                "phone": "x".repeat(41), "client_name": "я".repeat(101), "address": "", "description": "ё".repeat(2001),
                "type": "x\0",
            }),
            &["/address", "/client_name", "/description", "/phone", "/type"],
        ),
    ];
    for (changes, expected) in cases {
        let body = with(changes);
        let problem = operator.post(REQUESTS, body.clone()).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), expected, "{body}");
        let details = problem["errors"].as_array().unwrap().iter().map(|error| error["detail"].as_str().unwrap());
        assert!(details.clone().all(|detail| !detail.is_empty() && detail.len() < 200), "{problem}");
    }
    // As long as they may be, in letters of two bytes.
    let longest =
        json!({ "client_name": "я".repeat(100), "address": "ё".repeat(300), "description": "ы".repeat(2000) });
    operator.post(REQUESTS, with(longest)).await.expect(201);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 1);
    assert_eq!(app.scrape().await.sum("switchboard_service_requests_created_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_tells_who_did_what() {
    let app = TestApp::start().await;
    let (operator, manager, master) = (
        app.actor(Role::Operator, &[MOSCOW]).await,
        app.actor(Role::Manager, &[MOSCOW]).await,
        app.actor(Role::Master, &[MOSCOW]).await,
    );
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let (id, path) = (request["id"].as_i64().unwrap(), path(&request["id"]));
    let minute = || app.clock.advance(TimeDelta::minutes(1));
    minute();
    operator.patch(&path, "\"1\"", json!({ "client_name": "Olga", "direction": "plumbing" })).await.expect(200);
    minute();
    let visit = json!({
        "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00",
        "reason": "agreed by phone",
    });
    operator.move_to(id, visit).await.expect(200);
    minute();
    manager.assign(id, master.id).await.expect(200);
    minute();
    master.post(&format!("{path}/comments"), json!({ "body": "The dog bites." })).await.expect(201);
    // What was refused is no history.
    manager.assign(id, master.id).await.problem(409, "transition_not_allowed");
    operator.patch(&path, "\"1\"", json!({ "client_name": "Anna" })).await.problem(412, "stale");

    let history = master.get(&format!("{path}/history")).await.expect(200);
    let entries: Vec<Value> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let mut entry = entry.clone();
            assert!(entry.as_object_mut().unwrap().remove("id").unwrap().is_i64());
            entry
        })
        .collect();
    let entry = |minute: u32, actor: i64, kind: &str, moved: Option<(&str, &str)>, reason: Value, diff: Value| {
        json!({
            "at": format!("2026-06-01T07:0{minute}:00Z"), "actor_id": actor, "kind": kind,
            "from": moved.map(|(from, _)| from), "to": moved.map(|(_, to)| to), "reason": reason, "diff": diff,
        })
    };
    let mut created = entry(0, operator.id, "created", None, Value::Null, json!({}));
    created["to"] = json!("new");
    let agreed = json!({
        "address": [null, "Tverskaya 1"], "meeting_at": [null, "2026-06-03T07:00:00Z"],
        "first_response_at": [null, "2026-06-01T07:02:00Z"],
    });
    let offered = json!({ "master_id": [null, master.id], "assigned_at": [null, "2026-06-01T07:03:00Z"] });
    let expected = [
        created,
        entry(
            1,
            operator.id,
            "edited",
            None,
            Value::Null,
            json!({ "direction": [null, "plumbing"], "client_name": [null, "Olga"] }),
        ),
        entry(2, operator.id, "transition", Some(("new", "waiting")), json!("agreed by phone"), agreed),
        entry(3, manager.id, "transition", Some(("waiting", "offered")), Value::Null, offered),
        entry(4, master.id, "commented", None, Value::Null, json!({})),
    ];
    assert_eq!(entries, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_are_kept_in_order_and_never_empty() {
    let app = TestApp::start().await;
    let (operator, manager) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Manager, &[MOSCOW]).await);
    let path = format!("{}/comments", path(&operator.create_request(MOSCOW, "+79161234567").await["id"]));
    assert!(operator.all(&path).await.is_empty());
    let long = "ж".repeat(2000);
    for (author, body) in [(&operator, "Собака кусается 🐕"), (&manager, long.as_str()), (&operator, "<b>& \"'")]
    {
        let comment = author.post(&path, json!({ "body": body })).await.expect(201);
        assert_eq!((&comment["author_id"], &comment["body"]), (&json!(author.id), &json!(body)));
        assert_eq!(comment["at"], "2026-06-01T07:00:00Z");
    }
    let comments = manager.all(&format!("{path}?limit=2")).await;
    let bodies: Vec<&str> = comments.iter().map(|row| row["body"].as_str().unwrap()).collect();
    assert_eq!(bodies, ["Собака кусается 🐕", &long, "<b>& \"'"]);
    for (bad, pointer) in [
        (json!({ "body": "" }), "/body"),
        (json!({ "body": " \n\t" }), "/body"),
        (json!({ "body": "ж".repeat(2001) }), "/body"),
        (json!({ "body": "a\0" }), "/body"),
        (json!({ "body": "a", "author_id": 1 }), "/author_id"),
    ] {
        assert_eq!(pointers(&operator.post(&path, bad.clone()).await.problem(422, "invalid")), [pointer], "{bad}");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM request_comments").await, 3);
}
