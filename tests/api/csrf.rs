//! What a request with cookies must show before it changes anything: where it comes from, and the token of
//! `GET /api/v1/auth/csrf`.

use reqwest::Method;
use serde_json::json;
use switchboard::auth::Role;

use crate::support::{KAZAN, MOSCOW, PASSWORD, TestApp, browser::Browser, config};

const CSRF: &str = "/api/v1/auth/csrf";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/auth/me";
const REQUESTS: &str = "/api/v1/requests";
const SITE: &str = "sec-fetch-site";
const ORIGIN: &str = "origin";
const TOKEN: &str = "x-csrf-token";

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_request_with_a_cookie_must_come_from_our_own_page() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut browser = Browser::of(&app, &user).await;
    let token = browser.csrf_token.clone().unwrap();
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" });
    let create = |browser: &Browser, headers: &[(&str, &str)]| {
        let request = browser.bare(Method::POST, REQUESTS).header(TOKEN, &token).json(&body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    for headers in [
        &[][..],
        &[(SITE, "cross-site")],
        &[(SITE, "same-site")],
        &[(SITE, "none")],
        &[(ORIGIN, "https://evil.example")],
        &[(ORIGIN, "null")],
        &[(ORIGIN, "http://localhost:5173.evil.example"), (SITE, "cross-site")],
        &[(ORIGIN, "HTTP://LOCALHOST:5173")],
    ] {
        browser.send(create(&browser, headers)).await.problem(403, "cross_site");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 0);
    for path in [LOGOUT, REFRESH, LOGIN] {
        let request = browser.bare(Method::POST, path).header(TOKEN, &token);
        let request =
            if path == LOGIN { request.json(&json!({ "login": user.login, "password": PASSWORD })) } else { request };
        browser.send(request).await.problem(403, "cross_site");
    }
    // Reading changes nothing, and scripts elsewhere cannot see the answer.
    browser.send(browser.bare(Method::GET, ME)).await.expect(200);
    for headers in [
        &[(SITE, "same-origin")][..],
        &[(ORIGIN, "http://localhost:5173"), (SITE, "same-site")],
        &[(ORIGIN, "http://127.0.0.1:5173")],
    ] {
        browser.send(create(&browser, headers)).await.expect(201);
    }
    // A token is sent on purpose, never by a browser on its own.
    let machine =
        user.request(Method::POST, REQUESTS).header(SITE, "cross-site").header(ORIGIN, "https://evil.example");
    user.send(machine.json(&body)).await.expect(201);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_request_with_a_cookie_must_show_the_token_of_its_session() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut nobody = Browser::new(&app);
    nobody.get(CSRF).await.expect(200);
    let (mut browser, other) = (Browser::of(&app, &user).await, Browser::of(&app, &user).await);
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" });
    let own = browser.csrf_token.clone();
    let letter = |from: &str, to: &str| own.as_ref().map(|token| token.replacen(from, to, 1));
    let first = &own.as_ref().unwrap()[..1].to_owned();
    for token in [
        None,
        Some(String::new()),
        Some("ä".to_owned()),
        other.csrf_token.clone(),
        nobody.csrf_token.clone(),
        Some(browser.cookie("csrf").to_owned()),
        letter(first, if first == "A" { "B" } else { "A" }),
        own.as_ref().map(|token| format!("{token}=")),
        own.as_ref().map(|token| token[1..].to_owned()),
    ] {
        browser.csrf_token.clone_from(&token);
        browser.post(REQUESTS, body.clone()).await.problem(403, "csrf_token");
        browser.poke(LOGOUT).await.problem(403, "csrf_token");
        browser.get(ME).await.expect(200);
    }
    // The token alone does not do: it goes with a cookie that other sites can neither read nor set.
    browser.csrf_token = own;
    let cookie = browser.cookies.remove("csrf").unwrap();
    let problem = browser.post(REQUESTS, body.clone()).await.problem(403, "csrf_token");
    assert!(problem["detail"].as_str().unwrap().contains("cookie"), "{problem}");
    browser.cookies.insert("csrf".to_owned(), other.cookies["csrf"].clone());
    browser.post(REQUESTS, body.clone()).await.problem(403, "csrf_token");
    browser.cookies.insert("csrf".to_owned(), cookie);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 0);
    browser.post(REQUESTS, body).await.expect(201);
    // A page that is loaded anew asks for it, and gets the same.
    let token = browser.csrf_token.take();
    browser.get(CSRF).await.expect(200);
    assert_eq!(browser.csrf_token, token);
    // Who has no session hears of that first.
    browser.csrf_token = None;
    app.database.execute("UPDATE sessions SET revoked_at = now()").await;
    browser.poke(REQUESTS).await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_with_cookies_takes_a_token_and_changes_it() {
    let app = TestApp::start().await;
    let [user, other] = [app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Manager, &[KAZAN]).await];
    let mut browser = Browser::new(&app);
    let body = json!({ "login": user.login, "password": PASSWORD });
    // Or a page elsewhere could sign somebody in as somebody else.
    browser.post(LOGIN, body.clone()).await.problem(403, "csrf_token");
    browser.get(CSRF).await.expect(200);
    let (cookie, token) = (browser.cookies.clone(), browser.csrf_token.take());
    browser.post(LOGIN, body.clone()).await.problem(403, "csrf_token");
    assert_eq!(app.scrape().await.sum("auth_attempts_total"), 2.0, "the actors'");
    browser.csrf_token.clone_from(&token);
    browser.post(LOGIN, body.clone()).await.expect(200);
    assert_ne!(browser.csrf_token, token);
    assert_ne!(browser.cookies["csrf"], cookie["csrf"], "who planted one knows nothing of the new one");
    let first = browser.cookies.clone();

    // Somebody else signs in at the same browser, with the token of the session there is: that one ends.
    browser.sign_in(&other.login).await.expect(200);
    assert_eq!(browser.get(ME).await.expect(200)["id"], other.id);
    let mut thief = Browser::new(&app);
    thief.cookies = first;
    thief.get(ME).await.problem(401, "unauthenticated");
    // The token of no session is as good, as of a page that was opened before.
    let session = browser.cookies.clone();
    for (name, kept) in [("access", false), ("refresh", true)] {
        browser.cookies.clone_from(&session);
        let mut before = Browser::new(&app);
        before.cookies.insert("csrf".to_owned(), session["csrf"].clone());
        before.get(CSRF).await.expect(200);
        browser.csrf_token.clone_from(&before.csrf_token);
        if !kept {
            browser.cookies.remove(name);
        }
        browser.post(LOGIN, body.clone()).await.expect(200);
        thief.cookies.clone_from(&session);
        thief.get(ME).await.problem(401, "unauthenticated");
    }
    let open = "SELECT count(*) FROM sessions WHERE kind = 'cookie' AND revoked_at IS NULL";
    assert_eq!(app.database.count(open).await, 2, "of five sign-ins, one for each browser that knows no other");
    // A machine needs none of it, and its sign-in ends no session.
    let mut machine = body;
    machine["session"] = json!("token");
    let request = browser.bare(Method::POST, LOGIN).header(SITE, "cross-site").json(&machine);
    browser.client.send(request).await.expect(200);
    browser.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_whose_access_token_has_ended_gets_on_with_its_refresh_cookie() {
    let mut config = config();
    config.jwt.ttl_s = 900;
    let app = TestApp::start_with(config).await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut browser = Browser::of(&app, &user).await;
    app.clock.advance(chrono::TimeDelta::seconds(930));
    // The browser drops the cookie at its time; one with a slow clock still sends it.
    for drops in [false, true] {
        if drops {
            browser.cookies.remove("access");
        }
        browser.get(ME).await.problem(401, "unauthenticated");
        let token = browser.csrf_token.take();
        browser.get(CSRF).await.expect(200);
        assert_eq!(browser.csrf_token, token, "of the same session");
    }
    let refresh = browser.cookie("refresh").to_owned();
    let token = browser.csrf_token.replace("A".repeat(43));
    browser.poke(REFRESH).await.problem(403, "csrf_token");
    browser.csrf_token = token;
    let answer = browser.poke(REFRESH).await;
    assert!(!answer.text.contains("swr_") && !answer.text.contains("eyJ"), "{}", answer.text);
    let session = answer.expect(200);
    assert_eq!((&session["expires_at"], &session["user_id"]), (&json!("2026-06-01T07:30:30Z"), &json!(user.id)));
    assert_eq!(session["csrf_token"], json!(browser.csrf_token), "which is still the same");
    assert_ne!(browser.cookie("refresh"), refresh);
    assert_eq!(browser.get(ME).await.expect(200)["id"], user.id);
    browser.post(REQUESTS, json!({ "city": MOSCOW, "phone": "+79161234567" })).await.expect(201);
}
