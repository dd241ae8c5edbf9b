//! What a stopwatch tells about who exists.

use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::auth::{Role, passwords};

use crate::support::{MOSCOW, TestApp, config};

const COST: u32 = 12;
const ROUNDS: usize = 100;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_takes_as_long_whether_or_not_there_is_such_a_user() {
    let mut config = config();
    config.password.cost = COST;
    let app = TestApp::start_with(config).await;
    let (user, disabled) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Operator, &[MOSCOW]).await);
    let long_away = app.actor(Role::Operator, &[MOSCOW]).await;
    let hash = passwords::hash(&app.app.config.password.pepper, COST, "staple in the rain").unwrap();
    app.database.execute(&format!("UPDATE users SET password_hash = '{hash}'")).await;
    app.database.execute(&format!("UPDATE users SET status = 'disabled' WHERE id = {}", disabled.id)).await;
    // The cost was raised since they last signed in.
    let dated = passwords::hash(&app.app.config.password.pepper, COST - 2, "staple in the rain").unwrap();
    app.database.execute(&format!("UPDATE users SET password_hash = '{dated}' WHERE id = {}", long_away.id)).await;

    let who = [user.login.as_str(), "nobody", disabled.login.as_str(), long_away.login.as_str()];
    let mut times = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        for turn in 0..who.len() {
            // In another order each time: what comes first is not what is slow.
            let one = (turn + round) % who.len();
            let stranger = app.stranger();
            let asked = Instant::now();
            let answer = stranger
                .post("/api/v1/auth/login", json!({ "login": who[one], "password": "wrong", "session": "token" }))
                .await;
            times[one].push(asked.elapsed());
            answer.problem(401, "bad_credentials");
        }
    }
    let [wrong, unknown, disabled, dated] = times.map(median);
    println!(
        "medians of {ROUNDS} sign-ins each, interleaved, cost {COST}: wrong password {wrong:.1} ms, unknown login \
         {unknown:.1} ms ({:+.2} %), disabled {disabled:.1} ms ({:+.2} %), dated hash {dated:.1} ms ({:+.2} %)",
        (unknown / wrong - 1.0) * 100.0,
        (disabled / wrong - 1.0) * 100.0,
        (dated / wrong - 1.0) * 100.0,
    );
    for other in [unknown, disabled, dated] {
        assert!((other / wrong - 1.0).abs() < 0.05, "{wrong} {unknown} {disabled} {dated}");
    }
}
