//! Two replicas: what is one's is the other's too, whatever their clocks say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use serde_json::json;
use switchboard::auth::Role;

use crate::{
    support::{
        MOSCOW, PASSWORD, TestApp,
        actor::{Actor, number},
        config,
        database::TestDatabase,
        found_company,
        site::{Site, base, scrape, stop},
    },
    table::{Row, ms, within},
};

const TWO: Row = Row {
    number: 12,
    fault: "Two replicas",
    promise: "limits, sessions, live events (≤ 2 s), jobs and gauges are global; one collector at work",
    seen_in: "rate_limited_total{scope=\"login_ip\"}, switchboard_service_requests_open, \
              switchboard_collector_duration_seconds_count",
};
const SKEW: Row = Row {
    number: 13,
    fault: "Clocks are 30 s fast or slow",
    promise: "0 false 401",
    seen_in: "http_server_request_duration_seconds_count{http_response_status_code=\"401\"}",
};

/// Signs in with what nobody has; whether the limit let it through.
async fn knocks(server: &str, address: &str) -> bool {
    let mut stranger = Actor::stranger(server);
    address.clone_into(&mut stranger.address);
    // Another one each time: what fails five times is locked.
    let body = json!({ "login": format!("nobody{}", number()), "password": "wrong horse battery", "session": "token" });
    stranger.post("/api/v1/auth/login", body).await.status != 429
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ones_is_the_others() {
    let site = Site::open().await;
    let settings = [
        ("SWITCHBOARD_LIMITS_LOGIN_IP", "10/h"),
        ("SWITCHBOARD_REPLICAS", "2"),
        ("SWITCHBOARD_COLLECTOR_INTERVAL_MS", "500"),
    ];
    let (one, other) = tokio::join!(site.server(&settings), site.server(&settings));
    let boss = site.boss(&one).await;
    let there = boss.at(&base(&other));
    there.get("/api/v1/auth/me").await.expect(200);

    // Limits. One sign-in at a time: those who find no core free are shed, and use nothing up.
    let mut passed = 0;
    for n in 0..14 {
        passed += usize::from(knocks(&base(if n % 2 == 0 { &one } else { &other }), "10.66.0.1").await);
    }
    assert_eq!(passed, 10);
    let limited = "rate_limited_total{scope=\"login_ip\"}";
    assert_eq!(scrape(&one).await.value(limited) + scrape(&other).await.value(limited), 4.0);

    // Live events.
    let mut stream = there.listen().await;
    let asked = Instant::now();
    let id = boss.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    stream.until(id, "created").await;
    let heard = asked.elapsed();
    assert!(heard <= Duration::from_secs(2), "{heard:?}");
    drop(stream);

    // Gauges and jobs.
    let open = "switchboard_service_requests_open{status=\"new\"}";
    let both = async || {
        let (here, there) = (scrape(&one).await, scrape(&other).await);
        (here.get(open) == Some(1.0) && there.get(open) == Some(1.0)).then_some(())
    };
    let ((), shown) = within("both show one open request", Duration::from_secs(5), both).await;
    let rounds = |seen: crate::support::metrics::Scrape| seen.value("switchboard_collector_duration_seconds_count");
    let at_work = [rounds(scrape(&one).await), rounds(scrape(&other).await)].iter().filter(|n| **n > 0.0).count();
    assert_eq!(at_work, 1, "collectors at work");

    // Sessions.
    boss.post("/api/v1/auth/logout", json!({})).await.expect(204);
    there.get("/api/v1/auth/me").await.problem(401, "unauthenticated");
    TWO.measured(format_args!(
        "{passed} of 14 tries at a limit of 10; an event heard by the other's client in {}; both showed it within {}; \
         {at_work} collector at work; signed out at one, the other's next answer is 401",
        ms(heard),
        ms(shown),
    ));
    assert_eq!((stop(one).await.1, stop(other).await.1), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_sign_nobody_out() {
    let database = Arc::new(TestDatabase::create().await);
    found_company(&database).await;
    let mut replicas = Vec::new();
    for skew in [-30, 0, 30] {
        let replica = TestApp::over(config(), database.clone()).await;
        replica.clock.advance(TimeDelta::seconds(30 + skew));
        replicas.push((skew, replica));
    }
    let user = replicas[1].1.actor(Role::Operator, &[MOSCOW]).await;
    let mut asked = 0;
    for (of_one, one) in &replicas {
        for (of_other, other) in &replicas {
            let body = json!({ "login": user.login, "password": PASSWORD, "session": "token" });
            let mut here = Actor::stranger(&one.url(""));
            let session = here.post("/api/v1/auth/login", body).await.expect(200);
            here.take(&session);
            let there = here.at(&other.url(""));
            let refreshed = there.refresh().await;
            let mut back = here.at(&one.url(""));
            for answer in [there.get("/api/v1/auth/me").await, refreshed] {
                assert_eq!(answer.status, 200, "signed at {of_one:+} s, read at {of_other:+} s: {}", answer.text);
                asked += 1;
                if answer.json().get("access_token").is_some() {
                    back.take(&answer.json());
                }
            }
            back.get("/api/v1/auth/me").await.expect(200);
            asked += 1;
        }
    }
    for (_, replica) in &replicas {
        assert_eq!(replica.scrape().await.answered(401), 0.0);
    }
    SKEW.measured(format_args!("{asked} answers of replicas up to 60 s apart, 0 × 401"));
}
