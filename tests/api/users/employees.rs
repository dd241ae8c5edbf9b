//! `/api/v1/users/employees`: who may do what to whom.

use serde_json::json;
use switchboard::auth::Role;

use super::{ADMINISTRATORS, EMPLOYEES, MASTERS, ME, new_employee, pointers, sign_in, with};
use crate::support::{KAZAN, MOSCOW, PASSWORD, TestApp, actor::Actor};

#[tokio::test(flavor = "multi_thread")]
async fn one_appoints_those_below_in_ones_own_cities() {
    let app = TestApp::start().await;
    let roles = ["director", "manager", "marketer", "operator"];
    for (role, lowest) in [(Role::Admin, 0), (Role::Director, 1), (Role::Manager, 2)] {
        let boss = app.actor(role, &[MOSCOW]).await;
        for (index, new) in roles.into_iter().enumerate() {
            let answer = boss.post(EMPLOYEES, new_employee(new, &[MOSCOW])).await;
            if index >= lowest {
                let created = answer.expect(201);
                assert_eq!((&created["role"], &created["cities"]), (&json!(new), &json!([MOSCOW])));
            } else {
                assert_eq!(pointers(&answer.problem(422, "invalid")), ["/role"], "{role:?} {new}");
            }
        }
        for new in ["admin", "master", "king"] {
            let problem = boss.post(EMPLOYEES, new_employee(new, &[MOSCOW])).await.problem(422, "invalid");
            assert_eq!(pointers(&problem), ["/role"], "{role:?} {new}");
        }
        for cities in [&[KAZAN][..], &[MOSCOW, KAZAN], &[MOSCOW, "atlantis"]] {
            let answer = boss.post(EMPLOYEES, new_employee("operator", cities)).await;
            if role == Role::Admin && !cities.contains(&"atlantis") {
                answer.expect(201);
            } else {
                let problem = answer.problem(422, "invalid");
                assert_eq!(pointers(&problem), [format!("/cities/{}", cities.len() - 1)], "{role:?} {cities:?}");
                assert_eq!(problem["errors"][0]["detail"], "is no city of yours", "like one that is not there");
            }
        }
    }
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    manager.get(EMPLOYEES).await.problem(403, "forbidden");
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    manager.patch(&format!("{EMPLOYEES}/{}", operator.id), "*", json!({})).await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_director_changes_those_below_and_nobody_beside_or_above() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let colleague = app.actor(Role::Director, &[MOSCOW]).await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let beside = format!("{EMPLOYEES}/{}", colleague.id);
    director.get(&beside).await.expect(200);
    for change in [json!({ "name": "X" }), json!({ "password": "staple in the rain" }), json!({ "status": "disabled" })]
    {
        director.patch(&beside, "*", change).await.problem(403, "forbidden");
    }
    director.delete(&beside, "*").await.problem(403, "forbidden");
    colleague.get(ME).await.expect(200);

    let below = format!("{EMPLOYEES}/{}", manager.id);
    let promotion = director.patch(&below, "*", json!({ "role": "director" })).await.problem(422, "invalid");
    assert_eq!(pointers(&promotion), ["/role"]);
    for role in ["admin", "master"] {
        let promotion = director.patch(&below, "*", json!({ "role": role })).await.problem(422, "invalid");
        assert_eq!(pointers(&promotion), ["/role"]);
    }
    assert_eq!(director.patch(&below, "*", json!({ "role": "operator" })).await.expect(200)["role"], "operator");
    director.delete(&below, "*").await.expect(204);

    let elsewhere = app.actor(Role::Operator, &[KAZAN]).await;
    let elsewhere = format!("{EMPLOYEES}/{}", elsewhere.id);
    director.get(&elsewhere).await.problem(404, "not_found");
    director.patch(&elsewhere, "*", json!({ "name": "X" })).await.problem(404, "not_found");
    director.delete(&elsewhere, "*").await.problem(404, "not_found");
    // Each kind has its own place.
    let (admin, master) = (app.actor(Role::Admin, &[]).await, app.actor(Role::Master, &[MOSCOW]).await);
    for (kind, id) in
        [(EMPLOYEES, admin.id), (EMPLOYEES, master.id), (MASTERS, director.id), (ADMINISTRATORS, master.id)]
    {
        admin.get(&format!("{kind}/{id}")).await.problem(404, "not_found");
        admin.delete(&format!("{kind}/{id}"), "*").await.problem(404, "not_found");
    }
    director.get(ADMINISTRATORS).await.problem(403, "forbidden");
    director.post(ADMINISTRATORS, super::new_administrator()).await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_raises_themselves() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let mine = format!("{EMPLOYEES}/{}", director.id);
    for (field, value) in [
        ("role", json!("manager")),
        ("role", json!("director")),
        ("cities", json!([MOSCOW, KAZAN])),
        ("status", json!("disabled")),
        ("password", json!("staple in the rain")),
    ] {
        let problem = director.patch(&mine, "*", with(json!({}), field, value)).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")]);
    }
    let problem = director.delete(&mine, "*").await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("themselves"), "{problem}");
    let changed = director.patch(&mine, "\"1\"", json!({ "name": "D", "phone": "+79161234567" })).await.expect(200);
    assert_eq!((&changed["name"], &changed["version"]), (&json!("D"), &json!(2)));
    director.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_all_cities_is_for_those_who_have_them_all() {
    let app = TestApp::start().await;
    let moscow = app.actor(Role::Director, &[MOSCOW]).await;
    let both = app.actor(Role::Director, &[MOSCOW, KAZAN]).await;
    let operator = app.actor(Role::Operator, &[MOSCOW, KAZAN]).await;
    let path = format!("{EMPLOYEES}/{}", operator.id);
    for change in [
        json!({ "status": "disabled" }),
        json!({ "role": "marketer" }),
        json!({ "password": "staple in the rain" }),
        json!({ "name": "X", "status": "disabled" }),
    ] {
        moscow.patch(&path, "*", change).await.problem(409, "conflict");
    }
    moscow.delete(&path, "*").await.problem(409, "conflict");
    let problem = moscow.patch(&path, "*", json!({ "cities": [MOSCOW] })).await.problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/cities"], "the city of somebody else is not theirs to take");
    assert_eq!(moscow.get(&path).await.header("etag"), "\"1\"", "nothing of it happened");
    moscow.patch(&path, "*", json!({ "name": "Olga", "cities": [KAZAN, MOSCOW, MOSCOW] })).await.expect(200);
    // Their own city they may take away, and then the user is out of their sight.
    let gone = moscow.patch(&path, "*", json!({ "cities": [KAZAN] })).await.expect(200);
    assert_eq!(gone["cities"], json!([KAZAN]));
    moscow.get(&path).await.problem(404, "not_found");
    both.delete(&path, "*").await.expect(204);
    let master = app.actor(Role::Master, &[MOSCOW, KAZAN]).await;
    let path = format!("{MASTERS}/{}", master.id);
    moscow.patch(&path, "*", json!({ "share": "0.1" })).await.problem(409, "conflict");
    moscow.patch(&path, "*", json!({ "phone": "+79161234567" })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_bites_at_once() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let created = admin.post(EMPLOYEES, new_employee("operator", &[MOSCOW])).await.expect(201);
    let path = format!("{EMPLOYEES}/{}", created["id"]);
    for (change, ends) in [
        (json!({ "name": "Olga P.", "phone": "+79161234567", "email": "olga@example.com" }), false),
        (json!({ "role": "operator", "cities": [MOSCOW], "status": "active" }), false),
        (json!({ "role": "manager" }), true),
        (json!({ "cities": [KAZAN] }), true),
    ] {
        let olga = sign_in(&app, &created["login"]).await;
        admin.patch(&path, "*", change.clone()).await.expect(200);
        let answer = olga.get(ME).await;
        assert_eq!(answer.status.as_u16(), if ends { 401 } else { 200 }, "{change}");
    }
    let olga = sign_in(&app, &created["login"]).await;
    let me = olga.get(ME).await.expect(200);
    assert_eq!((&me["role"], &me["cities"]), (&json!("manager"), &json!([KAZAN])));

    let disabled = admin.patch(&path, "*", json!({ "status": "disabled" })).await.expect(200);
    assert_eq!(disabled["status"], "disabled");
    olga.get(ME).await.problem(401, "unauthenticated");
    let body = json!({ "login": created["login"], "password": "horse battery", "session": "token" });
    app.stranger().post("/api/v1/auth/login", body.clone()).await.problem(401, "bad_credentials");
    admin.patch(&path, "*", json!({ "status": "active" })).await.expect(200);
    olga.get(ME).await.problem(401, "unauthenticated");
    app.stranger().post("/api/v1/auth/login", body).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_somebody_above_resets_ends_the_sessions() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let path = format!("{EMPLOYEES}/{}", operator.id);
    let answer = director.patch(&path, "\"1\"", json!({ "password": "staple in the rain" })).await;
    assert_eq!(answer.header("etag"), "\"2\"");
    assert!(!answer.text.contains("staple") && !answer.text.contains("v1$"), "{}", answer.text);
    answer.expect(200);
    operator.get(ME).await.problem(401, "unauthenticated");
    let sign_in = async |password: &str| {
        let body = json!({ "login": operator.login, "password": password, "session": "token" });
        app.stranger().post("/api/v1/auth/login", body).await
    };
    sign_in(PASSWORD).await.problem(401, "bad_credentials");
    sign_in("staple in the rain").await.expect(200);
    let open = format!("SELECT count(*) FROM sessions WHERE user_id = {} AND revoked_at IS NULL", operator.id);
    assert_eq!(app.database.count(&open).await, 1);
    // The login itself is one of the first things to try.
    app.database.execute(&format!("UPDATE users SET login = 'olga.petrova' WHERE id = {}", operator.id)).await;
    let problem = director.patch(&path, "*", json!({ "password": "olga.petrova" })).await.problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/password"]);
    let director_again = Actor::sign_in(&app.url(""), director.id, &director.login).await;
    director_again.get(ME).await.expect(200);
}
