//! `/api/v1/dictionaries`: reading them; writing is in [`write`].

mod write;

use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{KAZAN, MOSCOW, TestApp, actor::Actor};

async fn read(actor: &Actor, name: &str) -> Vec<Value> {
    let list = actor.get(&format!("/api/v1/dictionaries/{name}")).await.expect(200);
    list.as_array().unwrap().clone()
}

fn codes(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["code"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_dictionaries_are_codes_with_names_in_two_languages() {
    let app = TestApp::start().await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let types = read(&master, "request-types").await;
    let first_time = json!({
        "id": types[0]["id"], "code": "first_time", "name_ru": "Впервые", "name_en": "First-time", "active": true,
        "version": 1,
    });
    assert_eq!(types[0], first_time);
    assert_eq!(codes(&types), ["first_time", "repeat", "warranty"]);
    let directions = read(&master, "directions").await;
    assert_eq!((&directions[0]["code"], &directions[0]["name_en"]), (&json!("plumbing"), &json!("Plumbing")));
    assert_eq!(directions.len(), 8);
    let kinds = read(&master, "transaction-types").await;
    assert_eq!(codes(&kinds), ["income", "expense", "reversal"]);
    assert_eq!(kinds.iter().map(|kind| &kind["sign"]).collect::<Vec<_>>(), [&json!(1), &json!(-1), &Value::Null]);
    let roles = read(&master, "roles").await;
    assert_eq!(roles, ["admin", "director", "manager", "marketer", "operator", "master"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cities_and_campaigns_are_ones_own() {
    let app = TestApp::start().await;
    let both = [MOSCOW, KAZAN];
    for (role, cities, expected) in [
        (Role::Admin, &both[..0], &both[..]),
        (Role::Director, &both[..], &both[..]),
        (Role::Operator, &both[..1], &both[..1]),
        (Role::Master, &both[1..], &both[1..]),
    ] {
        let actor = app.actor(role, cities).await;
        assert_eq!(codes(&read(&actor, "cities").await), expected, "{role:?}");
        let campaigns: Vec<String> = expected.iter().map(|city| format!("{city}_ads")).collect();
        assert_eq!(codes(&read(&actor, "campaigns").await), campaigns, "{role:?}");
    }
    let operator = app.actor(Role::Operator, &[KAZAN]).await;
    let city = read(&operator, "cities").await.remove(0);
    let expected = json!({
        "id": city["id"], "code": KAZAN, "name_ru": KAZAN, "name_en": KAZAN, "timezone": "Europe/Moscow", "active": true,
        "version": 1,
    });
    assert_eq!(city, expected);
    let campaign = read(&operator, "campaigns").await.remove(0);
    let expected = json!({
        "id": campaign["id"], "code": "kazan_ads", "name": KAZAN, "city_id": city["id"], "active": true,
        "numbers": [{ "id": campaign["numbers"][0]["id"], "phone": "+78430000101" }], "version": 1,
    });
    assert_eq!(campaign, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn dictionaries_come_from_the_cache_until_they_change() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let before = app.scrape().await;
    let add = |code: &str| {
        format!("INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ('{code}', 'О', 'O', 'Asia/Omsk')")
    };
    app.database.execute(&add("omsk")).await;
    assert_eq!(codes(&read(&admin, "cities").await), [MOSCOW, KAZAN]);
    app.catch_up().await;
    assert_eq!(codes(&read(&admin, "cities").await), [MOSCOW, KAZAN, "omsk"]);
    assert_eq!(codes(&read(&admin, "cities").await), [MOSCOW, KAZAN, "omsk"]);
    let changes = app.scrape().await.changes_since(&before);
    let looked_up = |result: &str| {
        changes.get(&format!("cache_requests_total{{cache=\"dictionaries\",result=\"{result}\"}}")).copied()
    };
    assert_eq!((looked_up("hit"), looked_up("miss"), looked_up("error")), (Some(2.0), Some(1.0), None));
}
