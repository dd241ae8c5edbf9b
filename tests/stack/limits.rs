//! Rate limits in Redis: what all replicas share, what is left there, garbage, and a hiccup.

use std::time::{Duration, Instant};

use serde_json::json;
use switchboard::auth::Role;

use crate::{
    support::{MOSCOW, PASSWORD, TestApp, actor::number, eventually, redis::TestRedis},
    two, with_redis,
};

/// Tries to sign in from one address, by turns at each of these servers; how often it was let through.
async fn let_through(times: usize, at: &[&TestApp], address: &str) -> usize {
    let mut count = 0;
    for server in at.iter().cycle().take(times) {
        let mut client = server.stranger();
        address.clone_into(&mut client.address);
        // Each login once: it is the limit of the address that is asked for.
        let body = json!({ "login": format!("nobody{}", number()), "password": PASSWORD, "session": "token" });
        let answer = client.post("/api/v1/auth/login", body).await;
        match answer.status.as_u16() {
            401 => count += 1,
            429 => {
                let seconds: u64 = answer.header("retry-after").parse().unwrap();
                assert!((1..=6).contains(&seconds), "{seconds}");
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
    // The buckets name what they are of, and go by themselves.
    let keys: Vec<String> = redis.ask(&["KEYS", "limit:login_ip:10/min:203.0.113.*"]).await.unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in redis.ask::<Vec<String>>(&["KEYS", "limit:*"]).await.unwrap() {
        let left: i64 = redis.ask(&["PTTL", &key]).await.unwrap();
        assert!((-2..=60_000).contains(&left) && left != -1, "{key}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_has_changed_does_not_misread_what_was_counted_before() {
    let redis = TestRedis::start().await;
    let before = TestApp::start_with(with_redis(&redis)).await;
    assert_eq!(let_through(11, &[&before], "203.0.113.1").await, 10);
    let mut config = with_redis(&redis);
    config.limits.login_ip = "10/min burst 12".parse().unwrap();
    let now = TestApp::over(config, before.database.clone()).await;
    assert_eq!(let_through(14, &[&now], "203.0.113.1").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_redis_is_a_full_bucket_and_is_mended() {
    let redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let key = "limit:login_ip:10/min:203.0.113.1";
    let far_away = "99999999999999999999";
    for garbage in [["SET", key, ""], ["SET", key, "nan"], ["SET", key, "inf"], ["SET", key, "-5"], ["LPUSH", key, "x"]]
    {
        redis.ask::<redis::Value>(&["DEL", key]).await.unwrap();
        redis.ask::<redis::Value>(&garbage).await.unwrap();
        assert_eq!(let_through(12, &[&app], "203.0.113.1").await, 10, "{garbage:?}");
    }
    // One that is empty for ever is emptied now, and fills like any other.
    redis.ask::<redis::Value>(&["SET", key, far_away]).await.unwrap();
    assert_eq!(let_through(1, &[&app], "203.0.113.1").await, 0);
    let left: i64 = redis.ask(&["PTTL", key]).await.unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    assert_eq!(app.scrape().await.value("cache_fallback_active"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_happens_to_redis_gives_anybody_their_tries_back() {
    let mut redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let again = async || let_through(1, &[&app], "203.0.113.1").await;
    assert_eq!(let_through(6, &[&app], "203.0.113.1").await, 6);
    redis.freeze();
    assert_eq!(let_through(5, &[&app], "203.0.113.1").await, 4, "the server knows what was used up");
    redis.thaw();
    let used = async || (app.scrape().await.value("cache_fallback_active") == 0.0).then_some(());
    eventually("Redis is used again", used).await;
    assert_eq!(again().await, 0, "and knows what the server granted meanwhile");
    redis.stop();
    assert_eq!(again().await, 0);
    redis.restart().await;
    // What the sampler does every few seconds.
    app.app.check_dependencies().await;
    eventually("Redis is used again", used).await;
    assert_eq!(again().await, 0, "though it has lost its data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_its_own_grants_its_part_and_says_so() {
    let mut redis = TestRedis::start().await;
    let mut config = with_redis(&redis);
    config.limits.replicas = 2;
    config.limits.login_ip = "40/h".parse().unwrap();
    let app = TestApp::start_with(config).await;
    let client = app.stranger();
    let knock = async || {
        let body = json!({ "login": format!("nobody{}", number()), "password": PASSWORD, "session": "token" });
        client.post("/api/v1/auth/login", body).await
    };
    for _ in 0..2 {
        let shared = knock().await;
        assert!(shared.header("ratelimit-policy").ends_with("\"login_ip\";q=40;w=3600"), "{shared:?}");
    }
    redis.stop();
    let alone = knock().await;
    assert!(alone.header("ratelimit-policy").ends_with("\"login_ip\";q=20;w=3600"), "{alone:?}");
    assert!(
        alone.header("ratelimit").contains("\"login_ip\";r=18;"),
        "of the two before, one was of its part: {alone:?}"
    );
    for _ in 0..18 {
        knock().await.problem(401, "bad_credentials");
    }
    knock().await.problem(429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_redis_that_has_gone_dark_and_it_is_used_again_within_five_seconds() {
    let redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let me = async || operator.get("/api/v1/auth/me").await.expect(200);
    redis.freeze();
    // Two limits are asked for each request, so that five calls have failed by the third.
    for _ in 0..3 {
        me().await;
    }
    let frozen = Instant::now();
    let mut times = Vec::new();
    while frozen.elapsed() < Duration::from_millis(1_500) {
        let asked = Instant::now();
        me().await;
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    // One call that waits takes 50 ms.
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(45), "{median:?}");
    let state = async || {
        let scrape = app.scrape().await;
        (scrape.value("cache_fallback_active"), scrape.value("dependency_up{dependency=\"redis\"}"))
    };
    assert_eq!(state().await, (1.0, 0.0));
    redis.thaw();
    let thawed = Instant::now();
    // Without a single request.
    eventually("Redis is used again", async || (state().await == (0.0, 1.0)).then_some(())).await;
    assert!(thawed.elapsed() < Duration::from_secs(5), "{:?}", thawed.elapsed());
    let buckets = async || redis.ask::<Vec<String>>(&["KEYS", "limit:user:*"]).await.unwrap().len();
    let before: i64 = redis.ask(&["DEL", &format!("limit:user:1200/min:{}", operator.id)]).await.unwrap();
    assert!(before <= 1);
    me().await;
    assert_eq!(buckets().await, 1);
}
