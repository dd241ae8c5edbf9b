//! `/api/v1/users/masters`.

use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{MASTERS, ME, new_master, pointers, sign_in, with};
use crate::support::{KAZAN, MOSCOW, TestApp, actor::Actor, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_created_changed_and_removed() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let mut body = with(new_master(&[MOSCOW]), "phone", json!("8 916 123-45-67"));
    body["email"] = json!("ivan@example.com");
    let answer = manager.post(MASTERS, body.clone()).await;
    assert_eq!(answer.header("etag"), "\"1\"");
    let path = answer.header("location").to_owned();
    let created = answer.expect(201);
    assert_eq!(path, format!("{MASTERS}/{}", created["id"]));
    let expected = json!({
        "id": created["id"], "version": 1, "name": "Ivan Petrov", "phone": "+79161234567", "cities": [MOSCOW],
        "status": "active", "login": body["login"], "email": "ivan@example.com", "share": "0.5",
        "created_at": "2026-06-01T07:00:00Z", "has_passport": false,
    });
    assert_eq!(created, expected);
    assert_eq!(manager.get(&path).await.expect(200), expected);
    let ivan = sign_in(&app, &body["login"]).await;

    let answer = manager.patch(&path, "\"1\"", json!({ "share": "0.3125", "name": "Ivan P.", "email": null })).await;
    assert_eq!(answer.header("etag"), "\"2\"");
    let changed = answer.expect(200);
    assert_eq!(
        (&changed["share"], &changed["name"], &changed["email"]),
        (&json!("0.3125"), &json!("Ivan P."), &Value::Null)
    );
    assert_eq!(changed["phone"], "+79161234567", "a missing field stays");
    ivan.get(ME).await.expect(200);
    manager.patch(&path, "\"1\"", json!({ "share": "0.4" })).await.problem(412, "stale");
    manager.delete(&path, "\"1\"").await.problem(412, "stale");
    let unmatched = manager.request(reqwest::Method::DELETE, &path);
    manager.send(unmatched).await.problem(428, "if_match_required");
    // Nothing new is no change.
    assert_eq!(manager.patch(&path, "\"2\"", json!({ "name": "Ivan P." })).await.header("etag"), "\"2\"");

    manager.delete(&path, "\"2\"").await.expect(204);
    manager.get(&path).await.problem(404, "not_found");
    manager.patch(&path, "*", json!({})).await.problem(404, "not_found");
    manager.delete(&path, "*").await.problem(404, "not_found");
    assert!(manager.all(MASTERS).await.is_empty());
    ivan.get(ME).await.problem(401, "unauthenticated");
    let again = json!({ "login": body["login"], "password": "horse battery", "session": "token" });
    app.stranger().post("/api/v1/auth/login", again).await.problem(401, "bad_credentials");
    // The history names one person by this login; the phone goes to whoever has it next.
    let taken = manager.post(MASTERS, with(new_master(&[MOSCOW]), "login", body["login"].clone())).await;
    assert_eq!(taken.problem(409, "conflict")["detail"], "The login is taken.");
    manager.post(MASTERS, with(new_master(&[MOSCOW]), "phone", json!("+79161234567"))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_for_somebody_to_send_sees_how_to_reach_them_and_no_more() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let id = admin.post(MASTERS, new_master(&[MOSCOW])).await.expect(201)["id"].clone();
    let path = format!("{MASTERS}/{id}");
    for role in [Role::Marketer, Role::Operator] {
        let staff = app.actor(role, &[MOSCOW]).await;
        let expected = json!({
            "id": id, "version": 1, "name": "Ivan Petrov", "phone": null, "cities": [MOSCOW], "status": "active",
        });
        assert_eq!(staff.get(&path).await.expect(200), expected);
        assert_eq!(staff.all(MASTERS).await, [expected]);
        staff.patch(&path, "*", json!({})).await.problem(403, "forbidden");
        staff.delete(&path, "*").await.problem(403, "forbidden");
        staff.post(MASTERS, new_master(&[MOSCOW])).await.problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_see_themselves_and_change_how_to_reach_them() {
    let app = TestApp::start().await;
    let (me, other) = (app.actor(Role::Master, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let (mine, others) = (format!("{MASTERS}/{}", me.id), format!("{MASTERS}/{}", other.id));
    let list = me.all(MASTERS).await;
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0]["id"], &list[0]["share"]), (&json!(me.id), &json!("0.5")));
    me.get(&others).await.problem(404, "not_found");
    me.patch(&others, "*", json!({ "email": "me@example.com" })).await.problem(404, "not_found");
    me.delete(&mine, "*").await.problem(403, "forbidden");
    let contact = json!({ "phone": "+79161234567", "email": "me@example.com" });
    let changed = me.patch(&mine, "\"1\"", contact).await.expect(200);
    assert_eq!((&changed["phone"], &changed["email"]), (&json!("+79161234567"), &json!("me@example.com")));
    for (field, value) in [
        ("name", json!("Tsar")),
        ("cities", json!([MOSCOW, KAZAN])),
        ("status", json!("active")),
        ("share", json!("0")),
        ("passport", json!(null)),
        ("password", json!("staple in the rain")),
    ] {
        let mut body = json!({ "phone": null });
        body[field] = value;
        let problem = me.patch(&mine, "*", body).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")]);
    }
    let now = me.get(&mine).await;
    assert_eq!(now.header("etag"), "\"2\"", "and nothing of it happened");
    assert_eq!(now.expect(200)["phone"], "+79161234567");
}

/// A service request that this master was offered.
async fn offered(manager: &Actor, city: &str, phone: &str, master: i64) -> i64 {
    let id = manager.waiting_request(city, phone).await;
    manager.assign(id, master).await.expect(200);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_with_work_in_hand_stays() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW, KAZAN]).await;
    let master = app.actor(Role::Master, &[MOSCOW, KAZAN]).await;
    let path = format!("{MASTERS}/{}", master.id);
    let first = offered(&manager, MOSCOW, "+79161234561", master.id).await;
    let second = offered(&manager, MOSCOW, "+79161234562", master.id).await;
    master.move_to(second, json!({ "to": "accepted" })).await.expect(200);
    for answer in [
        manager.delete(&path, "*").await,
        manager.patch(&path, "*", json!({ "status": "disabled" })).await,
        manager.patch(&path, "*", json!({ "cities": [KAZAN] })).await,
    ] {
        let problem = answer.problem(409, "conflict");
        assert!(problem["detail"].as_str().unwrap().contains("2 unfinished"), "{problem}");
    }
    // There is none in the other city.
    manager.patch(&path, "*", json!({ "cities": [MOSCOW] })).await.expect(200);
    for id in [first, second] {
        manager.move_to(id, json!({ "to": "waiting" })).await.expect(200);
    }
    manager.delete(&path, "*").await.expect(204);
    let problem = manager.assign(first, master.id).await.problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/master_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_waits_for_whoever_is_removing_its_master() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    let mut removing = app.database.connect().await;
    let disable = format!("UPDATE users SET status = 'disabled' WHERE id = {}", master.id);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {disable}"))).execute(&mut removing).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let remove = async {
        eventually("the offer waits", async || (app.database.count(waiting).await == 1).then_some(())).await;
        sqlx::raw_sql("COMMIT").execute(&mut removing).await.unwrap();
    };
    let (offer, ()) = tokio::join!(manager.assign(id, master.id), remove);
    offer.problem(422, "invalid");
    assert_eq!(app.database.count("SELECT count(*) FROM requests WHERE master_id IS NOT NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_master_can_be_edited_while_a_reopened_request_is_in_their_hands() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let path = format!("{MASTERS}/{}", master.id);
    let id = crate::transactions::done(&director, &master, MOSCOW, "+79161234567").await;
    director.patch(&path, "*", json!({ "status": "disabled" })).await.expect(200);
    director.move_to(id, json!({ "to": "in_progress", "reason": "it drips" })).await.expect(200);
    // The share is what the request is about to be closed with.
    director.patch(&path, "*", json!({ "share": "0.4", "phone": "+79161234568" })).await.expect(200);
    director.delete(&path, "*").await.problem(409, "conflict");
    director.move_to(id, json!({ "to": "done", "result": "1000.00" })).await.expect(200);
    director.delete(&path, "*").await.expect(204);
}
