//! The cache in Redis beyond the everyday of `redis`: forgetting, hanging, garbage, and coming late.

use reqwest::Method;
use serde_json::json;
use switchboard::{auth::Role, cache::Key};

use crate::{
    support::{MOSCOW, TestApp, actor::Actor, eventually, metrics::Scrape, redis::TestRedis},
    two, with_redis,
};

const CITIES: &str = "/api/v1/dictionaries/cities";

async fn cities(actor: &Actor) -> usize {
    actor.get(CITIES).await.expect(200).as_array().unwrap().len()
}

fn looked_up(scrape: &Scrape, result: &str) -> f64 {
    scrape.value(&format!("cache_requests_total{{cache=\"dictionaries\",result=\"{result}\"}}"))
}

/// Hits, misses and errors so far.
async fn counts(app: &TestApp) -> [f64; 3] {
    let scrape = app.scrape().await;
    ["hit", "miss", "error"].map(|result| looked_up(&scrape, result))
}

/// Whether the server does without Redis, and whether Redis is up, as its metrics have it.
async fn state(app: &TestApp) -> (f64, f64) {
    let scrape = app.scrape().await;
    (scrape.value("cache_fallback_active"), scrape.value("dependency_up{dependency=\"redis\"}"))
}

/// A request is served, whatever Redis does.
async fn serves(actor: &Actor) {
    assert_eq!(cities(actor).await, 1);
    actor.create_request(MOSCOW, "+79161234567").await;
}

