//! Lists of people: filters, pages, scope.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{EMPLOYEES, MASTERS, new_employee, new_master, with};
use crate::support::{KAZAN, MOSCOW, TestApp};

fn names(people: &[Value]) -> Vec<&str> {
    people.iter().map(|person| person["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    for (name, cities, phone) in [
        ("Анна Орлова", &[MOSCOW][..], "+79161234561"),
        ("Boris 100%", &[KAZAN], "+79161234562"),
        ("Вера_Ж", &[MOSCOW, KAZAN], "+79161234563"),
    ] {
        let body = with(with(new_master(cities), "name", json!(name)), "phone", json!(phone));
        let body = with(body, "login", json!(format!("x.{}", &phone[9..])));
        admin.post(MASTERS, body).await.expect(201);
    }
    let boris = admin.all(&format!("{MASTERS}?text=boris")).await.remove(0);
    admin.patch(&format!("{MASTERS}/{}", boris["id"]), "*", json!({ "status": "disabled" })).await.expect(200);
    for (query, expected) in [
        ("", &["Вера_Ж", "Boris 100%", "Анна Орлова"][..]),
        ("city=moscow", &["Вера_Ж", "Анна Орлова"]),
        ("city=kazan&status=active", &["Вера_Ж"]),
        ("status=disabled", &["Boris 100%"]),
        ("city=atlantis", &[]),
        ("text=%D0%BE%D1%80%D0%BB%D0%BE%D0%B2", &["Анна Орлова"]),
        ("text=BORIS", &["Boris 100%"]),
        ("text=%25", &["Boris 100%"]),
        ("text=_", &["Вера_Ж"]),
        ("text=1234563", &["Вера_Ж"]),
        ("text=x.56", &["Вера_Ж", "Boris 100%", "Анна Орлова"]),
    ] {
        assert_eq!(names(&admin.all(&format!("{MASTERS}?{query}")).await), expected, "{query}");
    }
    // Who does not see logins does not find by them.
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    assert!(operator.all(&format!("{MASTERS}?text=x.56")).await.is_empty());
    assert_eq!(names(&operator.all(&format!("{MASTERS}?text=1234563")).await), ["Вера_Ж"]);
    for query in ["status=gone", "city=", "text=", "limit=0", "limit=201", "cursor=x", "role=admin", "city=%00"] {
        admin.get(&format!("{MASTERS}?{query}")).await.problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_everybody_once_and_nobody_from_elsewhere() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let mut mine = BTreeSet::from([director.id]);
    for (n, cities) in [&[MOSCOW][..], &[KAZAN], &[MOSCOW, KAZAN]].into_iter().cycle().take(12).enumerate() {
        let role = ["director", "manager", "operator", "marketer"][n % 4];
        let id = admin.post(EMPLOYEES, new_employee(role, cities)).await.expect(201)["id"].as_i64().unwrap();
        if cities.contains(&MOSCOW) {
            mine.insert(id);
        }
    }
    let list = director.all(&format!("{EMPLOYEES}?limit=2")).await;
    let ids: Vec<i64> = list.iter().map(|person| person["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), mine.len());
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), mine);
    assert!(ids.is_sorted_by(|one, next| one > next), "newest first");
    assert_eq!(admin.all(&format!("{EMPLOYEES}?limit=5")).await.len(), 13);
    // The filter is within the scope, never around it.
    let in_kazan = director.all(&format!("{EMPLOYEES}?city=kazan")).await;
    assert!(in_kazan.iter().all(|person| person["cities"] == json!([KAZAN, MOSCOW])), "{in_kazan:?}");
    assert_eq!(in_kazan.len(), 4);
}
