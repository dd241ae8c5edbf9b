//! The cache in Redis beyond the everyday of `redis`: changes over replicas, outages, garbage, and coming late.

use std::{
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use switchboard::{
    auth::Role,
    cache::{self, Domain, Key},
    http::caching::Freshness,
    telemetry::labels::CacheName,
};

use crate::{
    support::{
        MOSCOW, TestApp,
        actor::{Actor, number},
        config, eventually,
        metrics::Scrape,
        redis::{LongWay, TestRedis},
    },
    two, with_redis,
};

const CITIES: &str = "/api/v1/dictionaries/cities";
/// Statements that read dictionaries.
const LOADS: &str = "db_client_operation_duration_seconds_count{operation=\"dictionary\"}";

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

/// One more city, by the API.
async fn add_city(actor: &Actor) {
    let code = format!("c{}", number());
    let city = json!({ "code": code, "name_ru": "О", "name_en": "O", "timezone": "Asia/Omsk" });
    actor.post(CITIES, city).await.expect(201);
}

/// One more city, by SQL.
async fn insert_city(app: &TestApp) {
    let code = format!("c{}", number());
    let sql = "INSERT INTO cities (code, name_ru, name_en, timezone) VALUES";
    app.database.execute(&format!("{sql} ('{code}', 'О', 'O', 'Asia/Omsk')")).await;
}

/// Where the dictionaries are in Redis.
async fn dictionaries(redis: &TestRedis) -> String {
    let mut keys: Vec<String> = redis.ask(&["KEYS", "cache:*:dictionaries:all"]).await.unwrap();
    keys.pop().expect("they are cached")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_changes_every_replica_shows_from_then_on() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let admin = first.actor(Role::Admin, &[]).await;
    let there = admin.at(&second.url(""));
    assert_eq!((cities(&admin).await, cities(&there).await), (2, 2), "from the cache");
    // Nobody asks PostgreSQL in the background here: they hear of it from Redis.
    for count in 3..13 {
        let (here, elsewhere) = if count % 2 == 0 { (&admin, &there) } else { (&there, &admin) };
        add_city(here).await;
        assert_eq!((cities(elsewhere).await, cities(here).await), (count, count));
    }
    // Who did not make the change has loaded it, and the other one found that.
    let loads = [counts(&first).await[1], counts(&second).await[1]];
    assert_eq!(loads, [1.0 + 5.0, 5.0]);
    // Nothing stays for ever.
    for (key, most) in [(dictionaries(&redis).await.as_str(), 3_600), ("version:dictionaries", 60)] {
        let left: i64 = redis.ask(&["TTL", key]).await.unwrap();
        assert!((1..=most).contains(&left), "{key}: {left}");
    }
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
    let key = dictionaries(&redis).await;
    let whole: Vec<u8> = redis.ask(&["GET", &key]).await.unwrap();
    let _: String = redis.ask(&["FLUSHALL"]).await.unwrap();
    let [_, missed, _] = counts(&app).await;
    serves(&operator).await;
    assert_eq!(counts(&app).await[1], missed + 1.0);
    let half = String::from_utf8(whole).unwrap();
    let half = &half[..half.len() - 9];
    for garbage in ["", "{", "[]", "{\"cities\": 1}", "9 \"x\"\n{}", half] {
        let _: String = redis.ask(&["SET", &key, garbage]).await.unwrap();
        serves(&operator).await;
        let healed: String = redis.ask(&["GET", &key]).await.unwrap();
        assert!(healed.ends_with('}') && healed.contains(MOSCOW), "{garbage:?} is still there: {healed}");
    }
    // Of another kind altogether.
    let _: i64 = redis.ask(&["DEL", &key]).await.unwrap();
    let _: i64 = redis.ask(&["LPUSH", &key, "x"]).await.unwrap();
    serves(&operator).await;
    let healed: String = redis.ask(&["GET", &key]).await.unwrap();
    assert!(healed.contains(MOSCOW), "{healed}");
    // A version that nobody gave out keeps nothing from being found, and goes when there is a true one.
    let admin = app.actor(Role::Admin, &[]).await;
    for garbage in ["x", "", "-1", "inf", "9000000000000000000"] {
        let _: String = redis.ask(&["SET", "version:dictionaries", garbage]).await.unwrap();
        serves(&operator).await;
        let [found, ..] = counts(&app).await;
        serves(&operator).await;
        assert_eq!(counts(&app).await[0], found + 2.0, "{garbage:?}");
        let before = cities(&admin).await;
        add_city(&admin).await;
        assert_eq!(cities(&admin).await, before + 1, "{garbage:?}");
        let left: i64 = redis.ask(&["TTL", "version:dictionaries"]).await.unwrap();
        assert!((1..=60).contains(&left), "{garbage:?} stays: {left}");
    }
    let _: i64 = redis.ask(&["DEL", "version:dictionaries"]).await.unwrap();
    let _: i64 = redis.ask(&["LPUSH", "version:dictionaries", "x"]).await.unwrap();
    add_city(&admin).await;
    let _: String = redis.ask(&["GET", "version:dictionaries"]).await.unwrap();
    assert_eq!(app.scrape().await.answered(500) + app.scrape().await.answered(503), 0.0);
}

/// Lets Redis answer, and take nothing: as one whose disk is full, or that has become a replica.
async fn write_protect(redis: &TestRedis, protected: bool) {
    let rule = if protected { "-@write" } else { "+@write" };
    let _: String = redis.ask(&["ACL", "SETUSER", "default", rule]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_redis_was_not_told_shows_within_a_second() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    second.app.lifecycle.spawn(cache::follow(second.app.clone()));
    let admin = first.actor(Role::Admin, &[]).await;
    let there = admin.at(&second.url(""));
    let shows = async |actor: &Actor, count: usize| {
        let changed = Instant::now();
        eventually("it shows", async || (cities(actor).await == count).then_some(())).await;
        assert!(changed.elapsed() < Duration::from_millis(1_500), "{:?}", changed.elapsed());
    };
    // Redis answers and takes nothing.
    write_protect(&redis, true).await;
    add_city(&admin).await;
    assert_eq!(cities(&admin).await, 3, "who made the change sees it");
    shows(&there, 3).await;
    write_protect(&redis, false).await;
    assert_eq!((cities(&admin).await, cities(&there).await), (3, 3));
    // Nobody told anybody; lost with everything else; of an import.
    insert_city(&first).await;
    shows(&there, 4).await;
    let _: String = redis.ask(&["FLUSHALL"]).await.unwrap();
    insert_city(&first).await;
    shows(&there, 5).await;
    second.app.lifecycle.stop_workers(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_known_to_be_old_is_served_when_postgresql_cannot_be_asked() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let admin = first.actor(Role::Admin, &[]).await;
    let there = admin.at(&second.url(""));
    assert_eq!((cities(&admin).await, cities(&there).await), (2, 2));
    // Nobody who would ask how new things are has a connection for it.
    let mut taken = Vec::new();
    for app in [&first, &second] {
        while let Ok(connection) = app.app.reserved.acquire().await {
            taken.push(connection);
        }
    }
    assert!(taken.len() > 2);
    add_city(&admin).await;
    assert_eq!(cities(&admin).await, 3, "who made the change knows of it");
    assert_eq!(cities(&there).await, 3, "who was told of it does not believe the contrary");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_kept_through_an_outage_is_not_served_after_it() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let admin = first.actor(Role::Admin, &[]).await;
    let there = admin.at(&second.url(""));
    let others = second.actor(Role::Admin, &[]).await;
    assert_eq!((cities(&admin).await, cities(&there).await), (2, 2));
    redis.freeze();
    for (app, actor) in [(&first, &admin), (&second, &there)] {
        let gives_up = async || {
            cities(actor).await;
            (state(app).await == (1.0, 0.0)).then_some(())
        };
        eventually("it does without Redis", gives_up).await;
    }
    // What is cached here serves meanwhile, and the database is not asked for it again.
    let [_, _, errors] = counts(&second).await;
    let statements = second.scrape().await.value(LOADS);
    assert_eq!(cities(&there).await, 2);
    assert_eq!(counts(&second).await[2], errors + 1.0);
    assert_eq!(second.scrape().await.value(LOADS), statements);
    // The second has just asked, and hears of nothing that happens from here on.
    second.catch_up().await;
    add_city(&admin).await;
    assert_eq!(cities(&admin).await, 3);
    redis.thaw();
    let started = Instant::now();
    while state(&second).await != (0.0, 1.0) {
        assert!(started.elapsed() < Duration::from_secs(5), "Redis is back and not used");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((cities(&there).await, cities(&others).await), (3, 3), "after {:?}", started.elapsed());
    eventually("the first uses it too", async || (state(&first).await == (0.0, 1.0)).then_some(())).await;
    assert_eq!((cities(&admin).await, cities(&there).await), (3, 3));
    add_city(&there).await;
    assert_eq!((cities(&admin).await, cities(&there).await), (4, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_heard_from_postgresql_for_a_while_asks_before_it_serves() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let there = second.actor(Role::Admin, &[]).await;
    assert_eq!(cities(&there).await, 2);
    insert_city(&first).await;
    // Its worker has stopped, or had no answer all the time.
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert_eq!(cities(&there).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_miss_the_same_one_loads_it() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let admin = first.actor(Role::Admin, &[]).await;
    let there = admin.at(&second.url(""));
    let loads = async || first.scrape().await.value(LOADS) + second.scrape().await.value(LOADS);
    for cause in ["changed", "flushed"] {
        match cause {
            "changed" => add_city(&admin).await,
            _ => redis.ask::<String>(&["FLUSHALL"]).await.map(drop).unwrap(),
        }
        let before = loads().await;
        let asked = join_all((0..200).map(|_| cities(&admin)));
        assert!(asked.await.iter().all(|count| *count == 3));
        // Each load is a statement for each of five dictionaries.
        assert_eq!(loads().await - before, 5.0, "{cause}");
        join_all((0..50).map(|_| cities(&there))).await;
        assert_eq!(loads().await - before, 5.0, "{cause}: the other replica found it");
    }
}

/// Tells what has been changed by SQL.
async fn changed(app: &TestApp) {
    let version = app.database.count("SELECT version FROM cache_versions WHERE name = 'dictionaries'").await;
    app.app.cache.changed(Domain::Dictionaries, version).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loaded_before_a_change_of_another_replica_is_not_kept_after_it() {
    let redis = TestRedis::start().await;
    let (first, second) = two(&redis).await;
    let key = Key::common(CacheName::Dictionaries, "test");
    let loaded = AtomicI32::new(0);
    let read = async |meanwhile: bool| -> i32 {
        let load = || async {
            let value = loaded.fetch_add(1, Ordering::SeqCst) + 1;
            if meanwhile {
                insert_city(&second).await;
                changed(&second).await;
            }
            Ok(value)
        };
        *first.app.cache.get(&key, Freshness::Cached, load).await.unwrap()
    };
    assert_eq!(read(true).await, 1);
    assert_eq!(read(false).await, 2, "the first was out of date when it came");
    assert_eq!(read(false).await, 2, "from the cache");
    // Nor does what a slow replica stores last take the place of what is newer.
    let old: Vec<u8> =
        redis.ask(&["GET", &format!("cache:{}:dictionaries:test", env!("CARGO_PKG_VERSION"))]).await.unwrap();
    insert_city(&second).await;
    changed(&second).await;
    assert_eq!(read(false).await, 3);
    let old = String::from_utf8(old).unwrap();
    let key = format!("cache:{}:dictionaries:test", env!("CARGO_PKG_VERSION"));
    let _: String = redis.ask(&["SET", &key, &old]).await.unwrap();
    assert_eq!(read(false).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_slow_is_done_without_until_it_is_quick_again() {
    let redis = TestRedis::start().await;
    let way = LongWay::to(&redis).await;
    let mut config = config();
    config.redis.url = switchboard::config::Secret::new(way.url());
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let me = async || {
        let asked = Instant::now();
        operator.get("/api/v1/auth/me").await.expect(200);
        asked.elapsed()
    };
    for _ in 0..20 {
        me().await;
    }
    assert_eq!(state(&app).await, (0.0, 1.0), "it is quick");
    // Each answer too late; and none for every other call.
    for delays in [&[20][..], &[0, 60]] {
        way.take(delays);
        let slowed = Instant::now();
        let mut asked = 0;
        while state(&app).await != (1.0, 0.0) {
            me().await;
            asked += 1;
            assert!(asked < 10, "{delays:?}");
        }
        assert!(slowed.elapsed() < Duration::from_secs(5), "{delays:?}: {:?}", slowed.elapsed());
        // Nobody waits for it, and it is not taken for quick.
        let since = Instant::now();
        let mut times = Vec::new();
        while since.elapsed() < Duration::from_millis(2_500) {
            times.push(me().await);
            assert_eq!(state(&app).await, (1.0, 0.0), "{delays:?}");
        }
        times.sort_unstable();
        assert!(times[times.len() / 2] < Duration::from_millis(20), "{delays:?}: {:?}", times[times.len() / 2]);
        way.take(&[0]);
        let quick = Instant::now();
        eventually("it is used again", async || (state(&app).await == (0.0, 1.0)).then_some(())).await;
        assert!(quick.elapsed() < Duration::from_secs(5), "{delays:?}: {:?}", quick.elapsed());
        for _ in 0..20 {
            me().await;
        }
        assert_eq!(state(&app).await, (0.0, 1.0), "{delays:?}");
    }
    assert_eq!(app.scrape().await.answered(500) + app.scrape().await.answered(503), 0.0);
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
