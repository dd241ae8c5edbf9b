//! Writing dictionaries.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{codes, read};
use crate::support::{KAZAN, MOSCOW, MOSCOW_LINE, TestApp, telephony::Call};

const BASE: &str = "/api/v1/dictionaries";
const CAMPAIGNS: &str = "/api/v1/dictionaries/campaigns";

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn new_entry(name: &str, code: &str) -> Value {
    let body = json!({ "code": code, "name_ru": "Имя", "name_en": "Name" });
    match name {
        "cities" => with(body, "timezone", json!("Asia/Omsk")),
        "transaction-types" => with(body, "sign", json!(-1)),
        _ => body,
    }
}

const ENTRIES: [&str; 4] = ["cities", "request-types", "directions", "transaction-types"];

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_created_changed_and_seen_at_once() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    for name in ENTRIES {
        let list = format!("{BASE}/{name}");
        // In the cache before the change.
        let before = read(&admin, name).await.len();
        let answer = admin.post(&list, new_entry(name, "omsk")).await;
        assert_eq!(answer.header("etag"), "\"1\"", "{name}");
        let created = answer.expect(201);
        assert_eq!((&created["code"], &created["active"]), (&json!("omsk"), &json!(true)));
        assert_eq!(read(&admin, name).await.last(), Some(&created), "{name}");
        assert_eq!(read(&admin, name).await.len(), before + 1);
        let taken = admin.post(&list, new_entry(name, "omsk")).await.problem(409, "conflict");
        assert_eq!(taken["detail"], "The code is taken.");

        let path = format!("{list}/{}", created["id"]);
        let answer = admin.patch(&path, "\"1\"", json!({ "name_ru": "Другое", "active": false })).await;
        assert_eq!(answer.header("etag"), "\"2\"");
        let changed = answer.expect(200);
        assert_eq!((&changed["name_ru"], &changed["name_en"]), (&json!("Другое"), &json!("Name")));
        assert_eq!(read(&admin, name).await.last(), Some(&changed), "{name}");
        admin.patch(&path, "\"1\"", json!({ "active": true })).await.problem(412, "stale");
        let unmatched = admin.request(Method::PATCH, &path).json(&json!({ "active": true }));
        admin.send(unmatched).await.problem(428, "if_match_required");
        for id in ["0", "x", "9223372036854775807"] {
            admin.patch(&format!("{list}/{id}"), "*", json!({})).await.problem(404, "not_found");
        }
        for role in [Role::Director, Role::Manager, Role::Marketer, Role::Operator, Role::Master] {
            let other = app.actor(role, &[MOSCOW]).await;
            other.post(&list, new_entry(name, "tomsk")).await.problem(403, "forbidden");
            other.patch(&path, "*", json!({ "active": true })).await.problem(403, "forbidden");
        }
    }
    let city = read(&admin, "cities").await.pop().unwrap();
    let moved =
        admin.patch(&format!("{BASE}/cities/{}", city["id"]), "*", json!({ "timezone": "Europe/Samara" })).await;
    assert_eq!(moved.expect(200)["timezone"], "Europe/Samara");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_entry_is_named() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    for name in ENTRIES {
        let list = format!("{BASE}/{name}");
        for (field, value) in [
            ("code", json!("")),
            ("code", json!("Omsk")),
            ("code", json!("1omsk")),
            ("code", json!("o-msk")),
            ("code", json!("x".repeat(41))),
            ("code", json!("a\0")),
            ("name_ru", json!("")),
            ("name_ru", json!("щ".repeat(101))),
            ("name_en", json!("a\0")),
            ("name_en", json!(null)),
            ("id", json!(7)),
            ("active", json!(true)),
        ] {
            let body = with(new_entry(name, "omsk"), field, value.clone());
            let problem = admin.post(&list, body).await.problem(422, "invalid");
            assert_eq!(pointers(&problem), [format!("/{field}")], "{name} {value}");
        }
        let path = format!("{list}/{}", read(&admin, name).await[0]["id"]);
        for (field, value) in [
            ("code", json!("other")),
            ("id", json!(7)),
            ("version", json!(7)),
            ("sign", json!(1)),
            ("name_ru", json!(null)),
            ("name_en", json!("x".repeat(101))),
            ("active", json!("yes")),
        ] {
            let problem = admin.patch(&path, "*", with(json!({}), field, value.clone())).await.problem(422, "invalid");
            assert_eq!(pointers(&problem), [format!("/{field}")], "{name} {value}");
        }
    }
    // Of these PostgreSQL knows some and the program others.
    for zone in
        ["", "Omsk", "asia/omsk", "Asia/Omsk ", "posix/Asia/Omsk", "EST5EDT", "GMT+0", "+07", "UTC+7", "localtime"]
    {
        let body = with(new_entry("cities", "omsk"), "timezone", json!(zone));
        let problem = admin.post(&format!("{BASE}/cities"), body).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), ["/timezone"], "{zone}");
        let moscow = format!("{BASE}/cities/{}", read(&admin, "cities").await[0]["id"]);
        let problem = admin.patch(&moscow, "*", json!({ "timezone": zone })).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), ["/timezone"], "{zone}");
    }
    for sign in [json!(0), json!(2), json!("1"), json!(99999)] {
        let body = with(new_entry("transaction-types", "fuel"), "sign", sign.clone());
        let problem = admin.post(&format!("{BASE}/transaction-types"), body).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), ["/sign"], "{sign}");
    }
    for kind in read(&admin, "transaction-types").await {
        let path = format!("{BASE}/transaction-types/{}", kind["id"]);
        admin.patch(&path, "*", json!({ "active": false })).await.problem(409, "conflict");
        admin.patch(&path, "*", json!({ "name_en": "Cash" })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_city_and_a_new_type_work_and_an_inactive_one_does_not() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let omsk = admin.post(&format!("{BASE}/cities"), new_entry("cities", "omsk")).await.expect(201);
    let rush = admin.post(&format!("{BASE}/request-types"), new_entry("request-types", "rush")).await.expect(201);
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("switchboard_service_requests_created_by_city_total{city=\"omsk\"}"), 0.0);
    let body = json!({ "city": "omsk", "phone": "+79161234567", "type": "rush", "direction": "plumbing" });
    admin.post("/api/v1/requests", body.clone()).await.expect(201);
    for (name, entry, pointer) in [("request-types", &rush, "/type"), ("cities", &omsk, "/city")] {
        let path = format!("{BASE}/{name}/{}", entry["id"]);
        admin.patch(&path, "*", json!({ "active": false })).await.expect(200);
        let problem = admin.post("/api/v1/requests", body.clone()).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [pointer]);
        admin.patch(&path, "*", json!({ "active": true })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_run_by_those_of_its_city() {
    let app = TestApp::start().await;
    for role in [Role::Admin, Role::Director, Role::Manager] {
        let boss = app.actor(role, &[MOSCOW]).await;
        let code = format!("radio_{}", role.as_str());
        let line = format!("+7495200{:04}", boss.id);
        let body = json!({ "code": code, "name": "Radio", "city": MOSCOW, "numbers": [line] });
        let created = boss.post(CAMPAIGNS, body.clone()).await.expect(201);
        assert_eq!((&created["numbers"][0]["phone"], &created["active"]), (&json!(line), &json!(true)));
        assert_eq!(boss.post(CAMPAIGNS, body).await.problem(409, "conflict")["detail"], "The code is taken.");
        let path = format!("{CAMPAIGNS}/{}", created["id"]);
        assert_eq!(boss.patch(&path, "\"1\"", json!({ "name": "Radio 2" })).await.expect(200)["name"], "Radio 2");
        boss.patch(&path, "\"1\"", json!({ "name": "Radio 3" })).await.problem(412, "stale");

        let second = boss.post(&format!("{path}/numbers"), json!({ "phone": format!("8495201{:04}", boss.id) })).await;
        assert_eq!(second.header("etag"), "\"3\"");
        let numbers = second.expect(201)["numbers"].clone();
        assert_eq!(numbers[1]["phone"], format!("+7495201{:04}", boss.id));
        let add = async |phone: &str| boss.post(&format!("{path}/numbers"), json!({ "phone": phone })).await;
        let problem = add(&format!("+{MOSCOW_LINE}")).await.problem(409, "conflict");
        assert!(problem["detail"].as_str().unwrap().contains("already"), "{problem}");
        assert_eq!(pointers(&add("queue-7").await.problem(422, "invalid")), ["/phone"]);

        let number = format!("{path}/numbers/{}", numbers[0]["id"]);
        boss.delete(&number, "\"2\"").await.problem(412, "stale");
        boss.send(boss.request(Method::DELETE, &number)).await.problem(428, "if_match_required");
        boss.delete(&number, "\"3\"").await.expect(204);
        boss.delete(&number, "*").await.problem(404, "not_found");
        boss.delete(&format!("{path}/numbers/x"), "*").await.problem(404, "not_found");
        boss.delete(&path, "\"4\"").await.expect(204);
        let ended =
            read(&boss, "campaigns").await.into_iter().find(|campaign| campaign["id"] == created["id"]).unwrap();
        assert_eq!((&ended["active"], &ended["version"]), (&json!(false), &json!(5)));
        assert_eq!(ended["numbers"], json!([numbers[1]]));
    }
    for role in [Role::Marketer, Role::Operator, Role::Master] {
        let other = app.actor(role, &[MOSCOW]).await;
        let id = read(&other, "campaigns").await[0]["id"].clone();
        let path = format!("{CAMPAIGNS}/{id}");
        other.post(CAMPAIGNS, json!({ "code": "x", "name": "X", "city": MOSCOW })).await.problem(403, "forbidden");
        other.patch(&path, "*", json!({})).await.problem(403, "forbidden");
        other.delete(&path, "*").await.problem(403, "forbidden");
        other.post(&format!("{path}/numbers"), json!({ "phone": "+74952000000" })).await.problem(403, "forbidden");
        other.delete(&format!("{path}/numbers/1"), "*").await.problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_of_another_city_does_not_exist() {
    let app = TestApp::start().await;
    let (here, there) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Manager, &[KAZAN]).await);
    let theirs = read(&there, "campaigns").await.remove(0);
    let path = format!("{CAMPAIGNS}/{}", theirs["id"]);
    here.patch(&path, "*", json!({ "name": "Mine" })).await.problem(404, "not_found");
    here.delete(&path, "*").await.problem(404, "not_found");
    here.post(&format!("{path}/numbers"), json!({ "phone": "+74952000000" })).await.problem(404, "not_found");
    here.delete(&format!("{path}/numbers/{}", theirs["numbers"][0]["id"]), "*").await.problem(404, "not_found");
    // Nor is their number one of mine.
    let mine = read(&here, "campaigns").await.remove(0);
    let detour = format!("{CAMPAIGNS}/{}/numbers/{}", mine["id"], theirs["numbers"][0]["id"]);
    here.delete(&detour, "*").await.problem(404, "not_found");
    for city in [KAZAN, "atlantis"] {
        let body = json!({ "code": "radio", "name": "Radio", "city": city });
        let problem = here.post(CAMPAIGNS, body).await.problem(422, "invalid");
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["detail"]),
            (&json!("/city"), &json!("is no city of yours"))
        );
    }
    let radio = json!({ "code": "radio", "name": "Radio", "city": MOSCOW });
    for (field, value, pointer) in [
        ("code", json!("Radio"), "/code"),
        ("name", json!(""), "/name"),
        ("name", json!("x".repeat(101)), "/name"),
        ("numbers", json!(["+74952000001", "queue"]), "/numbers/1"),
        ("numbers", json!(["x".repeat(41)]), "/numbers/0"),
        ("numbers", json!(vec!["+74952000001"; 101]), "/numbers"),
        ("numbers", json!(null), "/numbers"),
        ("active", json!(false), "/active"),
    ] {
        let problem = here.post(CAMPAIGNS, with(radio.clone(), field, value.clone())).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [pointer], "{value}");
    }
    let twice = with(radio.clone(), "numbers", json!(["+74952000001", "8 (495) 200-00-01"]));
    here.post(CAMPAIGNS, twice).await.problem(409, "conflict");
    for (field, value) in [("code", json!("x")), ("city", json!(KAZAN)), ("city_id", json!(1)), ("numbers", json!([]))]
    {
        let path = format!("{CAMPAIGNS}/{}", mine["id"]);
        let problem = here.patch(&path, "*", with(json!({}), field, value)).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [format!("/{field}")]);
    }
    assert_eq!(codes(&read(&there, "campaigns").await), ["kazan_ads"]);
    assert_eq!(codes(&read(&here, "campaigns").await), ["moscow_ads"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_number_takes_calls_at_once() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[KAZAN]).await;
    let body = json!({ "code": "radio", "name": "Radio", "city": KAZAN, "numbers": ["+78432000001"] });
    manager.post(CAMPAIGNS, body).await.expect(201);
    app.stranger().deliver(&Call::new("entry", "+79161234567", "78432000001").appeared()).await;
    app.drain_inbox().await;
    let requests = manager.all("/api/v1/requests").await;
    assert_eq!((&requests[0]["campaign"], &requests[0]["city"]), (&json!("radio"), &json!(KAZAN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_many_ask_for_at_once_goes_to_one() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let bodies = (0..6)
        .map(|n| json!({ "code": format!("radio_{n}"), "name": "Radio", "city": MOSCOW, "numbers": ["+74952000001"] }));
    let answers = join_all(bodies.map(|body| admin.post(CAMPAIGNS, body))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
    assert_eq!(app.database.count("SELECT count(*) FROM advertising_campaigns WHERE code LIKE 'radio%'").await, 1);
}
