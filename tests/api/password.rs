//! `POST /api/v1/auth/password`.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{
    MOSCOW, PASSWORD, TestApp,
    actor::{Actor, Answer},
    browser::{Browser, Cookie, set_cookies},
};

const PATH: &str = "/api/v1/auth/password";
const ME: &str = "/api/v1/auth/me";
const NEW: &str = "staple in the rain";

async fn change(user: &Actor, current: &str, new: &str) -> Answer {
    user.post(PATH, json!({ "current": current, "new": new })).await
}

async fn sign_in(app: &TestApp, login: &str, password: &str) -> Answer {
    let body = json!({ "login": login, "password": password, "session": "token" });
    app.stranger().post("/api/v1/auth/login", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_ends_every_session_and_the_old_one_is_wrong() {
    let app = TestApp::start().await;
    for role in Role::ALL {
        let user = app.actor(*role, &[MOSCOW]).await;
        let other_device = Actor::sign_in(&app.url(""), user.id, &user.login).await;
        let somebody_else = app.actor(Role::Operator, &[MOSCOW]).await;
        let answer = change(&user, PASSWORD, NEW).await;
        let cookies = set_cookies(&answer);
        assert_eq!(cookies.keys().collect::<Vec<_>>(), ["access", "csrf", "refresh"]);
        let gone = |cookie: &Cookie| cookie.value.is_empty() && cookie.attributes.contains(&"Max-Age=0".to_owned());
        assert!(cookies.values().all(gone), "the browser forgets them: {cookies:?}");
        assert_eq!(answer.expect(204), Value::Null);
        let audited = format!(
            "SELECT count(*) FROM audit_log WHERE action = 'password_changed' AND subject = 'users'
                AND actor_id = {0} AND subject_id = {0} AND detail = '{{}}'",
            user.id
        );
        assert_eq!(app.database.count(&audited).await, 1);
        for device in [&user, &other_device] {
            device.get(ME).await.problem(401, "unauthenticated");
        }
        somebody_else.get(ME).await.expect(200);
        sign_in(&app, &user.login, PASSWORD).await.problem(401, "bad_credentials");
        sign_in(&app, &user.login, NEW).await.expect(200);
        let open = format!("SELECT count(*) FROM sessions WHERE user_id = {} AND revoked_at IS NULL", user.id);
        assert_eq!(app.database.count(&open).await, 1, "{role:?}: that of the last sign-in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_current_password_nothing_changes() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let cases = [
        // How good the new one is takes a while to tell: not for whoever does not know the current one.
        (json!({ "current": "wrong horse battery", "new": "Qwerty123" }), "/current"),
        (json!({ "current": "", "new": NEW }), "/current"),
        (json!({ "current": 5, "new": NEW }), "/current"),
        (json!({ "current": PASSWORD, "new": PASSWORD }), "/new"),
        (json!({ "current": PASSWORD, "new": "short12" }), "/new"),
        (json!({ "current": PASSWORD, "new": "Qwerty123" }), "/new"),
        (json!({ "current": PASSWORD, "new": "щ".repeat(129) }), "/new"),
        (json!({ "current": PASSWORD, "new": null }), "/new"),
        (json!({ "current": PASSWORD, "new": NEW, "user_id": 1 }), "/user_id"),
    ];
    for (body, pointer) in cases {
        let problem = user.post(PATH, body.clone()).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
        assert!(!problem.to_string().contains(PASSWORD), "{problem}");
    }
    user.get(ME).await.expect(200);
    sign_in(&app, &user.login, PASSWORD).await.expect(200);
    app.database.execute(&format!("UPDATE users SET login = 'olga.petrova' WHERE id = {}", user.id)).await;
    let problem = change(&user, PASSWORD, "Olga.Petrova").await.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/new");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_the_current_password_is_limited_as_signing_in_is() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let answers = join_all((0..7).map(|_| change(&user, "wrong horse battery", NEW))).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(422), count(429)), (5, 2), "the login is locked here, as after failing to sign in");
    change(&user, PASSWORD, NEW).await.problem(429, "login_locked");
    app.age_failures(5).await;
    // One of the ten of a minute was the sign-in of the actor, from the same address; this is the last.
    change(&user, "wrong horse battery", NEW).await.problem(422, "invalid");
    let turned_away = change(&user, PASSWORD, NEW).await;
    assert!(turned_away.header("ratelimit").contains("\"login_ip\";r=0;"), "{turned_away:?}");
    turned_away.problem(429, "rate_limited");
    user.get(ME).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_one_holds() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let news = ["staple in the rain 1", "staple in the rain 2"];
    let answers = join_all(news.iter().map(|new| change(&user, PASSWORD, new))).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    let winner = statuses.iter().position(|status| *status == 204).expect("one of them is through");
    // The other came too late to be checked, or found another password than it had checked.
    assert!([401, 409, 422].contains(&statuses[1 - winner]), "{statuses:?}");
    sign_in(&app, &user.login, news[winner]).await.expect(200);
    sign_in(&app, &user.login, news[1 - winner]).await.problem(401, "bad_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_a_session_and_the_token_of_our_own_page() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    change(&app.stranger(), PASSWORD, NEW).await.problem(401, "unauthenticated");
    let mut browser = Browser::of(&app, &user).await;
    let body = json!({ "current": PASSWORD, "new": NEW });
    let elsewhere = browser.bare(Method::POST, PATH).header("sec-fetch-site", "cross-site").json(&body);
    browser.send(elsewhere).await.problem(403, "cross_site");
    let no_token = browser.bare(Method::POST, PATH).header("sec-fetch-site", "same-origin").json(&body);
    browser.send(no_token).await.problem(403, "csrf_token");
    user.get(ME).await.expect(200);
    assert_eq!(browser.post(PATH, body).await.status, 204);
    user.get(ME).await.problem(401, "unauthenticated");
}
