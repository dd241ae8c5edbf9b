//! Redis stopped and started again, five times, under load at two replicas, while somebody changes something
//! at one of them and reads it at both.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    support::{
        MOSCOW,
        actor::Actor,
        load::{self, Load},
        process::Server,
        site::{Site, base, scrape, stop},
    },
    table::{Row, ms, within},
};

const OUTAGES: Row = Row {
    number: 15,
    fault: "Redis is stopped and started five times, under load at two replicas",
    promise: "0 × 5xx; 0 stale reads at who wrote, 0 anywhere once Redis is back with what it had; ≤ 1.5 s without it",
    seen_in: "cache_fallback_active",
};

const RATE: u32 = 100;
const ROUNDS: usize = 5;
/// How long a change may stay unseen at the other replica while nobody can tell it.
const UNTOLD: Duration = Duration::from_millis(1_500);

/// What the checker found.
#[derive(Debug, Default)]
struct Findings {
    writes: u32,
    reads: u32,
    /// Where it was written.
    stale_here: u32,
    /// At the other replica, while Redis was used by both.
    stale_there: u32,
    /// The longest that the other one did not know, meanwhile.
    untold: Duration,
}

async fn name(actor: &Actor) -> String {
    let cities = actor.get("/api/v1/dictionaries/cities").await.expect(200);
    let city = cities.as_array().unwrap().iter().find(|city| city["code"] == MOSCOW).unwrap();
    city["name_en"].as_str().unwrap().to_owned()
}

/// Writes at one, reads at both, until told to stop.
async fn check(here: &Actor, there: &Actor, servers: &[Server; 2], mut stop: watch::Receiver<bool>) -> Findings {
    let cities = here.get("/api/v1/dictionaries/cities").await.expect(200);
    let city = cities.as_array().unwrap().iter().find(|city| city["code"] == MOSCOW).unwrap()["id"].clone();
    let path = format!("/api/v1/dictionaries/cities/{city}");
    let mut found = Findings::default();
    let used = async || {
        let mut used = true;
        for server in servers {
            used &= scrape(server).await.value("cache_fallback_active") == 0.0;
        }
        used
    };
    while !*stop.borrow_and_update() {
        let before = used().await;
        found.writes += 1;
        let expected = format!("Moscow {}", found.writes);
        here.patch(&path, "*", json!({ "name_en": expected })).await.expect(200);
        let written = Instant::now();
        let (seen_here, mut seen_there) = (name(here).await, name(there).await);
        found.reads += 2;
        found.stale_here += u32::from(seen_here != expected);
        if seen_there != expected {
            let in_order = before && used().await;
            found.stale_there += u32::from(in_order);
            while seen_there != expected && written.elapsed() < 4 * UNTOLD {
                sleep(Duration::from_millis(10)).await;
                seen_there = name(there).await;
                found.reads += 1;
            }
            found.untold = found.untold.max(written.elapsed());
        }
        sleep(Duration::from_millis(20)).await;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_redis_leave_nothing_stale() {
    let mut site = Site::open().await;
    let settings = [("SWITCHBOARD_REPLICAS", "2")];
    let servers: [Server; 2] = tokio::join!(site.server(&settings), site.server(&settings)).into();
    let here = site.boss(&servers[0]).await;
    let there = here.at(&base(&servers[1]));
    let actors = [Arc::new(here.at(&base(&servers[0]))), Arc::new(here.at(&base(&servers[1])))];
    let load = Load::start(RATE, move |number| {
        let paths = ["/api/v1/dictionaries/cities", "/api/v1/requests?limit=10"];
        load::send(actors[number % 2].request(Method::GET, paths[number / 2 % 2]))
    });
    let stopping = watch::Sender::new(false);
    let checking = check(&here, &there, &servers, stopping.subscribe());
    let breaking = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..ROUNDS {
            let all = async |fallback: f64| {
                for server in &servers {
                    if scrape(server).await.value("cache_fallback_active") != fallback {
                        return None;
                    }
                }
                Some(())
            };
            sleep(Duration::from_secs(3)).await;
            site.redis_server.stop_with_data().await;
            within("both do without Redis", Duration::from_secs(5), async || all(1.0).await).await;
            sleep(Duration::from_secs(2)).await;
            site.redis_server.restart().await;
            // It has what was true when it stopped.
            let kept: Vec<String> = site.redis_server.ask(&["KEYS", "cache:*:dictionaries:*"]).await.unwrap();
            assert!(!kept.is_empty());
            slowest =
                slowest.max(within("both use Redis again", Duration::from_secs(5), async || all(0.0).await).await.1);
        }
        sleep(Duration::from_secs(3)).await;
        stopping.send_replace(true);
        slowest
    };
    let (found, slowest) = tokio::join!(checking, breaking);
    let shots = load.stop().await;
    println!("{found:?}");
    assert!(shots.failed().is_empty(), "{:?}", shots.outcomes());
    assert!(found.writes > 50, "{found:?}");
    assert_eq!((found.stale_here, found.stale_there), (0, 0), "{found:?}");
    assert!(found.untold <= UNTOLD, "{found:?}");
    OUTAGES.measured(format_args!(
        "{} requests, 0 failed; {} writes and {} reads of the checker: 0 stale where it wrote, 0 at the other with Redis \
         back, {} at most without; used again in {}",
        shots.len(),
        found.writes,
        found.reads,
        ms(found.untold),
        ms(slowest),
    ));
    for server in servers {
        assert_eq!(stop(server).await.1, Some(0));
    }
}
