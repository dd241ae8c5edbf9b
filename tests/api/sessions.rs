//! How a session goes on (`POST /api/v1/auth/refresh`), and what ends it, on every replica.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt, future::join_all, stream};
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::{auth::Role, config::Secret, reports::collector::collect};

use crate::support::{
    KAZAN, MOSCOW, PASSWORD, TestApp,
    actor::{Actor, Answer},
    browser::Browser,
    config, process,
};

const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const LOGOUT_ALL: &str = "/api/v1/auth/logout-all";
const ME: &str = "/api/v1/auth/me";

/// With the lifetimes that people have.
async fn app() -> TestApp {
    let mut config = config();
    config.jwt.ttl_s = 900;
    TestApp::start_with(config).await
}

/// Lets the last use of each refresh token be so long ago.
async fn age_uses(app: &TestApp, seconds: u32) {
    let sql = format!("UPDATE refresh_tokens SET used_at = used_at - interval '{seconds} s' WHERE used_at IS NOT NULL");
    app.database.execute(&sql).await;
}

fn refresh_token(answer: Answer) -> String {
    answer.expect(200)["refresh_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_from_token_to_token_until_it_is_idle_or_old() {
    let app = app().await;
    let mut user = app.actor(Role::Operator, &[MOSCOW]).await;
    let first = user.refresh_token.clone().unwrap();
    app.clock.advance(TimeDelta::seconds(929));
    user.get(ME).await.expect(200);
    app.clock.advance(TimeDelta::seconds(1));
    user.get(ME).await.problem(401, "unauthenticated");
    let session = user.refresh().await.expect(200);
    let expected = json!({
        "user_id": user.id, "role": "operator", "expires_at": "2026-06-01T07:30:30Z",
        "refresh_expires_at": "2026-06-08T07:15:30Z",
        "access_token": session["access_token"], "refresh_token": session["refresh_token"],
    });
    assert_eq!(session, expected);
    user.take(&session);
    user.get(ME).await.expect(200);
    // What is kept is no token.
    for (token, used) in [(&first, true), (user.refresh_token.as_ref().unwrap(), false)] {
        assert_eq!(token.len(), 4 + 43);
        let bits = format!("decode(translate('{}', '-_', '+/') || '=', 'base64')", &token[4..]);
        let kept = format!(
            "SELECT count(*) FROM refresh_tokens WHERE hash = sha256({bits}) AND (used_at IS NOT NULL) = {used}"
        );
        assert_eq!(app.database.count(&kept).await, 1);
    }
    assert_eq!(app.database.count("SELECT count(*) FROM refresh_tokens").await, 2);

    // Six days idle are not too many, and thirty days in all are, however busy it was.
    for _ in 0..4 {
        app.clock.advance(TimeDelta::days(6));
        user.take(&user.refresh().await.expect(200));
        user.get(ME).await.expect(200);
    }
    app.clock.advance(TimeDelta::days(6) - TimeDelta::seconds(930 + 60));
    let last = user.refresh().await.expect(200);
    for end in ["expires_at", "refresh_expires_at"] {
        assert_eq!(last[end], "2026-07-01T07:00:00Z", "no token outlives the session");
    }
    user.take(&last);
    app.clock.advance(TimeDelta::seconds(59));
    user.get(ME).await.expect(200);
    app.clock.advance(TimeDelta::seconds(1));
    user.get(ME).await.problem(401, "unauthenticated");
    user.refresh().await.problem(401, "unauthenticated");

    let idle = Actor::sign_in(&app.url(""), user.id, &user.login).await;
    app.clock.advance(TimeDelta::days(7));
    idle.refresh().await.problem(401, "unauthenticated");
    let scrape = app.scrape().await;
    let count = |result: &str| scrape.value(&format!("auth_refreshes_total{{result=\"{result}\"}}"));
    assert_eq!((count("success"), count("rejected"), count("reused")), (6.0, 2.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_refresh_side_by_side_agree() {
    let app = app().await;
    let mut user = app.actor(Role::Operator, &[MOSCOW]).await;
    let before = app.scrape().await;
    let tokens: Vec<String> = join_all((0..8).map(|_| user.refresh())).await.into_iter().map(refresh_token).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0] && Some(token) != user.refresh_token.as_ref()));
    // Somebody was quicker still: the parent then leads to the grandchild.
    let late = user.at(&app.url(""));
    user.take(&user.refresh().await.expect(200));
    let grandchild = refresh_token(user.refresh().await);
    age_uses(&app, 8).await;
    assert_eq!(refresh_token(late.refresh().await), grandchild);
    let changes = app.scrape().await.changes_since(&before);
    let count = |result: &str| changes.get(&format!("auth_refreshes_total{{result=\"{result}\"}}")).copied();
    assert_eq!((count("success"), count("repeated"), count("reused")), (Some(2.0), Some(9.0), None));
    assert_eq!(app.database.count("SELECT count(*) FROM refresh_tokens").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_presented_again_later_ends_its_session_and_is_audited() {
    let app = app().await;
    let mut user = app.actor(Role::Operator, &[MOSCOW]).await;
    let (elsewhere, mut thief) = (Actor::sign_in(&app.url(""), user.id, &user.login).await, user.at(&app.url("")));
    thief.address = "198.51.100.7".to_owned();
    user.take(&user.refresh().await.expect(200));
    age_uses(&app, 11).await;
    let told = thief.refresh().await;
    assert!(!told.text.contains("swr_"));
    told.problem(401, "unauthenticated");
    // Whoever was robbed is out as well: of the two nobody can tell who is who.
    user.get(ME).await.problem(401, "unauthenticated");
    user.refresh().await.problem(401, "unauthenticated");
    thief.refresh().await.problem(401, "unauthenticated");
    elsewhere.get(ME).await.expect(200);
    elsewhere.refresh().await.expect(200);
    let audited = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'refresh_token_reused' AND subject = 'sessions' AND subject_id = {}
            AND actor_id IS NULL AND host(address) = '198.51.100.7' AND detail = '{{}}'",
        user.id
    );
    assert_eq!(app.database.count(&audited).await, 1);
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("auth_refresh_reuse_total"), 1.0);
    assert_eq!(scrape.value("auth_refreshes_total{result=\"reused\"}"), 1.0);
    assert_eq!(scrape.value("auth_refreshes_total{result=\"rejected\"}"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_refresh_token_gives_itself_away_whatever_comes_with_it() {
    let app = app().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    for what in ["used before, without the page's token", "of a browser, in a body", "of a program, in a cookie"] {
        let program = Actor::sign_in(&app.url(""), user.id, &user.login).await;
        let (mut browser, mut thief) = (Browser::of(&app, &user).await, Browser::new(&app));
        let stolen = browser.cookie("refresh").to_owned();
        let as_cookie = |token: &str| ("refresh".to_owned(), (token.to_owned(), "/api/v1/auth".to_owned()));
        match what {
            "of a browser, in a body" => {
                let body = json!({ "refresh_token": stolen });
                thief.client.post(REFRESH, body).await.problem(401, "unauthenticated");
            }
            "of a program, in a cookie" => {
                thief.cookies.extend([as_cookie(program.refresh_token.as_ref().unwrap())]);
                thief.poke(REFRESH).await.problem(401, "unauthenticated");
            }
            _ => {
                browser.poke(REFRESH).await.expect(200);
                thief.cookies.extend([as_cookie(&stolen)]);
                // A moment later it may be a tab of the same browser, which has to show that it is.
                thief.poke(REFRESH).await.problem(403, "csrf_token");
                age_uses(&app, 11).await;
                thief.poke(REFRESH).await.problem(401, "unauthenticated");
            }
        }
        let (program_goes_on, browser_goes_on) = if what.contains("program") { (401, 200) } else { (200, 401) };
        assert_eq!(program.get(ME).await.status, program_goes_on, "{what}");
        assert_eq!(browser.get(ME).await.status, browser_goes_on, "{what}");
    }
    let audited = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'refresh_token_reused' AND subject_id = {} AND actor_id IS NULL",
        user.id
    );
    assert_eq!(app.database.count(&audited).await, 3);
    assert_eq!(app.scrape().await.value("auth_refresh_reuse_total"), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_refresh_token_refreshes_nothing() {
    let app = app().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let mut browser = Browser::of(&app, &user).await;
    let own = user.refresh_token.as_deref().unwrap();
    let nobody = app.stranger();
    for token in [
        "",
        "swr_",
        "nonsense",
        "\u{0}",
        &own[4..],
        &own[..46],
        &format!("{own} "),
        &"x".repeat(10_000),
        &format!("swr_{}", "A".repeat(43)),
        user.token.as_deref().unwrap(),
    ] {
        user.post(REFRESH, json!({ "refresh_token": token })).await.problem(401, "unauthenticated");
        if Some(token) != user.token.as_deref() {
            let bearer = format!("Bearer {}", token.trim_matches('\0'));
            let me = nobody.request(Method::GET, ME).header("authorization", bearer);
            nobody.send(me).await.problem(401, "unauthenticated");
        }
    }
    for (body, pointer) in [
        (json!({}), ""),
        (json!({ "refresh_token": 5 }), "/refresh_token"),
        (json!({ "refresh_token": own, "session": "token" }), "/session"),
    ] {
        let problem = user.post(REFRESH, body).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
        assert!(!problem.to_string().contains(own));
    }
    let post = || user.request(Method::POST, REFRESH);
    let body = json!({ "refresh_token": own }).to_string();
    user.send(post()).await.problem(401, "unauthenticated");
    user.send(post().body(body.clone())).await.problem(415, "wrong_media_type");
    user.send(post().header("content-type", "text/plain").body(body.clone())).await.problem(415, "wrong_media_type");
    user.send(post().header("content-type", "application/json")).await.problem(400, "malformed");
    user.send(post().header("content-type", "application/json").body("{")).await.problem(400, "malformed");
    // Nor does a cookie beside credentials in a header.
    let both = browser.request(Method::POST, REFRESH).bearer_auth(user.token.as_ref().unwrap());
    browser.client.send(both).await.problem(401, "unauthenticated");
    // Nor is there anything to go on with for who is disabled, or was signed out by a change of the user.
    let set = async |change: &str| app.database.execute(&format!("UPDATE users SET {change}")).await;
    for (change, back) in
        [("status = 'disabled'", "status = 'active'"), ("token_version = 9", "token_version = DEFAULT")]
    {
        set(change).await;
        user.refresh().await.problem(401, "unauthenticated");
        browser.poke(REFRESH).await.problem(401, "unauthenticated");
        set(back).await;
    }
    // None of that cost anybody their session.
    user.refresh().await.expect(200);
    browser.poke(REFRESH).await.expect(200);
}

/// Two replicas whose clocks are as wrong as is forgiven.
async fn replicas() -> [TestApp; 2] {
    let ahead = app().await;
    let mut config = config();
    config.jwt.ttl_s = 900;
    let behind = TestApp::over(config, ahead.database.clone()).await;
    ahead.clock.advance(TimeDelta::seconds(30));
    behind.clock.advance(TimeDelta::seconds(-30));
    [ahead, behind]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_session_ends_it_on_every_replica_at_once() {
    let replicas = replicas().await;
    let admin = replicas[0].actor(Role::Admin, &[]).await;
    let change = async |at: &TestApp, id: i64, change: Value| {
        admin.at(&at.url("")).patch(&format!("/api/v1/users/employees/{id}"), "*", change).await.expect(200);
    };
    for (here, there) in [(&replicas[0], &replicas[1]), (&replicas[1], &replicas[0])] {
        for what in ["logout", "logout-all", "password", "reset", "disable", "role", "cities"] {
            let user = here.actor(Role::Operator, &[MOSCOW]).await;
            let same = user.at(&there.url(""));
            let other_device = Actor::sign_in(&there.url(""), user.id, &user.login).await;
            same.get(ME).await.expect(200);
            match what {
                "logout" => drop(user.post(LOGOUT, Value::Null).await.expect(204)),
                "logout-all" => drop(user.post(LOGOUT_ALL, Value::Null).await.expect(204)),
                "password" => {
                    let body = json!({ "current": PASSWORD, "new": "staple in the rain" });
                    user.post("/api/v1/auth/password", body).await.expect(204);
                }
                "reset" => change(here, user.id, json!({ "password": "staple in the rain" })).await,
                "disable" => change(here, user.id, json!({ "status": "disabled" })).await,
                "role" => change(here, user.id, json!({ "role": "manager" })).await,
                _ => change(here, user.id, json!({ "cities": [KAZAN] })).await,
            }
            same.get(ME).await.problem(401, "unauthenticated");
            same.refresh().await.problem(401, "unauthenticated");
            let goes_on = if what == "logout" { 200 } else { 401 };
            assert_eq!(other_device.get(ME).await.status, goes_on, "{what}");
            assert_eq!(other_device.refresh().await.status, goes_on, "{what}");
        }
    }
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'signed_out_everywhere' AND subject = 'sessions'
                      AND actor_id = subject_id AND address IS NOT NULL";
    assert_eq!(replicas[0].database.count(audited).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_whose_clocks_differ_by_a_minute_accept_each_others_tokens() {
    let replicas = replicas().await;
    for (here, there) in [(&replicas[0], &replicas[1]), (&replicas[1], &replicas[0])] {
        let mut user = here.actor(Role::Operator, &[MOSCOW]).await;
        let mut same = user.at(&there.url(""));
        same.get(ME).await.expect(200);
        // Both at once, then in turn: nobody is taken for a thief, and all tokens are good everywhere.
        let (one, other) = tokio::join!(user.refresh(), same.refresh());
        let (one, other) = (one.expect(200), other.expect(200));
        assert_eq!(one["refresh_token"], other["refresh_token"]);
        for session in [&one, &other] {
            (user.token, same.token) = (None, None);
            user.take(session);
            same.take(session);
            user.get(ME).await.expect(200);
            same.get(ME).await.expect(200);
        }
        let old = user.at(&there.url(""));
        user.take(&user.refresh().await.expect(200));
        old.refresh().await.expect(200);
        age_uses(here, 11).await;
        old.refresh().await.problem(401, "unauthenticated");
        user.get(ME).await.problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_secret_is_changed_nobody_is_signed_out() {
    let before = app().await;
    let secrets = |current: &str, previous: &str| {
        let mut config = config();
        config.jwt.secret = Secret::new(current);
        config.jwt.previous_secret = Secret::new(previous);
        TestApp::over(config, before.database.clone())
    };
    let old_secret = before.app.config.jwt.secret.expose();
    let new_secret = "another secret, of 32 bytes or so";
    let during = secrets(new_secret, old_secret).await;
    let mut user = before.actor(Role::Operator, &[MOSCOW]).await;
    let mut browser = Browser::of(&before, &user).await;
    user.at(&during.url("")).get(ME).await.expect(200);
    browser.client = user.at(&during.url(""));
    browser.client.token = None;
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" });
    browser.post("/api/v1/requests", body.clone()).await.expect(201);
    // The same token at both, while replicas are replaced: each makes a child of its own, and both are good.
    let [old, new] = [user.refresh().await.expect(200), user.at(&during.url("")).refresh().await.expect(200)];
    assert_ne!(old["refresh_token"], new["refresh_token"]);
    for session in [old, new] {
        user.take(&session);
        user.at(&during.url("")).refresh().await.expect(200);
    }
    browser.poke(REFRESH).await.expect(200);
    // Tokens of the new one are nothing to whoever does not know it, and the old one's to whoever forgot it.
    user.take(&user.at(&during.url("")).refresh().await.expect(200));
    user.get(ME).await.problem(401, "unauthenticated");
    let after = secrets(new_secret, "").await;
    user.at(&after.url("")).get(ME).await.expect(200);
    let stays = Actor::sign_in(&before.url(""), user.id, &user.login).await;
    stays.at(&after.url("")).get(ME).await.problem(401, "unauthenticated");
    stays.at(&after.url("")).refresh().await.expect(200);
    browser.client = user.at(&after.url(""));
    browser.client.token = None;
    browser.post("/api/v1/requests", body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_active_who_came_within_the_life_of_an_access_token() {
    let app = app().await;
    let (mut stays, _leaves) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Operator, &[MOSCOW]).await);
    let active = async |role: &str| {
        collect(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await.unwrap();
        app.scrape().await.value(&format!("switchboard_active_users{{role=\"{role}\"}}"))
    };
    assert_eq!((active("manager").await, active("operator").await), (1.0, 1.0));
    app.clock.advance(TimeDelta::seconds(899));
    stays.take(&stays.refresh().await.expect(200));
    assert_eq!((active("manager").await, active("operator").await), (1.0, 1.0));
    app.clock.advance(TimeDelta::seconds(1));
    assert_eq!((active("manager").await, active("operator").await), (1.0, 0.0));
    stays.post(LOGOUT_ALL, Value::Null).await.expect(204);
    assert_eq!(active("manager").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_was_idle_can_sign_out_and_twice_is_no_error() {
    let app = app().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    for drops in [false, true] {
        let mut browser = Browser::of(&app, &user).await;
        app.clock.advance(TimeDelta::seconds(930));
        if drops {
            browser.cookies.remove("access");
        }
        let copies = browser.cookies.clone();
        let token = browser.csrf_token.take();
        browser.poke(LOGOUT).await.problem(403, "csrf_token");
        browser.csrf_token = token;
        let elsewhere = browser.bare(Method::POST, LOGOUT).header("sec-fetch-site", "cross-site");
        browser.send(elsewhere).await.problem(403, "cross_site");
        assert_eq!(browser.cookies, copies, "nothing happened");
        // The second time the page still shows the token of the session that was.
        for _ in 0..2 {
            browser.poke(LOGOUT).await.expect(204);
            assert!(browser.cookies.is_empty());
        }
        // One that did not get the answer keeps its cookies, and asks again.
        browser.cookies = copies;
        browser.poke(REFRESH).await.problem(401, "unauthenticated");
        browser.poke(LOGOUT).await.expect(204);
        assert!(browser.cookies.is_empty());
    }
    let open = format!("SELECT count(*) FROM sessions WHERE user_id = {} AND revoked_at IS NULL", user.id);
    assert_eq!(app.database.count(&open).await, 1, "the one that nobody signed out of");
    // What makes no sense names no session, and is forgotten too.
    let mut confused = Browser::new(&app);
    confused.cookies.insert("refresh".to_owned(), ("swr_nonsense".to_owned(), "/api/v1/auth".to_owned()));
    confused.poke(LOGOUT).await.expect(204);
    assert!(confused.cookies.is_empty());
    // A program must say which session it means.
    user.post(LOGOUT, Value::Null).await.problem(401, "unauthenticated");
    let session = user.refresh().await.expect(200);
    let mut program = user.at(&app.url(""));
    program.take(&session);
    for _ in 0..2 {
        program.post(LOGOUT, Value::Null).await.expect(204);
    }
    assert_eq!(app.database.count(&open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_who_uses_up_the_limit_of_a_user_keeps_them_from_nothing_that_ends_the_theft() {
    let mut config = config();
    config.limits.user = "1/h".parse().unwrap();
    let app = TestApp::start_with(config).await;
    for what in [LOGOUT, LOGOUT_ALL, "/api/v1/auth/password"] {
        let thief = app.actor(Role::Operator, &[MOSCOW]).await;
        let victim = Actor::sign_in(&app.url(""), thief.id, &thief.login).await;
        thief.get(ME).await.expect(200);
        victim.get(ME).await.problem(429, "rate_limited");
        victim.post(what, json!({ "current": PASSWORD, "new": "staple in the rain" })).await.expect(204);
        let robbed = if what == LOGOUT { (429, "rate_limited") } else { (401, "unauthenticated") };
        thief.get(ME).await.problem(robbed.0, robbed.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_signed_out_while_their_body_arrives_has_changed_nothing() {
    let app = app().await;
    let create = async |phone: &str, disable: bool| {
        let user = app.actor(Role::Operator, &[MOSCOW]).await;
        let body = json!({ "city": MOSCOW, "phone": phone }).to_string();
        let (first, last) = (body[..10].to_owned(), body[10..].to_owned());
        let (database, id) = (app.database.clone(), user.id);
        let pieces = stream::iter([Ok::<_, std::io::Error>(first)]).chain(stream::once(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            if disable {
                database.execute(&format!("UPDATE users SET status = 'disabled' WHERE id = {id}")).await;
            }
            Ok(last)
        }));
        let request = user.request(Method::POST, "/api/v1/requests").header("content-type", "application/json");
        user.send(request.body(reqwest::Body::wrap_stream(pieces))).await
    };
    let (disabled, slow) = tokio::join!(create("+79161234567", true), create("+79161234568", false));
    disabled.problem(401, "unauthenticated");
    slow.expect(201);
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_at_the_server_ends_the_sessions_of_one_user_or_of_all() {
    let app = app().await;
    let users = [app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Manager, &[KAZAN]).await];
    let browser = Browser::of(&app, &users[0]).await;
    let environment = [("DATABASE_URL", app.database.url())];
    let sign_out =
        async |whom: &[&str]| process::run_beside(&[&["user", "sign-out"], whom].concat(), &environment).await;
    let said = sign_out(&["--login", &users[0].login.to_uppercase()]).await.success();
    assert!(said.contains("2 session(s)"), "{said}");
    users[0].refresh().await.problem(401, "unauthenticated");
    assert_eq!(browser.client.send(browser.request(Method::GET, ME)).await.status, 401);
    users[1].get(ME).await.expect(200);
    let said = sign_out(&["--all"]).await.success();
    assert!(said.contains("1 session(s)"), "{said}");
    users[1].get(ME).await.problem(401, "unauthenticated");
    let complaint = sign_out(&["--login", "nobody"]).await.failure(1);
    assert!(complaint.contains("there is no user \"nobody\""), "{complaint}");
    for wrong in [&[][..], &["--all", "--login", "x"]] {
        assert_eq!(sign_out(wrong).await.code, Some(2));
    }
    let audited = async |subject: &str, sessions: u32| {
        let row = format!(
            "SELECT count(*) FROM audit_log WHERE action = 'signed_out_everywhere' AND via = 'cli' AND actor_id IS NULL
                AND subject = 'sessions' AND subject_id {subject} AND detail = '{{\"sessions\": {sessions}}}'"
        );
        app.database.count(&row).await
    };
    assert_eq!(audited(&format!("= {}", users[0].id), 2).await, 1);
    assert_eq!(audited("IS NULL", 1).await, 1);
}
