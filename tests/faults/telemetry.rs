//! The collector of traces goes dark: requests cost what they did, memory is bounded, what is lost is counted,
//! and stopping takes no longer than is promised.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use tokio::time::sleep;

use crate::{
    support::{
        load::{self, Load, Shots},
        otlp::Collector,
        process::Server,
        proxy::Proxy,
        site::{Site, scrape, stop},
    },
    table::{Row, ms},
};

const DARK: Row = Row {
    number: 10,
    fault: "The collector of traces is dark",
    promise: "p99 ≤ 1.1×; memory bounded; drops counted; stops ≤ 2 s later",
    seen_in: "otel_spans_dropped_total",
};

const RATE: u32 = 80;
/// The slowest hundredth of so long a span differs by chance by some hundredths.
const SPAN: Duration = Duration::from_secs(75);
/// Chance becomes smaller with all that is measured, what is slower remains: it may go on for so many spans.
const SPANS: u32 = 8;

async fn exporting(site: &Site, collector: &str) -> Server {
    site.server(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "512"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "2000"),
    ])
    .await
}

/// Bytes.
async fn memory(server: &Server) -> f64 {
    scrape(server).await.value("process_resident_memory_bytes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dark_collector_costs_requests_nothing() {
    let site = Site::open().await;
    let (_collector, address) = Collector::start().await;
    let proxy = Proxy::before_address(address).await;
    proxy.freeze();
    let light = exporting(&site, &format!("http://{address}")).await;
    let dark = exporting(&site, &format!("http://{}", proxy.address())).await;
    // Side by side, in turns: whatever else the machine does, it does to both.
    let actors = [Arc::new(site.boss(&light).await), Arc::new(site.boss(&dark).await)];
    let side_by_side = async || {
        let actors = actors.clone();
        let load = Load::start(RATE, move |number| {
            load::send(actors[number % 2].request(Method::GET, "/api/v1/requests?limit=10"))
        });
        sleep(SPAN).await;
        load.stop().await.0
    };
    // The queue is full after the first.
    let mut shots = Shots(side_by_side().await);
    let at_first = memory(&dark).await;
    let mut spans = 1;
    let (with, without, ratio) = loop {
        shots.0.extend(side_by_side().await);
        spans += 1;
        let of = |server: usize| shots.which(|shot| shot.number % 2 == server).percentile(99);
        let (with, without) = (of(0), of(1));
        let ratio = without.as_secs_f64() / with.as_secs_f64();
        if ratio <= 1.1 || spans == SPANS {
            break (with, without, ratio);
        }
    };
    let growth = memory(&dark).await - at_first;
    assert!(shots.failed().is_empty(), "{:?}", shots.outcomes());
    assert!(ratio <= 1.1, "{with:?} {without:?}");
    assert!(growth < 8e6, "{growth} bytes more after {spans} spans than after one");
    let dropped = scrape(&dark).await.sum("otel_spans_dropped_total");
    assert!(dropped > 0.0);
    assert_eq!(scrape(&light).await.sum("otel_spans_dropped_total"), 0.0);
    let told = Instant::now();
    assert_eq!(stop(light).await.1, Some(0));
    let quick = told.elapsed();
    let told = Instant::now();
    assert_eq!(stop(dark).await.1, Some(0));
    let slow = told.elapsed();
    assert!(slow <= quick + Duration::from_secs(2), "{quick:?} {slow:?}");
    DARK.measured(format_args!(
        "p99 {} beside {} ({ratio:.2}×); memory {:+.1} MB in {}; {dropped} spans dropped and counted; stopped {} later",
        ms(without),
        ms(with),
        growth / 1e6,
        ms(SPAN * (spans - 1)),
        ms(slow.saturating_sub(quick)),
    ));
}
