//! `/api/v1/auth`: who gets in, with what, and signing out. How a session goes on is in `sessions`, what a
//! page must show in `csrf`, what a flood of sign-ins meets in `login_limits`.

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::{Role, passwords};

use crate::support::{
    KAZAN, MOSCOW, PASSWORD, TestApp,
    actor::{Actor, Answer},
    browser::{Browser, set_cookies},
    config,
};

const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const CSRF: &str = "/api/v1/auth/csrf";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/auth/me";
const REQUESTS: &str = "/api/v1/requests";

async fn sign_in(client: &Actor, login: &str, password: &str) -> Answer {
    client.post(LOGIN, json!({ "login": login, "password": password, "session": "token" })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_session_is_cookies_that_scripts_cannot_read() {
    let mut config = config();
    config.jwt.ttl_s = 900;
    let app = TestApp::start_with(config).await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    // Cookies are what one gets without asking.
    for body in [
        json!({ "login": user.login, "password": PASSWORD }),
        json!({ "login": user.login, "password": PASSWORD, "session": "cookie" }),
    ] {
        let mut browser = Browser::new(&app);
        let answer = browser.get(CSRF).await;
        let planted = set_cookies(&answer);
        assert_eq!(planted["csrf"].attributes, ["HttpOnly", "Path=/", "SameSite=Strict"]);
        let answer = browser.post(LOGIN, body).await;
        let cookies = set_cookies(&answer);
        // As in development, over plain HTTP on loopback.
        assert_eq!(cookies.keys().collect::<Vec<_>>(), ["access", "csrf", "refresh"]);
        assert_eq!(cookies["access"].attributes, ["HttpOnly", "Max-Age=900", "Path=/", "SameSite=Strict"]);
        assert_eq!(cookies["csrf"].attributes, ["HttpOnly", "Path=/", "SameSite=Strict"]);
        let refresh = ["HttpOnly", "Max-Age=604800", "Path=/api/v1/auth", "SameSite=Strict"];
        assert_eq!(cookies["refresh"].attributes, refresh);
        assert!(cookies["access"].value.len() > 100 && cookies["refresh"].value.starts_with("swr_"));
        for cookie in cookies.values() {
            assert!(!answer.text.contains(&cookie.value), "{} is in the body too", cookie.name);
        }
        let session = answer.expect(200);
        assert_eq!(
            session,
            json!({
                "user_id": user.id, "role": "operator", "expires_at": "2026-06-01T07:15:00Z",
                "refresh_expires_at": "2026-06-08T07:00:00Z", "csrf_token": browser.csrf_token,
            }),
            "and nothing else"
        );
        let access = &cookies["access"].value;
        let me = app.stranger().request(Method::GET, ME).header("cookie", format!("theme=dark; access={access}"));
        assert_eq!(app.stranger().send(me).await.expect(200)["id"], user.id);
        let other_name = app.stranger().request(Method::GET, ME).header("cookie", format!("session={access}"));
        app.stranger().send(other_name).await.problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unless_told_otherwise_cookies_are_bound_to_tls_and_to_the_host() {
    let mut config = config();
    config.http.insecure_cookies = false;
    let app = TestApp::start_with(config).await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut browser = Browser::new(&app);
    let planted = set_cookies(&browser.get(CSRF).await);
    let answer = browser.sign_in(&user.login).await;
    let cookies = set_cookies(&answer);
    assert_eq!(cookies.keys().collect::<Vec<_>>(), ["__Host-access", "__Host-csrf", "__Secure-refresh"]);
    for cookie in cookies.values().chain(planted.values()) {
        for attribute in ["HttpOnly", "SameSite=Strict", "Secure"] {
            assert!(cookie.attributes.contains(&attribute.to_owned()), "{cookie:?}");
        }
        assert!(!cookie.attributes.iter().any(|attribute| attribute.starts_with("Domain")), "{cookie:?}");
    }
    // A page of a sibling domain can plant a cookie without the prefix; it counts for nothing.
    let stranger = app.stranger();
    for (name, status) in [("__Host-access", 200), ("access", 401)] {
        let me =
            stranger.request(Method::GET, ME).header("cookie", format!("{name}={}", browser.cookie("__Host-access")));
        assert_eq!(stranger.send(me).await.status, status, "{name}");
    }
    assert_eq!(browser.poke(REFRESH).await.status, 200);
    let refresh = format!("refresh={}", browser.cookie("__Secure-refresh"));
    let unprefixed = stranger.request(Method::POST, REFRESH).header("sec-fetch-site", "same-origin");
    stranger.send(unprefixed.header("cookie", refresh)).await.problem(401, "unauthenticated");
    let forgotten = set_cookies(&browser.poke(LOGOUT).await);
    assert_eq!(forgotten.keys().collect::<Vec<_>>(), ["__Host-access", "__Host-csrf", "__Secure-refresh"]);
    assert!(browser.cookies.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_cookies_of_one_name_neither_counts() {
    let app = TestApp::start().await;
    let (user, other) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Manager, &[KAZAN]).await);
    let (browser, planted) = (Browser::of(&app, &user).await, Browser::of(&app, &other).await);
    for (method, path, name) in [(Method::GET, ME, "access"), (Method::POST, REFRESH, "refresh")] {
        let [own, planted] = [&browser, &planted].map(|browser| format!("{name}={}", browser.cookie(name)));
        for cookies in [format!("{own}; {planted}"), format!("{planted}; {own}"), format!("{own}; a=b;{own}")] {
            let request = browser.client.request(method.clone(), path).header("sec-fetch-site", "same-origin");
            browser.client.send(request.header("cookie", cookies)).await.problem(401, "unauthenticated");
        }
        // HTTP/2 may send each in a line of its own.
        let lines = browser.client.request(method, path).header("cookie", own).header("cookie", planted);
        browser.client.send(lines).await.problem(401, "unauthenticated");
    }
    let mut browser = browser;
    browser.poke(REFRESH).await.expect(200);
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
    client.take(&session);
    let me = client.get(ME).await.expect(200);
    let expected = json!({
        "id": user.id, "login": user.login, "name": user.login, "role": "manager", "cities": [KAZAN, MOSCOW],
    });
    assert_eq!(me, expected);
    // A header is what counts: the cookies of a signed-in browser do not make up for it.
    let browser = Browser::of(&app, &user).await;
    let refresh_token = format!("Bearer {}", client.refresh_token.as_ref().unwrap());
    for header in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer x", "bearer a.b.c", "", &refresh_token] {
        let answer = app.stranger().send(browser.bare(Method::GET, ME).header("authorization", header)).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        answer.problem(401, "unauthenticated");
    }
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
    let mut browser = Browser::of(&app, &user).await;
    let out = user.send(user.request(Method::POST, LOGOUT)).await;
    assert_eq!(out.status, 204);
    user.get(ME).await.problem(401, "unauthenticated");
    user.send(user.request(Method::POST, LOGOUT)).await.expect(204);
    other_device.get(ME).await.expect(200);
    browser.get(ME).await.expect(200);

    let copies = browser.cookies.clone();
    let out = browser.poke(LOGOUT).await;
    assert_eq!(out.status, 204);
    for cookie in set_cookies(&out).values() {
        let attributes = &cookie.attributes;
        assert!(cookie.value.is_empty() && attributes.contains(&"Max-Age=0".to_owned()), "{cookie:?}");
        let path = if cookie.name == "refresh" { "Path=/api/v1/auth" } else { "Path=/" };
        assert!(attributes.contains(&path.to_owned()), "else the browser keeps it: {cookie:?}");
    }
    assert!(browser.cookies.is_empty(), "the browser forgets them");
    browser.cookies = copies;
    // Whoever kept a copy has nothing.
    browser.get(ME).await.problem(401, "unauthenticated");
    browser.poke(REFRESH).await.problem(401, "unauthenticated");
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
