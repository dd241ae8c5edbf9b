//! Bodies about people that nobody means well with.

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{ADMINISTRATORS, EMPLOYEES, MASTERS, new_administrator, new_employee, new_master, pointers, with};
use crate::support::{MOSCOW, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_named() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let users = app.database.count("SELECT count(*) FROM users").await;
    let common: Vec<(&str, Value)> = vec![
        ("login", json!("x")),
        ("login", json!("Olga")),
        ("login", json!("ольга")),
        ("login", json!(".olga")),
        ("login", json!("x".repeat(65))),
        ("login", json!("a\0b")),
        ("login", json!(7)),
        ("name", json!("")),
        ("name", json!("  ")),
        ("name", json!("щ".repeat(101))),
        ("name", json!("a\0b")),
        ("phone", json!("101")),
        ("phone", json!("")),
        ("phone", json!("+7".repeat(21))),
        ("email", json!("nobody")),
        ("email", json!("a@b@c")),
        ("email", json!("@example.com")),
        ("email", json!("a b@example.com")),
        ("email", json!(format!("{}@example.com", "x".repeat(243)))),
        ("password", json!("1234567")),
        ("password", json!("Password1")),
        ("password", json!("щ".repeat(129))),
        ("password", json!("             ")),
        ("password", json!("horse\0battery")),
        ("password", json!(12_345_678)),
        ("password", json!(null)),
        ("id", json!(1)),
        ("version", json!(7)),
        ("status", json!("active")),
        ("deleted_at", json!(null)),
        ("password_hash", json!("x")),
        ("created_at", json!("2026-06-01T07:00:00Z")),
    ];
    for (field, value) in common {
        for (path, good) in [
            (MASTERS, new_master(&[MOSCOW])),
            (EMPLOYEES, new_employee("operator", &[MOSCOW])),
            (ADMINISTRATORS, new_administrator()),
        ] {
            let answer = admin.post(path, with(good, field, value.clone())).await;
            let problem = answer.problem(422, "invalid");
            assert_eq!(pointers(&problem), [format!("/{field}")], "{path} {value}: {problem}");
            assert!(!problem.to_string().contains("12345678"), "{problem}");
        }
    }
    for (field, value, pointer) in [
        ("cities", json!([]), "/cities"),
        ("cities", json!("moscow"), "/cities"),
        ("cities", json!([MOSCOW, ""]), "/cities/1"),
        ("cities", json!([MOSCOW, "x".repeat(41)]), "/cities/1"),
        ("cities", json!(["atlantis"]), "/cities/0"),
        ("cities", json!([1]), "/cities/0"),
        ("cities", json!(vec!["x"; 101]), "/cities"),
        ("share", json!("1.0001"), "/share"),
        ("share", json!("-0.1"), "/share"),
        ("share", json!("0.33333"), "/share"),
        ("share", json!(0.5), "/share"),
        ("share", json!("half"), "/share"),
        ("share", json!(null), "/share"),
        ("role", json!("director"), "/role"),
    ] {
        let problem =
            admin.post(MASTERS, with(new_master(&[MOSCOW]), field, value.clone())).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [pointer], "{value}: {problem}");
    }
    for field in ["share", "passport"] {
        let body = with(new_employee("operator", &[MOSCOW]), field, json!(null));
        assert_eq!(pointers(&admin.post(EMPLOYEES, body).await.problem(422, "invalid")), [format!("/{field}")]);
    }
    assert_eq!(app.database.count("SELECT count(*) FROM users").await, users);
    // At the edges of what is allowed.
    let mut body = with(new_master(&[MOSCOW, MOSCOW]), "login", json!(format!("9{}", "x".repeat(63))));
    body["name"] = json!("щ".repeat(100));
    body["share"] = json!("1.0000");
    body["password"] = json!("щука, окунь и ".repeat(9));
    assert_eq!(admin.post(MASTERS, body).await.expect(201)["share"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_changes_or_cannot_be_cleared_is_named() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let id = admin.post(MASTERS, new_master(&[MOSCOW])).await.expect(201)["id"].clone();
    let path = format!("{MASTERS}/{id}");
    for (field, value) in [
        ("id", json!(1)),
        ("login", json!("other")),
        ("version", json!(7)),
        ("role", json!("admin")),
        ("created_at", json!("2026-06-01T07:00:00Z")),
        ("deleted_at", json!(null)),
        ("token_version", json!(1)),
        ("has_passport", json!(true)),
        ("name", json!(null)),
        ("cities", json!(null)),
        ("status", json!(null)),
        ("status", json!("deleted")),
        ("share", json!(null)),
        ("password", json!(null)),
        ("password", json!("1234567")),
        ("phone", json!("101")),
        ("email", json!("nobody")),
    ] {
        let problem = admin.patch(&path, "*", with(json!({}), field, value.clone())).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")], "{value}: {problem}");
    }
    let unmatched = admin.request(Method::PATCH, &path).json(&json!({ "name": "X" }));
    admin.send(unmatched).await.problem(428, "if_match_required");
    assert_eq!(admin.get(&path).await.header("etag"), "\"1\"");
    for id in ["0", "-1", "x", "9223372036854775807", "9223372036854775808", "%00"] {
        for kind in [MASTERS, EMPLOYEES, ADMINISTRATORS] {
            admin.get(&format!("{kind}/{id}")).await.problem(404, "not_found");
            admin.patch(&format!("{kind}/{id}"), "*", json!({ "name": "X" })).await.problem(404, "not_found");
            admin.delete(&format!("{kind}/{id}"), "*").await.problem(404, "not_found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_holds_what_the_application_promises() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    app.actor(Role::Master, &[MOSCOW]).await;
    let set = |change: &str| format!("UPDATE users SET {change} WHERE id = {}", user.id);
    for (sql, constraint) in [
        (set("deleted_at = now()"), "users_deleted_is_disabled"),
        (set("phone_e164 = '89161234567'"), "users_phone_e164_check"),
        (set("email = 'nobody'"), "users_email_check"),
        (set("version = 0"), "users_version_check"),
        ("UPDATE master_profiles SET passport = '4509 731954'".to_owned(), "master_profiles_passport_check"),
        ("UPDATE cities SET code = 'other'".to_owned(), "never changes"),
        ("UPDATE transaction_types SET active = false".to_owned(), "transaction_types_ledger_stays"),
    ] {
        let refusal = app.database.refusal(&sql).await;
        assert!(refusal.contains(constraint), "{sql}: {refusal}");
    }
}
