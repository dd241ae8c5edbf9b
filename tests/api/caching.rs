//! What is cached is told to nobody else, is as fresh as was promised, and is not sent to who has it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Executor;
use switchboard::{auth::Role, cache};

use crate::{
    authorisation::{
        guarded,
        world::{Place, World},
    },
    support::{KAZAN, MOSCOW, PASSWORD, TestApp, actor::Actor, eventually, metrics::Scrape},
};

const MASTERS: &str = "/api/v1/users/masters";
const EMPLOYEES: &str = "/api/v1/users/employees";
const CITIES: &str = "/api/v1/dictionaries/cities";
const REPORT: &str = "/api/v1/reports/cities?from=2026-06-01&to=2026-06-30";

/// How often a cache was asked and had it.
fn hits(scrape: &Scrape, cache: &str) -> f64 {
    scrape.value(&format!("cache_requests_total{{cache=\"{cache}\",result=\"hit\"}}"))
}

/// How often a statement was run.
fn ran(scrape: &Scrape, operation: &str) -> f64 {
    scrape.value(&format!("db_client_operation_duration_seconds_count{{operation=\"{operation}\"}}"))
}

fn ids(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|person| person["id"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_is_not_sent_again_wherever_the_document_says_so_and_nowhere_else() {
    let world = World::new().await;
    let (role, admin) = &world.actors[0];
    let document = serde_json::to_value(switchboard::server::openapi()).unwrap();
    let mut spared = Vec::new();
    for operation in guarded().iter().filter(|operation| operation.method == Method::GET) {
        // A stream has no end.
        if operation.path == "/api/v1/events" {
            continue;
        }
        let (path, _) = world.question(operation, *role, admin, Place::Theirs).await;
        let whole = admin.get(&path).await;
        if whole.status != 200 {
            continue;
        }
        let documented = document["paths"][&operation.path]["get"]["responses"].get("304").is_some();
        let tag = whole.header("etag");
        assert_eq!(documented, !tag.is_empty(), "{path}");
        if documented {
            let same = admin.get_unless(&path, &format!("\"x\", W/{tag}")).await;
            assert_eq!((same.status.as_u16(), same.text.as_str()), (304, ""), "{path}");
            for name in ["etag", "cache-control", "vary", "content-security-policy"] {
                assert_eq!(same.header(name), whole.header(name), "{path}: {name}");
            }
            assert_eq!(same.header("content-type"), "", "{path}");
            assert_eq!(admin.get_unless(&path, "*").await.status, 304, "{path}");
            let other = admin.get_unless(&path, "\"x\", x, ").await;
            assert_eq!((other.status.as_u16(), other.header("etag")), (200, tag), "{path}");
            let head = admin.request(Method::HEAD, &path).header("if-none-match", tag);
            assert_eq!(admin.send(head).await.status, 304, "{path}");
            spared.push(operation.path.clone());
        }
    }
    for path in ["requests/{id}", "files/{id}", "users/masters", "dictionaries/roles", "reports/masters"] {
        assert!(spared.contains(&format!("/api/v1/{path}")), "{path} is not among {spared:?}");
    }
    // A change of something is none that If-None-Match could spare.
    let omsk = json!({ "code": "omsk", "name_ru": "О", "name_en": "O", "timezone": "Asia/Omsk" });
    let request = admin.request(Method::POST, CITIES).header("if-none-match", "*").json(&omsk);
    assert_eq!(admin.send(request).await.status, 201);
    let before = admin.get("/api/v1/dictionaries/roles").await;
    let tag = admin.get(CITIES).await.header("etag").to_owned();
    admin.patch(&format!("{CITIES}/1"), "*", json!({ "name_en": "Moscow" })).await.expect(200);
    assert_eq!(admin.get_unless(CITIES, &tag).await.status, 200, "it is another one now");
    assert_eq!(admin.get_unless("/api/v1/dictionaries/roles", before.header("etag")).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_what_was_cached_for_somebody_else() {
    let app = TestApp::start().await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let mut people = Vec::new();
    for (role, cities) in [
        (Role::Admin, &[][..]),
        (Role::Director, &[MOSCOW]),
        (Role::Director, &[KAZAN]),
        (Role::Director, &[KAZAN, MOSCOW]),
        (Role::Manager, &[MOSCOW]),
        (Role::Operator, &[MOSCOW]),
    ] {
        people.push((role, app.actor(role, cities).await));
    }
    people.push((Role::Master, app.actor(Role::Master, &[KAZAN]).await));
    // Each alone, past anything that was cached for another; then all of them by turns, twice.
    let paths = [
        MASTERS,
        EMPLOYEES,
        "/api/v1/users/administrators",
        REPORT,
        "/api/v1/reports/masters?from=2026-06-01&to=2026-06-30",
    ];
    let ask = async |actor: &Actor| {
        let answers = join_all(paths.iter().map(|path| actor.get(path))).await.into_iter();
        let told = answers.map(|answer| if answer.status == 200 { answer.text } else { answer.status.to_string() });
        told.collect::<Vec<_>>()
    };
    let mut alone = Vec::new();
    for (_, actor) in &people {
        // A server that has nothing in its cache yet.
        let fresh = TestApp::over(crate::support::config(), app.database.clone()).await;
        alone.push(ask(&actor.at(&fresh.url(""))).await);
    }
    for _ in 0..2 {
        for ((role, actor), expected) in people.iter().zip(&alone) {
            assert_eq!(&ask(actor).await, expected, "{role:?}");
        }
    }
    // What an operator sees of masters is less than what a manager of the same city sees.
    let (manager, operator) = (&alone[4][0], &alone[5][0]);
    assert!(manager.contains(&master.login) && manager.contains("\"login\""), "{manager}");
    assert!(!operator.contains("\"login\"") && operator.contains(&format!("\"id\":{}", master.id)), "{operator}");
    assert!(alone.iter().all(|answers| answers.len() == paths.len()));
    assert_ne!(alone[1][1], alone[2][1], "the employees of two cities");
    // Somebody who sees the same is spared the statement.
    let before = app.scrape().await;
    let mut colleague = Actor::stranger(&app.url(""));
    colleague.token.clone_from(&people[1].1.token);
    colleague.get(EMPLOYEES).await.expect(200);
    let after = app.scrape().await;
    assert_eq!(
        (hits(&after, "users") - hits(&before, "users"), ran(&after, "user_list") - ran(&before, "user_list")),
        (1.0, 0.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_people_show_each_change_at_once() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let list = async |query: &str| admin.get(&format!("{EMPLOYEES}{query}")).await.expect(200);
    assert!(ids(&list("").await).is_empty());
    let olga = json!({ "login": "olga", "password": PASSWORD, "name": "Olga", "role": "operator", "cities": [MOSCOW] });
    let id = admin.post(EMPLOYEES, olga).await.expect(201)["id"].as_i64().unwrap();
    assert_eq!((ids(&list("").await), ids(&list("?city=kazan").await)), (vec![id], vec![]));
    let path = format!("{EMPLOYEES}/{id}");
    admin.patch(&path, "*", json!({ "name": "Olga Ivanova", "cities": [KAZAN] })).await.expect(200);
    assert_eq!(list("").await["items"][0]["name"], "Olga Ivanova");
    assert_eq!((ids(&list("?city=kazan").await), ids(&list("?city=moscow").await)), (vec![id], vec![]));
    // By SQL, as soon as the server has noticed.
    app.database.execute("UPDATE user_cities SET city_id = 1; UPDATE users SET name = 'Olga'").await;
    app.catch_up().await;
    assert_eq!((&list("").await["items"][0]["name"], ids(&list("?city=moscow").await)), (&json!("Olga"), vec![id]));
    admin.delete(&path, "*").await.expect(204);
    assert!(ids(&list("").await).is_empty());
    // Searches and further pages are not cached.
    let before = app.scrape().await;
    for query in ["?text=olga", "?text=olga", "?limit=1", "?limit=1"] {
        list(query).await;
    }
    assert_eq!(hits(&app.scrape().await, "users") - hits(&before, "users"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_may_be_as_old_as_was_set_unless_asked_for_anew() {
    let mut config = crate::support::config();
    config.cache.reports_ttl_s = 1;
    config.database.acquire_timeout_ms = 300;
    let app = TestApp::start_with(config).await;
    let admin = app.actor(Role::Admin, &[]).await;
    let created = |report: &Value| report["totals"]["created"].as_i64().unwrap();
    let first = admin.get(REPORT).await;
    let read = Instant::now();
    assert_eq!((created(&first.json()), first.header("cache-control")), (0, "no-store"));
    admin.create_request(MOSCOW, "+79161234567").await;
    if admin.get_unless(REPORT, first.header("etag")).await.status != 304 {
        assert!(read.elapsed() > Duration::from_secs(1), "it was to be kept for a second");
    }
    assert_eq!(created(&admin.get_anew(REPORT).await.expect(200)), 1);
    assert_eq!(created(&admin.get(REPORT).await.expect(200)), 1, "what was made anew is kept");
    admin.create_request(MOSCOW, "+79161234568").await;
    let csv = admin.get(&REPORT.replace("cities?", "cities.csv?")).await;
    assert!(csv.text.contains("moscow,2,"), "a file is never an old one: {}", csv.text);
    let grown = async || (created(&admin.get(REPORT).await.expect(200)) == 2).then_some(());
    eventually("it is too old", grown).await;
    // Of many who want the same at once, one makes it; what fails is not kept.
    let turns = app.app.report_turns.acquire_many(3).await.unwrap();
    let path = &REPORT.replace("cities", "campaigns");
    let before = app.scrape().await;
    for answer in join_all((0..8).map(|_| admin.get(path))).await {
        answer.problem(503, "overloaded");
    }
    drop(turns);
    for answer in join_all((0..20).map(|_| admin.get(path))).await {
        answer.expect(200);
    }
    assert_eq!(ran(&app.scrape().await, "report_campaigns") - ran(&before, "report_campaigns"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_redis_notices_by_itself_what_others_change() {
    let app = TestApp::start().await;
    let other = TestApp::over(crate::support::config(), app.database.clone()).await;
    for server in [&app, &other] {
        server.app.lifecycle.spawn(cache::follow(server.app.clone()));
    }
    let admin = app.actor(Role::Admin, &[]).await;
    let there = admin.at(&other.url(""));
    let count = async |actor: &Actor| actor.get(CITIES).await.expect(200).as_array().unwrap().len();
    assert_eq!((count(&admin).await, count(&there).await), (2, 2));
    let omsk = json!({ "code": "omsk", "name_ru": "О", "name_en": "O", "timezone": "Asia/Omsk" });
    admin.post(CITIES, omsk).await.expect(201);
    let changed = Instant::now();
    assert_eq!(count(&admin).await, 3, "who made the change sees it at once");
    eventually("the other replica shows it", async || (count(&there).await == 3).then_some(())).await;
    assert!(changed.elapsed() < Duration::from_millis(1_500), "{:?}", changed.elapsed());
    app.database.execute("DELETE FROM cities WHERE code = 'omsk'").await;
    let changed = Instant::now();
    for actor in [&admin, &there] {
        eventually("what was done by SQL shows", async || (count(actor).await == 2).then_some(())).await;
    }
    assert!(changed.elapsed() < Duration::from_millis(1_500), "{:?}", changed.elapsed());
    for server in [&app, &other] {
        server.app.lifecycle.stop_workers(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_in_waits_for_nobody_who_changes_people() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut import = app.database.connect().await;
    import
        .execute("BEGIN; UPDATE users SET name = 'x' WHERE false; UPDATE cities SET name_en = 'x' WHERE false")
        .await
        .unwrap();
    let again = Actor::sign_in(&app.url(""), operator.id, &operator.login).await;
    again.refresh().await.expect(200);
    let password = json!({ "current": PASSWORD, "new": "another horse battery" });
    again.post("/api/v1/auth/password", password).await.expect(204);
    operator.get("/api/v1/auth/me").await.problem(401, "unauthenticated");
    let versions = "SELECT sum(version)::bigint FROM cache_versions";
    let before = app.database.count(versions).await;
    import.execute("COMMIT").await.unwrap();
    assert!(app.database.count(versions).await >= before + 2);
}
