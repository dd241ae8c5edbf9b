//! With Redis: two servers share cache and limits. Without it, or when it is gone: nobody notices.

use serde_json::json;
use switchboard::auth::Role;

use crate::{
    support::{
        MOSCOW, TestApp,
        actor::{Actor, Answer},
        metrics::Scrape,
        redis::TestRedis,
    },
    two, with_redis,
};

fn looked_up(scrape: &Scrape, result: &str) -> f64 {
    scrape.value(&format!("cache_requests_total{{cache=\"dictionaries\",result=\"{result}\"}}"))
}

const CITIES: &str = "/api/v1/dictionaries/cities";

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_cached_the_other_finds() {
    let redis = TestRedis::start().await;
    let (one, other) = two(&redis).await;
    // Both warmed up: the first found nothing, the second what the first had stored.
    assert_eq!((looked_up(&one.scrape().await, "miss"), looked_up(&one.scrape().await, "hit")), (1.0, 0.0));
    assert_eq!((looked_up(&other.scrape().await, "miss"), looked_up(&other.scrape().await, "hit")), (0.0, 1.0));
    let operator = other.actor(Role::Operator, &[MOSCOW]).await;
    assert_eq!(operator.get(CITIES).await.expect(200)[0]["code"], MOSCOW);
    let scrape = other.scrape().await;
    assert_eq!(looked_up(&scrape, "hit"), 2.0);
    assert_eq!(scrape.value("dependency_up{dependency=\"redis\"}"), 1.0);
    assert_eq!(scrape.value("cache_fallback_active"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_gone_costs_no_answer_and_is_used_again_when_it_is_back() {
    let mut redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    redis.stop();
    for _ in 0..5 {
        assert_eq!(operator.get(CITIES).await.expect(200)[0]["code"], MOSCOW);
    }
    let scrape = app.scrape().await;
    assert_eq!(looked_up(&scrape, "error"), 5.0);
    assert_eq!(scrape.value("cache_fallback_active"), 1.0);
    assert_eq!(scrape.value("dependency_up{dependency=\"redis\"}"), 0.0);
    assert_eq!(operator.get("/health/ready").await.expect(200)["status"], "ok", "Redis never counts");

    redis.restart().await;
    let mut tries = 0;
    while app.scrape().await.value("cache_fallback_active") == 1.0 {
        operator.get(CITIES).await.expect(200);
        tries += 1;
        assert!(tries < 100, "Redis is back and not used");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(app.scrape().await.value("dependency_up{dependency=\"redis\"}"), 1.0);
}

/// One wrong sign-in from the address of `actor`.
async fn knock(actor: &Actor) -> Answer {
    actor
        .post("/api/v1/auth/login", json!({ "login": "nobody", "password": "wrong password", "session": "token" }))
        .await
}

async fn refused(actor: &Actor, tries: usize) -> usize {
    let mut refused = 0;
    for _ in 0..tries {
        let answer = knock(actor).await;
        if answer.status == 429 {
            let seconds: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
            answer.problem(429, "rate_limited");
            refused += 1;
        } else {
            answer.problem(401, "bad_credentials");
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_count_sign_ins_together() {
    let redis = TestRedis::start().await;
    let (one, other) = two(&redis).await;
    let here = one.stranger();
    let mut there = other.stranger();
    there.address.clone_from(&here.address);
    // Ten a minute in all; refilled one every six seconds, which a slow machine may see once.
    let turned_away = refused(&here, 6).await + refused(&there, 14).await;
    assert!((9..=10).contains(&turned_away), "{turned_away} of 20 were turned away");
    assert_eq!(refused(&other.stranger(), 1).await, 0, "another address is another matter");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_limit_still_holds() {
    let mut redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    redis.stop();
    let turned_away = refused(&app.stranger(), 20).await;
    assert!((9..=10).contains(&turned_away), "{turned_away} of 20 were turned away");
}
