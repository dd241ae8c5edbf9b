//! `/api/v1/users/administrators`, and what two people do at once.

use futures_util::future::join_all;
use serde_json::json;
use switchboard::auth::Role;

use super::{ADMINISTRATORS, EMPLOYEES, ME, new_administrator, new_employee, pointers, sign_in, with};
use crate::support::{MOSCOW, TestApp, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn administrators_manage_each_other() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let created = admin.post(ADMINISTRATORS, new_administrator()).await.expect(201);
    let path = format!("{ADMINISTRATORS}/{}", created["id"]);
    let expected = json!({
        "id": created["id"], "version": 1, "login": created["login"], "name": "Anna Orlova", "phone": null,
        "email": null, "status": "active", "created_at": "2026-06-01T07:00:00Z",
    });
    assert_eq!(created, expected);
    let anna = sign_in(&app, &created["login"]).await;
    assert_eq!(anna.all(ADMINISTRATORS).await.len(), 2);
    assert_eq!(admin.patch(&path, "\"1\"", json!({ "name": "Anna P." })).await.expect(200)["name"], "Anna P.");
    for field in ["role", "cities", "share", "login"] {
        let problem = admin.patch(&path, "*", with(json!({}), field, json!("x"))).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")]);
    }
    admin.patch(&path, "*", json!({ "status": "disabled" })).await.expect(200);
    anna.get(ME).await.problem(401, "unauthenticated");
    admin.delete(&path, "*").await.expect(204);
    let mine = format!("{ADMINISTRATORS}/{}", admin.id);
    admin.delete(&mine, "*").await.problem(409, "conflict");
    let problem = admin.patch(&mine, "*", json!({ "status": "disabled" })).await.problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/status"]);
    admin.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_administrators_who_remove_each_other_at_once_one_stays() {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for disabling in [false, true] {
        let app = TestApp::start().await;
        let admins = [app.actor(Role::Admin, &[]).await, app.actor(Role::Admin, &[]).await];
        // Both are past the question who they are before either is through.
        let mut gate = app.database.connect().await;
        sqlx::raw_sql("BEGIN; SELECT id FROM users WHERE role = 'admin' FOR UPDATE").execute(&mut gate).await.unwrap();
        let remove = async |by: usize| {
            let path = format!("{ADMINISTRATORS}/{}", admins[1 - by].id);
            if disabling {
                admins[by].patch(&path, "*", json!({ "status": "disabled" })).await
            } else {
                admins[by].delete(&path, "*").await
            }
        };
        let open = async {
            eventually("both wait", async || (app.database.count(waiting).await == 2).then_some(())).await;
            sqlx::raw_sql("COMMIT").execute(&mut gate).await.unwrap();
        };
        let (one, other, ()) = tokio::join!(remove(0), remove(1), open);
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [if disabling { 200 } else { 204 }, 409], "{} {}", one.text, other.text);
        let active = "SELECT count(*) FROM users WHERE role = 'admin' AND status = 'active' AND deleted_at IS NULL";
        assert_eq!(app.database.count(active).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_or_a_phone_that_many_ask_for_at_once_goes_to_one() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    for (field, value, detail) in [
        ("login", json!("wanted"), "The login is taken."),
        ("phone", json!("+79161234567"), "The phone is that of another user."),
    ] {
        let bodies = (0..6).map(|_| with(new_employee("operator", &[MOSCOW]), field, value.clone()));
        let answers = join_all(bodies.map(|body| admin.post(EMPLOYEES, body))).await;
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(created, 1, "{field}");
        for answer in answers.into_iter().filter(|answer| answer.status != 201) {
            assert_eq!(answer.problem(409, "conflict")["detail"], detail);
        }
    }
    // Nor by a change, and the one who has it may send it again.
    let owner = admin.all(&format!("{EMPLOYEES}?text=%2B79161234567")).await.remove(0);
    let other = admin.all(&format!("{EMPLOYEES}?text=wanted")).await.remove(0);
    let phone = json!({ "phone": "8 (916) 123-45-67" });
    admin.patch(&format!("{EMPLOYEES}/{}", other["id"]), "*", phone.clone()).await.problem(409, "conflict");
    admin.patch(&format!("{EMPLOYEES}/{}", owner["id"]), "\"1\"", phone).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_change_one_version_one_is_told() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let id = admin.post(EMPLOYEES, new_employee("operator", &[MOSCOW])).await.expect(201)["id"].clone();
    let path = format!("{EMPLOYEES}/{id}");
    let names: Vec<String> = (0..8).map(|n| format!("Olga {n}")).collect();
    let answers = join_all(names.iter().map(|name| admin.patch(&path, "\"1\"", json!({ "name": name })))).await;
    let changed = answers.iter().filter(|answer| answer.status == 200).count();
    let stale = answers.iter().filter(|answer| answer.status == 412).count();
    assert_eq!((changed, stale), (1, 7));
}
