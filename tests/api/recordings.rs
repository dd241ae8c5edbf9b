//! Recordings: noted by the inbox, fetched from a provider that has its moods, and listened to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use serde_json::{Value, json};
use switchboard::{
    auth::Role,
    calls::{
        providers::mango::{Credentials, sign},
        recordings,
    },
    config::Config,
};
use url::form_urlencoded;

use crate::support::{
    KAZAN, MANGO_KEY, MANGO_SALT, MOSCOW, MOSCOW_LINE, TestApp,
    actor::Actor,
    config, eventually,
    telephony::{Call, Event},
};

/// What the provider does with a request, by path and turn.
#[derive(Clone, Debug)]
enum Mood {
    Gives(Vec<u8>),
    Says(u16),
    Sends(String),
    /// Announces so many bytes and keeps silent.
    Stalls,
}

/// A provider that serves recordings; what it was asked is kept.
struct Pbx {
    address: SocketAddr,
    script: Arc<Mutex<Vec<Mood>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    method: Method,
    path: String,
    form: Vec<(String, String)>,
}

type Shared = (Arc<Mutex<Vec<Mood>>>, Arc<Mutex<Vec<Asked>>>);

async fn answer(State((script, asked)): State<Shared>, method: Method, uri: Uri, body: Bytes) -> Response {
    let form = form_urlencoded::parse(&body).into_owned().collect();
    asked.lock().unwrap().push(Asked { method, path: uri.path().to_owned(), form });
    let mood = {
        let mut script = script.lock().unwrap();
        // The last mood stays.
        if script.len() > 1 { script.remove(0) } else { script[0].clone() }
    };
    match mood {
        Mood::Gives(content) => content.into_response(),
        Mood::Says(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Mood::Sends(location) => (StatusCode::FOUND, [("location", location)]).into_response(),
        Mood::Stalls => std::future::pending().await,
    }
}

impl Pbx {
    async fn start(script: &[Mood]) -> Self {
        let (script, asked): Shared = (Arc::new(Mutex::new(script.to_vec())), Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state((script.clone(), asked.clone()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, script, asked }
    }

    fn config(&self) -> Config {
        let mut config = config();
        config.mango.base_url = format!("http://{}/vpbx/", self.address);
        config.recordings.max_attempts = 3;
        config.recordings.timeout_ms = 2_000;
        config
    }

    async fn app(&self) -> TestApp {
        TestApp::start_with(self.config()).await
    }

    fn becomes(&self, script: &[Mood]) {
        *self.script.lock().unwrap() = script.to_vec();
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn mp3(bytes: usize) -> Vec<u8> {
    let mut content = b"ID3\x03\0\0\0\0\0\0".to_vec();
    content.extend((content.len()..bytes).map(|n| u8::try_from(n % 251).unwrap()));
    content
}

/// The provider tells that it has a recording.
fn ready(entry: &str, recording: &str, after: i64) -> Event {
    let at = crate::support::morning().timestamp() + after;
    let json = json!({ "entry_id": entry, "call_id": "leg", "recording_id": recording, "timestamp": at });
    Event { kind: "record/added", json: json.to_string() }
}

async fn deliver(app: &TestApp, events: &[Event]) {
    app.stranger().deliver_all(events).await;
    app.drain_inbox().await;
}

/// One round of the job.
async fn fetch(app: &TestApp) {
    let mut db = app.app.db.connect_alone().await.unwrap();
    recordings::fetch_all(&app.app, &mut db).await.unwrap();
}

/// A call in Moscow with a recording that is yet to be fetched; where it will be.
async fn recorded(app: &TestApp, operator: &Actor) -> String {
    deliver(app, &[Call::new("entry", "79161234567", MOSCOW_LINE).appeared(), ready("entry", "rec", 60)]).await;
    format!("/api/v1/calls/{}/recording", operator.all("/api/v1/calls").await[0]["id"])
}

/// What the database holds of the one recording: its status, how often it was tried, and the error.
async fn state(app: &TestApp) -> (String, i32, Option<String>) {
    let mut connection = app.database.connect().await;
    sqlx::query_as("SELECT status, attempts, error FROM recordings").fetch_one(&mut connection).await.unwrap()
}

fn tries(outcome: &str) -> String {
    format!("switchboard_recordings_total{{outcome=\"{outcome}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_fetched_at_the_second_try_and_listened_to() {
    let content = mp3(200_000);
    let pbx = Pbx::start(&[Mood::Says(500), Mood::Gives(content.clone())]).await;
    let app = pbx.app().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let path = recorded(&app, &operator).await;
    let pending = operator.get(&path).await;
    assert_eq!(pending.header("retry-after"), "5");
    pending.problem(409, "conflict");
    fetch(&app).await;
    let failed = "the provider answered 500 Internal Server Error".to_owned();
    assert_eq!(state(&app).await, ("pending".to_owned(), 1, Some(failed)));
    fetch(&app).await;
    assert_eq!(pbx.asked().len(), 1, "it is given time");
    app.clock.advance(TimeDelta::seconds(31));
    fetch(&app).await;
    assert_eq!(state(&app).await, ("stored".to_owned(), 2, None));
    let scrape = app.scrape().await;
    assert_eq!((scrape.value(&tries("postponed")), scrape.value(&tries("stored"))), (1.0, 1.0));

    // It is signed as the provider wants it.
    let asked = pbx.asked().remove(1);
    assert_eq!((asked.method, asked.path.as_str()), (Method::POST, "/vpbx/queries/recording/post/"));
    let fields: std::collections::HashMap<_, _> = asked.form.into_iter().collect();
    let credentials = Credentials { api_key: MANGO_KEY.to_owned(), api_salt: MANGO_SALT.to_owned() };
    assert_eq!(fields["vpbx_api_key"], MANGO_KEY);
    assert_eq!(fields["sign"], sign(&credentials, &fields["json"]));
    assert_eq!(
        serde_json::from_str::<Value>(&fields["json"]).unwrap(),
        json!({ "recording_id": "rec", "action": "download" })
    );

    let call = operator.get(path.trim_end_matches("/recording")).await.expect(200);
    let listed = &call["recordings"][0];
    let expected = json!({ "id": listed["id"], "status": "stored", "at": "2026-06-01T07:01:00Z", "mime": "audio/mpeg", "bytes": 200_000 });
    assert_eq!(call["recordings"], json!([expected]));
    let whole = operator.request(Method::GET, &path).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), &whole.headers()["content-type"]), (200, &"audio/mpeg".parse().unwrap()));
    let disposition = whole.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(disposition.contains(&format!("call-{}-{}.mp3", call["id"], listed["id"])), "{disposition}");
    assert_eq!(whole.bytes().await.unwrap(), content);
    let part = operator.request(Method::GET, &path).header("range", "bytes=10-19").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), content[10..20]);
    app.actor(Role::Operator, &[KAZAN]).await.get(&path).await.problem(404, "not_found");
    app.actor(Role::Master, &[MOSCOW]).await.get(&path).await.problem(403, "forbidden");
    fetch(&app).await;
    assert_eq!(pbx.asked().len(), 2, "once it is there, nobody asks again");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_without_our_signature_and_not_anywhere() {
    let content = mp3(2_000);
    let pbx = Pbx::start(&[]).await;
    let own = |path: &str| Mood::Sends(format!("http://{}{path}", pbx.address));
    pbx.becomes(&[own("/one"), Mood::Sends("/two".to_owned()), own("/three"), Mood::Gives(content)]);
    let app = pbx.app().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let path = recorded(&app, &operator).await;
    fetch(&app).await;
    assert_eq!(state(&app).await, ("stored".to_owned(), 1, None));
    let asked = pbx.asked();
    let paths: Vec<&str> = asked.iter().map(|asked| asked.path.as_str()).collect();
    assert_eq!(paths[1..], ["/one", "/two", "/three"]);
    assert!(asked[1..].iter().all(|asked| asked.method == Method::GET && asked.form.is_empty()));
    assert_eq!(operator.request(Method::GET, &path).send().await.unwrap().status(), 200);

    let inside = Pbx::start(&[Mood::Gives(mp3(2_000))]).await;
    for (n, (script, error)) in [
        (vec![own("/1"), own("/2"), own("/3"), own("/4")], "too many redirects"),
        (vec![Mood::Sends(format!("http://{}/metrics", inside.address))], "a redirect to where we do not go"),
        (vec![Mood::Sends("file:///etc/passwd".to_owned())], "a redirect to where we do not go"),
    ]
    .into_iter()
    .enumerate()
    {
        app.database.execute("DELETE FROM recordings").await;
        pbx.becomes(&script);
        deliver(&app, &[ready("entry", &format!("elsewhere{n}"), 0)]).await;
        fetch(&app).await;
        assert_eq!(state(&app).await, ("pending".to_owned(), 1, Some(error.to_owned())));
    }
    assert!(inside.asked().is_empty(), "what listens inside is not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_works_is_given_up_and_leaves_nothing() {
    let page = b"<!DOCTYPE html><title>Sign in</title>".to_vec();
    let picture = crate::support::files::png(2_000);
    for (mood, error) in [
        (Mood::Says(503), "the provider answered 503 Service Unavailable"),
        (Mood::Gives(page), "its type is not accepted"),
        (Mood::Gives(picture), "its type is not accepted"),
        (Mood::Gives(vec![]), "it is empty"),
    ] {
        let pbx = Pbx::start(&[mood]).await;
        let app = pbx.app().await;
        let operator = app.actor(Role::Operator, &[MOSCOW]).await;
        let path = recorded(&app, &operator).await;
        for _ in 0..5 {
            fetch(&app).await;
            app.clock.advance(TimeDelta::hours(1));
        }
        assert_eq!(pbx.asked().len(), 3, "as often as the setting says");
        assert_eq!(state(&app).await, ("failed".to_owned(), 3, Some(error.to_owned())));
        let scrape = app.scrape().await;
        assert_eq!((scrape.value(&tries("postponed")), scrape.value(&tries("failed"))), (2.0, 1.0));
        let problem = operator.get(&path).await.problem(404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains("could not be fetched"), "{problem}");
        eventually("nothing is left on the disk", async || app.data.files().is_empty().then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_not_tried_again() {
    for (mood, status, outcome) in [
        (Mood::Says(404), "gone", "gone"),
        (Mood::Says(410), "gone", "gone"),
        (Mood::Gives(mp3(50_001)), "failed", "failed"),
    ] {
        let pbx = Pbx::start(&[mood]).await;
        let mut config = pbx.config();
        config.recordings.max_bytes = 50_000;
        let app = TestApp::start_with(config).await;
        let operator = app.actor(Role::Operator, &[MOSCOW]).await;
        let path = recorded(&app, &operator).await;
        fetch(&app).await;
        app.clock.advance(TimeDelta::hours(1));
        fetch(&app).await;
        assert_eq!((pbx.asked().len(), state(&app).await.0.as_str()), (1, status));
        assert_eq!(app.scrape().await.value(&tries(outcome)), 1.0);
        operator.get(&path).await.problem(404, "not_found");
        eventually("nothing is left on the disk", async || app.data.files().is_empty().then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_keeps_silent_is_given_up_on_in_time() {
    let pbx = Pbx::start(&[Mood::Stalls]).await;
    let mut config = pbx.config();
    config.recordings.timeout_ms = 300;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    recorded(&app, &operator).await;
    // Many, so that one after the other would show.
    let more: Vec<Event> = (0..3).map(|n| ready("entry", &format!("rec{n}"), n)).collect();
    deliver(&app, &more).await;
    let started = std::time::Instant::now();
    fetch(&app).await;
    assert!(started.elapsed().as_millis() < 1_000, "{:?}", started.elapsed());
    assert_eq!(app.database.count("SELECT count(*) FROM recordings WHERE error LIKE 'it took longer%'").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_have_several_and_learn_of_them_before_it_is_known() {
    let pbx = Pbx::start(&[Mood::Gives(mp3(1_000)), Mood::Gives(mp3(1_000)), Mood::Says(404)]).await;
    let app = pbx.app().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    deliver(&app, &[ready("entry", "first", 10), ready("other", "stray", 0)]).await;
    fetch(&app).await;
    deliver(&app, &[Call::new("entry", "79161234567", MOSCOW_LINE).appeared(), ready("entry", "first", 10)]).await;
    let call = operator.all("/api/v1/calls").await.remove(0);
    assert_eq!(call["recordings"].as_array().unwrap().len(), 1, "told twice, noted once: {call}");
    let path = format!("/api/v1/calls/{}/recording", call["id"]);
    let bytes = async |path: &str| operator.request(Method::GET, path).send().await.unwrap().content_length().unwrap();
    assert_eq!(bytes(&path).await, 1_000);
    deliver(&app, &[ready("entry", "second", 20)]).await;
    assert_eq!(bytes(&path).await, 1_000, "the newest that can be listened to");
    let call = operator.all("/api/v1/calls").await.remove(0);
    let [first, second] = &call["recordings"].as_array().unwrap()[..] else { panic!("{call}") };
    let of = |recording: &Value| format!("{path}?recording={}", recording["id"]);
    operator.get(&of(second)).await.problem(409, "conflict");
    fetch(&app).await;
    operator.get(&of(second)).await.problem(404, "not_found");
    assert_eq!(bytes(&of(first)).await, 1_000);
    let stray = app.database.count("SELECT id FROM recordings WHERE call_key = 'other'").await;
    operator.get(&of(&json!({ "id": stray }))).await.problem(404, "not_found");
    operator.get(&format!("{path}?recording=x")).await.problem(422, "invalid");
    deliver(&app, &[Call::new("quiet", "79161234568", MOSCOW_LINE).appeared()]).await;
    let quiet = operator.all("/api/v1/calls").await.remove(0);
    operator.get(&format!("/api/v1/calls/{}/recording", quiet["id"])).await.problem(404, "not_found");
}
