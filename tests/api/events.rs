//! Live events.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use switchboard::{
    auth::Role,
    events::model::{EventRow, LiveEvent},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::support::{
    JWT_SECRET, KAZAN, MOSCOW, PEPPER, TestApp,
    actor::Actor,
    config, eventually,
    process::Server,
    sse::{Event, Stream},
};

const STREAMS: &str = "switchboard_event_streams";
const DROPPED: &str = "switchboard_event_streams_dropped_total";

async fn live() -> TestApp {
    let app = TestApp::start().await;
    app.tail();
    app
}

async fn create(actor: &Actor, city: &str) -> i64 {
    actor.create_request(city, "+79161234567").await["id"].as_i64().unwrap()
}

fn gists(events: &[Event]) -> Vec<(&str, i64, &str)> {
    events.iter().map(Event::gist).collect()
}

/// How many seconds until the stream ends.
async fn end(mut stream: Stream) -> f64 {
    let started = Instant::now();
    while stream.next().await.is_some() {}
    started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_to_whoever_listens() {
    let app = live().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let answer = operator.request(reqwest::Method::GET, "/api/v1/events").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    drop(answer);
    let (greeting, mut stream) = operator.listen_since(None).await;
    assert_eq!((greeting.name.as_str(), greeting.id.as_str()), ("ready", "0"));
    let id = create(&operator, MOSCOW).await;
    let event = stream.next().await.unwrap();
    let expected = json!({
        "id": 1, "request_id": id, "kind": "created", "from": null, "to": "new", "at": "2026-06-01T07:00:00Z",
        "actor_id": operator.id, "status": "new", "version": 1,
    });
    assert_eq!((event.name.as_str(), event.id.as_str(), &event.data), ("request", "1", &expected));
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    let event = stream.next().await.unwrap();
    assert_eq!(
        (&event.data["from"], &event.data["to"], &event.data["version"]),
        (&json!("new"), &json!("no_answer"), &json!(2))
    );
    assert!(!format!("{event:?}").contains("7916"), "contents are read from the request");
    // The head is answered at once: an open stream is no slow request.
    let scrape = app.scrape().await;
    assert_eq!(scrape.served("GET", "/api/v1/events", 200), 2.0);
    assert_eq!(scrape.value("http_server_active_requests{http_request_method=\"GET\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_what_is_not_theirs() {
    let app = live().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let (here, there) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Manager, &[KAZAN]).await);
    let (master, other) = (app.actor(Role::Master, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let actors = [&admin, &here, &there, &master, &other];
    let mut streams = Vec::new();
    for actor in actors {
        streams.push(actor.listen().await);
    }
    let a = admin.waiting_request(MOSCOW, "+79161234567").await;
    let b = admin.waiting_request(KAZAN, "+79161234568").await;
    // So that each move is read while it is the last one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    admin.assign(a, master.id).await.expect(200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    master.move_to(a, json!({ "to": "waiting" })).await.expect(200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    admin.assign(a, other.id).await.expect(200);
    admin.post(&format!("/api/v1/requests/{a}/comments"), json!({ "body": "the end" })).await.expect(201);
    // What each one hears, and what they hear who come later and ask for all of it.
    let (created, moved, told) = ("created", "transition", "commented");
    let of = |request: i64, kinds: &[&'static str]| -> Vec<(&'static str, i64, &'static str)> {
        kinds.iter().map(|kind| ("request", request, *kind)).collect()
    };
    let here_hears = of(a, &[created, moved, moved, moved, moved, told]);
    let there_hears = of(b, &[created, moved]);
    let all = [of(a, &[created, moved]), there_hears.clone(), of(a, &[moved, moved, moved, told])].concat();
    let hears = [all, here_hears, there_hears, vec![("request", a, moved), ("gone", a, "")], of(a, &[moved, told])];
    for ((mut stream, expected), actor) in streams.into_iter().zip(&hears).zip(actors) {
        let mut heard = Vec::new();
        for _ in expected {
            heard.push(stream.next().await.unwrap());
        }
        assert_eq!(&gists(&heard), expected, "{}", actor.login);
        for event in heard.iter().filter(|event| event.name == "gone") {
            assert_eq!(event.data.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "request_id", "at"]);
        }
        assert!(stream.is_silent(Duration::from_millis(300)).await, "{}", actor.login);
    }
    let later = [
        hears[0].clone(),
        hears[1].clone(),
        hears[2].clone(),
        vec![("gone", a, "")],
        // The whole history of what is theirs now, which they can read anyway.
        hears[1].clone(),
    ];
    for (actor, expected) in actors.into_iter().zip(later) {
        let (greeting, mut stream) = actor.listen_since(Some("0")).await;
        assert_eq!(greeting.name, "ready");
        let mut heard = Vec::new();
        for _ in &expected {
            heard.push(stream.next().await.unwrap());
        }
        assert_eq!(gists(&heard), expected, "{} later", actor.login);
        assert!(stream.is_silent(Duration::from_millis(300)).await, "{} later", actor.login);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_again_has_missed_nothing() {
    let app = live().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let elsewhere = app.actor(Role::Operator, &[KAZAN]).await;
    let mut stream = operator.listen().await;
    // The tailer follows for somebody all the time, so that how far it has come is known.
    let _kept = elsewhere.listen().await;
    let first = create(&operator, MOSCOW).await;
    let last = stream.next().await.unwrap().id;
    drop(stream);
    // More than a page of them.
    let mut missed = vec![create(&elsewhere, KAZAN).await, create(&operator, MOSCOW).await];
    app.database
        .execute(&format!(
            "INSERT INTO request_events (request_id, at, kind) SELECT {first}, '2026-06-01T07:00:00Z', 'edited' FROM generate_series(1, 1100)"
        ))
        .await;
    missed.push(create(&operator, MOSCOW).await);
    // Whoever comes while so many are told is overtaken by them, which is another test's matter.
    let newest = app.database.count("SELECT max(id) FROM request_events").await;
    eventually("everything told", async || (app.app.events.mark() == newest).then_some(())).await;
    for (commented_before, path) in ["header", "parameter"].into_iter().enumerate() {
        let mut stream = if path == "header" {
            operator.listen_since(Some(&last)).await.1
        } else {
            let url = format!("/api/v1/events?last_event_id={last}");
            Stream::open(operator.request(reqwest::Method::GET, &url)).await.1
        };
        let heard = stream.until(missed[2], "created").await;
        let requests: Vec<i64> = heard.iter().map(|event| event.gist().1).collect();
        let expected = [vec![missed[1]], vec![first; 1_100], vec![missed[2]]].concat();
        assert_eq!(requests, expected, "{path}");
        // And what comes joins on, after the comments that were missed.
        operator.post(&format!("/api/v1/requests/{first}/comments"), json!({ "body": path })).await.expect(201);
        for _ in 0..=commented_before {
            assert_eq!(stream.next().await.unwrap().gist(), ("request", first, "commented"), "{path}");
        }
        assert!(stream.is_silent(Duration::from_millis(300)).await, "{path}");
    }
    // The header is newer than what a browser repeats.
    let request = operator
        .request(reqwest::Method::GET, "/api/v1/events?last_event_id=0")
        .header("last-event-id", &heard_last(&app).await);
    let (_, mut stream) = Stream::open(request).await;
    assert!(stream.is_silent(Duration::from_millis(300)).await);
    for wrong in ["x", "-1", "1.5", "", "99999999999999999999"] {
        let request = operator.request(reqwest::Method::GET, "/api/v1/events").header("last-event-id", wrong);
        operator.send(request).await.problem(422, "invalid");
        operator.get(&format!("/api/v1/events?last_event_id={wrong}x")).await.problem(422, "invalid");
    }
    app.stranger().get("/api/v1/events").await.problem(401, "unauthenticated");
}

async fn heard_last(app: &TestApp) -> String {
    app.database.count("SELECT max(id) FROM request_events").await.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_too_long_is_told_to_start_over() {
    let mut settings = config();
    settings.jwt.ttl_s = 604_800;
    let app = TestApp::start_with(settings).await;
    app.tail();
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let id = create(&operator, MOSCOW).await;
    let greeting = async |last: &str| operator.listen_since(Some(last)).await.0;
    assert_eq!(greeting("0").await.name, "ready");
    assert_eq!(greeting("1").await.name, "ready");
    let reset = greeting("2").await;
    assert_eq!((reset.name.as_str(), reset.id.as_str()), ("reset", "1"), "from another life of this database");
    let insert = |count: i64| {
        format!(
            "INSERT INTO request_events (request_id, at, kind) SELECT {id}, '2026-06-01T07:00:00Z', 'edited' FROM generate_series(1, {count})"
        )
    };
    app.database.execute(&insert(9_999)).await;
    assert_eq!(greeting("0").await.name, "ready");
    app.database.execute(&insert(1)).await;
    let (reset, mut stream) = operator.listen_since(Some("0")).await;
    assert_eq!(reset.name, "reset");
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    stream.until(id, "transition").await;
    let last = heard_last(&app).await;
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    app.clock.advance(chrono::TimeDelta::hours(11));
    assert_eq!(greeting(&last).await.name, "ready");
    app.clock.advance(chrono::TimeDelta::hours(14));
    assert_eq!(greeting(&last).await.name, "reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_is_told_once_and_never_lost() {
    let app = live().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let id = create(&operator, MOSCOW).await;
    let mut stream = operator.listen().await;
    let (mut late, mut lost) = (app.database.connect().await, app.database.connect().await);
    let insert = format!(
        "BEGIN; INSERT INTO request_events (request_id, at, kind) VALUES ({id}, '2026-06-01T07:00:00Z', 'edited')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert.clone())).execute(&mut late).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut lost).await.unwrap();
    // Ids 2 and 3 are taken; 4 and 5 do not wait for them.
    let ids = |event: &Event| (event.id.clone(), event.data["id"].as_i64().unwrap());
    for n in [4, 5] {
        operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
        assert_eq!(ids(&stream.next().await.unwrap()), ("1".to_owned(), n));
    }
    let (_, mut again) = operator.listen_since(Some("1")).await;
    for n in [4, 5] {
        assert_eq!(ids(&again.next().await.unwrap()), ("1".to_owned(), n));
    }
    assert!(again.is_silent(Duration::from_millis(500)).await, "the channel does not repeat the backlog");
    sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
    // Three is still open, but two is settled.
    assert_eq!(ids(&stream.next().await.unwrap()), ("2".to_owned(), 2));
    assert_eq!(ids(&again.next().await.unwrap()), ("2".to_owned(), 2));
    sqlx::raw_sql("ROLLBACK").execute(&mut lost).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    for stream in [&mut stream, &mut again] {
        assert_eq!(ids(&stream.next().await.unwrap()), ("6".to_owned(), 6), "nobody is waited for any more");
    }
    // Who comes while a transaction is open hears of it too.
    drop((stream, again));
    eventually("nobody listens", async || (app.scrape().await.value(STREAMS) == 0.0).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let open = format!(
        "BEGIN; INSERT INTO request_events (request_id, at, kind) VALUES ({id}, '2026-06-01T07:00:00Z', 'edited')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(open)).execute(&mut late).await.unwrap();
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    let (greeting, mut stream) = operator.listen_since(None).await;
    // It begins anew, and cannot know that nobody will fill three: so it lets that come again.
    assert_eq!(greeting.id, "2");
    sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
    assert_eq!(ids(&stream.next().await.unwrap()), ("2".to_owned(), 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_request_is_told_of_once_more() {
    let app = live().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let mut stream = admin.listen().await;
    let id = create(&admin, MOSCOW).await;
    assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "created"));
    admin.delete(&format!("/api/v1/requests/{id}"), "\"1\"").await.expect(204);
    assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "deleted"));
    let (_, mut stream) = admin.listen_since(Some("0")).await;
    assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "deleted"), "the rest cannot be read any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_rights_to_it() {
    let app = live().await;
    let mut stays = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut staying = stays.listen().await;
    let signs_out = app.actor(Role::Operator, &[MOSCOW]).await;
    let disabled = app.actor(Role::Master, &[MOSCOW]).await;
    let moved = app.actor(Role::Manager, &[MOSCOW, KAZAN]).await;
    let demoted = app.actor(Role::Director, &[MOSCOW]).await;
    let mut streams = Vec::new();
    for actor in [&signs_out, &disabled, &moved, &demoted] {
        streams.push(actor.listen().await);
    }
    signs_out.post("/api/v1/auth/logout", Value::Null).await.expect(204);
    app.database
        .execute(&format!(
            "UPDATE users SET status = 'disabled' WHERE id = {};
             DELETE FROM user_cities WHERE user_id = {} AND city_id = 2;
             UPDATE users SET role = 'operator' WHERE id = {}",
            disabled.id, moved.id, demoted.id
        ))
        .await;
    let started = Instant::now();
    for stream in streams {
        end(stream).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    let id = create(&stays, MOSCOW).await;
    assert_eq!(staying.next().await.unwrap().gist(), ("request", id, "created"));
    // Who may still listen comes again, with the rights of now.
    let (_, mut stream) = moved.listen_since(Some("0")).await;
    assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "created"));
    // A stream outlives the access token it was opened with, and not the session.
    app.clock.advance(chrono::TimeDelta::hours(13));
    stays.get("/api/v1/auth/me").await.problem(401, "unauthenticated");
    app.database.execute(&format!("UPDATE users SET token_version = 9 WHERE id = {}", moved.id)).await;
    end(stream).await;
    stays.take(&stays.refresh().await.expect(200));
    let id = create(&stays, MOSCOW).await;
    assert_eq!(staying.next().await.unwrap().gist(), ("request", id, "created"));
    app.clock.advance(chrono::TimeDelta::days(7));
    assert!(end(staying).await < 5.0, "a session that expires is over too");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_at_once_when_the_server_stops() {
    let app = live().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let streams = [operator.listen().await, operator.listen().await];
    assert_eq!(app.scrape().await.value(STREAMS), 2.0);
    app.app.lifecycle.stop_workers(Duration::from_secs(2)).await;
    for stream in streams {
        assert!(end(stream).await < 1.0);
    }
    eventually("the places are given back", async || (app.scrape().await.value(STREAMS) == 0.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_listeners_stops_as_soon_as_one_without() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let environment = [
        ("DATABASE_URL", app.database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
    let listener = Actor::sign_in(&format!("http://{}", server.public), user.id, &user.login).await;
    let mut streams = [listener.listen().await, listener.listen().await];
    // Through the whole server, with all that runs beside it.
    let id = create(&listener, MOSCOW).await;
    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "created"));
    }
    let started = Instant::now();
    let (_, code) = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for stream in streams {
        end(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_listens_nothing_is_read() {
    let app = live().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let looks = "db_client_operation_duration_seconds_count{operation=\"event_tail\"}";
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(app.scrape().await.value(looks), 0.0);
    let stream = operator.listen().await;
    eventually("it looks", async || (app.scrape().await.value(looks) > 1.0).then_some(())).await;
    drop(stream);
    eventually("it is left", async || (app.scrape().await.value(STREAMS) == 0.0).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = app.scrape().await.value(looks);
    let id = create(&operator, MOSCOW).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(app.scrape().await.value(looks), before);
    // From now on, not from where it stopped.
    let (greeting, mut stream) = operator.listen_since(None).await;
    assert_eq!(greeting.id, "1");
    operator.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "transition"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_overtaken_is_told_so_and_comes_again() {
    let mut settings = config();
    settings.events.buffer = 4;
    let app = TestApp::start_with(settings).await;
    app.tail();
    let admin = app.actor(Role::Admin, &[]).await;
    let id = create(&admin, MOSCOW).await;
    let (greeting, mut stream) = admin.listen_since(None).await;
    let row = EventRow {
        id: 1,
        request_id: id,
        at: app.app.clock.now(),
        actor_id: None,
        kind: "edited".to_owned(),
        from: None,
        to: None,
        left_master: None,
        city_id: 1,
        master_id: None,
        version: 1,
        status: "new".to_owned(),
        deleted: false,
    };
    for _ in 0..10_000 {
        app.app.events.tell(LiveEvent::new(row.clone(), 1));
    }
    let mut heard = 0;
    let last = loop {
        match stream.next().await {
            Some(event) if event.name == "request" => heard += 1,
            other => break other.unwrap(),
        }
    };
    assert_eq!(last.name, "lagged");
    assert!(heard < 10_000);
    assert_eq!(stream.next().await, None);
    assert_eq!(app.scrape().await.value(DROPPED), 1.0);
    let (greeting, _) = admin.listen_since(Some(&greeting.id)).await;
    assert_eq!(greeting.name, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off_and_holds_nobody_up() {
    let app = live().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let id = create(&admin, MOSCOW).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stalled = socket.connect(app.public).await.unwrap();
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        admin.token.as_ref().unwrap()
    );
    stalled.write_all(head.as_bytes()).await.unwrap();
    let mut stream = admin.listen().await;
    eventually("both listen", async || (app.scrape().await.value(STREAMS) == 2.0).then_some(())).await;
    // More in all than the kernel takes for a client that does not.
    let (batches, batch) = (8, 5_000);
    let (mut heard, mut last) = (HashSet::new(), "1".to_owned());
    for n in 1..=batches {
        let events = format!(
            "INSERT INTO request_events (request_id, at, kind)
             SELECT {id}, '2026-06-01T07:00:00Z', 'edited' FROM generate_series(1, {batch})"
        );
        app.database.execute(&events).await;
        while heard.len() < n * batch {
            match stream.next().await {
                Some(event) if event.name == "request" => {
                    heard.insert(event.data["id"].as_i64().unwrap());
                    last = event.id;
                }
                // On a busy machine the one that reads may be overtaken too.
                _ => stream = admin.listen_since(Some(&last)).await.1,
            }
        }
    }
    eventually("it is cut off", async || (app.scrape().await.value(STREAMS) == 1.0).then_some(())).await;
    assert!(app.scrape().await.value(DROPPED) >= 1.0);
    admin.move_to(id, json!({ "to": "no_answer" })).await.expect(200);
    assert_eq!(stream.until(id, "transition").await.last().unwrap().name, "request");
    // What was on its way is all it gets.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stalled.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(rest.len() < 10_000_000, "{}", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_and_does_not_read_is_closed() {
    let mut config = config();
    config.http.stall_timeout_ms = 500;
    let app = TestApp::start_with(config).await;
    let mut client = TcpSocket::new_v4().unwrap().connect(app.public).await.unwrap();
    // Far more than the kernel takes for it.
    let asked = 300;
    client.write_all("GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(asked).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut answers = Vec::new();
    // Whether it ends or is reset depends on what was still on its way.
    let _ = client.read_to_end(&mut answers).await;
    let answered = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200").count();
    assert!((1..asked).contains(&answered), "{answered} answers, {} bytes", answers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_opens_ever_more_streams_loses_its_oldest() {
    let app = live().await;
    let (greedy, other) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Operator, &[MOSCOW]).await);
    let mut theirs = other.listen().await;
    let mut streams = std::collections::VecDeque::new();
    for _ in 0..18 {
        streams.push_back(greedy.listen().await);
    }
    for _ in 0..2 {
        assert!(end(streams.pop_front().unwrap()).await < 2.0);
    }
    eventually("sixteen and the other one", async || (app.scrape().await.value(STREAMS) == 17.0).then_some(())).await;
    let id = create(&other, MOSCOW).await;
    for stream in streams.iter_mut().chain([&mut theirs]) {
        assert_eq!(stream.next().await.unwrap().gist(), ("request", id, "created"));
    }
}
