//! POSTs that are sent again with their Idempotency-Key.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Executor;
use switchboard::{auth::Role, keeping::retention};

use crate::{
    authorisation::{
        guarded,
        world::{Place, World},
    },
    support::{
        KAZAN, MOSCOW, TestApp,
        actor::{Actor, Answer, number},
        config, eventually,
        files::{FORM, photo, png},
    },
};

const KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";
const REQUESTS: &str = "/api/v1/requests";

/// Sends a body under a key.
async fn post(actor: &Actor, path: &str, key: &str, body: &Value) -> Answer {
    actor.send(actor.request(Method::POST, path).header(KEY, key).json(body)).await
}

fn intake() -> Value {
    json!({ "city": MOSCOW, "phone": "+79161234567", "client_name": "Olga Petrova" })
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get(REPLAYED).is_some_and(|value| value == "true")
}

/// All that a client can act upon.
fn gist(answer: &Answer) -> (u16, [Option<String>; 3], String) {
    let header = |name| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    (answer.status.as_u16(), ["content-type", "etag", "location"].map(header), answer.text.clone())
}

/// Every row of every table.
async fn everything(app: &TestApp) -> String {
    let sql = "SELECT string_agg(query_to_xml(format('SELECT t::text AS row FROM %I t ORDER BY 1', tablename),
                   false, false, '')::text, '' ORDER BY tablename)
                 FROM pg_tables WHERE schemaname = 'public'";
    sqlx::query_scalar(sql).fetch_one(&mut app.database.connect().await).await.unwrap()
}

async fn requests(app: &TestApp) -> i64 {
    app.database.count("SELECT count(*) FROM requests").await
}

async fn counted(app: &TestApp, outcome: &str) -> f64 {
    app.scrape().await.value(&format!("switchboard_idempotent_requests_total{{outcome=\"{outcome}\"}}"))
}

