//! The limits of addresses, users and webhook providers, and what answers tell about them.

use reqwest::Method;
use serde_json::json;
use switchboard::{auth::Role, config::Config};

use crate::support::{
    MOSCOW, MOSCOW_LINE, PASSWORD, TestApp,
    actor::Answer,
    config,
    telephony::{Call, form},
};

const ME: &str = "/api/v1/auth/me";
const ORIGIN: &str = "http://localhost:5173";

fn limited(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

fn fields(answer: &Answer) -> (&str, &str) {
    (answer.header("ratelimit-policy"), answer.header("ratelimit"))
}

/// The `r` of a limit in a `RateLimit` field.
fn remaining(answer: &Answer, limit: &str) -> u32 {
    let item = answer.header("ratelimit").split(", ").find(|item| item.starts_with(&format!("\"{limit}\";"))).unwrap();
    item.split(';').find_map(|part| part.strip_prefix("r=")).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_how_the_limits_stand_that_were_asked() {
    let app = TestApp::start_with(limited(|config| {
        config.limits.ip = "100/h".parse().unwrap();
        config.limits.user = "50/h burst 60".parse().unwrap();
    }))
    .await;
    let client = app.stranger();
    let body = json!({ "login": "nobody", "password": PASSWORD, "session": "token" });
    let first = client.post("/api/v1/auth/login", body).await;
    let policy = "\"ip\";q=100;w=3600, \"login_ip\";q=10;w=60";
    assert_eq!(fields(&first), (policy, "\"ip\";r=99;t=36, \"login_ip\";r=9;t=6"));
    first.problem(401, "bad_credentials");
    let missing = client.get("/nothing").await;
    assert_eq!((missing.header("ratelimit-policy"), remaining(&missing, "ip")), ("\"ip\";q=100;w=3600", 98));
    missing.problem(404, "not_found");

    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let signed_in = user.get(ME).await;
    assert_eq!(signed_in.header("ratelimit-policy"), "\"ip\";q=100;w=3600, \"user\";q=60;w=4320");
    assert!(signed_in.header("ratelimit").ends_with(", \"user\";r=59;t=72"), "{signed_in:?}");
    assert_eq!(remaining(&user.get(ME).await, "user"), 58);

    let event = Call::new("one", "79161234567", MOSCOW_LINE).appeared();
    assert_eq!(fields(&client.deliver(&event).await), ("\"webhook\";q=6000;w=60", "\"webhook\";r=5999;t=1"));
    assert_eq!(fields(&client.get("/health/live").await), ("", ""), "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_over_its_limit_is_turned_away_before_anything_is_looked_at() {
    let app = TestApp::start_with(limited(|config| config.limits.ip = "3/h".parse().unwrap())).await;
    let client = app.stranger();
    for path in ["/nothing", ME, "/openapi.json"] {
        assert_ne!(client.get(path).await.status, 429, "{path}");
    }
    let before = app.scrape().await;
    let paths =
        ["/nothing", ME, "/openapi.json", "/health/nothing", "/health/detailed", "/api/v1/webhooks/telephony/mango"];
    for path in paths {
        let turned_away = client.send(client.request(Method::GET, path).header("origin", ORIGIN)).await;
        let seconds: u64 = turned_away.header("retry-after").parse().unwrap();
        assert!((1_190..=1_200).contains(&seconds), "{seconds}");
        assert_eq!(remaining(&turned_away, "ip"), 0);
        // A page may read that, and a browser is as careful as ever.
        assert_eq!(turned_away.header("access-control-allow-origin"), ORIGIN);
        assert_eq!(turned_away.header("x-content-type-options"), "nosniff");
        turned_away.problem(429, "rate_limited");
    }
    let body = json!({ "login": "nobody", "password": PASSWORD, "session": "token" });
    client.post("/api/v1/auth/login", body).await.problem(429, "rate_limited");
    let preflight = client.request(Method::OPTIONS, ME).header("origin", ORIGIN);
    client.send(preflight.header("access-control-request-method", "GET")).await.problem(429, "rate_limited");
    for probe in ["/health/live", "/health/ready"] {
        client.get(probe).await.expect(200);
    }
    client.deliver(&Call::new("one", "79161234567", MOSCOW_LINE).appeared()).await.expect(200);
    let changes = app.scrape().await.changes_since(&before);
    assert_eq!(changes["rate_limited_total{scope=\"ip\"}"], 8.0);
    let asked: Vec<&String> = changes.keys().filter(|series| series.contains("operation=\"user")).collect();
    assert!(asked.is_empty(), "{asked:?}");
    app.stranger().get("/nothing").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_one_limit_wherever_they_are() {
    let app = TestApp::start_with(limited(|config| config.limits.user = "3/h".parse().unwrap())).await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let other = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut elsewhere = user.at(&app.url(""));
    elsewhere.address = app.stranger().address;
    for client in [&user, &elsewhere, &user] {
        client.get(ME).await.expect(200);
    }
    for client in [&user, &elsewhere] {
        client.get(ME).await.problem(429, "rate_limited");
    }
    other.get(ME).await.expect(200);
    assert_eq!(app.scrape().await.value("rate_limited_total{scope=\"user\"}"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_has_a_limit_of_its_own_that_forgers_cannot_use_up() {
    let app = TestApp::start_with(limited(|config| {
        config.limits.ip = "3/h".parse().unwrap();
        config.limits.webhook = "2/h".parse().unwrap();
    }))
    .await;
    let forger = app.stranger();
    let event = |n: u32| Call::new(&format!("entry {n}"), "79161234567", MOSCOW_LINE).appeared();
    for _ in 0..3 {
        forger.deliver_raw("", &form(&event(1).json, "guessed")).await.problem(401, "bad_signature");
    }
    forger.deliver_raw("", &form(&event(1).json, "guessed")).await.problem(429, "rate_limited");
    forger.post("/api/v1/webhooks/telephony/nobody", json!({})).await.problem(429, "rate_limited");
    // Behind the same address the provider gets through, until it has used up its own.
    for n in 1..=2 {
        forger.deliver(&event(n)).await.expect(200);
    }
    let turned_away = app.stranger().deliver(&event(3)).await;
    let seconds: u64 = turned_away.header("retry-after").parse().unwrap();
    assert!((1_790..=1_800).contains(&seconds), "{seconds}");
    turned_away.problem(429, "rate_limited");
    assert_eq!(app.database.count("SELECT count(*) FROM webhook_events").await, 2, "it is sent again later");
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("rate_limited_total{scope=\"webhook\"}"), 1.0);
    assert_eq!(scrape.value("rate_limited_total{scope=\"ip\"}"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_repeats_a_delivery_uses_up_what_their_own_address_may_do() {
    let app = TestApp::start_with(limited(|config| {
        config.limits.ip = "3/h".parse().unwrap();
        config.limits.webhook = "2/h".parse().unwrap();
    }))
    .await;
    let (pbx, eavesdropper) = (app.stranger(), app.stranger());
    let event = |n: u32| Call::new(&format!("entry {n}"), "79161234567", MOSCOW_LINE).appeared();
    assert_eq!(pbx.deliver(&event(1)).await.expect(200)["status"], "accepted");
    for _ in 0..3 {
        let repeated = eavesdropper.deliver(&event(1)).await;
        assert!(fields(&repeated).0.starts_with("\"ip\";"), "{repeated:?}");
        assert_eq!(repeated.expect(200)["status"], "duplicate");
    }
    eavesdropper.deliver(&event(1)).await.problem(429, "rate_limited");
    assert_eq!(pbx.deliver(&event(2)).await.expect(200)["status"], "accepted");
}
