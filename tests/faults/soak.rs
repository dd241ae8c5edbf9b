//! Hours in minutes: half of what the server can do, for ten minutes, and nothing grows.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    support::{
        MOSCOW,
        actor::Actor,
        load::{self, Load},
        process::Server,
        site::{Site, phone, scrape, stop},
    },
    table::{Row, ms},
};

const SOAK: Row = Row {
    number: 16,
    fault: "Half of capacity for ten minutes",
    promise: "memory, descriptors and connections of the pool stay flat; 0 failed",
    seen_in: "process_resident_memory_bytes, process_open_fds, db_pool_connections",
};

const EVERY: Duration = Duration::from_secs(5);
/// Before this, caches and the allocator fill up.
const WARM: Duration = Duration::from_mins(2);

/// How long it goes on; `SWITCHBOARD_SOAK_S` seconds.
fn span() -> Duration {
    let seconds = std::env::var("SWITCHBOARD_SOAK_S").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    Duration::from_secs(seconds)
}

/// A working day's mixture.
fn request(boss: &Actor, number: usize) -> reqwest::RequestBuilder {
    match number % 20 {
        0 => boss.request(Method::POST, "/api/v1/requests").json(&json!({ "city": MOSCOW, "phone": phone() })),
        1..=3 => boss.request(Method::GET, "/api/v1/dictionaries/cities"),
        4..=7 => boss.request(Method::GET, "/api/v1/auth/me"),
        _ => boss.request(Method::GET, "/api/v1/requests?limit=10"),
    }
}

/// What it can do: requests a second of so many who ask again as soon as they are answered.
async fn capacity(boss: &Actor) -> f64 {
    const ASKING: usize = 16;
    const SPAN: Duration = Duration::from_secs(10);
    let until = Instant::now() + SPAN;
    let asking = async |from: usize| {
        let mut answered = 0_u32;
        while Instant::now() < until {
            let outcome = load::send(request(boss, from + answered as usize)).await;
            assert!(matches!(outcome, Ok(200 | 201)), "{outcome:?}");
            answered += 1;
        }
        answered
    };
    let answered: u32 = join_all((0..ASKING).map(asking)).await.into_iter().sum();
    f64::from(answered) / SPAN.as_secs_f64()
}

/// Descriptors of the server once nobody has a connection to it: how many a load keeps open is the load's affair.
async fn descriptors_at_rest(server: &Server) -> f64 {
    let (mut least, mut since) = (f64::INFINITY, Instant::now());
    while since.elapsed() < Duration::from_secs(5) {
        let now = scrape(server).await.value("process_open_fds");
        if now < least {
            (least, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(250)).await;
    }
    least
}

/// Least squares: by how much the figures rise in a minute. <https://en.wikipedia.org/wiki/Simple_linear_regression>
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let (above, below) = samples
        .iter()
        .fold((0.0, 0.0), |(above, below), (at, value)| (above + (at - x) * (value - y), below + (at - x) * (at - x)));
    60.0 * above / below
}

#[tokio::test(flavor = "multi_thread")]
async fn at_half_of_capacity_nothing_grows() {
    let site = Site::open().await;
    let server = site.server(&[("SWITCHBOARD_LOG_LEVEL", "warn,switchboard=info,switchboard::http=warn")]).await;
    let most = capacity(&site.boss(&server).await).await;
    let rate = (most / 2.0) as u32;
    let files_before = descriptors_at_rest(&server).await;
    let boss = site.boss(&server).await;
    let load = Load::start(rate, move |number| load::send(request(&boss, number)));
    println!("capacity {most:.0} requests/s; {rate}/s for {} s", span().as_secs());
    let [mut memory, mut pool] = [const { Vec::new() }; 2];
    while load.elapsed() < span() {
        sleep(EVERY).await;
        let (at, seen) = (load.elapsed().as_secs_f64(), scrape(&server).await);
        if load.elapsed() >= WARM.min(span() / 5) {
            memory.push((at, seen.value("process_resident_memory_bytes") / 1e6));
            pool.push((at, seen.sum("db_pool_connections")));
        }
    }
    let shots = load.stop().await;
    let files_after = descriptors_at_rest(&server).await;
    let minutes = (memory[memory.len() - 1].0 - memory[0].0) / 60.0;
    let report = [("MB", &memory), ("connections", &pool)].map(|(unit, samples)| {
        let (first, last) = (samples[0].1, samples[samples.len() - 1].1);
        println!("{unit}: {first:.1}, then {last:.1}; {:+.3} a minute over {minutes:.1} minutes", slope(samples));
        slope(samples)
    });
    assert!(shots.failed().is_empty(), "{:?}", shots.outcomes());
    // Of what is there, a hundredth a minute would be noticed within a day.
    let at_first = memory[0].1;
    assert!(report[0] <= at_first / 100.0, "memory {:+.3} MB a minute", report[0]);
    assert!(report[1].abs() * minutes <= 2.0, "connections {:+.3} a minute", report[1]);
    assert!(files_after <= files_before + 2.0, "descriptors at rest: {files_before}, then {files_after}");
    SOAK.measured(format_args!(
        "{rate} requests/s (capacity {most:.0}/s, debug build) for {:.0} min, {} requests, 0 failed, p99 {}; a minute: memory \
         {:+.3} MB of {at_first:.0}, pool {:+.3}; descriptors at rest {files_before} before, {files_after} after",
        span().as_secs_f64() / 60.0,
        shots.len(),
        ms(shots.percentile(99)),
        report[0],
        report[1],
    ));
    assert_eq!(stop(server).await.1, Some(0));
}
