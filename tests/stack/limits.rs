//! The limit on sign-ins in Redis beyond the everyday of `redis`: what it leaves there, and a hiccup.

use crate::{
    support::{PASSWORD, TestApp, eventually, redis::TestRedis},
    two, with_redis,
};
use serde_json::json;

/// Tries to sign in from one address, by turns at each of these servers; how often it was let through.
async fn let_through(times: usize, at: &[&TestApp], address: &str) -> usize {
    let mut count = 0;
    for server in at.iter().cycle().take(times) {
        let mut client = server.stranger();
        address.clone_into(&mut client.address);
        let answer = client
            .post("/api/v1/auth/login", json!({ "login": "nobody", "password": PASSWORD, "session": "token" }))
            .await;
        match answer.status.as_u16() {
            401 => count += 1,
            429 => {
                let seconds: u64 = answer.header("retry-after").parse().unwrap();
                assert!((1..=7).contains(&seconds), "{seconds}");
                answer.problem(429, "rate_limited");
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_ten_sign_ins_a_minute_over_all_replicas() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    assert_eq!(let_through(20, &[&first, &second], "203.0.113.1").await, 10, "and not ten at each");
    let limited = async |app: &TestApp| app.scrape().await.value("rate_limited_total{scope=\"login_ip\"}");
    assert_eq!(limited(&first).await + limited(&second).await, 10.0);
    // Others are not concerned, at either of them.
    assert_eq!(let_through(2, &[&first, &second], "203.0.113.2").await, 2);
    // The buckets go by themselves.
    let keys: Vec<String> = redis.ask(&["KEYS", "limit:*"]).await.unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        let left: i64 = redis.ask(&["PTTL", &key]).await.unwrap();
        assert!((1..=61_000).contains(&left), "{key}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_up_before_a_hiccup_is_used_up_after_it() {
    let redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    assert_eq!(let_through(11, &[&app], "203.0.113.1").await, 10);
    redis.freeze();
    assert_eq!(let_through(1, &[&app], "203.0.113.1").await, 1, "the server counts by itself, from the beginning");
    redis.thaw();
    let limited = async || (let_through(1, &[&app], "203.0.113.1").await == 0).then_some(());
    eventually("Redis counts again, and from where it was", limited).await;
}
