//! `/api/v1/auth`: who gets in, with what, and how a session ends. What a flood of sign-ins meets is
//! in `login_limits`.

use chrono::TimeDelta;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use switchboard::auth::{Role, passwords};

use crate::support::{
    KAZAN, MOSCOW, PASSWORD, TestApp,
    actor::{Actor, Answer},
    config,
};

const LOGIN: &str = "/api/v1/auth/login";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/auth/me";
const REQUESTS: &str = "/api/v1/requests";

/// What a browser is told to keep.
struct Cookie {
    name: String,
    value: String,
    attributes: Vec<String>,
}

fn set_cookie(answer: &Answer) -> Cookie {
    let mut all = answer.headers.get_all("set-cookie").iter();
    let mut parts = all.next().expect("a Set-Cookie").to_str().unwrap().split("; ");
    assert!(all.next().is_none(), "one cookie");
    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
    let mut attributes: Vec<String> = parts.map(str::to_owned).collect();
    attributes.sort();
    Cookie { name: name.to_owned(), value: value.to_owned(), attributes }
}

async fn sign_in(client: &Actor, login: &str, password: &str) -> Answer {
    client.post(LOGIN, json!({ "login": login, "password": password, "session": "token" })).await
}

/// A browser with a session.
struct Browser {
    client: Actor,
    cookie: String,
}

impl Browser {
    async fn of(app: &TestApp, user: &Actor) -> Self {
        let client = app.stranger();
        let answer = client.post(LOGIN, json!({ "login": user.login, "password": PASSWORD })).await;
        let cookie = set_cookie(&answer);
        answer.expect(200);
        Self { client, cookie: format!("{}={}", cookie.name, cookie.value) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, path).header("cookie", &self.cookie)
    }

