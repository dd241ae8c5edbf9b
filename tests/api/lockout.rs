//! Who keeps failing to sign in waits ever longer, and nobody else does.

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};
use switchboard::{
    auth::{Role, passwords},
    config::Config,
};

use crate::support::{
    MOSCOW, PASSWORD, TestApp,
    actor::{Actor, Answer},
    config, process,
};

const WRONG: &str = "wrong horse battery";

/// Where the limit of an address is in nobody's way.
fn unlimited() -> Config {
    let mut config = config();
    config.limits.login_ip = "1000/s".parse().unwrap();
    config
}

async fn sign_in(from: &Actor, login: &str, password: &str) -> Answer {
    from.post("/api/v1/auth/login", json!({ "login": login, "password": password, "session": "token" })).await
}

/// Status, Retry-After and body, as far as a stranger could learn from them.
async fn outcome(from: &Actor, login: &str, password: &str) -> (u16, u32, Value) {
    let answer = sign_in(from, login, password).await;
    let (status, wait) = (answer.status.as_u16(), answer.header("retry-after").parse().unwrap_or_default());
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("trace_id");
    (status, wait, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_failures_are_free_and_then_each_doubles_the_wait_the_same_for_a_login_that_nobody_has() {
    let app = TestApp::start_with(unlimited()).await;
    let owner = app.actor(Role::Operator, &[MOSCOW]).await;
    let attacker = app.stranger();
    let mut seen = Vec::new();
    for login in [owner.login.as_str(), "nobody"] {
        let mut outcomes = Vec::new();
        for _ in 0..6 {
            outcomes.push(outcome(&attacker, login, WRONG).await);
        }
        for seconds in [5, 10] {
            // The right one is not looked at either.
            outcomes.push(outcome(&attacker, login, PASSWORD).await);
            app.age_failures(seconds - 4).await;
            outcomes.push(outcome(&attacker, login, WRONG).await);
            app.age_failures(4).await;
            outcomes.push(outcome(&attacker, login, WRONG).await);
        }
        let (failed, locked) = ((401, 0_u32), |wait| (429, wait));
        let mut expected = vec![failed; 5];
        expected.extend([locked(5), locked(5), locked(4), failed, locked(10), locked(4), failed]);
        for (n, ((status, wait, _), (expected, at_most))) in outcomes.iter().zip(&expected).enumerate() {
            assert_eq!(status, expected, "{login} {n}");
            // The test itself takes its time.
            assert!((at_most.saturating_sub(3)..=*at_most).contains(wait), "{login} {n}: {wait} {at_most}");
        }
        seen.push(outcomes.into_iter().map(|(status, _, body)| (status, body)).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);

    // Whoever the login belongs to is elsewhere, and notices nothing.
    sign_in(&app.stranger(), &owner.login, PASSWORD).await.expect(200);
    // Nor do other logins of that address.
    let other = app.actor(Role::Operator, &[MOSCOW]).await;
    sign_in(&attacker, &other.login, PASSWORD).await.expect(200);

    let scrape = app.scrape().await;
    assert_eq!(scrape.value("rate_limited_total{scope=\"login\"}"), 10.0);
    assert_eq!(scrape.value("auth_attempts_total{result=\"locked\"}"), 10.0);
    // What administrators read. A login that nobody has is not written down.
    let count =
        async |what: &str| app.database.count(&format!("SELECT count(*) FROM login_attempts WHERE {what}")).await;
    let from = format!("address = '{}'", attacker.address);
    for (who, what) in [(format!("user_id = {}", owner.id), &from), ("user_id IS NULL".to_owned(), &from)] {
        assert_eq!(count(&format!("{who} AND {what} AND result = 'rejected'")).await, 7, "{who}");
        assert_eq!(count(&format!("{who} AND {what} AND result = 'locked'")).await, 5, "{who}");
    }
    assert_eq!(count(&format!("user_id = {} AND result = 'success'", owner.id)).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_or_a_day_without_failures_forgets_them() {
    let app = TestApp::start_with(unlimited()).await;
    let owner = app.actor(Role::Operator, &[MOSCOW]).await;
    let client = app.stranger();
    let fail = async |times: usize| {
        for _ in 0..times {
            sign_in(&client, &owner.login, WRONG).await.problem(401, "bad_credentials");
        }
    };
    fail(4).await;
    sign_in(&client, &owner.login, PASSWORD).await.expect(200);
    fail(5).await;
    sign_in(&client, &owner.login, PASSWORD).await.problem(429, "login_locked");
    app.age_failures(5).await;
    sign_in(&client, &owner.login, PASSWORD).await.expect(200);
    fail(5).await;
    app.age_failures(86_401).await;
    fail(5).await;
    sign_in(&client, &owner.login, PASSWORD).await.problem(429, "login_locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_tries_at_once_five_are_looked_at() {
    let app = TestApp::start_with(unlimited()).await;
    let owner = app.actor(Role::Operator, &[MOSCOW]).await;
    let attacker = app.stranger();
    let answers = join_all((0..30).map(|_| sign_in(&attacker, &owner.login, WRONG))).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(401), count(429)), (5, 25));
    for answer in answers.iter().filter(|answer| answer.status == 429) {
        let wait: u32 = answer.header("retry-after").parse().unwrap();
        assert!((1..=5).contains(&wait), "{wait}");
    }
    sign_in(&attacker, &owner.login, PASSWORD).await.problem(429, "login_locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn right_passwords_side_by_side_lock_nobody_out() {
    let app = TestApp::start_with(unlimited()).await;
    let owner = app.actor(Role::Operator, &[MOSCOW]).await;
    // It takes a while, so that all of them meet.
    let hash = passwords::hash(&app.app.config.password.pepper, 12, PASSWORD).unwrap();
    app.database.execute(&format!("UPDATE users SET password_hash = '{hash}'")).await;
    let client = app.stranger();
    let answers = join_all((0..8).map(|_| sign_in(&client, &owner.login, PASSWORD))).await;
    let (through, told_to_wait): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(through.len() >= 5 && !told_to_wait.is_empty(), "{} {}", through.len(), told_to_wait.len());
    for answer in told_to_wait {
        assert_eq!(answer.header("retry-after"), "1");
        let problem = answer.problem(429, "rate_limited");
        assert!(problem["detail"].as_str().unwrap().contains("at once"), "{problem}");
    }
    sign_in(&client, &owner.login, PASSWORD).await.expect(200);
    assert_eq!(app.database.count("SELECT count(*) FROM login_attempts WHERE result <> 'success'").await, 0);
    assert_eq!(app.database.count("SELECT count(*) FROM login_failures").await, 0);
    // Whoever hangs up is looked at to the end, and has failed once nobody can be waiting any more.
    let abandoned = "INSERT INTO login_failures (login_key, address, failures, pending, last_at)
                     SELECT login_key, address, failures, 5, last_at FROM login_failures
                     ON CONFLICT (login_key, address) DO UPDATE SET pending = 5";
    sign_in(&client, &owner.login, WRONG).await.problem(401, "bad_credentials");
    app.database.execute(abandoned).await;
    assert_eq!(sign_in(&client, &owner.login, PASSWORD).await.header("retry-after"), "1");
    app.age_failures(61).await;
    sign_in(&client, &owner.login, WRONG).await.problem(401, "bad_credentials");
    let counted = "SELECT count(*) FROM login_failures WHERE failures = 7 AND pending = 0 AND locked_until > now()";
    assert_eq!(app.database.count(counted).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_lasts_as_long_on_a_replica_whose_clock_is_wrong() {
    let app = TestApp::start_with(unlimited()).await;
    let [ahead, behind] = [
        TestApp::over(unlimited(), app.database.clone()).await,
        TestApp::over(unlimited(), app.database.clone()).await,
    ];
    ahead.clock.advance(TimeDelta::hours(10_000));
    behind.clock.advance(TimeDelta::hours(-10_000));
    let owner = app.actor(Role::Operator, &[MOSCOW]).await;
    let client = app.stranger();
    for _ in 0..5 {
        sign_in(&client, &owner.login, WRONG).await.problem(401, "bad_credentials");
    }
    for replica in [&app, &ahead, &behind] {
        let answer = sign_in(&client.at(&replica.url("")), &owner.login, PASSWORD).await;
        let wait: u32 = answer.header("retry-after").parse().unwrap();
        assert!((1..=5).contains(&wait), "{wait}");
        answer.problem(429, "login_locked");
        let admin = replica.actor(Role::Admin, &[]).await;
        assert_eq!(admin.all("/api/v1/security/locked-accounts").await.len(), 1);
    }
    app.age_failures(5).await;
    sign_in(&client.at(&ahead.url("")), &owner.login, PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_from_before_there_was_such_a_user_are_theirs_too() {
    let app = TestApp::start_with(unlimited()).await;
    let (admin, client) = (app.actor(Role::Admin, &[]).await, app.stranger());
    let body =
        json!({ "login": "newcomer", "password": PASSWORD, "name": "Olga", "role": "operator", "cities": [MOSCOW] });
    for (login, by_command) in [("newcomer", false), ("administrator", true)] {
        for _ in 0..5 {
            sign_in(&client, login, WRONG).await.problem(401, "bad_credentials");
        }
        if by_command {
            let environment = [&process::secrets()[..], &[("DATABASE_URL", app.database.url())]].concat();
            let arguments = ["user", "create", "--login", login, "--name", "Olga", "--role", "admin"];
            let run = move || process::run(&arguments, &environment, PASSWORD.as_bytes());
            tokio::task::spawn_blocking(run).await.unwrap().success();
        } else {
            admin.post("/api/v1/users/employees", body.clone()).await.expect(201);
        }
        let locked = admin.all("/api/v1/security/locked-accounts").await;
        assert_eq!(locked.len(), 1, "{locked:?}");
        assert_eq!(locked[0]["login"], login);
        let unlocked = admin.post("/api/v1/security/unlock", json!({ "login": login })).await.expect(200);
        assert_eq!(unlocked["unlocked"], 1);
        sign_in(&client, login, PASSWORD).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_at_the_server_lifts_the_locks_of_a_user() {
    let app = TestApp::start_with(unlimited()).await;
    let owner = app.actor(Role::Operator, &[MOSCOW]).await;
    let clients = [app.stranger(), app.stranger()];
    for client in &clients {
        for _ in 0..5 {
            sign_in(client, &owner.login, WRONG).await.problem(401, "bad_credentials");
        }
        sign_in(client, &owner.login, PASSWORD).await.problem(429, "login_locked");
    }
    let environment = [("DATABASE_URL", app.database.url())];
    let unlock = async |login: &str| process::run_beside(&["user", "unlock", login], &environment).await;
    let said = unlock(&owner.login.to_uppercase()).await.success();
    assert!(said.contains("may sign in again") && said.contains(" 2 address"), "{said}");
    for client in &clients {
        sign_in(client, &owner.login, PASSWORD).await.expect(200);
    }
    assert!(unlock(&owner.login).await.success().contains("was not locked"));
    let audited = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'account_unlocked' AND via = 'cli' AND actor_id IS NULL
            AND subject = 'users' AND subject_id = {} AND detail IN ('{{\"unlocked\": 2}}', '{{\"unlocked\": 0}}')",
        owner.id
    );
    assert_eq!(app.database.count(&audited).await, 2);
    let complaint = unlock("nobody").await.failure(1);
    assert!(complaint.contains("there is no user \"nobody\""), "{complaint}");
}
