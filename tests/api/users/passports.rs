//! Passports of masters: who sees them, and what lies in the database.

use serde_json::{Value, json};
use switchboard::{auth::Role, config::Secret};

use super::{MASTERS, new_master, pointers, with};
use crate::support::{MOSCOW, TestApp, config};

fn passport() -> Value {
    json!({ "series": "4509", "number": "731954", "issued_by": "УВД Москвы", "issued_on": "2015-03-20" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passport_is_shown_only_to_those_who_manage_masters_and_only_where_it_is_asked_for() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let body = with(new_master(&[MOSCOW]), "passport", passport());
    let created = manager.post(MASTERS, body).await.expect(201);
    let path = format!("{MASTERS}/{}", created["id"]);
    assert_eq!((&created["has_passport"], &created["passport"]), (&json!(true), &Value::Null));
    for role in [Role::Admin, Role::Director, Role::Manager] {
        let reader = app.actor(role, &[MOSCOW]).await;
        assert_eq!(reader.get(&path).await.expect(200)["passport"], passport(), "{role:?}");
        let listed = reader.get(MASTERS).await;
        assert!(!listed.text.contains("731954"), "{}", listed.text);
        let changed = reader.patch(&path, "*", json!({ "name": role.as_str() })).await;
        assert!(changed.status.is_success() && !changed.text.contains("731954"), "{}", changed.text);
    }
    for role in [Role::Marketer, Role::Operator] {
        let seen = app.actor(role, &[MOSCOW]).await.get(&path).await.expect(200);
        assert!(seen.get("passport").is_none() && seen.get("has_passport").is_none(), "{seen}");
    }
    let themselves = app.actor(Role::Master, &[MOSCOW]).await;
    let mine = format!("{MASTERS}/{}", themselves.id);
    manager.patch(&mine, "*", json!({ "passport": passport() })).await.expect(200);
    let seen = themselves.get(&mine).await.expect(200);
    assert_eq!((&seen["has_passport"], seen.get("passport")), (&json!(true), None));

    let stored = "SELECT count(*) FROM master_profiles WHERE passport LIKE 'v1.%' AND passport NOT LIKE '%731954%'";
    assert_eq!(app.database.count(stored).await, 2);
    let different = "SELECT count(DISTINCT passport) FROM master_profiles WHERE passport IS NOT NULL";
    assert_eq!(app.database.count(different).await, 2, "the same passport never looks the same");
    assert_eq!(manager.patch(&path, "*", json!({ "passport": null })).await.expect(200)["has_passport"], false);
    assert_eq!(manager.get(&path).await.expect(200).get("passport"), None);
    manager.delete(&mine, "*").await.expect(204);
    assert_eq!(app.database.count(stored).await, 0, "nobody can read it any more, so it is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passport_moved_to_another_master_does_not_open() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let mut paths = Vec::new();
    for _ in 0..2 {
        let created = admin.post(MASTERS, with(new_master(&[MOSCOW]), "passport", passport())).await.expect(201);
        paths.push(format!("{MASTERS}/{}", created["id"]));
    }
    app.database.execute("UPDATE master_profiles SET passport = (SELECT min(passport) FROM master_profiles)").await;
    let mut shown = Vec::new();
    for path in paths {
        let master = admin.get(&path).await.expect(200);
        assert_eq!(master["has_passport"], true);
        shown.extend(master.get("passport").cloned());
    }
    assert_eq!(shown, [passport()], "in its own row, and the rest of the other is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_passports_are_refused_and_everything_else_works() {
    let mut config = config();
    config.privacy.passport_key = Secret::default();
    let app = TestApp::start_with(config).await;
    let admin = app.actor(Role::Admin, &[]).await;
    let refused = admin.post(MASTERS, with(new_master(&[MOSCOW]), "passport", passport())).await;
    let problem = refused.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("privacy.passport_key"), "{problem}");
    assert_eq!(app.database.count("SELECT count(*) FROM master_profiles").await, 0);
    let created = admin.post(MASTERS, new_master(&[MOSCOW])).await.expect(201);
    let path = format!("{MASTERS}/{}", created["id"]);
    admin.patch(&path, "*", json!({ "passport": passport() })).await.problem(409, "conflict");
    admin.patch(&path, "*", json!({ "passport": null, "name": "Ivan" })).await.expect(200);
    admin.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_passport_is_refused_without_being_repeated() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let wrong = |field: &str, value: Value| with(passport(), field, value);
    for (passport, pointer) in [
        (wrong("series", json!("45 09")), "/passport/series"),
        (wrong("series", json!("45090000000")), "/passport/series"),
        (wrong("number", json!("")), "/passport/number"),
        (wrong("number", json!(731_954)), "/passport/number"),
        (wrong("number", json!("731954\0")), "/passport/number"),
        (wrong("issued_by", json!(" ")), "/passport/issued_by"),
        (wrong("issued_by", json!("x".repeat(201))), "/passport/issued_by"),
        (wrong("issued_on", json!("2015-02-30")), "/passport/issued_on"),
        (wrong("issued_on", json!("2026-06-03")), "/passport/issued_on"),
        (wrong("issued_on", json!("1812-09-07")), "/passport/issued_on"),
        (wrong("owner", json!("me")), "/passport/owner"),
        (json!({ "number": "731954" }), "/passport"),
    ] {
        let answer = admin.post(MASTERS, with(new_master(&[MOSCOW]), "passport", passport.clone())).await;
        assert!(!answer.text.contains("731954"), "{}", answer.text);
        let problem = answer.problem(422, "invalid");
        assert!(pointers(&problem).contains(&pointer), "{passport}: {problem}");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM master_profiles").await, 0);
}