    async fn send(&self, request: RequestBuilder) -> Answer {
        self.client.send(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_session_is_a_cookie_that_scripts_cannot_read() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    // Cookies are what one gets without asking.
    for body in [
        json!({ "login": user.login, "password": PASSWORD }),
        json!({ "login": user.login, "password": PASSWORD, "session": "cookie" }),
    ] {
        let client = app.stranger();
        let answer = client.post(LOGIN, body).await;
        let cookie = set_cookie(&answer);
        // As in development, over plain HTTP on loopback.
        assert_eq!(cookie.name, "access");
        assert_eq!(cookie.attributes, ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict"]);
        assert!(cookie.value.len() > 100);
        assert!(!answer.text.contains(&cookie.value), "the token is in the body too");
        let session = answer.expect(200);
        assert_eq!(
            session,
            json!({ "user_id": user.id, "role": "operator", "expires_at": "2026-06-01T19:00:00Z" }),
            "and nothing else"
        );
        let me = client.request(Method::GET, ME).header("cookie", format!("theme=dark; access={}", cookie.value));
        assert_eq!(client.send(me).await.expect(200)["id"], user.id);
        let other_name = client.request(Method::GET, ME).header("cookie", format!("session={}", cookie.value));
        client.send(other_name).await.problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unless_told_otherwise_the_cookie_is_bound_to_the_host_and_to_tls() {
    let mut config = config();
    config.http.insecure_cookies = false;
    let app = TestApp::start_with(config).await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let client = app.stranger();
    let answer = client.post(LOGIN, json!({ "login": user.login, "password": PASSWORD })).await;
    let cookie = set_cookie(&answer);
    assert_eq!(cookie.name, "__Host-access");
    assert_eq!(cookie.attributes, ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict", "Secure"]);
    // A page of a sibling domain can plant a cookie without the prefix; it counts for nothing.
    for (name, status) in [("__Host-access", 200), ("access", 401)] {
        let me = client.request(Method::GET, ME).header("cookie", format!("{name}={}", cookie.value));
        assert_eq!(client.send(me).await.status, status, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_session_is_a_token_in_the_body() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Manager, &[KAZAN, MOSCOW]).await;
    let mut client = app.stranger();
    let answer = sign_in(&client, &user.login, PASSWORD).await;
    assert!(!answer.headers.contains_key("set-cookie"));
    let session = answer.expect(200);
    assert_eq!((&session["user_id"], &session["role"]), (&json!(user.id), &json!("manager")));
    client.get(ME).await.problem(401, "unauthenticated");
    client.token = session["access_token"].as_str().map(str::to_owned);
    let me = client.get(ME).await.expect(200);
    let expected = json!({
        "id": user.id, "login": user.login, "name": user.login, "role": "manager", "cities": [KAZAN, MOSCOW],
    });
    assert_eq!(me, expected);
    for header in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer x", "bearer a.b.c"] {
        let nobody = app.stranger();
        let answer = nobody.send(nobody.request(Method::GET, ME).header("authorization", header)).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        answer.problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_request_with_a_cookie_must_come_from_our_own_page() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let browser = Browser::of(&app, &user).await;
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" });
    let create = |headers: &[(&str, &str)]| {
        let request = browser.request(Method::POST, REQUESTS).json(&body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    let (site, origin) = ("sec-fetch-site", "origin");
    for headers in [
        &[][..],
        &[(site, "cross-site")],
        &[(site, "same-site")],
        &[(site, "none")],
        &[(origin, "https://evil.example")],
        &[(origin, "null")],
        &[(origin, "http://localhost:5173.evil.example"), (site, "cross-site")],
        &[(origin, "HTTP://LOCALHOST:5173")],
    ] {
        browser.send(create(headers)).await.problem(403, "cross_site");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 0);
    browser.send(browser.request(Method::POST, LOGOUT)).await.problem(403, "cross_site");
    // Reading changes nothing, and scripts elsewhere cannot see the answer.
    browser.get(ME).await.expect(200);
    for headers in [
        &[(site, "same-origin")][..],
        &[(origin, "http://localhost:5173"), (site, "same-site")],
        &[(origin, "http://127.0.0.1:5173")],
    ] {
        browser.send(create(headers)).await.expect(201);
    }
    // A token is sent on purpose, never by a browser on its own.
    let machine =
        user.request(Method::POST, REQUESTS).header(site, "cross-site").header(origin, "https://evil.example");
    user.send(machine.json(&body)).await.expect(201);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 4);
}

/// An answer as sent, without what names the single occurrence.
fn without_trace_id(answer: &Answer) -> String {
    let trace_id = answer.json()["trace_id"].as_str().unwrap_or_default().to_owned();
    let text = if trace_id.is_empty() { answer.text.clone() } else { answer.text.replace(&trace_id, "") };
    let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    headers.sort();
    format!("{} {headers:?} {text}", answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_unknown_and_disabled_are_one_answer() {
    let app = TestApp::start().await;
    let (user, disabled) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Operator, &[MOSCOW]).await);
    app.database.execute(&format!("UPDATE users SET status = 'disabled' WHERE id = {}", disabled.id)).await;
    let client = app.stranger();
    let wrong = sign_in(&client, &user.login, "wrong horse battery").await;
    let unknown = sign_in(&client, "nobody", PASSWORD).await;
    let disabled = sign_in(&client, &disabled.login, PASSWORD).await;
    assert_eq!(without_trace_id(&wrong), without_trace_id(&unknown));
    assert_eq!(without_trace_id(&wrong), without_trace_id(&disabled));
    assert!(!wrong.headers.contains_key("set-cookie"));
    wrong.problem(401, "bad_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_this_session_at_once_and_no_other() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let other_device = Actor::sign_in(&app.url(""), user.id, &user.login).await;
    let browser = Browser::of(&app, &user).await;
    let out = user.send(user.request(Method::POST, LOGOUT)).await;
    assert_eq!(out.status, 204);
    user.get(ME).await.problem(401, "unauthenticated");
    user.send(user.request(Method::POST, LOGOUT)).await.problem(401, "unauthenticated");
    other_device.get(ME).await.expect(200);
    browser.get(ME).await.expect(200);

    let out = browser.send(browser.request(Method::POST, LOGOUT).header("sec-fetch-site", "same-origin")).await;
    assert_eq!(out.status, 204);
    let cookie = set_cookie(&out);
    assert_eq!((cookie.name.as_str(), cookie.value.as_str()), ("access", ""));
    assert!(cookie.attributes.contains(&"Max-Age=0".to_owned()), "the browser forgets it: {:?}", cookie.attributes);
    // Whoever kept a copy has nothing.
    browser.get(ME).await.problem(401, "unauthenticated");
    other_device.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_changes_bites_on_the_next_request() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let set =
        async |change: &str| app.database.execute(&format!("UPDATE users SET {change} WHERE id = {}", user.id)).await;
    user.get("/api/v1/calls").await.expect(200);
    set("role = 'master'").await;
    user.get("/api/v1/calls").await.problem(403, "forbidden");
    assert_eq!(user.get(ME).await.expect(200)["role"], "master");
    set("role = 'operator'").await;

    let request = user.create_request(MOSCOW, "+79161234567").await;
    let path = format!("{REQUESTS}/{}", request["id"]);
    app.database
        .execute(&format!(
            "UPDATE user_cities SET city_id = (SELECT id FROM cities WHERE code = 'kazan') WHERE user_id = {}",
            user.id
        ))
        .await;
    user.get(&path).await.problem(404, "not_found");
    assert_eq!(user.get(ME).await.expect(200)["cities"], json!([KAZAN]));

    set("status = 'disabled'").await;
    user.get(ME).await.problem(401, "unauthenticated");
    set("status = 'active'").await;
    user.get(ME).await.expect(200);
    let second = Actor::sign_in(&app.url(""), user.id, &user.login).await;
    set("token_version = token_version + 1").await;
    user.get(ME).await.problem(401, "unauthenticated");
    second.get(ME).await.problem(401, "unauthenticated");
    // The next sign-in is of the new version.
    Actor::sign_in(&app.url(""), user.id, &user.login).await.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_time_is_over() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let browser = Browser::of(&app, &user).await;
    app.clock.advance(TimeDelta::hours(12) - TimeDelta::seconds(1));
    user.get(ME).await.expect(200);
    browser.get(ME).await.expect(200);
    app.clock.advance(TimeDelta::seconds(1));
    user.get(ME).await.problem(401, "unauthenticated");
    browser.get(ME).await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_case_matters_in_passwords_and_not_in_logins() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let client = app.stranger();
    assert_eq!(sign_in(&client, &user.login.to_uppercase(), PASSWORD).await.expect(200)["user_id"], user.id);
    sign_in(&client, &user.login, &PASSWORD.to_uppercase()).await.problem(401, "bad_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_has_up_to_128_characters_and_the_last_one_counts() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let client = app.stranger();
    let long = format!("{}ё", "щ".repeat(127));
    let hash = passwords::hash(&app.app.config.password.pepper, 4, &long).unwrap();
    app.database.execute(&format!("UPDATE users SET password_hash = '{hash}' WHERE id = {}", user.id)).await;
    sign_in(&client, &user.login, &long).await.expect(200);
    sign_in(&client, &user.login, &"щ".repeat(128)).await.problem(401, "bad_credentials");
    let too_long = sign_in(&client, &user.login, &format!("{long}ё")).await.problem(422, "invalid");
    assert_eq!(too_long["errors"][0]["pointer"], "/password");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_cannot_be_right_says_which_field() {
    let app = TestApp::start().await;
    let good = json!({ "login": "somebody", "password": PASSWORD });
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let cases = [
        (with("login", json!("")), "/login"),
        (with("login", json!("x".repeat(65))), "/login"),
        (with("login", json!("a\0b")), "/login"),
        (with("login", json!(7)), "/login"),
        (with("password", json!("")), "/password"),
        (with("password", json!(null)), "/password"),
        (with("session", json!("forever")), "/session"),
        (with("role", json!("admin")), "/role"),
    ];
    for (body, pointer) in cases {
        let answer = app.stranger().post(LOGIN, body.clone()).await.problem(422, "invalid");
        assert_eq!(answer["errors"][0]["pointer"], pointer, "{body}");
    }
    assert_eq!(app.scrape().await.sum("auth_attempts_total"), 0.0, "these are no attempts");
}
