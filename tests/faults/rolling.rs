//! Two replicas behind a balancer, restarted one after the other, under load.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    support::{
        MOSCOW,
        actor::Actor,
        balancer::Balancer,
        eventually,
        load::{self, Load},
        process::{Server, free_addresses},
        site::{Site, phone, scrape, stop},
    },
    table::{Row, ms},
};

const ROLLING: Row = Row {
    number: 14,
    fault: "A rolling restart of two replicas behind haproxy, at 200 requests/s, ten times",
    promise: "0 failed requests; each exits with 0 in ≤ 30 s, slow sockets included",
    seen_in: "http_server_request_duration_seconds_count{http_response_status_code=~\"5..\"}",
};

const RATE: u32 = 200;
const ROUNDS: usize = 10;
/// Connections to each replica that never send anything.
const IDLE: usize = 20;

async fn begin(site: &Site, at: SocketAddr) -> Server {
    let [ops] = free_addresses();
    // As a site has it: so long a balancer may take to notice.
    let settings = [
        ("SWITCHBOARD_SHUTDOWN_DELAY_MS", "5000"),
        ("SWITCHBOARD_LOG_LEVEL", "warn,switchboard=info,switchboard::http=warn"),
    ];
    site.server_at([at, ops], &settings).await
}

/// How many 5xx a server has answered; what probes are told while it starts is not among them.
async fn server_errors(server: &Server) -> f64 {
    let seen = scrape(server).await;
    [500, 502, 503, 504].into_iter().map(|status| seen.answered(status)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    let site = Site::open().await;
    let addresses: [SocketAddr; 2] = free_addresses();
    let mut servers = [Some(begin(&site, addresses[0]).await), Some(begin(&site, addresses[1]).await)];
    let balancer = Balancer::before(&addresses).await;
    let boss = Actor::sign_in(&format!("http://{}", balancer.address), 0, "boss").await;
    let known = boss.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let load = Load::start(RATE, move |number| {
        load::send(match number % 10 {
            0 => boss.request(Method::POST, "/api/v1/requests").json(&json!({ "city": MOSCOW, "phone": phone() })),
            1..=6 => boss.request(Method::GET, &format!("/api/v1/requests/{known}")),
            _ => boss.request(Method::GET, "/api/v1/requests?limit=10"),
        })
    });
    let (mut slowest, mut errors) = (Duration::ZERO, 0.0);
    for _ in 0..ROUNDS {
        for (n, place) in servers.iter_mut().enumerate() {
            let mut idle = Vec::new();
            for _ in 0..IDLE {
                idle.push(TcpStream::connect(addresses[n]).await.unwrap());
            }
            errors += server_errors(place.as_ref().unwrap()).await;
            let told = Instant::now();
            let (log, code) = stop(place.take().unwrap()).await;
            slowest = slowest.max(told.elapsed());
            assert_eq!(code, Some(0), "{log:#?}");
            balancer.wait_until(n, "DOWN").await;
            *place = Some(begin(&site, addresses[n]).await);
            balancer.wait_until(n, "UP").await;
        }
    }
    let shots = load.stop().await;
    println!("{} requests in {} restarts: {:?}", shots.len(), 2 * ROUNDS, shots.outcomes());
    let failed = shots.failed();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), shots.len(), &failed[..failed.len().min(5)]);
    let strange = shots.which(|shot| !matches!(shot.outcome, Ok(200 | 201)));
    assert_eq!(strange.len(), 0, "{:?}", shots.outcomes());
    assert!(slowest <= Duration::from_secs(30), "{slowest:?}");
    assert_eq!(errors, 0.0);
    let written = site.database.count("SELECT count(*) FROM requests").await - 1;
    let acknowledged = shots.which(|shot| shot.outcome == Ok(201)).len();
    assert_eq!(usize::try_from(written).unwrap(), acknowledged);
    ROLLING.measured(format_args!(
        "{} restarts, {} requests, 0 failed (p99 {}); the slowest exit took {}; {acknowledged} writes, each there once",
        2 * ROUNDS,
        shots.len(),
        ms(shots.percentile(99)),
        ms(slowest),
    ));
    for server in servers.into_iter().flatten() {
        stop(server).await;
    }
    eventually("the balancer's servers are gone", async || TcpStream::connect(addresses[0]).await.err()).await;
}