#[test]
fn every_post_says_that_it_takes_a_key_but_those_of_sessions_and_of_providers() {
    let document = serde_json::to_value(switchboard::server::openapi()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            let takes = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
            let other = path.starts_with("/api/v1/auth/") || path.starts_with("/api/v1/webhooks/");
            assert_eq!(takes, method == "post" && !other, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_post_has_its_effect_once_and_is_answered_the_same() {
    let world = World::new().await;
    let (_, admin) = &world.actors[0];
    let (_, director) = &world.actors[1];
    let mut asked = Vec::new();
    for operation in guarded() {
        if operation.method != Method::POST || operation.path.starts_with("/api/v1/auth/") {
            continue;
        }
        let question = world.question(&operation, Role::Admin, admin, Place::Theirs).await;
        let key = format!("key-{}", number());
        let first = admin.send(World::put(&operation, admin, &question).header(KEY, &key)).await;
        let done = first.status.is_success() && !first.headers.contains_key(REPLAYED);
        assert!(done, "{}: {}", operation.path, first.text);
        asked.push((operation, question, key, first));
    }
    assert!(asked.len() >= 17, "{}", asked.len());
    let after = everything(&world.app).await;
    for (operation, question, key, first) in &asked {
        let ask = || World::put(operation, admin, question).header(KEY, key);
        let again = admin.send(ask()).await;
        assert_eq!(gist(&again), gist(first), "{operation:?}");
        assert!(is_replay(&again), "{operation:?}");
        // Something else, if only by a byte.
        let other = match &question.1 {
            Some(body) => ask().body(format!("{body} ")),
            None => ask().body(photo(&png(101))),
        };
        admin.send(other).await.problem(422, "idempotency_key_reused");
    }
    assert!(everything(&world.app).await == after, "nothing was done but the first time");
    for (operation, question, key, _) in &asked {
        let same = World::put(operation, director, question).header(KEY, key);
        assert!(!is_replay(&director.send(same).await), "{operation:?}: keys are everybody's own");
    }
    let kept = "FROM idempotency_keys WHERE convert_from(body, 'UTF8')";
    // The passwords of those who were created, and whatever goes when a client is forgotten.
    for sql in [
        format!("SELECT count(*) {kept} LIKE '%long sentence%' OR headers::text LIKE '%long sentence%'"),
        format!("SELECT count(*) {kept} ~ 'client_phone|\"request_id\": *[0-9]|The dog' AND request_id IS NULL"),
    ] {
        assert_eq!(world.app.database.count(&sql).await, 0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_at_once_at_two_replicas_one_creates_and_the_others_wait_or_hear_of_it() {
    let first = TestApp::start().await;
    let second = TestApp::over(config(), first.database.clone()).await;
    let here = first.actor(Role::Operator, &[MOSCOW]).await;
    let there = here.at(&second.url(""));
    let body = intake();
    let at_once = (0..20).map(|n| post(if n % 2 == 0 { &here } else { &there }, REQUESTS, "one-key", &body));
    let answers = join_all(at_once).await;
    let (created, waited): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    for answer in &created {
        assert_eq!(gist(answer), gist(&created[0]));
    }
    assert_eq!(created.iter().filter(|answer| !is_replay(answer)).count(), 1);
    let in_flight = waited.len();
    for answer in waited {
        assert_eq!(answer.header("retry-after"), "1");
        answer.problem(409, "idempotency_in_flight");
    }
    for actor in [&here, &there] {
        // In quotes it is the same key.
        let again = post(actor, REQUESTS, "\"one-key\"", &body).await;
        assert!(is_replay(&again));
        assert_eq!(gist(&again), gist(&created[0]));
    }
    assert_eq!(requests(&first).await, 1);
    let replicas = [&first, &second];
    for (outcome, expected) in
        [("executed", 1), ("in_flight", in_flight), ("replayed", created.len() + 1), ("mismatch", 0)]
    {
        let mut sum = 0.0;
        for app in replicas {
            sum += counted(app, outcome).await;
        }
        assert_eq!(sum, f64::from(u32::try_from(expected).unwrap()), "{outcome}");
    }
    let created = |app: &TestApp| {
        app.app
            .metrics
            .requests_created(switchboard::requests::model::Source::Manual, &app.app.metrics.request_type("first_time"))
            .get()
    };
    assert_eq!(created(&first) + created(&second), 1, "a replay creates nothing that could be counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough() {
    let mut config = config();
    config.database.max_connections = 1;
    let app = TestApp::start_with(config).await;
    let admin = app.actor(Role::Admin, &[]).await;
    let item = json!({ "code": "new", "name_ru": "Новое", "name_en": "New" });
    let login = json!({ "login": "newcomer", "name": "New", "password": "a long sentence is best" });
    for replayed in [false, true] {
        for (path, body) in [
            (REQUESTS, &intake()),
            ("/api/v1/dictionaries/directions", &item),
            ("/api/v1/users/administrators", &login),
        ] {
            let answer = post(&admin, path, path, body).await;
            assert_eq!((answer.status.as_u16(), is_replay(&answer)), (201, replayed), "{path}: {}", answer.text);
        }
        let form = admin.request(Method::POST, "/api/v1/requests/1/files").header("content-type", FORM);
        let answer = admin.send(form.header(KEY, "file").body(photo(&png(100)))).await;
        assert_eq!((answer.status.as_u16(), is_replay(&answer)), (201, replayed), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_again_is_known_by_what_it_says() {
    let mut config = config();
    config.files.max_per_owner = 1;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    operator.create_request(MOSCOW, "+79161234567").await;
    let attach = async |form: Vec<u8>| {
        let request = operator.request(Method::POST, "/api/v1/requests/1/files").header(KEY, "photo");
        operator.send(request.header("content-type", FORM).body(form)).await
    };
    let first = attach(photo(&png(100))).await;
    assert_eq!(first.status, 201, "{}", first.text);
    // Now there is no room for another one, which is no reason to refuse the same. Its bytes are others, as with a
    // browser that makes up a boundary each time.
    let again = attach([photo(&png(100)), b"\r\n".to_vec()].concat()).await;
    assert!(is_replay(&again), "{}", again.text);
    assert_eq!(gist(&again), gist(&first));
    attach(photo(&png(101))).await.problem(422, "idempotency_key_reused");
    let one = async || (app.data.files().len() == 1).then_some(());
    eventually("what was not attached is removed", one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_wins_over_if_match_and_what_failed_is_tried_anew() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let id = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let path = format!("{REQUESTS}/{id}/transitions");
    let move_to = async |key: &str, etag: &str, to: &str| {
        let request = operator.request(Method::POST, &path).header(KEY, key).header("if-match", etag);
        operator.send(request.json(&json!({ "to": to }))).await
    };
    let first = move_to("a", "\"1\"", "no_answer").await;
    assert_eq!(first.status, 200, "{}", first.text);
    let again = move_to("a", "\"1\"", "no_answer").await;
    assert_eq!(gist(&again), gist(&first));
    move_to("b", "\"1\"", "new").await.problem(412, "stale");
    // Nothing of a failure is kept: under its key something else can be done, too.
    let moved = move_to("b", "\"2\"", "refused").await;
    assert_eq!((moved.status.as_u16(), is_replay(&moved)), (200, false), "{}", moved.text);
    assert!(is_replay(&move_to("a", "\"1\"", "no_answer").await), "whatever became of it since");
    let moves = "switchboard_service_request_transitions_total{from=\"new\",to=\"no_answer\"}";
    assert_eq!(app.scrape().await.value(moves), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_users_with_the_rights_they_had() {
    let app = TestApp::start().await;
    let (operator, other) =
        (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Operator, &[MOSCOW, KAZAN]).await);
    let body = intake();
    assert_eq!(post(&operator, REQUESTS, "key", &body).await.status, 201);
    assert!(!is_replay(&post(&other, REQUESTS, "key", &body).await));
    assert!(is_replay(&post(&other, REQUESTS, "key", &body).await), "the others are none of their business");
    assert_eq!(requests(&app).await, 2);
    // The answer shows a client of a city that is not theirs any more.
    let moved = format!(
        "UPDATE user_cities SET city_id = (SELECT id FROM cities WHERE code = '{KAZAN}') WHERE user_id = {}",
        operator.id
    );
    app.database.execute(&moved).await;
    post(&operator, REQUESTS, "key", &body).await.problem(422, "idempotency_key_reused");
    assert_eq!((counted(&app, "mismatch").await, requests(&app).await), (1.0, 2));

    let long = "k".repeat(256);
    for bad in ["", "\"", "two words", "\"unfinished", "\"a\";b", &long] {
        post(&other, REQUESTS, bad, &body).await.problem(400, "malformed");
    }
    let two = other.request(Method::POST, REQUESTS).header(KEY, "one").header(KEY, "two").json(&body);
    other.send(two).await.problem(400, "malformed");
    app.stranger()
        .send(app.stranger().request(Method::POST, REQUESTS).header(KEY, "\""))
        .await
        .problem(401, "unauthenticated");
    assert_eq!(requests(&app).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_and_comes_back_has_done_it_once() {
    let mut config = config();
    config.database.query_timeout_ms = 30_000;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let id = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let (path, body) = (format!("{REQUESTS}/{id}/transitions"), json!({ "to": "no_answer" }));
    let mut holder = app.database.connect().await;
    holder.execute("BEGIN; SELECT FROM requests FOR UPDATE").await.unwrap();
    let hasty = tokio::spawn(operator.request(Method::POST, &path).header(KEY, "key").json(&body).send());
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits for the row", async || (app.database.count(waiting).await == 1).then_some(())).await;
    post(&operator, &path, "key", &body).await.problem(409, "idempotency_in_flight");
    hasty.abort();
    eventually("the hang-up is noticed", async || (app.scrape().await.answered(499) == 1.0).then_some(())).await;
    holder.execute("ROLLBACK").await.unwrap();
    let answer = eventually("the key is free", async || {
        let answer = post(&operator, &path, "key", &body).await;
        (answer.status != 409).then_some(answer)
    });
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap();
    assert_eq!((answer.status.as_u16(), is_replay(&answer)), (200, false), "the first one was undone");
    let moves = "SELECT count(*) FROM request_events WHERE to_status = 'no_answer'";
    assert_eq!(app.database.count(moves).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_for_two_days_and_no_longer_than_what_they_tell() {
    let app = TestApp::start().await;
    let sweep = async || retention::sweep(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await.unwrap();
    let kept = async || app.database.count("SELECT count(*) FROM idempotency_keys").await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    post(&operator, REQUESTS, "old", &intake()).await.expect(201);
    app.clock.advance(TimeDelta::days(2) - TimeDelta::seconds(1));
    sweep().await;
    assert_eq!(kept().await, 1);
    app.clock.advance(TimeDelta::seconds(2));
    sweep().await;
    assert_eq!(kept().await, 0);

    // Somebody writes about the client just before they are forgotten.
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    operator.move_to(1, json!({ "to": "refused" })).await.expect(200);
    app.clock.advance(TimeDelta::days(1825) - TimeDelta::hours(1));
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let comment = json!({ "body": "Olga called again." });
    post(&operator, "/api/v1/requests/1/comments", "comment", &comment).await.expect(201);
    post(&operator, REQUESTS, "another", &intake()).await.expect(201);
    app.clock.advance(TimeDelta::hours(2));
    sweep().await;
    let about = "SELECT count(*) FROM idempotency_keys WHERE request_id = 1";
    assert_eq!((kept().await, app.database.count(about).await), (1, 0));
    let series = "switchboard_retention_rows_total{table=\"idempotency_keys\"}";
    assert_eq!(app.scrape().await.value(series), 2.0);
}