async fn recovers(app: &TestApp, actor: &Actor) {
    let found_again = async || {
        let [before, ..] = counts(app).await;
        serves(actor).await;
        (counts(app).await[0] > before).then_some(())
    };
    eventually("what is cached is found again", found_again).await;
    assert_eq!(state(app).await, (0.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_forgets_all_have_forgotten() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let admin = first.actor(Role::Admin, &[]).await;
    let mut there = second.stranger();
    there.token.clone_from(&admin.token);
    let add = "INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ('omsk', 'О', 'O', 'Asia/Omsk')";
    first.database.execute(add).await;
    assert_eq!((cities(&admin).await, cities(&there).await), (2, 2), "from the cache");
    first.app.cache.forget(&Key::dictionary("all")).await;
    assert_eq!((cities(&there).await, cities(&admin).await), (3, 3));
    // The second had to load it, the first found what the second had loaded.
    assert_eq!((counts(&first).await, counts(&second).await), ([2.0, 1.0, 0.0], [2.0, 1.0, 0.0]));
    // Nothing stays for ever.
    let left: i64 = redis.ask(&["TTL", "dictionary:all"]).await.unwrap();
    assert!((1..=60).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nobody_is_signed_out_and_one_can_still_sign_out() {
    let mut redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    redis.stop();
    serves(&operator).await;
    let out = operator.send(operator.request(Method::POST, "/api/v1/auth/logout")).await;
    assert_eq!(out.status, 204);
    operator.get("/api/v1/auth/me").await.problem(401, "unauthenticated");
    // Not even when Redis is back, with nothing of it.
    redis.restart().await;
    recovers(&app, &app.actor(Role::Operator, &[MOSCOW]).await).await;
    operator.get("/api/v1/auth/me").await.problem(401, "unauthenticated");
    assert_eq!(app.scrape().await.answered(500) + app.scrape().await.answered(503), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_keeps_nobody_waiting() {
    let redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    serves(&operator).await;
    redis.freeze();
    for _ in 0..3 {
        serves(&operator).await;
    }
    assert_eq!(counts(&app).await[2], 6.0);
    assert_eq!(state(&app).await, (1.0, 0.0));
    redis.thaw();
    recovers(&app, &operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_without_redis_and_takes_it_up_when_it_comes() {
    let mut redis = TestRedis::start().await;
    redis.stop();
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    serves(&operator).await;
    app.app.check_dependencies().await;
    assert_eq!(state(&app).await, (1.0, 0.0));
    redis.restart().await;
    recovers(&app, &operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_has_lost_or_garbled_is_loaded_again() {
    let redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let _: String = redis.ask(&["FLUSHALL"]).await.unwrap();
    let [_, missed, _] = counts(&app).await;
    serves(&operator).await;
    assert_eq!(counts(&app).await[1], missed + 1.0);
    for garbage in ["", "{", "[]", "{\"cities\": 1}"] {
        let _: String = redis.ask(&["SET", "dictionary:all", garbage]).await.unwrap();
        serves(&operator).await;
        let healed: String = redis.ask(&["GET", "dictionary:all"]).await.unwrap();
        assert!(healed.contains(MOSCOW), "{garbage:?} is still there: {healed}");
    }
    // Of another kind altogether: Redis answers, with an error.
    let _: i64 = redis.ask(&["DEL", "dictionary:all"]).await.unwrap();
    let _: i64 = redis.ask(&["LPUSH", "dictionary:all", "x"]).await.unwrap();
    serves(&operator).await;
    let healed: String = redis.ask(&["GET", "dictionary:all"]).await.unwrap();
    assert!(healed.contains(MOSCOW), "{healed}");
}

/// Lets Redis answer, and take nothing: as one whose disk is full, or that has become a replica.
async fn write_protect(redis: &TestRedis, protected: bool) {
    let rule = if protected { "-@write" } else { "+@write" };
    let _: String = redis.ask(&["ACL", "SETUSER", "default", rule]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_redis_was_not_told_is_made_up_for_at_the_next_look() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let admin = first.actor(Role::Admin, &[]).await;
    let there = admin.at(&second.url(""));
    write_protect(&redis, true).await;
    let omsk = json!({ "code": "omsk", "name_ru": "О", "name_en": "O", "timezone": "Asia/Omsk" });
    admin.post(CITIES, omsk).await.expect(201);
    assert_eq!(cities(&admin).await, 3, "who made the change sees it");
    write_protect(&redis, false).await;
    assert_eq!(cities(&admin).await, 3);
    assert_eq!(cities(&there).await, 3, "and from then on everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_redis_was_not_told_is_made_up_for_when_nobody_looks() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let there = second.actor(Role::Admin, &[]).await;
    let add = "INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ('omsk', 'О', 'O', 'Asia/Omsk')";
    first.database.execute(add).await;
    write_protect(&redis, true).await;
    first.app.cache.forget(&Key::dictionary("all")).await;
    write_protect(&redis, false).await;
    assert_eq!(cities(&there).await, 2);
    // What the sampler does every few seconds.
    first.app.check_dependencies().await;
    assert_eq!(cities(&there).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loaded_before_a_change_of_another_replica_is_not_kept_after_it() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let key = Key::dictionary("test");
    let load = async |value: i32, meanwhile: bool| -> i32 {
        let loading = async {
            if meanwhile {
                second.app.cache.forget(&key).await;
            }
            Ok::<_, std::convert::Infallible>(value)
        };
        first.app.cache.get_or_load(&key, loading).await.unwrap()
    };
    assert_eq!(load(1, true).await, 1);
    assert_eq!(load(2, false).await, 2, "the first was out of date when it came");
    assert_eq!(load(3, false).await, 2, "from the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_among_others_that_do_not_is_no_outage() {
    let redis = TestRedis::start().await;
    let app = TestApp::start_with(with_redis(&redis)).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let me = async || operator.get("/api/v1/auth/me").await.expect(200);
    me().await;
    assert_eq!(state(&app).await, (0.0, 1.0));
    // It answers, and takes nothing: the limits are counted here meanwhile.
    write_protect(&redis, true).await;
    for expected in [(0.0, 1.0), (0.0, 1.0), (1.0, 0.0)] {
        me().await;
        app.app.check_dependencies().await;
        assert_eq!(state(&app).await, expected);
    }
    write_protect(&redis, false).await;
    me().await;
    assert_eq!(state(&app).await, (0.0, 1.0));
    // Two calls each; the fifth that has no answer is one too many.
    redis.freeze();
    for (asked, expected) in [(2, (0.0, 1.0)), (1, (1.0, 0.0))] {
        for _ in 0..asked {
            me().await;
        }
        assert_eq!(state(&app).await, expected);
    }
    redis.thaw();
    recovers(&app, &operator).await;
}
